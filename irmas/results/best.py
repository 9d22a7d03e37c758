"""The leader of a sweep as a file of settings (best.yaml), and the command that helps most."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import yaml

from irmas.config import REPETITIONS, SWEEP_WIDE, Config, flatten, shown
from irmas.console import counted
from irmas.run.folder import FINAL, PENDING, RUNNING
from irmas.sweep.jobs import named_runs
from irmas.sweep.plan import Plan
from irmas.sweep.sweep import OUTPUTS

if TYPE_CHECKING:
    from irmas.results.analysis import Analysis
    from irmas.results.ranking import Ranking

TEST_DATA = {"irmas": "data/IRMAS-TestingData-Part*", "standin": "standin"}
"""Data that tests a net, by the source of their training data."""
PRODUCTION_EPOCHS, LONGER = 50, 3
"""Epochs of the run that follows the sweep; factor by which to raise the epochs where runs are still improving."""
END = "# end of {} settings\n"
"""Last line of a best.yaml, by which a file of an earlier version is distinguished from a truncated one."""


@dataclass(frozen=True)
class NextStep:
    """The command that helps most after a ranking, and why: a sentence without its period."""

    command: str
    """One line, or several for commands that use the net."""
    reason: str


def config(ranking: Ranking, analysis: Analysis) -> Config:
    """Return the settings of the leader's run with the lowest ID: choosing its best run would reward luck."""
    return ranking.plan.config_of(ranking.plan.runs[analysis.points[0].runs[0] - 1])


def text(ranking: Ranking, analysis: Analysis) -> str:
    """Return the content of best.yaml: the leader's settings under a comment that says how good they are."""
    leader, settings = analysis.points[0], config(ranking, analysis)
    values = " ".join(f"{key}={shown(value)}" for key, value in leader.values.items())
    runs = named_runs(leader.runs)
    if len(leader.runs) > 1:
        differing = [key for key in REPETITIONS if key in ranking.plan.swept]
        own = ", ".join(f"{key} {settings.flat()[key]}" for key in differing)
        runs += f", which differ in {' and '.join(differing)} (below: {own}, of run {leader.runs[0]})"
    head = [
        f"The leader of the sweep {ranking.plan.name}: {runs}" + (f", {values}" if values else ""),
        _accuracy(analysis, settings),
        *_rivals(analysis),
        *([] if _has_one_point(ranking.plan) else [f"Production run: {production_command(ranking, analysis)}"]),
    ]
    named = {key: value for key, value in asdict(settings).items() if key not in SWEEP_WIDE}
    content = yaml.safe_dump(named, sort_keys=False, allow_unicode=True) + END.format(len(flatten(named)))
    return "".join(f"# {line}\n" for line in head) + content


def _accuracy(analysis: Analysis, settings: Config) -> str:
    observed = f"{100 * analysis.points[0].accuracy:.2f} % after {counted(settings.epochs, 'epoch')}"
    if settings.data.split == "all":
        return f"val_accuracy {observed}, which means nothing: the validation excerpts were trained on too"
    if not (expected := analysis.leader):
        return f"val_accuracy {observed}"
    interval = f"95 % interval {100 * expected.low:.2f} to {100 * expected.high:.2f} %"
    interval += f"; {analysis.few_recordings}" if analysis.few_recordings else ""
    again = "expected when trained again and validated on other recordings"
    return f"val_accuracy {100 * expected.value:.2f} % {again} ({interval}); observed: {observed}"


def _rivals(analysis: Analysis) -> list[str]:
    total, size = len(analysis.points), len(analysis.best_set)
    alone = "It is better than every other point" if analysis.is_decided else "The others cannot be compared with it"
    several = f"{size} of {total} points are in the best set; this is the first of them"
    return [] if total == 1 else [alone if size == 1 else several]


def next_step(ranking: Ranking, analysis: Analysis) -> NextStep:
    """Return the command that helps most after this ranking, and why."""
    total, size = len(analysis.points), len(analysis.best_set)
    if total == 1 and _has_one_point(ranking.plan):
        reason = "the only configuration is trained, and other music shows what it is worth"
        return NextStep("\n".join(_uses(ranking.plan)), reason)
    ended = [run for run in ranking.runs if run.state not in FINAL | {RUNNING, PENDING}]
    if 2 * len(ended) > len(ranking.runs) and ranking.plan.command:
        reason = f"{len(ended)} of {len(ranking.runs)} runs have not finished; rerun the command to resume them"
        return NextStep(_train(*_words(ranking.plan), is_sweep=True), reason)
    leader = named_runs(analysis.points[0].runs)
    has_one_seed = all(len(point.runs) == 1 for point in analysis.points)
    if total > 1 and analysis.still_rising:
        gain = f" by {100 * analysis.rise.value:.1f} percentage points per epoch" if analysis.rise else ""
        return NextStep(_longer(ranking, analysis), f"accuracy still rises{gain}, and more epochs come first")
    if total > 1 and analysis.noise is None and has_one_seed and (command := _second_seed(ranking)):
        return NextStep(command, "one seed cannot show how much trainings of a point differ; a second one can")
    if size > 1:
        words = ["python -m irmas.refine", f"{OUTPUTS}/{ranking.plan.name}", *_launcher(ranking.plan)]
        reason = f"{size} of {total} points are in the best set; fresh seeds of the first of them narrow it"
        return NextStep(" ".join(words), reason)
    lacking = [point for point in analysis.points if not point.has_all_folds]
    if lacking and ranking.plan.command and any(run.state not in FINAL for run in ranking.runs):
        reason = f"{counted(len(lacking), 'point')} cannot be compared, since runs on some folds have not finished"
        return NextStep(_train(*_words(ranking.plan), is_sweep=True), reason)
    reason = f"the other points cannot be compared with {leader}"
    if analysis.is_decided:
        reason = f"{leader} {'is' if len(analysis.points[0].runs) == 1 else 'are'} better than every other point"
    if total == 1:
        reason = "one point has finished, and no other to compare it with"
    return NextStep(production_command(ranking, analysis), reason)


