"""Slurm's words: pure parsers of what its commands print, and the few commands themselves."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from irmas.errors import UserError

# fmt: off
LIVE = frozenset({
    "PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
    "SPECIAL_EXIT", "RESV_DEL_HOLD", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING",
})
# fmt: on
"""In the queue or running; the other states are ends."""
TIMEOUT_S = 60
"""Without a controller, squeue gives up after 9 s by itself."""

_SEPARATOR = "\x1f"  # job names and paths may hold any printable character
_QUEUE = _SEPARATOR.join(("%F", "%K", "%T", "%r", "%N", "%M", "%j", "%V", "%Z", "%o"))
_ACCOUNTING = "JobID,JobName,State,ExitCode,NodeList,Elapsed,Submit"
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::0*([1-9]\d*))?)?")
_JOB_ID = re.compile(r"(?P<job>\d+)(?:_(?:(?P<index>\d+)|\[(?P<lump>[\d,:-]+)(?:%\d+)?\]))?(?:\.(?P<step>.+))?")
_EXIT_CODE = re.compile(r"\d+:\d+")
_ELAPSED = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")


class SlurmError(UserError):
    """Slurm is missing or does not answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; try again when Slurm answers, or train here with hydra/launcher=local")
        self.reason = reason


@dataclass(frozen=True)
class Task:
    """A task of a job array, or a job that is none, as Slurm tells of it."""

    job: str
    """The number of the job or of the whole array."""
    index: int | None = None
    state: str = ""
    reason: str = ""
    """Why it waits, or a word on how it ended; from squeue."""
    node: str = ""
    elapsed: str = ""
    """Since its last start, as days-hours:minutes:seconds."""
    exit_code: str = ""
    """`3:0` is code 3, `0:9` signal 9; empty for 0:0. From sacct."""
    name: str = ""
    submitted: str = ""
    command: str = ""
    """The batch script and its arguments; from squeue, where a file was submitted."""
    folder: str = ""
    """The working directory; from squeue."""

    @property
    def id(self) -> str:
        """`123_4`, or `123` for a job that is no array."""
        return self.job if self.index is None else f"{self.job}_{self.index}"

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    @property
    def is_held(self) -> bool:
        """A node could not start it: Slurm does not try again before it is released."""
        return self.is_live and self.reason == "launch failed requeued held"

    @property
    def elapsed_s(self) -> int:
        match = _ELAPSED.fullmatch(self.elapsed)
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def ranges(numbers: Iterable[int]) -> str:
    """`1-3,7` for 1, 2, 3 and 7, as in `sbatch --array`."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)


LARGEST = 10**7
"""No array is larger: MaxArraySize is at most 4,000,001."""


def expand_ranges(text: str) -> list[int]:
    """The inverse of `ranges`; takes steps too, as in 1-9:2. Raises ValueError for text of another form."""
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or not int(match[1]) <= int(match[2] or match[1]) < LARGEST:
            raise ValueError(f"{text!r} is no list of numbers and ranges such as 1-3,7")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
    return numbers


def queue(names: Sequence[str]) -> list[Task]:
    """The jobs of these names that are in the queue, or ended in the last minutes (MinJobAge).

    Raises SlurmError.
    """
    # A comma would make two names of one.
    only = [] if any("," in name for name in names) else ["-n", ",".join(names)]
    text = _checked("squeue", "-h", "-r", "-t", "all", *only, "-o", _QUEUE)
    return [task for task in parse_queue(text) if task.name in names]


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    """Lines of so many columns; others are of strangers' jobs, whose names may hold line breaks."""
    rows = (line.split(_SEPARATOR) for line in text.split("\n"))
    return (row for row in rows if len(row) == columns)


def parse_queue(text: str) -> list[Task]:
    """Passes over what is no line of a job."""
    tasks = []
    for job, index, state, reason, node, elapsed, name, submitted, folder, command in _rows(text, 10):
        if not (job.isdecimal() and state):
            continue
        number = int(index) if index.isdecimal() else None
        reason, command = ("" if word in ("None", "(null)") else word for word in (reason, command))
        tasks.append(Task(job, number, state, reason, node, elapsed, "", name, submitted, command, folder))
    return tasks


