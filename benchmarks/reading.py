"""Reading a sweep's scalars: ours beside TensorBoard's EventAccumulator and its data server (Rust, over gRPC).

    python benchmarks/reading.py [--runs 18] [--epochs 1250] [--rounds 5]

In each round all read the same files, in turn; what counts are the ratios of a round.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from tensorboard import context
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.data import server_ingester
from tensorboard.data.grpc_provider import GrpcDataProvider
from tensorboard.data.proto import data_provider_pb2_grpc

from irmas.run import events
from irmas.run.events import EventWriter, read_all

TAGS = (
    events.TRAIN_LOSS,
    events.TRAIN_ACCURACY,
    events.VAL_LOSS,
    events.VAL_ACCURACY,
    events.VAL_MACRO_F1,
    events.LR,
    events.EPOCH_S,
    events.EXCERPTS_PER_S,
)


def write(folder: Path, runs: int, epochs: int) -> None:
    for run in range(runs):
        path = folder / f"{run:05d}"
        path.mkdir()
        with EventWriter(path, purge_step=1) as writer:
            for epoch in range(1, epochs + 1):
                writer.scalars(epoch, dict.fromkeys(TAGS, run + 1 / epoch))
            writer.commit()


def ours(folder: Path) -> int:
    return sum(len(points) for run in read_all(list(folder.iterdir())) for points in run.values.values())


def event_accumulator(folder: Path) -> int:
    total = 0
    for run in folder.iterdir():
        accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
        accumulator.Reload()
        total += sum(len(accumulator.Scalars(tag)) for tag in accumulator.Tags()["scalars"])
    return total


def data_server(folder: Path, total: int) -> int:
    """From the start of the server until it has told every scalar."""
    with tempfile.TemporaryDirectory() as scratch:
        port = Path(scratch) / "port"
        command = [server_ingester.get_server_binary().path, f"--logdir={folder}", "--reload=once", "--port=0"]
        options = ["--samples-per-plugin=scalars=all", f"--port-file={port}", "--die-after-stdin"]
        server = subprocess.Popen([*command, *options], stdin=subprocess.PIPE)
        try:
            while not (port.exists() and port.read_text().endswith("\n")):
                time.sleep(0.001)
            limits = [("grpc.max_receive_message_length", -1)]
            address = f"localhost:{port.read_text().strip()}"
            with grpc.insecure_channel(address, limits) as channel:
                provider = GrpcDataProvider(address, data_provider_pb2_grpc.TensorBoardDataProviderStub(channel))
                told = 0
                while told < total:  # it answers while it still reads
                    read = provider.read_scalars(
                        context.RequestContext(), experiment_id="", plugin_name="scalars", downsample=10**9
                    )
                    told = sum(len(points) for tags in read.values() for points in tags.values())
            return told
        finally:
            server.kill()
            server.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=18)
    parser.add_argument("--epochs", type=int, default=1250)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    total = arguments.runs * arguments.epochs * len(TAGS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, arguments.runs, arguments.epochs)
        readers: dict[str, Callable[[], int]] = {
            "irmas": lambda: ours(folder),
            "EventAccumulator": lambda: event_accumulator(folder),
            "data server": lambda: data_server(folder, total),
        }
        taken: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(arguments.rounds):
            for reader, read in readers.items():
                started = time.perf_counter()
                assert read() == total, reader
                taken[reader].append(time.perf_counter() - started)
    print(f"{arguments.runs} runs, {total} scalars, {arguments.rounds} rounds; times ours, median (smallest - largest)")  # noqa: T201
    for reader, times in taken.items():
        ratios = [theirs / ours for theirs, ours in zip(times, taken["irmas"], strict=True)]
        spread = f"{statistics.median(ratios):5.1f} ({min(ratios):.1f} - {max(ratios):.1f})"
        print(f"  {reader:18} {spread}   {statistics.median(times):.2f} s")  # noqa: T201


if __name__ == "__main__":
    main()
