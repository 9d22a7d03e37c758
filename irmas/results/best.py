"""The winner of a sweep as a file of settings, best.yaml, which the train door takes: `best=outputs/<name>`."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import yaml

from irmas.config import OF_THE_COMMAND, Config, flatten, shown
from irmas.sweep.jobs import named_runs
from irmas.sweep.plan import OUTPUTS

if TYPE_CHECKING:
    from irmas.results.ranking import Ranking
    from irmas.results.statistics import Analysis

BEST = "best.yaml"
PRODUCTION_EPOCHS = 50
"""Of the run that follows the sweep, as in the report."""
SETTINGS = sorted(flatten(asdict(Config())).keys() - OF_THE_COMMAND)
"""What a best.yaml holds, each of them."""
_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")


def config(ranking: Ranking, analysis: Analysis) -> Config:
    """Of the leader's run; of several seeds, the one with the lowest ID: the luckiest would be chosen for its luck."""
    leader = analysis.points[0].runs[0]
    return ranking.plan.config_of(next(point for point in ranking.plan.points if point.id == leader))


def text(ranking: Ranking, analysis: Analysis) -> str:
    """The content of best.yaml: the leader's settings under a comment that says where they come from."""
    leader, winner = analysis.points[0], config(ranking, analysis)
    accuracy = f"{100 * leader.accuracy:.2f} %"
    if leader.interval:
        accuracy += f" (95 % interval {100 * leader.interval.low:.2f} to {100 * leader.interval.high:.2f} %)"
    if winner.data.split == "all":
        accuracy += ", which tells nothing: these excerpts were trained on too,"
    values = " ".join(f"{key}={shown(value)}" for key, value in leader.values.items())
    runs = named_runs(leader.runs)
    if len(leader.runs) > 1:
        runs += f", which differ in their seed (below: seed {winner.seed}, of run {leader.runs[0]})"
    head = [
        f"The winner of the sweep {ranking.plan.name}: {runs}" + (f", {values}" if values else ""),
        f"Validation accuracy {accuracy} after {winner.epochs} epoch{'s' if winner.epochs > 1 else ''}",
        f"Production run: {production_command(ranking, analysis)}",
    ]
    settings: dict[str, Any] = {key: value for key, value in asdict(winner).items() if key not in OF_THE_COMMAND}
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def production_command(ranking: Ranking, analysis: Analysis) -> str:
    """Trains the winner for longer, from the folder in which the sweep was started."""
    name = ranking.plan.name
    numbered = re.fullmatch(r"(.+)-production(?:-(\d{1,4}))?", name)
    follows = f"{numbered[1][:84]}-production-{int(numbered[2] or 1) + 1}" if numbered else f"{name[:89]}-production"
    epochs = max(PRODUCTION_EPOCHS, config(ranking, analysis).epochs)
    given = {"best": f"{OUTPUTS}/{name}", "epochs": str(epochs), "name": follows}
    return " ".join(["python -m irmas.train", *(_override(key, value) for key, value in given.items())])


def _override(key: str, value: str) -> str:
    """As it is written in a shell: Hydra reads quotes where there is more than letters, digits and . _ / -"""
    return f"{key}={value}" if _PLAIN.fullmatch(value) else shlex.quote(f'{key}="{value}"')
