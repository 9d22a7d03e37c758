"""TensorBoard event files of one run's folder: write, read fast, survive restarts and damage.

An event file is a chain of records (TensorFlow's TFRecord): length (uint64), its masked CRC-32C, an `Event`
protobuf, its masked CRC-32C, all little-endian. This is the only module that knows tags and records.
"""

from __future__ import annotations

import io
import math
import os
import re
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.types_pb2 import DT_FLOAT

from irmas.files import atomic_write, errors_name, reread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN_LOSS = "train/loss"
TRAIN_ACCURACY = "train/accuracy"
VAL_LOSS = "val/loss"
VAL_ACCURACY = "val/accuracy"
VAL_MACRO_F1 = "val/macro_f1"
RANKED = "val_accuracy"
"""The accuracy that runs are ranked by: val/accuracy, averaged over the last epochs (`config.averaged_epochs`)."""
JUDGED = (RANKED, VAL_ACCURACY, VAL_LOSS, VAL_MACRO_F1)
"""Metrics that HParams shows beside the settings."""
LR = "lr"
EPOCH_S = "time/epoch_s"
EXCERPTS_PER_S = "time/excerpts_per_s"
CONFUSION = "confusion_matrix"
SPECTROGRAMS = "examples/log_mel"
AUGMENTED = "examples/spec_augment"

READERS = 4
"""Number of processes: more than most login nodes give one user, since on a network's file system they also wait."""
LARGE = 2_000_000
"""Number of bytes that one process reads in a tenth of a second."""
VERSION = "brain.Event:2"

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_FILE_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.")
_MAYBE_HEADER = re.compile(rb"(?s)(?=.{4}\0{4}(?!\0{4}).{4})")  # a length below 4 GiB, a checksum that is not 0


def _masked_crc(data: bytes) -> int:
    """Return the record format's checksum, altered so that data that holds checksums has a sound one."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def event_files(folder: Path) -> list[Path]:
    """Return the folder's event files in the order in which TensorBoard reads them: by name."""
    return sorted(path for path in folder.glob("*tfevents*") if path.suffix != ".profile-empty")


def _new_name(folder: Path) -> str:
    """Return a name that sorts last, even if this node's clock is slow or two starts share a second."""
    earlier = [int(match[1]) for path in event_files(folder) if (match := _FILE_NAME.match(path.name))]
    start = max(int(time.time()), 1 + max(earlier, default=0))
    return f"events.out.tfevents.{start:010d}.{socket.gethostname()}.{os.getpid()}"


