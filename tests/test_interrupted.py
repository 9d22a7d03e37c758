"""Ctrl-C while a command starts: exit 130, no traceback, nothing trained."""

from __future__ import annotations

import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from commands import ROOT, irmas
from interrupted import GOOD, PYTHONS, count

from irmas import leave
from irmas.data.cache import FeatureCache
from irmas.errors import REPEATED_S, interruptible, report_errors

INTERRUPTING = """
import os, signal, sys

class Finder:
    def find_spec(name, path, target=None):
        if name == os.environ["INTERRUPTED_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in the background
sys.meta_path.insert(0, Finder)
"""
"""A sitecustomize that presses Ctrl-C when Python looks for a module."""


def test_ctrl_c_in_a_terminal_at_some_moments(tmp_path: Path, corpus_cache: FeatureCache) -> None:
    counts = count(tmp_path, [f"data.cache={corpus_cache.folder}"], 8)
    assert set(counts) <= {GOOD, PYTHONS}
    assert counts[GOOD] >= 4


@pytest.mark.parametrize(
    "module", ["irmas.train", "hydra.core.config_store", "yaml", "irmas.results.best", "irmas.cli.space"]
)
def test_ctrl_c_while_a_module_is_imported(module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = irmas("train", "data=standin", "name=n", cwd=tmp_path, PYTHONPATH=path, INTERRUPTED_AT=module)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["sitecustomize.py"]


@pytest.fixture
def command() -> Iterator[None]:
    """Make this process a command that starts."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)}
    signal.signal(signal.SIGINT, leave)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def wait(interrupt: Callable[[], None]) -> None:
    interrupt()
    time.sleep(10)


@pytest.mark.usefixtures("command")
def test_a_ctrl_c_that_python_drops_in_a_callback_is_repeated() -> None:
    class Watched:
        pass

    watched = Watched()
    reference = weakref.ref(watched, lambda _: os.kill(os.getpid(), signal.SIGINT))
    held = [watched]
    del watched
    with pytest.raises(KeyboardInterrupt), interruptible():
        wait(held.clear)
    assert reference() is None
    assert signal.getsignal(signal.SIGINT) is leave


@pytest.mark.usefixtures("command")
def test_a_ctrl_c_that_a_library_swallows_is_repeated_and_one_that_is_handled_is_not() -> None:
    cleaned = []

    def swallow() -> None:
        with suppress(KeyboardInterrupt):
            wait(lambda: os.kill(os.getpid(), signal.SIGINT))
        time.sleep(10)

    def clean_up() -> None:
        try:
            swallow()
        finally:
            with suppress(FileNotFoundError):
                Path("nowhere").unlink()
            time.sleep(5 * REPEATED_S)
            cleaned.append(True)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interruptible():
        clean_up()
    assert cleaned
    assert time.monotonic() - began < 5


@pytest.mark.usefixtures("command")
def test_a_block_that_only_starts_marks_what_is_interruptible(capsys: pytest.CaptureFixture[str]) -> None:
    with report_errors("irmas.mine", starting=True):
        assert signal.getsignal(signal.SIGINT) is leave
    with pytest.raises(SystemExit, match="130"), report_errors("irmas.mine"):
        wait(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert capsys.readouterr().err == "\nirmas.mine: stopped\n"