def _has_one_point(plan: Plan) -> bool:
    """Return whether the runs repeat one configuration, as those of a production do."""
    return not {*plan.swept}.difference(REPETITIONS)


def _uses(plan: Plan) -> list[str]:
    """Return the commands that test, apply and export the nets of a sweep; a user completes their file names."""
    sweep, data = f"{OUTPUTS}/{plan.name}", plan.config.data
    tested = TEST_DATA.get(data.source if data.cache is None else "", "DATA")
    commands = (f"evaluate {sweep} {tested}", f"predict {sweep} song.mp3", f"export {sweep} model.onnx")
    return [f"python -m irmas.{command}" for command in commands]


def _longer(ranking: Ranking, analysis: Analysis) -> str:
    """Return the command that trains all points, or the leader where the sweep's command is unknown, for longer."""
    plan = ranking.plan
    planned = list(dict.fromkeys(plan.config_of(run).epochs for run in plan.runs))
    epochs = [LONGER * value for value in planned]
    stem = plan.name.removesuffix(f"-{max(planned)}")
    name = f"{stem[: 99 - len(str(max(epochs)))]}-{max(epochs)}"
    words = [] if _is_of_points(plan, "epochs") else _words(plan, "epochs", "name")
    if not words:
        words, epochs = [_override("best", f"{OUTPUTS}/{plan.name}")], [max(epochs)]
    is_sweep = len(epochs) > 1 or any("," in word for word in words)
    return _train(*words, _override("epochs", *epochs), _override("name", name), is_sweep=is_sweep)


def _second_seed(ranking: Ranking) -> str | None:
    """Return the command that grows the sweep by a second seed; None where several seeds or no command is known."""
    plan = ranking.plan
    seed, *others = {plan.value(run, "seed") for run in plan.runs}
    if others or not plan.command or plan.is_adaptive or _is_of_points(plan, "seed"):
        return None
    words = [_override("seed", seed, seed + 1), _override("name", plan.name)]
    return _train(*_words(plan, "seed", "name"), *words, is_sweep=True)


def _is_of_points(plan: Plan, key: str) -> bool:
    """Return whether a search or a file of points sets this key, which the command line then cannot."""
    typed = {word.partition("=")[0] for word in plan.command}
    return key in plan.space or (plan.config.points is not None and key in plan.swept and key not in typed)


def production_command(ranking: Ranking, analysis: Analysis) -> str:
    """Return the command that trains the leader for longer, from the folder in which the sweep was started."""
    name = ranking.plan.name
    numbered = re.fullmatch(r"(.+)-production(?:-(\d{1,4}))?", name)
    follows = f"{numbered[1][:84]}-production-{int(numbered[2] or 1) + 1}" if numbered else f"{name[:89]}-production"
    epochs = max(PRODUCTION_EPOCHS, config(ranking, analysis).epochs)
    words = [_override("best", f"{OUTPUTS}/{name}"), _override("epochs", epochs), _override("name", follows)]
    return _train(*words, *_launcher(ranking.plan))


def _launcher(plan: Plan) -> list[str]:
    """Return the override that chose the sweep's launcher, if any."""
    return [word for word in plan.command if word.startswith("hydra/launcher=")]


def _words(plan: Plan, *without: str) -> list[str]:
    """Return the overrides of the sweep's command, quoted for a shell, without these keys and its note."""
    return [shlex.quote(word) for word in plan.command if word.partition("=")[0] not in (*without, "note")]


def _train(*words: str, is_sweep: bool = False) -> str:
    return " ".join(["python -m irmas.train", *(["-m"] if is_sweep else []), *words])


def _override(key: str, *values: Any) -> str:
    """Return an override as it is typed: Hydra requires quotes around all but letters, digits and . _ / -"""
    texts = [shown(value) for value in values]
    if all(re.fullmatch(r"[A-Za-z0-9._/-]+", text) for text in texts):
        return f"{key}={','.join(texts)}"
    return shlex.quote(f"{key}=" + ",".join(f'"{text}"' for text in texts))
