"""Slurm's commands, and pure parsers of what they print."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial

from irmas.console import duration
from irmas.errors import UserError

# fmt: off
LIVE = frozenset({
    "PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
    "SPECIAL_EXIT", "RESV_DEL_HOLD", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING",
})
# fmt: on
"""States of jobs in the queue or running; all other states are final."""
COMPLETING = "COMPLETING"
"""State of a task that has ended, or will be requeued: which of the two shows only afterwards."""
TIMEOUT_S = 60
"""Longest wait for a command; without a controller, squeue gives up after 9 s by itself."""
TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}")
"""A time: minutes, minutes:seconds, hours:minutes:seconds, or days-hours[:minutes[:seconds]]."""
LARGEST = 10**7
"""Bound of numbers in a list of ranges: MaxArraySize is at most 4,000,001."""

_SEPARATOR = "\x1f"  # job names and paths may hold any printable character
_QUEUE = _SEPARATOR.join(("%F", "%K", "%T", "%r", "%N", "%M", "%j", "%Z", "%o"))
_ACCOUNTING = "JobID,JobName,State,ExitCode,NodeList,Elapsed"
STARTS = ("JobID", "JobName", "ElapsedRaw", "TimelimitRaw", "MaxRSS", "AllocTRES")
"""Columns of sacct for each start of a task and for its steps; only these have MaxRSS."""
_REPLY = re.compile(r"(?:Submitted batch job (\d+)(?: on cluster (\S+))?|(\d+)(?:;(\S+))?)")
_FORBIDDEN = re.compile("Access/permission denied|Invalid user id", re.IGNORECASE)
_ONE_CLUSTER = re.compile(r"(?!all$)[\w.-]*")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?")
_TASKS = re.compile(r"\bmax_array_tasks=([1-9]\d*)")
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::0*([1-9]\d*))?)?")
_JOB_ID = re.compile(r"(?P<job>\d+)(?:_(?:(?P<index>\d+)|\[(?P<lump>[\d,:-]+)(?:%\d+)?\]))?(?:\.(?P<step>.+))?")


_USER_OPTIONS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_")
"""Beginnings of the variables with which users give these commands options, as in SCANCEL_NAME."""
_CLUSTER: ContextVar[str] = ContextVar("cluster", default="")
"""The cluster that commands ask with `-M`; empty: that of this machine."""


class SlurmError(UserError):
    """Slurm is missing, does not answer, or refuses."""

    def __init__(self, command: str, stderr: str) -> None:
        last_line = stderr.strip().splitlines()[-1] if stderr.strip() else "failed without a message"
        self.reason = f"{command}: {last_line.removeprefix(f'{command}: ')}"
        super().__init__(f"{self.reason}; try again when Slurm answers, or train here with hydra/launcher=local")

    @property
    def is_forbidden(self) -> bool:
        """Return whether this site forbids the command, whatever the job: some keep `scontrol` from their users."""
        return _FORBIDDEN.search(self.reason) is not None


@dataclass(frozen=True)
class Task:
    """A task of a job array, or a job that is no array, as squeue or sacct lists it."""

    job: str
    """Number of the job or of the whole array."""
    index: int | None = None
    state: str = ""
    reason: str = ""
    """Reason why the task waits, or how it ended; from squeue."""
    node: str = ""
    elapsed: str = ""
    """Time since its last start, of the form `TIME`."""
    exit_code: str = ""
    """`3:0` is code 3, `0:9` signal 9; empty for 0:0. From sacct."""
    name: str = ""
    command: str = ""
    """The batch script and its arguments; from squeue, where a file was submitted."""
    folder: str = ""
    """The working directory; from squeue."""

    @property
    def id(self) -> str:
        """Return `123_4`, or `123` for a job that is no array."""
        return self.job if self.index is None else f"{self.job}_{self.index}"

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    @property
    def is_held(self) -> bool:
        """Return whether a node could not start it: Slurm does not try again before it is released."""
        return self.is_live and self.reason == "launch failed requeued held"

    @property
    def elapsed_s(self) -> int:
        return seconds(self.elapsed) if TIME.fullmatch(self.elapsed) else 0


def seconds(time: str) -> int:
    """Return a time of the form `TIME` in seconds."""
    days, dash, clock = time.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, minutes, rest = ([*parts, 0, 0] if dash or len(parts) == 3 else [0, *parts, 0])[:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest


def spelled_out(time: str) -> str:
    """Return a time of the form `TIME` as in `1 d 2 h 30 min`, and others as they are."""
    return duration(seconds(time)) if TIME.fullmatch(time) else time


def ranges(numbers: Iterable[int]) -> str:
    """Return `1-3,7` for 1, 2, 3 and 7, as in `sbatch --array`."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)


