"""Damaged event files and sounds by the thousand: `python tests/fuzz.py [--seconds 600] [--seed 0]`.

Each case is made from the seed and its number, and read in a child process: a crash of native code, a hang, and any
exception but DataError are findings. Their files are kept. Exit code 1 where there are any.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import google_crc32c
import numpy as np
import soundfile

from irmas.data.features import read_waveform
from irmas.errors import DataError
from irmas.run.events import EventWriter, read_scalars

say = partial(print, flush=True)

BATCH = 200
"""Cases that a child handles."""
CASE_S = 10
"""Longer is a hang."""
MEMORY = 8 << 30
"""Bytes of address space of a child."""
LENGTHS = (0, 1, 2, 3, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)

Case = tuple[str, bytes]
"""A file's name, and what it holds."""


def sounds() -> list[Case]:
    """One of each kind of header and coding, a tenth of a second long."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (800, 2))
    forms = [("WAV", s) for s in ("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")]
    forms += [("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("AIFF", "PCM_16")]
    forms += [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
    made = []
    for form, subtype in forms:
        file = io.BytesIO()
        soundfile.write(file, noise[:, 0] if subtype == "GSM610" else noise, 8000, subtype=subtype, format=form)
        ending = {"WAVEX": "wav", "RF64": "wav"}.get(form, form.lower())
        made.append((f"sound.{ending}", file.getvalue()))
    tagged = b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf58.29.100\0"
    name, wav = made[0]
    return [*made, (name, wav[:36] + tagged + wav[36:])]


def event_files() -> list[Case]:
    with tempfile.TemporaryDirectory() as folder:
        with EventWriter(Path(folder), 1) as writer:
            writer.hparams({"lr": 0.1, "l2": 0.01}, ["val/loss"], "group")
            for step in range(1, 9):
                writer.scalars(step, {"train/loss": 1 / step, "val/loss": 2 / step})
            writer.image(8, "picture", np.zeros((4, 4, 3), np.uint8))
        (path,) = Path(folder).iterdir()
        return [("events.out.tfevents.1.x", path.read_bytes())]


def mutated(random: Random, data: bytes) -> bytes:
    """One to four times: flipped bytes, a cut, a stretch inserted, doubled or swapped, a random length."""
    for _ in range(random.randint(1, 4)):
        # Half of them near the beginning, where headers are.
        end = len(data) if random.random() < 0.5 else min(len(data), 96)
        a, b = sorted(random.randint(0, end) for _ in range(2))
        match random.choice(("flip", "cut", "insert", "double", "swap", "length")):
            case "flip" if end:
                changed = bytearray(data)
                for _ in range(random.randint(1, 8)):
                    changed[random.randrange(end)] ^= 1 << random.randrange(8)
                data = bytes(changed)
            case "cut":
                data = data[: random.randint(0, len(data))] if random.random() < 0.5 else data[:a] + data[b:]
            case "insert":
                data = data[:a] + random.randbytes(random.choice((1, 2, 4, 8, 100))) + data[a:]
            case "double":
                data = data[:b] + data[a:b] + data[b:]
            case "swap":
                middle = random.randint(a, b)
                data = data[:a] + data[middle:b] + data[a:middle] + data[b:]
            case "length":
                length = random.choice((*LENGTHS, len(data), random.getrandbits(32)))
                data = data[:a] + struct.pack(random.choice("<>") + "I", length) + data[a + 4 :]
    return data


def resealed(random: Random, data: bytes) -> bytes:
    """A record with damaged content and sound checksums, behind an event file: checksums keep out all the rest."""
    content = mutated(random, data[24 : 24 + random.randint(0, 200)])
    length = struct.pack("<Q", len(content))
    return data + length + checksum(length) + content + checksum(content)


def checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def read_sound(path: Path) -> None:
    with suppress(DataError):
        samples, rate = read_waveform(path)
        assert samples.isfinite().all()
        assert len(samples) > 0 < rate


def read_events(path: Path) -> None:
    read_scalars(path.parent)


READERS: dict[str, tuple[list[Case], Callable[[Path], None]]] = {
    "sound": (sounds(), read_sound),
    "events": (event_files(), read_events),
}


def make(seed: int, number: int) -> tuple[str, Case]:
    """The kind of the case, its file's name and content."""
    random = Random(f"{seed} {number}")
    kind = random.choice(list(READERS))
    name, data = random.choice(READERS[kind][0])
    damage = resealed if kind == "events" and random.random() < 0.5 else mutated
    return kind, (name, damage(random, data))


def child(seed: int, numbers: range, pipe: Connection) -> None:
    """Says the number of each case before it is read, and a traceback behind one that is a finding."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders of mp3 think aloud
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            kind, (name, data) = make(seed, number)
            path = Path(folder) / name
            path.write_bytes(data)
            pipe.send(number)
            try:
                READERS[kind][1](path)
            except BaseException:  # noqa: BLE001
                pipe.send(traceback.format_exc(limit=-2))
            path.unlink()
    pipe.send(None)


def findings(seed: int, numbers: range) -> Iterator[tuple[int, str]]:
    """Case and what was wrong; a child that crashed or hung is replaced."""
    while numbers:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=child, args=(seed, numbers, theirs))
        process.start()
        theirs.close()
        reply: object = ""
        at, fault = numbers.start, ""
        while not fault and reply is not None:
            try:
                reply = ours.recv() if ours.poll(CASE_S) else TimeoutError
            except EOFError:
                process.join()
                fault = f"ended with exit code {process.exitcode}"
            if isinstance(reply, int):
                at = reply
            elif isinstance(reply, str) and not fault:
                yield at, reply
            elif reply is TimeoutError:
                process.kill()
                fault = f"not read within {CASE_S} s"
        process.join()
        if not fault:
            return
        yield at, fault
        numbers = range(at + 1, numbers.stop)


def run(seed: int, seconds: float, kept: Path) -> int:
    """How many findings there were; their files lie in `kept`."""
    end, reported, done = time.monotonic() + seconds, time.monotonic(), 0
    found: Counter[str] = Counter()
    while time.monotonic() < end:
        for number, fault in findings(seed, range(done, done + BATCH)):
            kind, (name, data) = make(seed, number)
            path = kept / f"seed{seed}-case{number}-{name}"
            kept.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            found[kind] += 1
            say(f"{path}: {fault}")
        done += BATCH
        if time.monotonic() > reported + 10:
            reported = time.monotonic()
            say(f"{done} cases, {found.total()} findings, {end - reported:.0f} s left")
    kinds = Counter(make(seed, number)[0] for number in range(done))
    counts = ", ".join(f"{number} of {kind} ({found[kind]} findings)" for kind, number in sorted(kinds.items()))
    say(f"seed {seed}: {done} cases: {counts}")
    return found.total()


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz.py", description="Damages event files and sounds, and reads them.")
    parser.add_argument("--seconds", type=float, default=60, help="(default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds, other cases (default: 0)")
    arguments = parser.parse_args()
    sys.exit(1 if run(arguments.seed, arguments.seconds, Path("fuzz-findings")) else 0)


if __name__ == "__main__":
    main()
