"""Reading a sweep's scalars: ours beside TensorBoard's EventAccumulator and data server (Rust, over gRPC), and tbparse.

    python benchmarks/reading.py [--runs 18] [--epochs 1250] [--rounds 5]

Without --runs and --epochs: 18 runs of 1,250 epochs, and 2,000 runs of 31.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from made import TAGS
from rounds import BENCHMARKS, Peer, Row, in_turn, medians, parser, ratios, show, timed
from tensorboard import context
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.data import server_ingester
from tensorboard.data.grpc_provider import GrpcDataProvider
from tensorboard.data.proto import data_provider_pb2_grpc

from irmas.run.events import EventWriter, read_all

GOALS = {"EventAccumulator": ">= 10", "tbparse": ">= 10", "data server": ">= 1.5"}


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
    """Return the number of scalars that a new server returns, once it has read all of them."""
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
                count = 0
                while count < total:  # it answers while it still reads
                    read = provider.read_scalars(
                        context.RequestContext(), experiment_id="", plugin_name="scalars", downsample=10**9
                    )
                    count = sum(len(points) for tags in read.values() for points in tags.values())
            return count
        finally:
            server.kill()
            server.communicate()


def measure(runs: int, epochs: int, rounds: int) -> list[Row]:
    total = runs * epochs * len(TAGS)

    def check(count: int) -> None:
        assert count == total, count

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, runs, epochs)
        with Peer(BENCHMARKS / "tbparse_reader.py", folder, str(total)) as tbparse:
            sides: dict[str, Callable[[], float]] = {
                "ours": timed(lambda: check(ours(folder))),
                "EventAccumulator": timed(lambda: check(event_accumulator(folder))),
                "tbparse": tbparse,
                "data server": timed(lambda: check(data_server(folder, total))),
            }
            taken = in_turn(sides, rounds)
    rows = []
    for reader, goal in GOALS.items():
        times = {side: taken[side] for side in ("ours", reader)}
        values = ratios(taken[reader], taken["ours"])
        rows.append(Row(f"reading {runs} runs, {total} scalars", f"{reader} / ours", values, goal, medians(times)))
    return rows


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--runs", type=int)
    options.add_argument("--epochs", type=int, default=1250)
    given = options.parse_args()
    sizes = [(18, 1250), (2000, 31)] if given.runs is None else [(given.runs, given.epochs)]
    show([row for runs, epochs in sizes for row in measure(runs, epochs, given.rounds)], given.record)


if __name__ == "__main__":
    main()
