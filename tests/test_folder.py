"""A run's folder: what its status says of live and dead processes, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import pickle
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from factories import age_heartbeat

from irmas.config import Config
from irmas.errors import UserError
from irmas.files import with_digest
from irmas.run import checkpoint
from irmas.run import folder as run_folder
from irmas.run.folder import COMPLETED, FAILED, PENDING, PRUNED, RUNNING, RunFolder, Status
from irmas.run.lease import RunBusyError, Writer

CONFIG = Config()

HOLD = """
import sys
from pathlib import Path
from irmas.run.folder import RUNNING, RunFolder, Status
folder = RunFolder(Path(sys.argv[1]))
with folder.acquire():
    folder.write_status(Status(RUNNING, epoch=2, epochs=5))
    print("acquired", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    path = tmp_path / "run"
    path.mkdir()
    return RunFolder(path)


@contextmanager
def holder(folder: RunFolder) -> Iterator[subprocess.Popen[str]]:
    """Start another process that owns the run and records that it trains it."""
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "acquired\n"
            yield process
        finally:
            process.kill()


def test_the_status_of_a_live_process_is_running_and_of_a_killed_one_failed(folder: RunFolder) -> None:
    with holder(folder) as process:
        status = folder.status()
        assert (status.state, status.epoch, status.pid) == (RUNNING, 2, process.pid)
        with pytest.raises(RunBusyError, match=str(folder.path)), folder.acquire():
            pass
        process.kill()
        process.wait()
        status = folder.status()
        assert (status.state, status.epoch, status.epochs) == (FAILED, 2, 5)
        assert "killed" in status.reason
        with folder.acquire():
            pass


def test_a_process_on_another_node_lives_as_long_as_it_has_a_heartbeat_or_a_lock(folder: RunFolder) -> None:
    """As do one of a container with a name of its own, and one whose node was renamed."""
    folder.write_status(Status(RUNNING))
    assert folder.status().state == FAILED
    folder.amend_status(Status(RUNNING, epoch=3, writer=Writer("box1", 5)))
    assert folder.status().state == RUNNING
    age_heartbeat(folder, 3 * 3600 + 5)
    with folder.acquire():
        assert folder.status().state == RUNNING
    status = folder.status()
    assert (status.state, status.epoch) == (FAILED, 3)
    assert status.message == "the process died without reporting an error (no heartbeat for 3 h; last on box1)"


def test_a_status_that_is_replaced_while_it_is_read_is_read_again(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_status(Status(COMPLETED))
    stale, read_text = [1, 2], Path.read_text

    def read(path: Path) -> str:
        if stale:
            stale.pop()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", read)
    assert folder.status().state == COMPLETED
    stale += [1, 2, 3]
    with pytest.raises(OSError, match="Stale file handle"):
        folder.status()


def test_a_status_has_its_writer_and_a_run_without_one_is_pending(folder: RunFolder) -> None:
    assert folder.status() == Status(PENDING)
    folder.write_status(Status(COMPLETED, epoch=3, metrics={"val/loss": 0.1 + 0.2}))
    status = folder.status()
    assert (status.node, status.pid) == (platform.node(), os.getpid())
    assert status.metrics == {"val/loss": 0.1 + 0.2}
    assert status.updated > 0
    assert list(folder.path.iterdir()) == [folder.path / "status.json"]


def test_a_process_that_ends_while_its_status_is_read_has_not_failed(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_status(Status(RUNNING))

    def ends_just_now(path: Path) -> bool:
        RunFolder(path).write_status(Status(COMPLETED))
        return False

    monkeypatch.setattr(run_folder, "is_owned", ends_just_now)
    assert folder.status().state == COMPLETED


def test_readers_of_the_status_do_not_keep_a_run_from_starting(folder: RunFolder) -> None:
    folder.write_status(Status(RUNNING))
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            folder.status()

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(300):
            with folder.acquire():
                pass
    finally:
        ended.set()
        for watcher in watchers:
            watcher.join()


def test_the_reason_is_the_last_line_of_an_error() -> None:
    assert Status(message="Traceback\n  File\nValueError: 3\n").reason == "ValueError: 3"
    assert Status(message=" \n").reason == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: text.replace('"epoch"', '"era"'),
        lambda text: "\0" * len(text),
        lambda text: text.replace('"epoch": 3', '"epoch": "3"'),
        lambda text: text.replace('"COMPLETED"', "1"),
        lambda text: text.replace('"metrics": null', '"metrics": {"val/loss": "low"}'),
        lambda text: text.replace('"metrics": null', '"metrics": [0.5]'),
        lambda text: text.replace('"exit_code": null', '"exit_code": "0"'),
    ],
)
def test_a_damaged_or_foreign_status_is_a_clear_error(folder: RunFolder, damage: Any) -> None:
    folder.write_status(Status(COMPLETED, epoch=3))
    path = folder.path / "status.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=r"status\.json: is damaged or from another version .*remove it"):
        folder.status()
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match=r"status\.json"):
        folder.status()