def expand_ranges(text: str) -> list[int]:
    """Return the numbers of a list as `ranges` writes it, or with steps, as in 1-9:2. Raises ValueError for others."""
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or not int(match[1]) <= int(match[2] or match[1]) < LARGEST:
            raise ValueError(f"{text!r} is no list of numbers and ranges such as 1-3,7")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
    return numbers


# ---- several clusters


@contextmanager
def on_cluster(name: str) -> Iterator[None]:
    """Let the block's commands ask this cluster; an empty name is that of this machine. Raises SlurmError."""
    token = _CLUSTER.set("")
    try:
        if name and name != config()[0]:
            _CLUSTER.set(name)
        yield
    finally:
        _CLUSTER.reset(token)


def other_cluster() -> str:
    """Return the cluster that commands ask, empty for that of this machine."""
    return _CLUSTER.get()


def named_cluster(setting: str | None = None) -> str:
    """Return the cluster that the setting names, or else SLURM_CLUSTERS; empty if neither does.

    Raises UserError where SLURM_CLUSTERS names several.
    """
    name = (setting or os.environ.get("SLURM_CLUSTERS", "")).lower()
    if not _ONE_CLUSTER.fullmatch(name):
        raise UserError(f"SLURM_CLUSTERS={name}: must name one cluster; or give hydra.launcher.cluster=<name>")
    return name


# ---- sbatch, squeue and sacct


def parse_reply(text: str) -> tuple[str, str] | None:
    """Return number and cluster (empty if not named) of the job that sbatch has submitted, from its last such line.

    Sites print notices beside it. Nothing else in the text is taken for a number.
    """
    matches = [match for line in text.splitlines() if (match := _REPLY.fullmatch(line.strip()))]
    return (matches[-1][1] or matches[-1][3], matches[-1][2] or matches[-1][4] or "") if matches else None


def queue(names: Sequence[str], *, by_task: bool = True) -> list[Task]:
    """Return the jobs of these names that are in the queue, or ended in the last minutes (MinJobAge).

    Unless `by_task`, the waiting tasks of an array are one, without an index. Raises SlurmError.
    """
    # A comma would make two names of one.
    only = [] if any("," in name for name in names) else ["-n", ",".join(names)]
    text = _output("squeue", "-h", *["-r"][:by_task], "-t", "all", *only, "-o", _QUEUE)
    return [task for task in parse_queue(text) if task.name in names]


def parse_queue(text: str) -> list[Task]:
    """Return the tasks that squeue lists, without lines of another form."""
    tasks = []
    for job, index, state, reason, node, elapsed, name, folder, command in _rows(text, 9):
        if not (job.isdecimal() and state):
            continue
        number = int(index) if index.isdecimal() else None
        reason, command = ("" if word in ("None", "(null)") else word for word in (reason, command))
        tasks.append(Task(job, number, state, reason, node, elapsed, "", name, command, folder))
    return tasks


def accounting(jobs: Iterable[str]) -> list[Task]:
    """Return the tasks that sacct lists for these jobs; none where accounting is off or does not answer."""
    return parse_accounting(_sacct(jobs, _ACCOUNTING))


def accounted_starts(jobs: Iterable[str]) -> list[list[str]]:
    """Return the `STARTS` that sacct lists for each start of these jobs and each of its steps, requeued ones too.

    There are none where accounting is off or does not answer.
    """
    return [*_rows(_sacct(jobs, ",".join(STARTS), "--duplicates"), len(STARTS))]


def _sacct(jobs: Iterable[str], columns: str, *options: str) -> str:
    numbers = ",".join(jobs)
    if not numbers:
        return ""
    try:
        return _output("sacct", "-nP", *options, f"--delimiter={_SEPARATOR}", "-j", numbers, "-o", columns)
    except SlurmError:
        return ""


def parse_accounting(text: str) -> list[Task]:
    """Return the tasks that sacct lists, without rows of another form.

    Only the row of a step shows that its memory ran out: its task is then OUT_OF_MEMORY.
    """
    tasks: dict[str, Task] = {}
    for job_id, name, state, exit_code, node, elapsed in _rows(text, 6):
        match, state = _JOB_ID.fullmatch(job_id), state.partition(" ")[0].rstrip("+")  # CANCELLED by 0
        if match is None or not state:
            continue
        node = "" if node == "None assigned" else node
        # 0:125 marks an out-of-memory kill.
        is_code = re.fullmatch(r"\d+:\d+", exit_code) and exit_code not in ("0:0", "0:125")
        for index in _indices(match):
            task = Task(match["job"], index, state, "", node, elapsed, exit_code if is_code else "", name)
            if match["step"] is None:
                tasks[task.id] = task
            elif state == "OUT_OF_MEMORY" and task.id in tasks:
                tasks[task.id] = replace(tasks[task.id], state=state)
    return list(tasks.values())


