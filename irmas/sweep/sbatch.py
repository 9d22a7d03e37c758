"""The jobs of a submission, as arguments of sbatch: a data job, one or more job arrays, a ranking job."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from irmas.errors import ConfigError
from irmas.sweep import slurm
from irmas.sweep.jobs import ARRAY, DATA, RANKING, Work, job_name
from irmas.sweep.settings import PREFIX, Settings, Stage, flags
from irmas.sweep.sweep import Sweep

SCRIPT = Path(__file__).parents[1] / "slurm" / "irmas.sbatch"
"""The script of every stage."""


@dataclass(frozen=True)
class JobRequest:
    """One call of sbatch."""

    name: str
    """`data`, `array1`, ..., `ranking`: what the dependencies of other requests refer to."""
    stage: str
    options: dict[str, Any]
    """Long options of sbatch; True for one without a value, None for one that is not passed."""
    arguments: list[str]
    """Arguments of the script."""
    after_ok: str = ""
    after_any: tuple[str, ...] = ()
    """Names of other requests, or numbers of jobs that are in the queue already."""
    work: Work = field(default_factory=Work)

    def command(self, script: str, number: Callable[[str], str], *first: str) -> list[str]:
        """Return the call of sbatch, with `first` as its first options, which later ones override.

        `number` returns the number of the job that a dependency refers to.
        """
        after_ok = [f"afterok:{number(self.after_ok)}"] if self.after_ok else []
        after_any = ["afterany:" + ":".join(map(number, self.after_any))] if self.after_any else []
        options = self.options | {"dependency": ",".join([*after_ok, *after_any]) or None}
        if after_ok:  # otherwise a job that depends on a failed one stays in the queue forever
            options["kill-on-invalid-dep"] = "yes"
        return ["sbatch", *first, *flags(options), script, *self.arguments]


def job_requests(
    sweep: Sweep,
    settings: Settings,
    ids: Sequence[int],
    max_index: int,
    needs_data: bool,
    queued: Sequence[str],
    refine: Sequence[str] = (),
    *,
    per_task: int,
) -> list[JobRequest]:
    """Return the requests for runs of a sweep: data, arrays, ranking. Points that differ in a resource have own arrays.

    A task has as many runs as its settings say, or `per_task` if the settings of the sweep say less than that.
    `max_index` is the largest array index that Slurm accepts; `queued` are the sweep's arrays in the queue; with
    `refine`, the arguments of `irmas.refine`, the ranking job submits the next round. With a throttle each array waits
    for the one before: Slurm's own, %6, counts the tasks of one array only.
    """
    request = partial(_request, sweep)
    data = [request("data", DATA, settings, settings.prepare, "data")] if needs_data else []
    throttle = "" if settings.throttle is None else f"%{settings.throttle}"
    device = sweep.plan.config.device
    least = per_task if per_task > settings.per_task(device) else 1
    arrays, before = list[JobRequest](), tuple(queued)
    for own, members in _by_settings(sweep, settings, ids):
        at_once = ["--runs-at-once", str(own.runs_at_once)] if own.runs_at_once else []
        for work, indices in _arrays(members, max(least, own.per_task(device)), max_index):
            args = [*work.arguments(), *at_once, "--requeues", str(own.requeues)]
            array = request(f"array{len(arrays) + 1}", ARRAY, own, own, "train", *args)
            options = {"array": f"{indices}{throttle}"} | array.options
            after = before if throttle else ()
            arrays.append(replace(array, options=options, work=work, after_ok="data" if data else "", after_any=after))
            before = (arrays[-1].name,)
    at_end = [f"--at-end={word}" for word in settings.at_end or ()]
    ranking = request("ranking", RANKING, settings, settings.rank, "refine" if refine else "rank", *refine, *at_end)
    mail = {"mail-user": settings.mail, "mail-type": "END,FAIL"} if settings.mail else {}
    after = (*queued, *(array.name for array in arrays))
    return [*data, *arrays, replace(ranking, options=mail | ranking.options, after_any=after)]


def _request(
    sweep: Sweep, name: str, stage: str, settings: Settings, resources: Stage, script_stage: str, *args: str
) -> JobRequest:
    """Return the request for a job with these settings, of which `resources` are those of its stage."""
    options = {
        "job-name": job_name(stage, sweep),
        "output": f"{sweep.slurm}/{'%A_%a' if stage == ARRAY else '%j'}.out",
        "signal": f"USR2@{settings.warning}" if stage == ARRAY else "TERM@30",
        "open-mode": "append",
        "requeue": True,
        "clusters": settings.cluster,
        "account": settings.account,
        "qos": settings.qos,
    }
    arguments = [*settings.script_options(), script_stage, str(sweep), *args]
    return JobRequest(name, stage, options | resources.options(), arguments)


def _by_settings(sweep: Sweep, settings: Settings, ids: Sequence[int]) -> list[tuple[Settings, list[int]]]:
    """Return the settings that points have, each with its runs. Raises ConfigError as `Settings.of_point` does."""
    if not settings.rules:
        return [(settings, list(ids))]
    if early := sorted({key for rule in settings.rules for key in rule["when"]} & sweep.plan.chosen):
        reason = "search=tpe chooses it when a run starts, and a rule needs it before"
        raise ConfigError(f"{PREFIX}rules", early[0], reason)
    flat, groups = sweep.plan.config.flat(), list[tuple[Settings, list[int]]]()
    for number in ids:
        own = settings.of_point(flat | sweep.plan.runs[number - 1].changes)
        members = next((members for other, members in groups if other == own), None)
        if members is None:
            groups.append((own, [number]))
        else:
            members.append(number)
    return groups


def _arrays(ids: Sequence[int], per_task: int, max_index: int) -> Iterator[tuple[Work, str]]:
    """Yield arrays and their indices. With one run per task the index is the run ID, as far as Slurm accepts it."""
    ids = sorted(ids)
    if not ids:
        return
    if per_task == 1 and ids[-1] <= max_index:
        yield Work(), slurm.ranges(ids)
        return
    for start in range(0, len(ids), max_index * per_task):
        chunk = ids[start : start + max_index * per_task]
        yield Work(slurm.ranges(chunk), per_task), slurm.ranges(range(1, math.ceil(len(chunk) / per_task) + 1))


def _number_in_shell(name: str) -> str:
    """Return a number as it is, and a variable without the cluster that `sbatch --parsable` may append to a number."""
    return name if name.isdigit() else f"${{{name}%%;*}}"


def shell_lines(requests: Sequence[JobRequest]) -> list[str]:
    """Return the lines that submit the same jobs from a shell."""
    lines, script = [], os.path.relpath(SCRIPT.resolve())
    for request in requests:
        command = request.command(script, _number_in_shell, "--parsable")
        # A dependency refers to variables of the shell; no setting may add one.
        line = " ".join(arg if arg.startswith("--dependency=") else shlex.quote(arg) for arg in command)
        lines.append(line if request.stage == RANKING else f"{request.name}=$({line})")
    return lines
