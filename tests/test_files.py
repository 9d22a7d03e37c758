"""Files that several processes write and read: locks, csv tables, folders that cannot be written."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import wait_until

from irmas.errors import DataError, UserError
from irmas.files import FlockMissingError, held_by_many, is_held, locked, obstacle, read_csv, write_csv


def test_a_long_wait_for_a_lock_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / ".lock"

    def take() -> None:
        with locked(path):
            pass

    with ThreadPoolExecutor() as pool:
        with locked(path):
            waiting = pool.submit(take)
            wait_until(lambda: bool(caplog.messages), "the log line")
            assert not waiting.done()
        waiting.result(timeout=10)
    assert caplog.messages == [f"{path}: waiting for another process that holds this lock"]


def is_free(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_waiting_for_a_lock_whose_folder_is_removed_acquires_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        with locked(path):
            entered.set()
            leave.wait(10)

    with ThreadPoolExecutor() as pool:
        with locked(path):
            waiting = pool.submit(wait)
            time.sleep(0.2)
            assert not entered.is_set()
            shutil.rmtree(path.parent)
        assert entered.wait(10)
        assert not is_free(path)
        leave.set()
        waiting.result(timeout=10)
    assert is_free(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_lock_holds_on_a_file_system_without_flock(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    path, events = tmp_path / "folder" / ".lock", list[str]()

    def second() -> None:
        with locked(path):
            events.append("second")

    with ThreadPoolExecutor() as pool:
        with locked(path):
            waiting = pool.submit(second)
            time.sleep(0.3)
            events.append("first")
        waiting.result(timeout=10)
    assert events == ["first", "second"]
    reason = r"^/.*: this file system has no flock .* -o flock"
    with pytest.raises(FlockMissingError, match=reason), held_by_many(tmp_path / "pool"):
        pass
    assert not is_held(tmp_path / "pool")


def test_a_hold_is_seen_until_the_last_holder_leaves(tmp_path: Path) -> None:
    path = tmp_path / "pool"
    assert not is_held(path)
    with held_by_many(path):
        with held_by_many(path):
            assert is_held(path)
        assert is_held(path)
    assert not is_held(path)


def test_a_lock_that_cannot_be_created_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), locked(tmp_path / "file" / ".lock"):
        pass


def test_an_obstacle_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert obstacle(tmp_path / "a" / "b") == ""
    assert obstacle(tmp_path) == ""
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert obstacle(folder) == f"{tmp_path}/file is not a folder"


def test_a_csv_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_csv(path, ("name", "note"), [('a, "b"', None), ("Öl", True), ("x", 0.5)])
    assert path.read_bytes() == b'name,note\n"a, ""b""",\n\xc3\x96l,True\nx,0.5\n'
    assert read_csv(path, ["name"])[:2] == [{"name": 'a, "b"', "note": ""}, {"name": "Öl", "note": "True"}]
    path.write_bytes(b"\xef\xbb\xbfname\r\na\r\n")  # as spreadsheets save it
    assert read_csv(path, ["name"]) == [{"name": "a"}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"name\na\n", "column note is missing; expected columns: name, note"),
        (b"", "column name, note is missing"),
        (b"name,note\na,b\nc\n", "line 3 has fewer values"),
        (b"name,note\n\xff\n", "can't decode"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_with_its_setting(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^data\.split={path}: .*{reason}"):
        read_csv(path, ("name", "note"), "data.split")
