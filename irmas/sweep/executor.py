"""The calls of sbatch through submitit: all jobs of a submission or none, whatever a site's sbatch prints."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import submitit
from submitit.helpers import clean_env

from irmas.console import plain_console
from irmas.errors import UserError
from irmas.sweep import jobs, slurm
from irmas.sweep.jobs import ARRAY, DATA, RANKING, Job
from irmas.sweep.sbatch import SCRIPT, JobRequest
from irmas.sweep.settings import PREFIX, Settings, flags
from irmas.sweep.slurm import SlurmError, Task
from irmas.sweep.sweep import Sweep

DELAY_S = 120
"""Time after which a job begins unless `slurm.begin` lets it begin now. A hold would stay if this process died."""
LATE, LATE_S = re.compile("timed out|Unable to contact|Zero Bytes"), 10.0
"""Errors of sbatch after which Slurm may have accepted the job all the same, and the time within which that shows."""
KEPT = ("SLURM_CONF", "SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS")
"""Variables that count for sbatch; other SBATCH_*, SLURM_* and SUBMITIT_* do not."""
DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
"""Variables that name the GPUs of this process's own job, which are not those of the jobs that it submits."""
SUBMIT_LIMIT = re.compile(r"\b(Assoc|QOS)\w*SubmitJob\w*Limit\b")
ARRAY_LIMIT = "Invalid job array specification"


@dataclass(frozen=True)
class Before:
    """The cluster of a submission, and what was there before it."""

    cluster: str
    jobs: frozenset[str]
    """Numbers of the jobs with the names of this sweep's."""


class RefusedError(UserError):
    """Slurm refuses a job."""


class SubmitLimitError(RefusedError):
    """More tasks than an association or QOS lets a user have in the queue."""


class Executor(submitit.SlurmExecutor):
    """An executor of slurm/irmas.sbatch instead of a pickled function; only here are submitit's own methods used."""

    def submit_script(self, command: Callable[[str], list[str]]) -> tuple[str, str]:
        """Run the command for a copy of the script; return the job's number, and its cluster if sbatch names it.

        Raises FailedJobError with its stderr, or FailedSubmissionError with what it printed where that has no number.
        """
        self._command = command
        with redirect_stderr(StringIO()):  # submitit prints what it raises
            return self._submit_command("").job_id, self._cluster

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        """Return the script without its defaults: all options are on the command line."""
        return re.sub(r"^#SBATCH .*\n", "", SCRIPT.read_text(), flags=re.MULTILINE)

    def _get_job_id_from_submission_command(self, string: str | bytes) -> str:  # type: ignore[override]  # static there
        text = string if isinstance(string, str) else string.decode(errors="replace")
        reply = slurm.parse_reply(text)
        if reply is None:
            raise submitit.core.utils.FailedSubmissionError(text)
        number, self._cluster = reply
        return number

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return self._command(str(submission_file_path))


def environment_notes(settings: Settings) -> list[str]:
    """Return which SBATCH_* variables count for jobs with these settings, and which do not, one line each."""
    names = sorted(name for name in os.environ if name.startswith("SBATCH_"))
    keys = {name: name.removeprefix("SBATCH_").lower() for name in names if name in KEPT}
    used = [(key, name) for name, key in keys.items() if getattr(settings, key) is None]
    lines = [f"{PREFIX}{key}={os.environ[name]}, from {name}" for key, name in used]
    if others := " ".join(name for name in names if name not in KEPT):
        lines.append(f"not used: {others}; give such options as {PREFIX}sbatch")
    return lines


def listed_jobs(sweep: Sweep) -> list[Task]:
    """Return the jobs with the names that the launcher gives those of this sweep, also those of other folders."""
    return slurm.queue([jobs.job_name(stage, sweep) for stage in (DATA, ARRAY, RANKING)], by_task=False)


def cancel_lost(sweep: Sweep, listed: Iterable[Task]) -> list[str]:
    """Cancel what the launcher has submitted without a record and has not begun: sbatch's reply came too late."""
    script = f"{sweep.slurm.absolute()}/{jobs.SUBMITTED_SCRIPT}"
    recorded = {record.job for record in jobs.recorded_jobs(sweep)}
    unrecorded = [task for task in listed if task.job not in recorded and task.command.startswith(script)]
    begun = {task.job for task in unrecorded if task.state != "PENDING"}
    lost = list(dict.fromkeys(task.job for task in unrecorded if task.job not in begun))
    slurm.cancel(lost)
    return lost


def submit_within_limit(
    sweep: Sweep, chain: partial[list[JobRequest]], before: Before, per_task: int, runs: int, at_once: int
) -> tuple[list[JobRequest], dict[str, str]]:
    """Submit `per_task` runs per task, or as few more as Slurm's submit limit requires, up to all `runs` in one task.

    A task gets `at_once` more at a time, so that no GPU idles. Arguments, result and errors are those of `_submit_all`.
    """
    while per_task < runs:
        with suppress(SubmitLimitError):
            return _submit_all(sweep, chain(per_task=per_task), before)
        per_task += at_once * math.ceil(per_task / (4 * at_once))
    return _submit_all(sweep, chain(per_task=per_task), before)


