"""What each part of a recipe is worth: the tables of docs/recipe.md, from recorded curves.

    python studies/recipe.py

A run counts with its ranked accuracy, in percent: the mean over its last epochs or, with one cycle, the last one.
Intervals are Student's, over runs that differ in seed or fold; a difference is paired: the same seed and fold.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import t

from irmas.config import averaged_epochs

CURVES = Path(__file__).with_name("recipe.csv")
CONSTANT = ("report", "two convolutions")
"""Recipes with a constant learning rate; the others have one cycle."""
BESIDE = {
    "report": "report",
    "Adam": "one cycle, lr 0.002, two convolutions",
    "Muon": "Muon, smoothing 0.1, rolled frames",
}
"""Recipes that others are compared with, by their short names."""
Setting = tuple[str, str, str, str]
"""Bins, split, epochs, and `search` (fold 0) or `fresh folds`."""


def read() -> dict[Setting, dict[str, dict[tuple[str, str], float]]]:
    """Accuracy by setting, recipe, and (fold, seed)."""
    found: dict[Setting, dict[str, dict[tuple[str, str], float]]] = defaultdict(lambda: defaultdict(dict))
    with CURVES.open() as file:
        for row in csv.DictReader(file):
            folds = "search" if row["fold"] == "0" else "fresh folds"
            curve = [100 * float(text) for text in row["val_accuracy"].split()]
            schedule = "constant" if row["recipe"] in CONSTANT else "onecycle"
            setting = (row["bins"], row["split"], row["epochs"], folds)
            found[setting][row["recipe"]][row["fold"], row["seed"]] = statistics.fmean(
                curve[-averaged_epochs(schedule, len(curve)) :]
            )
    return found


def interval(values: Sequence[float], sign: str = "") -> str:
    mean = f"{statistics.fmean(values):{sign}.1f}"
    if len(values) < 2:
        return mean
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {half:.1f}"


def beside(values: dict[tuple[str, str], float], base: dict[tuple[str, str], float]) -> str:
    shared = sorted(values.keys() & base.keys())
    return interval([values[key] - base[key] for key in shared], "+") if shared and values is not base else ""


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for (bins, split, epochs, folds), recipes in read().items():
        print(f"\n{bins}, by {split}, {epochs} epochs, {folds}\n")  # noqa: T201
        bases = {name: recipes[base] for name, base in BESIDE.items() if base in recipes}
        print("| recipe | runs | accuracy, % |", *(f"beside {name} |" for name in bases))  # noqa: T201
        print("| --- | ---: | ---: |" + " ---: |" * len(bases))  # noqa: T201
        for recipe, values in recipes.items():
            sides = [beside(values, base) for base in bases.values()]
            print(f"| {recipe} | {len(values)} | {interval(list(values.values()))} | {' | '.join(sides)} |")  # noqa: T201


if __name__ == "__main__":
    main()
