"""What a sweep leads to: its leader as a file of settings (best.yaml), and the command that helps most."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import yaml

from irmas.config import OF_THE_COMMAND, Config, flatten, shown
from irmas.results.grid_command import grid_command, override
from irmas.sweep.jobs import named_runs
from irmas.sweep.plan import OUTPUTS

if TYPE_CHECKING:
    from irmas.results.analysis import Analysis
    from irmas.results.ranking import Ranking

BEST = "best.yaml"
PRODUCTION_EPOCHS = 50
"""Of the run that follows the sweep, as in the report."""
LONGER = 3
"""Times as many epochs, where runs are still improving."""
SETTINGS = sorted(flatten(asdict(Config())).keys() - OF_THE_COMMAND)
"""What a best.yaml holds, each of them."""


@dataclass(frozen=True)
class NextStep:
    """The command that helps most after a ranking."""

    command: str
    reason: str
    """A sentence without its period."""


def config(ranking: Ranking, analysis: Analysis) -> Config:
    """Return the settings of the leader's run with the lowest ID: its best run would be chosen for its luck."""
    leader = analysis.points[0].runs[0]
    return ranking.plan.config_of(next(point for point in ranking.plan.points if point.id == leader))


def text(ranking: Ranking, analysis: Analysis) -> str:
    """Return the content of best.yaml: the leader's settings under a comment that says how good they are."""
    leader, settings = analysis.points[0], config(ranking, analysis)
    values = " ".join(f"{key}={shown(value)}" for key, value in leader.values.items())
    runs = named_runs(leader.runs)
    if len(leader.runs) > 1:
        runs += f", which differ in their seed (below: seed {settings.seed}, of run {leader.runs[0]})"
    head = [
        f"The leader of the sweep {ranking.plan.name}: {runs}" + (f", {values}" if values else ""),
        _how_good(analysis, settings),
        *([_as_good(analysis)] if len(analysis.points) > 1 else []),
        f"Production run: {production_command(ranking, analysis)}",
    ]
    named = {key: value for key, value in asdict(settings).items() if key not in OF_THE_COMMAND}
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump(named, sort_keys=False, allow_unicode=True)


def _how_good(analysis: Analysis, settings: Config) -> str:
    observed = f"{100 * analysis.points[0].accuracy:.2f} % after {settings.epochs} epoch{'s' * (settings.epochs > 1)}"
    if settings.data.split == "all":
        return f"val_accuracy {observed}, which tells nothing: the validation excerpts were trained on too"
    if not (honest := analysis.leader):
        return f"val_accuracy {observed}"
    interval = f"95 % interval {100 * honest.low:.2f} to {100 * honest.high:.2f} %"
    return f"val_accuracy {100 * honest.value:.2f} % expected when trained again ({interval}); observed: {observed}"


def _as_good(analysis: Analysis) -> str:
    total, size = len(analysis.points), len(analysis.best_set)
    if size == 1:
        return "It is better than every other point" if analysis.is_decided else "The others cannot be compared with it"
    return f"{size} of {total} points may be the best; this is the first of them"


def next_step(ranking: Ranking, analysis: Analysis) -> NextStep:
    """Return the command that helps most after this ranking, and why."""
    total, size = len(analysis.points), len(analysis.best_set)
    leader = named_runs(analysis.points[0].runs)
    has_one_seed = all(len(point.runs) == 1 for point in analysis.points)
    production = production_command(ranking, analysis)
    if total == 1:
        return NextStep(production, "one point has finished, so that there is nothing to compare it with")
    if analysis.still_rising:
        gain = f" by {100 * analysis.rise.value:.1f} percentage points per epoch" if analysis.rise else ""
        return NextStep(_longer(ranking, analysis), f"accuracy still rises{gain}, and more epochs come first")
    if analysis.noise is None and has_one_seed and (command := _second_seed(ranking)):
        return NextStep(command, "with one seed nothing tells how much trainings of a point differ; a second one does")
    if size > 1:
        reason = f"{size} of {total} points may be the best; fresh seeds of the first of them tell more"
        return NextStep(f"python -m irmas.refine {OUTPUTS}/{ranking.plan.name}", reason)
    if analysis.is_decided:
        return NextStep(production, f"{leader} is better than every other point")
    return NextStep(production, f"the other points cannot be compared with {leader}")


def _longer(ranking: Ranking, analysis: Analysis) -> str:
    """Return the command that trains the same points, or else the leader alone, for more epochs."""
    plan = ranking.plan
    planned = list(dict.fromkeys(plan.value(point, "epochs") for point in plan.points))
    epochs = [LONGER * value for value in planned]
    stem = plan.name.removesuffix(f"-{max(planned)}")
    name = f"{stem[: 99 - len(str(max(epochs)))]}-{max(epochs)}"
    given = {"best": f"{OUTPUTS}/{plan.name}", "epochs": max(epochs), "name": name}
    leader = " ".join(["python -m irmas.train", *(override(key, value) for key, value in given.items())])
    return grid_command(plan, name, {"epochs": epochs}) or leader


def _second_seed(ranking: Ranking) -> str | None:
    """Return the command that grows the sweep by a second seed; None where its points are no grid."""
    seeds = {ranking.plan.value(point, "seed") for point in ranking.plan.points}
    if len(seeds) > 1:
        return None
    (seed,) = seeds
    return grid_command(ranking.plan, ranking.plan.name, {"seed": [seed, seed + 1]})


def production_command(ranking: Ranking, analysis: Analysis) -> str:
    """Return the command that trains the leader for longer, from the folder in which the sweep was started."""
    name = ranking.plan.name
    numbered = re.fullmatch(r"(.+)-production(?:-(\d{1,4}))?", name)
    follows = f"{numbered[1][:84]}-production-{int(numbered[2] or 1) + 1}" if numbered else f"{name[:89]}-production"
    epochs = max(PRODUCTION_EPOCHS, config(ranking, analysis).epochs)
    given = {"best": f"{OUTPUTS}/{name}", "epochs": epochs, "name": follows}
    return " ".join(["python -m irmas.train", *(override(key, value) for key, value in given.items())])
