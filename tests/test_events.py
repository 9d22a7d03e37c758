"""Event files: what is written is what TensorBoard shows, and what a crash leaves sound is read."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from commands import wait_until
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard_server import Fetch, tensorboard

from irmas.run import events
from irmas.run.events import CONFUSION, TRAIN_LOSS, VAL_ACCURACY, EventWriter, event_files, read_all, read_scalars

Scalars = dict[str, dict[int, float]]


def write(folder: Path, accuracies: dict[int, float], purge_step: int = 0) -> Path:
    """One event file with a value of VAL_ACCURACY for each step, each in a record of its own."""
    folder.mkdir(exist_ok=True)
    with EventWriter(folder, purge_step) as writer:
        for step, value in accuracies.items():
            writer.scalars(step, {VAL_ACCURACY: value})
        writer.commit()
    return event_files(folder)[-1]


def as_tensorboard_reads(folder: Path) -> Scalars:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: {point.step: point.value for point in accumulator.Scalars(tag)} for tag in tags}


def record_starts(path: Path) -> list[int]:
    """The byte offsets of a sound file's records, and its size."""
    data, starts = path.read_bytes(), [0]
    while starts[-1] < len(data):
        length = int.from_bytes(data[starts[-1] : starts[-1] + 8], "little")
        starts.append(starts[-1] + 8 + 4 + length + 4)
    return starts


def test_reads_what_was_written_as_tensorboard_does(tmp_path: Path) -> None:
    with EventWriter(tmp_path, 0) as writer:
        writer.hparams({"lr": 0.001}, [VAL_ACCURACY], "1")
        for step in range(3):
            writer.scalars(step, {VAL_ACCURACY: 0.1 * step, TRAIN_LOSS: float("inf")})
            writer.image(step, CONFUSION, np.zeros((4, 4, 3), np.uint8))
        writer.end(ok=True)
        writer.commit()
    run = read_scalars(tmp_path)
    assert run.problems == []
    assert run.values == as_tensorboard_reads(tmp_path)
    assert run.values[VAL_ACCURACY] == pytest.approx({0: 0.0, 1: 0.1, 2: 0.2})


