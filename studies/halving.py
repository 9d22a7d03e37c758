"""Successive halving beside the full grid: epochs spent, and what becomes of the full grid's leader.

    python studies/halving.py                                    # replays the recorded curves
    python studies/halving.py --record outputs/full ...          # records the curves of full grids in their place
    python studies/halving.py --real outputs/full outputs/halved # two sweeps that were trained

The seeds of a sweep are replayed as grids of their own. A replay lets the runs come to each rung in the order of their
IDs, or in random ones, one after another. The decisions are irmas.sweep.pruning's own, by the ranked accuracy: the mean
over the last epochs. `leader` is the share of replays that train the full grid's leader, or a run of equal accuracy, to
the end; `points lost` is by how much accuracy the best survivor is behind the leader.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from irmas.config import anneals, averaged_epochs, shown
from irmas.results import ranking
from irmas.sweep.pruning import rank, rungs, survives
from irmas.sweep.sweep import Sweep

CURVES = Path(__file__).with_name("curves.csv")
COLUMNS = ("sweep", "run", "settings", "val_accuracy")
ALL_NUMBERED, ALL_SHUFFLED = "all, as numbered", "all, random orders"
SCHEDULE = "constant"
"""Of all recorded curves; `plateau` averages over as many epochs."""


@dataclass(frozen=True)
class Run:
    id: int
    settings: str
    """Swept keys and their values but for the seed, as on the command line."""
    curve: tuple[float, ...]
    """Validation accuracy of each epoch."""

    def accuracy(self, epoch: int) -> float:
        """Return the accuracy by which the run is ranked or judged after this epoch."""
        return statistics.fmean(self.curve[epoch - averaged_epochs(SCHEDULE, epoch) : epoch])

    @property
    def final(self) -> float:
        return self.accuracy(len(self.curve))


@dataclass(frozen=True)
class Outcome:
    spent: float
    """Share of the full grid's epochs."""
    leader: bool
    lost: float


def replay(order: Sequence[Run], factor: int) -> Outcome:
    epochs = len(order[0].curve)
    entered: dict[int, list[float]] = {epoch: [] for epoch in rungs(epochs, factor)}
    spent, survivors = 0, list[Run]()
    for run in order:
        for epoch, others in entered.items():
            accuracy = run.accuracy(epoch)
            others.append(accuracy)
            if not survives(rank(accuracy, others), len(others), factor):
                spent += epoch
                break
        else:
            spent += epochs
            survivors.append(run)
    return _outcome(order, survivors, spent / (epochs * len(order)))


def _outcome(runs: Sequence[Run], survivors: Sequence[Run], spent: float) -> Outcome:
    leader, survivor = (max(run.final for run in some) for some in (runs, survivors))
    return Outcome(spent, survivor == leader, 100 * (leader - survivor))


def read_curves(path: Path) -> dict[str, list[Run]]:
    """Return recorded grids by name, each of one seed."""
    grids: dict[str, list[Run]] = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            curve = tuple(float(text) for text in row["val_accuracy"].split())
            grids[row["sweep"]].append(Run(int(row["run"]), row["settings"], curve))
    return grids


def full_grids(sweep: Path) -> dict[str, list[Run]]:
    """Return the grids of a sweep, one for each of its seeds, by `<sweep>-<seed>`; runs by ID.

    Raises SystemExit for a sweep that was halved, is unfinished, old, or has another schedule.
    """
    result = ranking.rank(Sweep.open(sweep))
    plan = result.plan
    if plan.config.halving is not None:
        raise SystemExit(f"{sweep}: was halved; a full grid is required")
    if "schedule" in plan.swept or anneals(plan.config.schedule):
        raise SystemExit(f"{sweep}: schedule={plan.config.schedule}: must be {SCHEDULE}")
    grids: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(result.runs, key=lambda run: run.id):
        if not run.is_finished or run.is_old:
            raise SystemExit(f"{sweep}: run {run.id} is {'old' if run.is_old else run.state}; a full grid is required")
        settings = " ".join(f"{key}={shown(value)}" for key, value in run.values.items() if key != "seed")
        grids[f"{sweep.name}-{run.values.get('seed', plan.config.seed)}"].append(Run(run.id, settings, run.curve))
    return grids


def record(sweeps: Iterable[Path], path: Path) -> None:
    """Write the curves of these full grids in the place of those that the file holds."""
    grids = [grid for sweep in sweeps for grid in full_grids(sweep).items()]  # before anything is written
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, runs in grids:
            writer.writerows([name, run.id, run.settings, " ".join(f"{a:.4f}" for a in run.curve)] for run in runs)


def real(full: Path, halved: Path) -> Outcome:
    """Return the outcome of two sweeps that were trained, with the same run IDs."""
    grid = {run.id: run for runs in full_grids(full).values() for run in runs}
    runs = ranking.rank(Sweep.open(halved)).runs
    survivors = [grid[run.id] for run in runs if run.is_finished]
    total = sum(len(run.curve) for run in grid.values())
    return _outcome(list(grid.values()), survivors, sum(run.epoch for run in runs) / total)


def line(name: str, outcomes: Sequence[Outcome]) -> str:
    def mean(values: Iterable[float]) -> float:
        return statistics.fmean(values)

    spent = [outcome.spent for outcome in outcomes]
    return (
        f"{name:44} {mean(spent):6.1%} ({min(spent):.1%} - {max(spent):.1%})   "
        f"{mean(o.leader for o in outcomes):6.1%}   "
        f"{mean(o.lost for o in outcomes):5.2f} (at most {max(o.lost for o in outcomes):.2f})"
    )


def replays(factor: int, orders: int) -> dict[str, list[Outcome]]:
    """Return the outcomes of each recorded grid as numbered and in random orders, and those of all of them."""
    rng = random.Random(0)  # noqa: S311
    numbered, shuffled = {}, {}
    for sweep, runs in read_curves(CURVES).items():
        numbered[f"{sweep}, as numbered"] = [replay(runs, factor)]
        shuffled[f"{sweep}, random orders"] = [replay(rng.sample(runs, len(runs)), factor) for _ in range(orders)]
    return {
        **numbered,
        ALL_NUMBERED: [*chain.from_iterable(numbered.values())],
        **shuffled,
        ALL_SHUFFLED: [*chain.from_iterable(shuffled.values())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factor", type=int, default=3)
    parser.add_argument("--orders", type=int, default=1000, help="random orders of the runs for each grid")
    parser.add_argument("--record", type=Path, nargs="+", default=[], metavar="SWEEP")
    parser.add_argument("--real", type=Path, nargs=2, action="append", default=[], metavar=("FULL", "HALVED"))
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record, CURVES)
    print(f"{'':44} epochs spent               leader   points lost")  # noqa: T201
    outcomes = [real(*sweeps) for sweeps in arguments.real]
    for (_, halved), outcome in zip(arguments.real, outcomes, strict=True):
        print(line(f"{halved}", [outcome]))  # noqa: T201
    if outcomes:
        print(line("all of these", outcomes))  # noqa: T201
        return
    for name, outcomes in replays(arguments.factor, arguments.orders).items():
        print(line(name, outcomes))  # noqa: T201


if __name__ == "__main__":
    main()
