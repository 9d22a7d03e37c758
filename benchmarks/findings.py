"""The report's grid on IRMAS, two seeds, from the recorded curves: what the tuning report says of them.

    python benchmarks/findings.py

5,373 of IRMAS's 6,705 training excerpts as log-mels of 64 x 47 bins, 1,075 of them validate, recordings kept apart, 15
epochs. The curves hold accuracies alone: no losses, and no predictions that runs could be paired by.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product

from halving import read_curves
from irmas.results.statistics import Outcome, analyse

from irmas.config import Config, Data, Features, flatten
from irmas.results import report
from irmas.results.points import by_accuracy
from irmas.results.ranking import Ranking, Row
from irmas.run.events import VAL_ACCURACY
from irmas.run.folder import COMPLETED
from irmas.sweep.plan import Plan, Point
from irmas.sweep.states import SweepState

EXCERPTS = 1075
GRID = [*product((0.3, 0.4, 0.5), (0.001, 0.0005, 0.0001), (0.001, 0.0001))]
KEYS = ["dropout", "lr", "l2", "seed"]


def main() -> None:
    features = Features(sample_rate=16000, hop_length=512, n_mels=128, resampling=None)
    config = Config(data=Data(cache="irmas_logmel", pool=2), features=features)
    flat = flatten(asdict(config))
    rows, points = list[Row](), list[Point]()
    for sweep, runs in read_curves().items():
        name, _, seed = sweep.rpartition("-")
        for run in runs if name == "irmas" else []:
            values = dict(zip(KEYS, (*GRID[run.id - 1], int(seed)), strict=True))
            curve = dict(enumerate(run.accuracies, start=1))
            row = Row(len(rows) + 1, values, COMPLETED, 15, curve[15], None, EXCERPTS, "", "", {VAL_ACCURACY: curve})
            rows.append(row)
            points.append(Point(row.id, values, {key: value for key, value in values.items() if flat[key] != value}))
    ranked = [replace(row, rank=rank) for rank, (_, runs) in enumerate(by_accuracy(rows), start=1) for row in runs]
    ranking = Ranking(Plan("irmas", KEYS, "", "", "", config, points), ranked, [], SweepState([], []))
    outcomes = [Outcome(row.id, row.values, row.accuracy or 0.0) for row in rows]
    print(report.markdown(ranking, analyse(outcomes, KEYS), None, []))  # noqa: T201


if __name__ == "__main__":
    main()