class EventWriter(AbstractContextManager["EventWriter"]):
    """A new event file of a run that starts or resumes at `purge_step`.

    TensorBoard and `read_scalars` ignore what earlier files hold at steps >= `purge_step`. Nothing is on disk before
    `commit`, and what was not committed is dropped.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        self._path = folder / _new_name(folder)
        self._file = self._path.open("xb", buffering=0)
        start = SessionLog(status=SessionLog.START)
        self._uncommitted = _framed(0, file_version=VERSION) + _framed(purge_step, session_log=start)
        try:
            self.commit()
        except OSError:
            self._file.close()
            self._path.unlink()
            raise

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one value per tag; TensorBoard stores it in single precision."""
        self._write(step, [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])

    def image(self, step: int, tag: str, rgb: NDArray[np.uint8]) -> None:
        """Write an image, (height, width, 3), as PNG."""
        from PIL import Image

        png = io.BytesIO()
        Image.fromarray(rgb).save(png, format="PNG")
        self._write(step, [_image(tag, png.getvalue())])

    def hparams(self, values: Mapping[str, bool | float | str], metrics: Sequence[str], group: str) -> None:
        """Declare the run to the HParams dashboard: its settings, and the scalar tags shown beside them.

        Runs of one `group` make one row. The dashboard takes its columns from whichever run it reads first, so the runs
        of a sweep must declare the same names and types.
        """
        from google.protobuf.struct_pb2 import Value

        kinds = {bool: ("bool_value", "DATA_TYPE_BOOL"), str: ("string_value", "DATA_TYPE_STRING")}
        entries = {
            name: kinds.get(type(value), ("number_value", "DATA_TYPE_FLOAT64")) for name, value in values.items()
        }
        self._hparams_plugin(
            experiment={
                "time_created_secs": time.time(),
                "hparam_infos": [{"name": name, "type": kind} for name, (_, kind) in entries.items()],
                "metric_infos": [{"name": {"tag": tag}} for tag in metrics],
            }
        )
        hparams = {name: Value(**{entry: values[name]}) for name, (entry, _) in entries.items()}
        started = {"group_name": group, "start_time_secs": time.time(), "hparams": hparams}
        self._hparams_plugin(session_start_info=started)

    def end(self, ok: bool) -> None:
        """Declare to the HParams dashboard that the run succeeded or failed.

        TensorBoard keeps the first such entry in a run's files: write it only for a run that will not be resumed.
        """
        status = "STATUS_SUCCESS" if ok else "STATUS_FAILURE"
        self._hparams_plugin(session_end_info={"status": status, "end_time_secs": time.time()})

    def commit(self) -> None:
        """Write and sync everything so far, or nothing of it.

        Raises OSError with the file's path if the disk is full; another call tries again.
        """
        committed = self._file.tell()
        with errors_name(self._path):
            try:
                rest = self._uncommitted
                while rest:
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            except OSError:
                self._file.seek(committed)
                self._file.truncate()
                raise
        self._uncommitted = b""

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _hparams_plugin(self, **content: Any) -> None:
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        (entry,) = content
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
        self._write(0, [Summary.Value(tag=f"_hparams_/{entry}", metadata=about, tensor=metadata.NULL_TENSOR)])

    def _write(self, step: int, values: list[Summary.Value]) -> None:
        self._uncommitted += _framed(step, summary=Summary(value=values))


def _framed(step: int, **content: Any) -> bytes:
    """Return the record of an event."""
    data: bytes = Event(wall_time=time.time(), step=step, **content).SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + _CRC.pack(_masked_crc(length)) + data + _CRC.pack(_masked_crc(data))


def _image(tag: str, png: bytes) -> Any:
    width, height = struct.unpack_from(">II", png, 16)  # behind the signature and the head of the first chunk
    return Summary.Value(tag=tag, image=Summary.Image(height=height, width=width, encoded_image_string=png))


def replace_images(folder: Path, pngs: Mapping[str, bytes]) -> None:
    """Replace all images of the folder's event files by these PNGs, keyed by tag, one step beyond those before.

    If they are the same, nothing is written. Raises OSError, with the file's path, if they cannot be written.
    """
    before = event_files(folder)
    events = [[*_events(path.name, path.read_bytes(), [])] for path in before]
    stored = [{v.tag: v.image.encoded_image_string for event in file for v in event.summary.value} for file in events]
    if [images for images in stored if images] == [dict(pngs)]:
        return
    step = max((event.step for file in events for event in file), default=0)
    folder.mkdir(parents=True, exist_ok=True)
    # Without the start of a session, which would purge the images before: if a tag is left without any image,
    # TensorBoard's Python loader shows no images of any run.
    summary = Summary(value=[_image(tag, png) for tag, png in pngs.items()])
    atomic_write(folder / _new_name(folder), _framed(0, file_version=VERSION) + _framed(step + 1, summary=summary))
    # That loader moves to the next file only from one that exists: the last one stays, empty.
    for path in before[:-1]:
        path.unlink(missing_ok=True)
    for path in before[-1:]:
        path.write_bytes(b"")


@dataclass(frozen=True)
class RunScalars:
    """The scalars of one run."""

    values: dict[str, dict[int, float]]
    """The last value, by tag and step, steps ascending."""
    problems: list[str]
    """Lines that name file, damage and bytes that could not be read."""


