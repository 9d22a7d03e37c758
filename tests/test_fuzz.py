"""A short fuzz run; and it would find what it looks for."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import fuzz
import pytest


def test_damaged_files_end_in_a_message_or_in_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.run(int(time.time()), 3, tmp_path) == 0, capsys.readouterr().out


def crash() -> None:
    faulthandler.disable()  # pytest's
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("fault", "summary"),
    [
        (crash, "ended with exit code -11"),
        (lambda: time.sleep(60), "not read within 0.5 s"),
        (lambda: [][0], "IndexError: list index out of range"),
    ],
)
def test_a_crash_a_hang_and_an_exception_are_found_and_their_file_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[], object],
    summary: str,
) -> None:
    name, content = fuzz.make(7, 30)[1]

    def read(path: Path) -> None:
        if path.name == name and path.read_bytes() == content:
            fault()

    monkeypatch.setattr(fuzz, "CASE_S", 0.5)
    monkeypatch.setattr(fuzz, "READERS", {kind: (files, read) for kind, (files, _) in fuzz.READERS.items()})
    assert fuzz.run(7, 0.01, tmp_path / "kept") == 1
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.name == f"seed7-case30-{name}"
    assert kept.read_bytes() == content
    printed = capsys.readouterr().out
    assert f"{kept}: " in printed
    assert summary in printed
    assert "seed 7: 200 cases: " in printed
