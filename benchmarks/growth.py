"""How time and memory grow: planning, status and ranking with the points; training with excerpts and bins.

    python benchmarks/growth.py [--points 18 180 1800 18000] [--excerpts 330 660 1320] [--rounds 1]

Everything is a process of its own, whose peak memory the kernel tells. `order` is the exponent between the last two
sizes: 1 is linear, and what is above 1.15 is marked.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from made import AXES, axes, finished, planned
from rounds import BENCHMARKS, ENVIRONMENT, ROOT, Row, parser, show

STEEP = 1.15
GEOMETRIES = ((64, 64), (128, 94), (224, 224))


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_mb: float


def cost(command: Sequence[str | Path], cwd: Path) -> Cost:
    """Of a process and its children: the largest one's memory."""
    # Without Slurm's commands, whose answer is not ours to hasten.
    environment = ENVIRONMENT | {"PATH": f"{Path(sys.executable).parent}:/nowhere"}
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, code, usage = os.wait4(process.pid, 0)
        taken = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(code)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{command} ended with {process.returncode}\n{output.read().decode()[-2000:]}")
    return Cost(taken, usage.ru_maxrss / 1024)


def plan(points: int) -> None:
    """In a process of its own: compose, check, number and write so many points, as a launcher does."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from irmas.cli.compose import Composer
    from irmas.config import Config
    from irmas.sweep.plan import freeze
    from irmas.sweep.sweep import Sweep

    ConfigStore.instance().store(name="schema", node=Config)
    fixed = ["data=standin", f"data.root={Path.cwd()}", "name=grid"]
    overrides = [
        [f"{key}={value}" for key, value in zip(axes(points), values, strict=True)]
        for values in itertools.product(*axes(points).values())
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        master = compose("train", fixed, return_hydra_config=True)
        by_key = {o.key_or_group: o for o in OverridesParser.create().parse_overrides(fixed)}
        composer = Composer(GlobalHydra.instance().config_loader(), master, by_key)
        Sweep.of(freeze(composer.base, composer.runs(overrides), "grid")).write()


def by_points(sizes: Sequence[int], rounds: int) -> list[Row]:
    costs: dict[str, dict[int, list[Cost]]] = {}
    python = sys.executable
    for points in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            # In a process of its own: what this one holds would count for those that it starts.
            maker = get_context("spawn").Process(target=finished, args=(folder, points))
            maker.start()
            maker.join()
            sweep = "outputs/made"
            commands: dict[str, list[str | Path]] = {
                "planning": [python, BENCHMARKS / "growth.py", "--plan", str(points)],
                "status": [python, "-m", "irmas.status", sweep],
                "rank --table": [python, "-m", "irmas.rank", sweep, "--table"],
                "rank, full": [python, "-m", "irmas.rank", sweep],
            }
            for (what, command), _ in itertools.product(commands.items(), range(rounds)):
                shutil.rmtree(folder / "outputs" / "grid", ignore_errors=True)
                costs.setdefault(what, {}).setdefault(points, []).append(cost(command, folder))
                sys.stderr.write(f"  {what}, {points} points: {costs[what][points][-1]}\n")
    return [row for what, found in costs.items() for row in grown(what, "points", found)]


def training(geometry: tuple[int, int], excerpts: int, rounds: int) -> list[Cost]:
    """An epoch as `irmas.sweep.train_run` trains it, batches of 32; what it costs with its imports."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        sweep = planned(Path(name), excerpts=excerpts, bands=geometry[0], frames=geometry[1], epochs=1)
        for _ in range(rounds):
            shutil.rmtree(sweep / "runs", ignore_errors=True)
            found.append(cost([sys.executable, "-m", "irmas.sweep.train_run", sweep, "1"], Path(name)))
            sys.stderr.write(f"  training, {geometry}, {excerpts} excerpts: {found[-1]}\n")
    return found


def by_training(excerpts: Sequence[int], rounds: int) -> list[Row]:
    by_size = {count: training(GEOMETRIES[0], count, rounds) for count in excerpts}
    rows = grown("a run of one epoch, 64 x 64", "excerpts", by_size)
    by_bins = {bands * frames: training((bands, frames), excerpts[0], rounds) for bands, frames in GEOMETRIES}
    return rows + grown(f"a run of one epoch, {excerpts[0]} excerpts", "bins", by_bins)


def grown(what: str, unit: str, found: dict[int, list[Cost]]) -> list[Row]:
    """A row a size, and the order between the last two."""
    rows = []
    for size, costs in found.items():
        memory = f"peak memory {max(each.peak_mb for each in costs):.0f} MB"
        rows.append(Row(f"{what}, {size} {unit}", "s", [each.seconds for each in costs], "", memory))
    readings: tuple[tuple[str, Callable[[Cost], float]], ...] = (
        ("time", lambda one: one.seconds),
        ("memory", lambda one: one.peak_mb),
    )
    (less, few), (more, many) = list(found.items())[-2:] if len(found) > 1 else [*found.items(), *found.items()]
    for reading, read in readings if more > less else ():
        pairs = zip(few, many, strict=True)
        orders = [math.log(read(large) / read(small)) / math.log(more / less) for small, large in pairs]
        rows.append(Row(f"{what}, {reading}, {less} to {more} {unit}", "order", orders, f"<= {STEEP}"))
    return rows


def main() -> None:
    options = parser(__doc__, rounds=1)
    options.add_argument("--points", type=int, nargs="*", default=list(AXES), choices=list(AXES))
    options.add_argument("--excerpts", type=int, nargs="*", default=[330, 660, 1320])
    options.add_argument("--plan", type=int, help="plan so many points here, and end")
    given = options.parse_args()
    if given.plan is not None:
        plan(given.plan)
        return
    rows = by_points(given.points, given.rounds) if given.points else []
    rows += by_training(given.excerpts, given.rounds) if given.excerpts else []
    show(rows, given.record)


if __name__ == "__main__":
    main()
