"""Asynchronous successive halving in its stopping form (ASHA; Li et al., MLSys 2020): at each rung, a number of epochs,
a run continues only if it is among the best of those that have come there so far.

A run enters a rung as an empty file, `outputs/<name>/rungs/<epochs>/<run ID>-<accuracy>`, and then lists the folder:
no server, no lock, no waiting, and one listing however many runs there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from irmas.sweep.plan import Plan
from irmas.sweep.sweep import Sweep

WARNING = "warning: halving=3 kept the leader of IRMAS's full grid in only 40 % of orders (docs/halving.md)"
"""Measured by studies/halving.py, over random orders of the recorded grids."""
ENTRY = re.compile(r"(\d+)-(\d\.?\d*(?:e-\d+)?)")
"""The name of an entry: run and accuracy. Other files, such as those that NFS leaves behind, do not count."""


def rungs(epochs: int, factor: int) -> list[int]:
    """Return the epochs at which runs are compared, ascending: `epochs` / factor^k for k from 1, rounded up."""
    powers = [factor**k for k in range(1, epochs.bit_length())]
    return sorted({math.ceil(epochs / power) for power in powers if power <= epochs})


def rank(accuracy: float, others: Iterable[float]) -> int:
    """Return the rank of an accuracy among others, from 1; equal ones share the better rank."""
    return 1 + sum(other > accuracy for other in others)


def survives(rank: int, entered: int, factor: int) -> bool:
    """Return whether a rank is among the best 1 / factor of those that entered, rounded up: the first always is."""
    return rank <= math.ceil(entered / factor)


def describe(plan: Plan) -> list[str]:
    """Return what the halving of a plan will do, one line for each number of epochs."""
    factor = plan.config.halving
    if factor is None:
        return []
    lines = []
    halved = [run for run in plan.runs if run.changes.get("halving", factor)]
    for epochs in sorted({plan.config_of(run).epochs for run in halved}):
        at = " and ".join(map(str, rungs(epochs, factor)))
        rule = f"a run stops, unless among the best 1 in {factor} so far"
        lines.append(f"halving={factor}: after {at} of {epochs} epochs {rule}")
    return [*lines, WARNING] if lines else []


@dataclass(frozen=True)
class Halving:
    """Successive halving as one run meets it."""

    sweep: Sweep
    run: int
    factor: int
    epochs: int

    def reason_to_stop(self, epoch: int, accuracy: float) -> str:
        """Enter the rung of this epoch, if it has one; return why the run ends there, or an empty string.

        A run that enters a rung again, after a restart, is compared again.
        """
        if epoch not in rungs(self.epochs, self.factor):
            return ""
        rung = self.sweep.rungs / str(epoch)
        rung.mkdir(parents=True, exist_ok=True)
        (rung / f"{self.run}-{accuracy!r}").touch()
        entries = filter(None, (ENTRY.fullmatch(path.name) for path in rung.iterdir()))
        # By run: on a GPU, an epoch that is trained again after a crash may enter another accuracy.
        accuracies = {int(entry[1]): float(entry[2]) for entry in entries} | {self.run: accuracy}
        own, entered = rank(accuracy, accuracies.values()), len(accuracies)
        if survives(own, entered, self.factor):
            return ""
        best = math.ceil(entered / self.factor)
        return f"rank {own} of {entered} at epoch {epoch}, where the best {best} continue"
