"""From points to a frozen plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from irmas import provenance
from irmas.config import Config
from irmas.data import dataset
from irmas.sweep.plan import Plan, Point, default_name


def freeze(base: Config, points: Sequence[Point], name: str | None, command: Sequence[str] = ()) -> Plan:
    """Raises DataError where the data that a point needs is absent and cannot be rendered."""
    swept = list(dict.fromkeys(key for point in points for key in point.overrides))
    source, commit = provenance.source_digest(), provenance.git_commit()
    plan = Plan(base.name or "", swept, "", source, commit, base, list(points), list(command))
    data = "-".join(dict.fromkeys(dataset.digest(config.data) for config in plan.variants("data")))
    plan = replace(plan, data=data, name=name or plan.name)
    return replace(plan, name=plan.name or default_name(plan))