def test_a_run_that_died_before_it_made_its_folder_gets_a_status(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "001")
    folder.amend_status(Status(FAILED, message="killed"))
    assert folder.status().state == FAILED


@pytest.mark.parametrize("damage", [b"\x80\xff", b"{", b"- 1", b""])
def test_a_damaged_configuration_or_provenance_is_a_clear_error(folder: RunFolder, damage: bytes) -> None:
    (folder.path / "config.yaml").write_bytes(damage)
    with pytest.raises(UserError, match=r"config\.yaml: is damaged .*; remove it"):
        folder.write_config(CONFIG)
    (folder.path / "provenance.json").write_bytes(damage)
    with pytest.raises(UserError, match=r"provenance\.json: is damaged .*; remove it"):
        folder.write_provenance({"source": "a"})
    assert (folder.path / "config.yaml").read_bytes() == damage


def test_another_configuration_is_refused_by_its_key(folder: RunFolder) -> None:
    config = Config(name="first", l2=1e-5)
    folder.write_config(config)
    folder.write_config(config)
    config_path = folder.path / "config.yaml"
    before = config_path.read_text()
    with pytest.raises(UserError, match=r"config\.yaml: was trained with lr=0\.001, this is lr=0\.01$"):
        folder.write_config(replace(config, lr=0.01))
    with pytest.raises(UserError, match=r"model\.filters=\[32,64,128,256\], this is model\.filters=\[8\]$"):
        folder.write_config(replace(config, model=replace(config.model, filters=[8])))
    assert config_path.read_text() == before


def test_an_amended_status_still_names_the_process_that_trained(folder: RunFolder) -> None:
    with holder(folder) as process:
        running = folder.status()
        process.kill()
        process.wait()
        folder.amend_status(replace(running, state=FAILED, message="killed", exit_code=-9))
    status = folder.status()
    assert (status.state, status.pid, status.exit_code) == (FAILED, process.pid, -9)
    assert status.updated > running.updated


def test_provenance_remembers_the_sources_that_trained_before(folder: RunFolder) -> None:
    def sources() -> tuple[Any, Any]:
        values = json.loads((folder.path / "provenance.json").read_text())
        return values["source"], values.get("earlier_sources")

    for source, earlier in (("a", None), ("a", None), ("b", ["a"]), ("b", ["a"]), ("a", ["a", "b"])):
        folder.write_provenance({"source": source})
        assert sources() == (source, earlier)


