"""From points to a frozen plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from irmas import provenance
from irmas.config import Config, Data, flatten, from_flat
from irmas.data import dataset
from irmas.sweep.plan import Plan, Point, default_name


def freeze(base: Config, points: Sequence[Point], name: str | None) -> Plan:
    """Raises DataError where the data that a point needs is absent and cannot be rendered."""
    swept = list(dict.fromkeys(key for point in points for key in point.overrides))
    plan = Plan(
        name=name or base.name or "",
        swept=swept,
        data=_data_digest(base, points),
        source=provenance.source_digest(),
        commit=provenance.git_commit(),
        config=base,
        points=list(points),
    )
    return replace(plan, name=plan.name or default_name(plan))


def _data_digest(base: Config, points: Sequence[Point]) -> str:
    """Of every data set that the points use, in their order."""
    flat = flatten(asdict(base))
    changes = [{key: value for key, value in point.changes.items() if key.startswith("data.")} for point in points]
    distinct: list[Data] = []
    for change in changes:
        if not distinct or change:
            data = from_flat(flat | change).data
            if data not in distinct:
                distinct.append(data)
    return "-".join(dict.fromkeys(dataset.digest(data) for data in distinct))
