"""Files that several processes meet at: the lock, and what stands in the way of writing."""

from __future__ import annotations

import fcntl
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import wait_until

from irmas.errors import UserError
from irmas.files import locked, obstacle


def test_who_waits_long_for_a_lock_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / ".lock"

    def take() -> None:
        with locked(path):
            pass

    with ThreadPoolExecutor() as pool:
        with locked(path):
            waiting = pool.submit(take)
            wait_until(lambda: bool(caplog.messages), "the word of who waits")
            assert not waiting.done()
        waiting.result(timeout=10)
    assert caplog.messages == [f"{path}: waits for another process that holds this lock"]


def is_free(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_who_waited_for_a_lock_that_was_removed_holds_the_new_one(tmp_path: Path) -> None:
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


def test_a_lock_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), locked(tmp_path / "file" / ".lock"):
        pass


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert obstacle(tmp_path / "a" / "b") == ""
    assert obstacle(tmp_path) == ""
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert obstacle(folder) == f"{tmp_path}/file is not a folder"