def test_a_name_a_device_or_a_moved_data_set_makes_no_other_run(folder: RunFolder) -> None:
    config = Config(name="first", device="auto")
    folder.write_config(config)
    folder.write_config(replace(config, name="second", device="cpu", data=replace(config.data, root="elsewhere")))
    assert yaml.safe_load((folder.path / "config.yaml").read_text())["name"] == "second"


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert checkpoint.load(path, CONFIG) is None
    weight = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    checkpoint.save(path, {"epoch": 3, "weight": weight}, CONFIG)
    state = checkpoint.load(path, CONFIG)
    assert state is not None
    assert state["epoch"] == 3
    assert torch.equal(state["weight"], weight)
    assert state["weight"].stride() == weight.stride()


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_in_place_of_a_cut_checkpoint_the_one_before_is_taken(
    tmp_path: Path, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.pt"
    for epoch in (1, 2, 3):
        checkpoint.save(path, {"epoch": epoch, "weight": torch.randn(1000)}, CONFIG)
    cut(path, kept)
    state = checkpoint.load(path, CONFIG)
    assert state is not None
    assert state["epoch"] == 2
    assert "checkpoint.pt: is damaged (" in caplog.text
    assert "resumes from the checkpoint before it" in caplog.text
    cut(tmp_path / "checkpoint-before.pt", kept)
    with pytest.raises(UserError, match=r"checkpoint-before\.pt: is damaged \(.+\); remove checkpoint\*\.pt"):
        checkpoint.load(path, CONFIG)


def test_no_changed_byte_of_a_checkpoint_becomes_part_of_a_run(tmp_path: Path) -> None:
    path, weight = tmp_path / "checkpoint.pt", torch.arange(100.0)
    for epoch in (1, 2):
        checkpoint.save(path, {"epoch": epoch, "weight": weight}, CONFIG)
    sound = path.read_bytes()
    for position in range(0, len(sound), 7):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 0x55]) + sound[position + 1 :])
        state = checkpoint.load(path, CONFIG)
        assert state is not None
        assert torch.equal(state["weight"], weight)
        assert state["epoch"] == 1


def cut(path: Path, kept: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])


def test_a_start_that_was_killed_between_two_renamings_resumes_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"epoch": 1}, CONFIG)
    path.rename(tmp_path / "checkpoint-before.pt")
    state = checkpoint.load(path, CONFIG)
    assert state is not None
    assert state["epoch"] == 1
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(CONFIG, lr=0.5), "was trained with lr=0.001, this is lr=0.5"),
        (replace(CONFIG, data=replace(CONFIG.data, seed=7)), "was trained with data.seed=0, this is data.seed=7"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_by_its_key(
    tmp_path: Path, other: Config, message: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"epoch": 1}, CONFIG)
    with pytest.raises(UserError, match=re.escape(f"checkpoint.pt: {message}")):
        checkpoint.load(path, other)
    assert checkpoint.load(path, replace(CONFIG, name="elsewhere", device="cuda")) is not None


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
        checkpoint.save(path, {"epoch": 1}, CONFIG)
    with pytest.raises(UserError, match=rf"version={checkpoint.VERSION + 1}, this is version={checkpoint.VERSION}"):
        checkpoint.load(path, CONFIG)


def test_the_next_process_removes_what_a_killed_one_had_begun_to_write(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / ".checkpoint.pt.n1.77").write_bytes(b"half")
    with folder.acquire():
        assert [path.name for path in folder.path.iterdir()] == [".lock"]


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    path, touched = tmp_path / "checkpoint.pt", tmp_path / "touched"
    torch.save({"epoch": Payload(touched)}, path)
    for content in (path.read_bytes(), pickle.dumps(Payload(touched), protocol=2)):
        path.write_bytes(with_digest(content))
        with pytest.raises(UserError, match=r"checkpoint\.pt: holds more than numbers"):
            checkpoint.load(path, CONFIG)
    assert not touched.exists()


def test_status_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    writer = {"node": "n1", "pid": 4, "job": "12_3", "restart": 2}
    values = {"state": "STOPPED", "epoch": 3, **writer, "exit_code": None, "error": "number 2 of 2"}
    (tmp_path / "status.json").write_text(json.dumps(values))
    status = RunFolder(tmp_path).recorded()
    assert status == Status(PRUNED, epoch=3, writer=Writer("n1", 4, "12_3", 2), message="number 2 of 2")
    RunFolder(tmp_path).amend_status(status)
    assert json.loads((tmp_path / "status.json").read_text()).items() >= writer.items()  # as they read it
    assert RunFolder(tmp_path).recorded().writer == status.writer
