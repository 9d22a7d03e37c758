"""Asynchronous successive halving in its stopping form (ASHA; Li et al., MLSys 2020): at each rung, a number of epochs,
a run goes on only if it is among the best of those that came there so far.

A run enters a rung as an empty file, `outputs/<name>/rungs/<epochs>/<run ID>-<accuracy>`, and then lists the folder:
no server, no lock, no waiting, and one look however many runs there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from irmas.sweep.plan import Plan

WARNING = "warning: halving=3 kept the leader of IRMAS's full grid in only 40 % of orders (docs/halving.md)"
"""Measured by benchmarks/halving.py, over random orders of the recorded grids."""
FOLDER = "rungs"
ENTRY = re.compile(r"(\d+)-(\d\.?\d*(?:e-\d+)?)")
"""The name of a file in it: run and accuracy. Other files, such as those that NFS leaves behind, count for nothing."""


def rungs(epochs: int, factor: int) -> list[int]:
    """Epochs at which runs are compared, ascending: `epochs` over factor, factor², ..., down to 1, rounded up."""
    powers = [factor**k for k in range(1, epochs.bit_length())]
    return sorted({math.ceil(epochs / power) for power in powers if power <= epochs})


def place(accuracy: float, others: Iterable[float]) -> int:
    """From 1; those that are equal share the better place."""
    return 1 + sum(other > accuracy for other in others)


def goes_on(number: int, entered: int, factor: int) -> bool:
    """Whether it is among the best 1 / factor of those that have entered, rounded up: the first one always is."""
    return number <= math.ceil(entered / factor)


def announced(plan: Plan) -> list[str]:
    """What a command says of it beforehand, a line for each number of epochs."""
    factor = plan.config.halving
    if factor is None:
        return []
    lines = []
    halved = [point for point in plan.points if point.changes.get("halving", factor)]
    for epochs in sorted({plan.value(point, "epochs") for point in halved}):
        at = " and ".join(map(str, rungs(epochs, factor)))
        lines.append(
            f"halving={factor}: after {at} of {epochs} epochs a run stops, unless among the best 1 in {factor} so far"
        )
    return [*lines, WARNING] if lines else []


@dataclass(frozen=True)
class Halving:
    """As one run meets it."""

    sweep: Path
    run: int
    factor: int
    epochs: int

    def verdict(self, epoch: int, accuracy: float) -> str:
        """Why the run stops after this epoch; empty where it goes on. A run that comes again is judged anew."""
        if epoch not in rungs(self.epochs, self.factor):
            return ""
        rung = self.sweep / FOLDER / str(epoch)
        rung.mkdir(parents=True, exist_ok=True)
        (rung / f"{self.run}-{accuracy!r}").touch()
        # By run: on a GPU, an epoch that is trained again after a crash may enter another accuracy.
        entries = filter(None, (ENTRY.fullmatch(path.name) for path in rung.iterdir()))
        found = {int(entry[1]): float(entry[2]) for entry in entries} | {self.run: accuracy}
        number, entered = place(accuracy, found.values()), len(found)
        if goes_on(number, entered, self.factor):
            return ""
        best = math.ceil(entered / self.factor)
        return f"number {number} of {entered} at epoch {epoch}, where the best {best} go on"