def _indices(match: re.Match[str]) -> Sequence[int | None]:
    """Return the array indices of a job ID: 371_[1-3,7%1] stands for four tasks."""
    if not match["lump"]:
        return [int(match["index"]) if match["index"] else None]
    try:
        return expand_ranges(match["lump"])
    except ValueError:
        return []


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    """Yield the lines with this number of columns; others belong to strangers' jobs with line breaks in their names."""
    rows = (line.split(_SEPARATOR) for line in text.split("\n"))
    return (row for row in rows if len(row) == columns)


# ---- the other commands; all raise SlurmError


def is_running(job: str) -> bool:
    """Return whether a job or an array task, such as 123_4, is in the queue or running, and not COMPLETING."""
    states = _output("squeue", "-h", "-j", job, "-o", "%T", ignored="Invalid job id")
    return any(state in LIVE - {COMPLETING} for state in states.split())


def config() -> tuple[str, int]:
    """Return the cluster's name, and the largest index and number of tasks that an array may have.

    Indices are below MaxArraySize; a site may allow fewer tasks (max_array_tasks).
    """
    values = dict(re.findall(r"^(\w+) *= *(\S+)", _output("scontrol", "show", "config"), re.MULTILINE))
    if not values.get("MaxArraySize", "").isdecimal():
        raise SlurmError("scontrol", "show config lists no MaxArraySize")
    tasks = _TASKS.search(values.get("SchedulerParameters", ""))
    largest = min(int(values["MaxArraySize"]) - 1, int(tasks[1]) if tasks else LARGEST)
    return values.get("ClusterName", "").lower(), largest


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; ignore those that have ended."""
    if jobs:
        _output("scancel", *jobs, ignored="Invalid job id")


def expected_start(jobs: Sequence[str]) -> str:
    """Return when the first of these waiting jobs starts by Slurm's estimate, as in 2026-11-29 14:05; empty without."""
    times = list[str]()
    with suppress(SlurmError):
        times = _output("squeue", "-h", "--start", "-j", ",".join(jobs), "-o", "%S").split()
    return min((time for time in times if _MOMENT.fullmatch(time)), default="").replace("T", " ")[:16]


def begin(job: str) -> None:
    """Let a job that was submitted with a later --begin start now."""
    _output("scontrol", "update", f"JobId={job}", "StartTime=now")


def release(job: str) -> None:
    _output("scontrol", "release", job)


def restarts(job: str) -> int:
    """Return how often Slurm has requeued an array task such as 123_4; 0 for one that it does not know."""
    counts = _output("squeue", "-h", "-j", job, "-O", "RestartCnt", ignored="Invalid job id").split()
    return int(counts[0]) if counts and counts[0].isdecimal() else 0


def rename(job: str, name: str) -> bool:
    """Give a job another name; return whether Slurm accepts."""
    return _call("scontrol", "update", f"JobId={job}", f"JobName={name}").returncode == 0


def requeue(job: str) -> bool:
    """Requeue an array task such as 123_4 (123 alone would requeue all of its tasks); return whether Slurm accepts."""
    return _call("scontrol", "requeue", job).returncode == 0


def _output(*command: str, ignored: str | None = None) -> str:
    """Return what a command prints. Raises SlurmError where it fails with another error than `ignored`."""
    result = _call(*command)
    if result.returncode != 0 and (ignored is None or ignored not in result.stderr):
        raise SlurmError(command[0], result.stderr)
    return result.stdout


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    # A user's own defaults would filter what is listed or cancelled; SLURM_BITSTR_LEN=0 writes long lumps in full.
    env = {key: value for key, value in os.environ.items() if not key.startswith(_USER_OPTIONS)}
    env.pop("SLURM_CLUSTERS", None)  # sacct ignores it
    on_cluster = [f"--clusters={name}"] if (name := _CLUSTER.get()) else []
    env |= {"SLURM_BITSTR_LEN": "0", "LC_ALL": "C"}
    run = partial(subprocess.run, capture_output=True, encoding="utf-8", errors="replace", check=False)
    try:
        return run([command[0], *on_cluster, *command[1:]], env=env, timeout=TIMEOUT_S)
    except FileNotFoundError:
        raise SlurmError(command[0], "is not installed here") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(command[0], f"no answer within {TIMEOUT_S} s") from None