def read_scalars(folder: Path) -> RunScalars:
    """Read every record of the folder's event files whose checksum is right.

    A restart drops what earlier records hold at its step and beyond; of several values for one tag and step the last
    counts. A folder without event files has no values and no problems.
    """
    values: dict[str, dict[int, float]] = defaultdict(dict)
    problems: list[str] = []
    for path in event_files(folder):
        try:
            data = reread(path.read_bytes)
        except OSError as error:
            problems.append(f"{path.name}: {error.strerror}")
            continue
        if not data:
            problems.append(f"{path.name}: empty")
        for event in _events(path.name, data, problems):
            step = event.step
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                for tag, points in values.items():
                    values[tag] = {earlier: value for earlier, value in points.items() if earlier < step}
            for value in event.summary.value:
                # Nearly all are simple and not 0: looking up the encoding first would take a third of the time.
                scalar = value.simple_value or _scalar(value)
                if scalar is not None:
                    values[value.tag][step] = scalar
    by_step = {tag: {step: points[step] for step in sorted(points)} for tag, points in values.items() if points}
    return RunScalars(by_step, problems)


def read_all(folders: Sequence[Path]) -> list[RunScalars]:
    """Return `read_scalars` of each folder, read by several processes if that takes a while."""
    first = sum(path.stat().st_size for folder in folders[:1] for path in event_files(folder) if path.exists())
    if first * len(folders) < LARGE:
        return [read_scalars(folder) for folder in folders]
    # Forked, since a reader needs nothing but what is imported already.
    with ProcessPoolExecutor(READERS, mp_context=get_context("fork")) as pool:
        return list(pool.map(read_scalars, folders, chunksize=math.ceil(len(folders) / READERS / 4)))


def _scalar(value: Any) -> float | None:
    """Return the number in a summary value of either encoding, simple (TF 1, torch) or tensor (TF 2)."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if not value.HasField("tensor") or value.tensor.dtype != DT_FLOAT or value.tensor.tensor_shape.dim:
        return None
    if len(value.tensor.tensor_content) == 4:
        return float(struct.unpack("<f", value.tensor.tensor_content)[0])
    return float(value.tensor.float_val[0]) if value.tensor.float_val else None


def _events(name: str, data: bytes, problems: list[str]) -> Iterator[Any]:
    """Yield the sound events of a file's content; append a line to `problems` for each damaged stretch."""
    position = 0
    while position < len(data):
        record, fault = _record(data, position)
        if fault:
            sound = _next_header(data, position + 1)
            problems.append(f"{name}: {fault}, bytes {position} to {sound} passed over")
            position = sound
            continue
        try:
            yield Event.FromString(record)
        except DecodeError:
            problems.append(f"{name}: no event in the record at byte {position}")
        position += _HEADER.size + len(record) + _CRC.size


def _record(data: bytes, position: int) -> tuple[bytes, str]:
    """Return the content of the record at `position`, and its fault, if it has one."""
    start = position + _HEADER.size
    if start > len(data):
        return b"", "unfinished record"
    length, length_crc = _HEADER.unpack_from(data, position)
    if length_crc != _masked_crc(data[position : position + 8]):
        return b"", "damaged record length"
    if start + length + _CRC.size > len(data):
        return b"", "unfinished record"
    record = data[start : start + length]
    if _CRC.unpack_from(data, start + length)[0] != _masked_crc(record):
        return b"", "damaged record"
    return record, ""


def _next_header(data: bytes, start: int) -> int:
    """Return where the next record with a sound length begins, or the end of `data`."""
    for match in _MAYBE_HEADER.finditer(data, start):
        length, crc = data[match.start() : match.start() + 8], _CRC.unpack_from(data, match.start() + 8)[0]
        if crc == _masked_crc(length):
            return match.start()
    return len(data)
