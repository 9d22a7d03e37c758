"""Successive halving beside the full grid: epochs spent, and what becomes of the full grid's leader.

    python benchmarks/halving.py                                    # replays the recorded curves
    python benchmarks/halving.py --record outputs/full-0 ...        # adds the curves of full grids to them
    python benchmarks/halving.py --real outputs/full-0 outputs/halved-0     # two sweeps that were trained

A replay lets the runs come to each rung in the order of their IDs, or in random ones, one after another. The verdicts
are irmas.sweep.halving's own. `leader` is the share of replays that train the full grid's leader, or a run of equal
accuracy, to the end, `or like it` of those that do so with any run that the full grid's ranking cannot tell from it;
`points lost` is by how much accuracy the best survivor is behind the leader.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from irmas.results import ranking
from irmas.run.events import VAL_ACCURACY
from irmas.sweep import plan as plans
from irmas.sweep.halving import goes_on, place, rungs

CURVES = Path(__file__).with_name("curves.csv")


@dataclass(frozen=True)
class Run:
    id: int
    in_set: bool
    """The full grid's ranking cannot tell it from the leader."""
    accuracies: tuple[float, ...]
    """Of validation, an epoch each."""


@dataclass(frozen=True)
class Outcome:
    spent: float
    """Share of the full grid's epochs."""
    leader: bool
    any_of_set: bool
    lost: float


def replay(order: Sequence[Run], factor: int) -> Outcome:
    epochs = len(order[0].accuracies)
    entered: dict[int, list[float]] = {epoch: [] for epoch in rungs(epochs, factor)}
    spent, survivors = 0, list[Run]()
    for run in order:
        for epoch, others in entered.items():
            accuracy = run.accuracies[epoch - 1]
            others.append(accuracy)
            if not goes_on(place(accuracy, others), len(others), factor):
                spent += epoch
                break
        else:
            spent += epochs
            survivors.append(run)
    return _outcome(order, survivors, spent / (epochs * len(order)))


def _outcome(runs: Sequence[Run], survivors: Sequence[Run], spent: float) -> Outcome:
    leader, survivor = (max(run.accuracies[-1] for run in some) for some in (runs, survivors))
    return Outcome(spent, survivor == leader, any(run.in_set for run in survivors), 100 * (leader - survivor))


def read_curves() -> dict[str, list[Run]]:
    grids: dict[str, list[Run]] = defaultdict(list)
    with CURVES.open() as file:
        for row in csv.DictReader(file):
            accuracies = tuple(float(text) for text in row["val_accuracy"].split())
            grids[row["sweep"]].append(Run(int(row["run"]), row["in_set"] == "True", accuracies))
    return grids


def full_grid(sweep: Path) -> list[Run]:
    """By run ID. `irmas.rank` must have ranked it."""
    if plans.read(sweep).config.halving is not None:
        raise SystemExit(f"{sweep}: was halved; a full grid is wanted")
    in_set = {entry["id"]: bool(entry["in_set"]) for entry in json.loads((sweep / "ranking.json").read_text())}
    rows = sorted(ranking.rank(sweep).rows, key=lambda row: row.id)
    return [Run(row.id, in_set[row.id], tuple(row.curves[VAL_ACCURACY].values())) for row in rows]


def record(sweeps: Iterable[Path]) -> None:
    grids = [(sweep, full_grid(sweep)) for sweep in sweeps]  # before anything is written
    is_new = not CURVES.exists()
    with CURVES.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(["sweep", "run", "in_set", "val_accuracy"])
        for sweep, runs in grids:
            for run in runs:
                writer.writerow([sweep.name, run.id, run.in_set, " ".join(f"{a:.4f}" for a in run.accuracies)])


def real(full: Path, halved: Path) -> Outcome:
    """Of two sweeps that were trained, with the same run IDs."""
    grid = {run.id: run for run in full_grid(full)}
    rows = ranking.rank(halved).rows
    survivors = [grid[row.id] for row in rows if row.is_finished]
    total = sum(len(run.accuracies) for run in grid.values())
    return _outcome(list(grid.values()), survivors, sum(max(row.curves[VAL_ACCURACY]) for row in rows) / total)


def line(what: str, outcomes: Sequence[Outcome]) -> str:
    def mean(values: Iterable[float]) -> float:
        return statistics.fmean(values)

    spent = [outcome.spent for outcome in outcomes]
    return (
        f"{what:44} {mean(spent):6.1%} ({min(spent):.1%} - {max(spent):.1%})   "
        f"{mean(o.leader for o in outcomes):6.1%}  {mean(o.any_of_set for o in outcomes):6.1%}   "
        f"{mean(o.lost for o in outcomes):5.2f} (at most {max(o.lost for o in outcomes):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factor", type=int, default=3)
    parser.add_argument("--orders", type=int, default=1000, help="random orders of the runs for each grid")
    parser.add_argument("--record", type=Path, nargs="+", default=[], metavar="SWEEP")
    parser.add_argument("--real", type=Path, nargs=2, action="append", default=[], metavar=("FULL", "HALVED"))
    arguments = parser.parse_args()
    record(arguments.record)
    print(f"{'':44} epochs spent               leader  or like it   points lost")  # noqa: T201
    outcomes = [real(*sweeps) for sweeps in arguments.real]
    for (_, halved), outcome in zip(arguments.real, outcomes, strict=True):
        print(line(f"{halved}", [outcome]))  # noqa: T201
    if outcomes:
        print(line("all of these", outcomes))  # noqa: T201
        return
    rng = random.Random(0)  # noqa: S311
    for sweep, runs in read_curves().items():
        print(line(f"{sweep}, as numbered", [replay(runs, arguments.factor)]))  # noqa: T201
        orders = [rng.sample(runs, len(runs)) for _ in range(arguments.orders)]
        print(line(f"{sweep}, random orders", [replay(order, arguments.factor) for order in orders]))  # noqa: T201


if __name__ == "__main__":
    main()