def accounting(jobs: Iterable[str]) -> list[Task]:
    """What is written down of these jobs, steps merged; nothing where accounting is off or out of reach."""
    numbers = ",".join(jobs)
    if not numbers:
        return []
    try:
        done = _call("sacct", "-nP", f"--delimiter={_SEPARATOR}", "-j", numbers, "-o", _ACCOUNTING)
    except SlurmError:
        return []
    return parse_accounting(done.stdout) if done.returncode == 0 else []


def parse_accounting(text: str) -> list[Task]:
    """An out-of-memory kill of a step shows in the step's row alone: its task is then OUT_OF_MEMORY.

    Passes over what is no row of a job.
    """
    tasks: dict[str, Task] = {}
    for written, name, state, exit_code, node, elapsed, submitted in _rows(text, 7):
        match, state = _JOB_ID.fullmatch(written), state.partition(" ")[0].rstrip("+")  # CANCELLED by 0
        if match is None or not state:
            continue
        node = "" if node == "None assigned" else node
        # 0:125 marks an out-of-memory kill.
        exit_code = exit_code if _EXIT_CODE.fullmatch(exit_code) and exit_code not in ("0:0", "0:125") else ""
        for index in _indices(match):
            task = Task(match["job"], index, state, "", node, elapsed, exit_code, name, submitted)
            if match["step"] is None:
                tasks[task.id] = task
            elif state == "OUT_OF_MEMORY" and task.id in tasks:
                tasks[task.id] = replace(tasks[task.id], state=state)
    return list(tasks.values())


def _indices(match: re.Match[str]) -> Sequence[int | None]:
    """371_[1-3,7%1] stands for four tasks."""
    if not match["lump"]:
        return [int(match["index"]) if match["index"] else None]
    try:
        return expand_ranges(match["lump"])
    except ValueError:
        return []


def max_array_size() -> int:
    """Array indices are below it. Raises SlurmError."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", _checked("scontrol", "show", "config"), re.MULTILINE)
    if match is None:
        raise SlurmError("scontrol show config names no MaxArraySize")
    return int(match[1])


def cancel(jobs: Iterable[str]) -> None:
    """Jobs that have ended are left alone. Raises SlurmError."""
    if numbers := list(jobs):
        done = _call("scancel", *numbers)
        if done.returncode != 0 and "Invalid job id" not in done.stderr:
            raise _error("scancel", done.stderr)


def begin(job: str) -> None:
    """Let a job start now that was submitted with a later --begin. Raises SlurmError."""
    _checked("scontrol", "update", f"JobId={job}", "StartTime=now")


def release(job: str) -> None:
    """Let go of what is held. Raises SlurmError."""
    _checked("scontrol", "release", job)


def requeue(job: str) -> bool:
    """Whether Slurm takes it back into the queue.

    An array task by its `123_4`: the array's number alone requeues all of its tasks. Raises SlurmError.
    """
    return _call("scontrol", "requeue", job).returncode == 0


def is_running(job: str) -> bool:
    """Whether Slurm says that this job or array task is in the queue or running. Raises SlurmError."""
    done = _call("squeue", "-h", "-j", job, "-o", "%T")
    if done.returncode != 0 and "Invalid job id" not in done.stderr:
        raise _error("squeue", done.stderr)
    return any(state in LIVE for state in done.stdout.split())


def _checked(*command: str) -> str:
    done = _call(*command)
    if done.returncode != 0:
        raise _error(command[0], done.stderr)
    return done.stdout


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    # A user's own defaults would filter what is listed; SLURM_BITSTR_LEN=0 writes long lumps of an array in full.
    ours = {"SLURM_BITSTR_LEN": "0", "LC_ALL": "C"}
    others = {key: value for key, value in os.environ.items() if not key.startswith(("SQUEUE_", "SACCT_"))}
    try:
        return subprocess.run(
            command,
            env=others | ours,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise _error(command[0], "is not installed here") from None
    except subprocess.TimeoutExpired:
        raise _error(command[0], f"no answer within {TIMEOUT_S} s") from None


def _error(command: str, said: str) -> SlurmError:
    reason = said.strip().splitlines()[-1] if said.strip() else "failed without a word"
    return SlurmError(f"{command}: {reason.removeprefix(f'{command}: ')}")