def test_reads_both_encodings_of_torchs_writer(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        for step in range(5):
            writer.add_scalar("simple", 0.1 * step, step)
            writer.add_scalar("tensor", -0.1 * step, step, new_style=True)
        writer.add_histogram("weights", np.arange(10.0), 0)
        writer.add_text("note", "not a number", 0)
    run = read_scalars(tmp_path)
    assert run.problems == []
    assert set(run.values) == {"simple", "tensor"}
    assert run.values["tensor"] == pytest.approx({step: -0.1 * step for step in range(5)})
    assert run.values["simple"] == as_tensorboard_reads(tmp_path)["simple"]


def test_reads_tf2s_encoding_by_content(tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.util.tensor_util import make_tensor_proto

    tensor = make_tensor_proto(np.float32(0.25))
    tensor.tensor_content = np.float32(0.25).tobytes()
    del tensor.float_val[:]
    with (tmp_path / "events.out.tfevents.1.host").open("wb") as file:
        event = Event(step=7, summary=Summary(value=[Summary.Value(tag="x", tensor=tensor)]))
        RecordWriter(file).write(event.SerializeToString())
    assert read_scalars(tmp_path).values == {"x": {7: 0.25}}


def test_a_restart_drops_what_lies_at_its_step_and_beyond(tmp_path: Path) -> None:
    write(tmp_path, {0: 0.125, 1: 0.25, 2: 0.375, 3: 0.5, 4: 0.625})
    write(tmp_path, {3: 0.75}, purge_step=2)
    run = read_scalars(tmp_path)
    assert run.values == {VAL_ACCURACY: {0: 0.125, 1: 0.25, 3: 0.75}}
    assert run.values == as_tensorboard_reads(tmp_path)
    assert run.problems == []


def test_the_last_value_of_a_step_counts_and_steps_ascend(tmp_path: Path) -> None:
    write(tmp_path, {5: 0.5, 3: 0.25})
    write(tmp_path, {3: 0.75}, purge_step=9)
    assert list(read_scalars(tmp_path).values[VAL_ACCURACY].items()) == [(3, 0.75), (5, 0.5)]


def test_a_new_file_sorts_behind_older_ones_whatever_the_clock_says(tmp_path: Path) -> None:
    ahead = tmp_path / f"events.out.tfevents.{int(time.time()) + 500}.zzz.99999.0"
    write(tmp_path, {0: 0.25}).rename(ahead)
    names = [ahead, *(write(tmp_path, {0: value}) for value in (0.5, 0.75))]
    assert sorted(map(str, names)) == list(map(str, names))
    assert read_scalars(tmp_path).values == {VAL_ACCURACY: {0: 0.75}}


def test_a_flipped_byte_costs_its_record_alone_and_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {step: 0.125 * step for step in range(5)})
    sound, starts = path.read_bytes(), record_starts(path)
    for offset in range(starts[4], starts[5]):
        path.write_bytes(sound[:offset] + bytes([sound[offset] ^ 0x10]) + sound[offset + 1 :])
        run = read_scalars(tmp_path)
        assert run.values == {VAL_ACCURACY: {0: 0.0, 1: 0.125, 3: 0.375, 4: 0.5}}, offset
        (problem,) = run.problems
        assert path.name in problem
        assert f"bytes {starts[4]} to {starts[5]} " in problem


def test_a_file_cut_anywhere_in_its_last_record_keeps_the_others(tmp_path: Path) -> None:
    path = write(tmp_path, {0: 0.25, 1: 0.5})
    sound, last = path.read_bytes(), record_starts(path)[-2]
    for size in range(last, len(sound)):
        path.write_bytes(sound[:size])
        run = read_scalars(tmp_path)
        assert run.values == {VAL_ACCURACY: {0: 0.25}}
        expected = [f"{path.name}: unfinished record, bytes {last} to {size} passed over"] if size > last else []
        assert run.problems == expected


@pytest.mark.parametrize("hole", [b"", bytes(50), bytes(100_000)])
def test_records_behind_a_hole_are_read(tmp_path: Path, hole: bytes) -> None:
    path = write(tmp_path, {step: 0.125 * step for step in range(5)})
    sound, starts = path.read_bytes(), record_starts(path)
    path.write_bytes(sound[: starts[3] + 20] + hole + sound[starts[5] - 9 :])
    run = read_scalars(tmp_path)
    assert run.values == {VAL_ACCURACY: {0: 0.0, 3: 0.375, 4: 0.5}}
    assert len(run.problems) == 1


def test_what_holds_no_events_is_named_and_the_rest_read(tmp_path: Path) -> None:
    assert read_scalars(tmp_path / "absent").problems == []
    (tmp_path / "events.out.tfevents.1.empty").touch()
    (tmp_path / "events.out.tfevents.2.folder").mkdir()
    with (tmp_path / "events.out.tfevents.3.foreign").open("wb") as file:
        RecordWriter(file).write(b"\xff\xff\xff")
    write(tmp_path, {0: 0.5})
    run = read_scalars(tmp_path)
    assert run.values == {VAL_ACCURACY: {0: 0.5}}
    empty, folder, foreign = run.problems
    assert "1.empty: empty" in empty
    assert "2.folder: Is a directory" in folder
    assert "3.foreign: no event in the record at byte 0" in foreign


STEPS = st.lists(st.tuples(st.integers(0, 9), st.floats(width=32, allow_nan=False)), max_size=8)


@given(st.lists(st.tuples(st.integers(0, 9), STEPS), max_size=4))
def test_any_history_of_restarts_is_read_as_written(
    files: list[tuple[int, list[tuple[int, float]]]],
) -> None:
    expected: dict[int, float] = {}
    with TemporaryDirectory() as name:
        for purge_step, points in files:
            expected = {step: value for step, value in expected.items() if step < purge_step}
            with EventWriter(Path(name), purge_step) as writer:
                for step, value in points:
                    writer.scalars(step, {VAL_ACCURACY: value})
                    expected[step] = value
                writer.commit()
        run = read_scalars(Path(name))
    assert run.values == ({VAL_ACCURACY: expected} if expected else {})
    assert run.problems == []


@given(st.integers(0, 10_000), st.integers(0, 100), st.binary(max_size=100))
def test_whatever_stretch_is_damaged_the_records_around_it_are_read(place: int, lost: int, junk: bytes) -> None:
    written = {step: 0.125 * step for step in range(12)}
    with TemporaryDirectory() as name:
        path = write(Path(name), written)
        sound, starts = path.read_bytes(), record_starts(path)
        start = place % len(sound)
        path.write_bytes(sound[:start] + junk + sound[start + lost :])
        run = read_scalars(Path(name))
        damaged = path.read_bytes() != sound
    # Ahead of the steps lie two records that tell the file's version and its start.
    whole = [step for step in written if starts[step + 3] <= start or starts[step + 2] >= start + lost]
    read = run.values.get(VAL_ACCURACY, {})
    assert {step: written[step] for step in whole}.items() <= read.items() <= written.items()
    # Of records that are gone whole a file knows nothing.
    hidden = start + lost >= len(sound) or (not junk and {start, start + lost} <= set(starts))
    assert bool(run.problems) == damaged or hidden


def test_many_runs_are_read_as_each_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / str(number) for number in range(9)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        path = write(folder, {step: number + step / 8 for step in range(number)})
        path.write_bytes(path.read_bytes()[: -(number % 2) or None])
    alone = [read_scalars(folder) for folder in folders]
    assert read_all(folders) == alone
    monkeypatch.setattr(events, "LARGE", 1)
    assert read_all(folders) == alone
    assert read_all([tmp_path / "nowhere"]) == [read_scalars(tmp_path / "nowhere")]
    assert read_all([]) == []
    (folders[0] / "events.out.tfevents.9.lost").symlink_to("nowhere")
    assert read_all(folders)[1:] == alone[1:]
    assert "No such file" in read_all(folders)[0].problems[-1]


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from irmas.run.events import EventWriter\n"
        "writer = EventWriter(pathlib.Path(sys.argv[1]), 0)\n"
        "writer.scalars(0, {'x': 0.5}); writer.commit()\n"
        "writer.scalars(1, {'x': 1.0}); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path]).returncode == -9
    assert read_scalars(tmp_path).values == {"x": {0: 0.5}}


def test_reading_loads_nothing_heavy() -> None:
    script = "import sys, irmas.run.events; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numpy", "PIL", "tensorboard.plugins"} & set(loaded.split())


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: `a` from one start, `b` stopped in step 2 and taken up again from step 1."""
    folder = tmp_path_factory.mktemp("logdir")
    for name, epochs, starts in (("a", 9.0, [(0, 3)]), ("b", 15.0, [(0, 3), (1, 3)])):
        (folder / name).mkdir()
        for first, stop in starts:
            with EventWriter(folder / name, first) as writer:
                settings: dict[str, bool | float | str] = {
                    "epochs": epochs,
                    "optim": name,
                    "augment": name == "a",
                }
                writer.hparams(settings, [VAL_ACCURACY], group=name)
                for step in range(first, stop):
                    writer.scalars(step, {VAL_ACCURACY: 0.125 * (step + first), TRAIN_LOSS: 1.0})
                    writer.image(step, CONFUSION, picture(step))
                if name == "a":
                    writer.end(ok=True)
                writer.commit()
    return folder


def picture(step: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((5, 7, 3), (step, 100, 255), np.uint8)


@pytest.fixture(scope="module", params=["default", "--load_fast=false"])
def fetch(request: pytest.FixtureRequest, logdir: Path) -> Iterator[Fetch]:
    """Ask a running TensorBoard that has loaded both runs, with either of its two loaders."""
    options = [] if request.param == "default" else [request.param]
    with tensorboard(logdir, *options) as ask:
        wait_until(lambda: len(json.loads(ask("scalars/tags"))) == 2, "both runs are loaded", 60)
        yield ask


def test_tensorboard_serves_scalars_of_started_and_resumed_runs(fetch: Fetch) -> None:
    def points(run: str) -> dict[int, float]:
        return {step: value for _, step, value in json.loads(fetch("scalars/scalars", tag=VAL_ACCURACY, run=run))}

    assert points("a") == {0: 0.0, 1: 0.125, 2: 0.25}
    assert points("b") == {0: 0.0, 1: 0.25, 2: 0.375}


def test_tensorboard_serves_images(fetch: Fetch) -> None:
    images = json.loads(fetch("images/images", tag=CONFUSION, run="b", sample=0))
    assert [image["step"] for image in images] == [0, 1, 2]
    png = fetch(f"images/individualImage?{images[2]['query']}&")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), picture(2))


def test_the_hparams_dashboard_shows_both_runs_with_settings_and_metrics(fetch: Fetch) -> None:
    columns = [{"hparam": "epochs", "order": "ORDER_DESC"}, {"metric": {"tag": VAL_ACCURACY}}]
    statuses = ["STATUS_SUCCESS", "STATUS_UNKNOWN"]
    body = {
        "experimentName": "",
        "allowedStatuses": statuses,
        "colParams": columns,
        "startIndex": 0,
        "sliceSize": 9,
    }
    rows = json.loads(fetch("hparams/session_groups", body))["sessionGroups"]
    assert [row["name"] for row in rows] == ["b", "a"]  # 15 before 9: as numbers, not as text
    assert rows[0]["hparams"] == {"epochs": 15.0, "optim": "b", "augment": False}
    assert [row["metricValues"][0]["value"] for row in rows] == [0.375, 0.25]
    assert [row["sessions"][0]["status"] for row in rows] == ["STATUS_UNKNOWN", "STATUS_SUCCESS"]