def _submit_all(sweep: Sweep, requests: list[JobRequest], before: Before) -> tuple[list[JobRequest], dict[str, str]]:
    """Submit all jobs or none: none starts before Slurm has accepted the last one, the ranking.

    Jobs of these names that are not among those of `before` are this command's. Returns the requests, and Slurm's
    numbers by their names. Raises SubmitLimitError, or UserError with Slurm's reason.
    """
    numbers, recorded = dict[str, str](), {record.job for record in jobs.recorded_jobs(sweep)}
    try:
        for request in requests:
            numbers[request.name], cluster = _sbatch(sweep, request, numbers, before)
            if cluster.lower() not in ("", before.cluster):
                _refuse_cluster(sweep, numbers[request.name], cluster, before)
        _check_numbers(sweep, requests, numbers, before)
        for request in requests:
            name, data = request.options["job-name"], numbers["data"] if request.after_ok else ""
            job = Job(numbers[request.name], request.stage, name, time.time(), request.work, data, before.cluster)
            jobs.record_job(sweep, job)
        _begin(requests, numbers)
    except BaseException as error:
        jobs.remove_cancelled(sweep, {*numbers.values()} - recorded)
        try:
            ours = [task for task in listed_jobs(sweep) if task.job not in before.jobs and task.is_live]
            slurm.cancel(list(dict.fromkeys(task.job for task in ours if _is_from_here(task))))
        except SlurmError as silence:
            remedy = "rerun the command when Slurm answers: it cancels what Slurm has accepted all the same"
            raise UserError(f"{error}\n  {silence.reason}; {remedy}") from None
        raise
    return requests, numbers


def _begin(requests: Sequence[JobRequest], numbers: Mapping[str, str]) -> None:
    """Let the submitted jobs begin now, where the site lets users. Raises UserError where Slurm refuses a job."""
    for request in reversed(requests):  # first those that depend on others
        if "begin" not in request.options:
            try:
                slurm.begin(numbers[request.name])
            except SlurmError as error:
                if error.is_forbidden:
                    at = time.strftime("%H:%M", time.localtime(time.time() + DELAY_S + 59))  # rounded up
                    plain_console().print(f"the jobs begin at {at} or later: this site forbids scontrol update")
                    return
                raise _refusal(request, error.reason) from None  # Slurm only now refuses a job that no node can run


def _is_from_here(task: Task) -> bool:
    return os.path.realpath(task.folder) == os.path.realpath(".")


def _check_numbers(sweep: Sweep, requests: Sequence[JobRequest], numbers: Mapping[str, str], before: Before) -> None:
    """Raise UserError where a number that sbatch printed is that of another job."""
    names = {task.job: task.name for task in listed_jobs(sweep) if task.job not in before.jobs}
    for request in requests:
        number, name = numbers[request.name], request.options["job-name"]
        if names.pop(number, None) != name:
            reason = f"sbatch gave the {request.stage} job the number {number}, which is not that of a new job {name}"
            raise UserError(f"nothing is submitted: {reason}")


def _sbatch(sweep: Sweep, request: JobRequest, numbers: Mapping[str, str], before: Before) -> tuple[str, str]:
    """Return the number of the submitted job, and its cluster if sbatch names it.

    Raises SubmitLimitError, or UserError with what sbatch printed.
    """

    def command(script: str) -> list[str]:
        return request.command(script, lambda name: numbers.get(name, name), f"--begin=now+{DELAY_S}")

    kept = {key: value for key, value in os.environ.items() if key in KEPT}
    with clean_env(DEVICES):  # the resources of this process's own job would become those of the jobs that it submits
        os.environ.update(kept)
        try:
            return Executor(jobs.private_folder(sweep)).submit_script(command)
        except submitit.core.utils.FailedSubmissionError as error:
            printed = "".join(f"\n  {line}" for line in str(error).splitlines()) or " nothing"
            reason = f"the reply of sbatch to the {request.stage} job has no line `Submitted batch job <number>`"
            cancelled = "what Slurm accepted all the same is cancelled"
            raise UserError(f"nothing is submitted: {reason}; {cancelled}. It printed:{printed}") from None
        except submitit.core.utils.FailedJobError as error:
            stderr = str(error)
    jobs.remove_cancelled(sweep)
    if number := _number_by_name(
        sweep, request, {*before.jobs, *numbers.values()}, LATE_S if LATE.search(stderr) else 0.0
    ):
        plain_console().print(f"sbatch failed ({_reason(stderr)}), but Slurm has accepted the job: {number}")
        return number, before.cluster
    raise _refusal(request, stderr)


def _refuse_cluster(sweep: Sweep, number: str, cluster: str, before: Before) -> None:
    """Cancel a job that sbatch has submitted to another cluster, if it has a name of ours. Raises UserError."""
    with slurm.on_cluster(cluster.lower()):
        slurm.cancel([number] if number in {task.job for task in listed_jobs(sweep)} else [])
    reason = f"sbatch submits to cluster {cluster}, and Slurm's other commands ask {before.cluster}"
    raise UserError(f"nothing is submitted: {reason}; give hydra.launcher.cluster={cluster}")


def _number_by_name(sweep: Sweep, request: JobRequest, known: Collection[str], wait_s: float) -> str:
    """Return the number of the one new job with the name of this request, empty if there is none within `wait_s`."""
    deadline = time.monotonic() + wait_s
    while True:
        with suppress(SlurmError):  # the caller has a better reason
            named = [task for task in listed_jobs(sweep) if task.name == request.options["job-name"] and task.is_live]
            new = {task.job for task in named if task.job not in known and _is_from_here(task)}
            if len(new) == 1:
                return new.pop()
        if time.monotonic() >= deadline:
            return ""
        time.sleep(wait_s / 5)


def _refusal(request: JobRequest, stderr: str) -> UserError:
    kind = SubmitLimitError if SUBMIT_LIMIT.search(stderr) else RefusedError
    remedy = "; a larger hydra.launcher.runs_per_task makes smaller arrays" if ARRAY_LIMIT in stderr else ""
    reason = f"Slurm refused the {request.stage} job ({_reason(stderr)}){remedy}"
    return kind(f"nothing is submitted: {reason}\n  options: {' '.join(flags(request.options))}")


def _reason(stderr: str) -> str:
    return "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in stderr.splitlines() if line)
