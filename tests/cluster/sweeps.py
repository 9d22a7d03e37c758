"""A researcher at the login node: commands run with the cluster in the environment, and what they leave behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.localcluster import LocalCluster
from commands import ROOT, irmas, start, wait_until
from left_behind import status

from irmas.run.folder import RUNNING

TASK = ["device=cpu", "hydra.launcher.cpus=1", "hydra.launcher.mem=2G"]
"""Resources of a task: the pretended GPUs have no CUDA; two tasks fit on a node."""
SMALL = ["--cpus-per-task=1", "--mem=2G"]
"""Resources of jobs that are submitted by hand, in place of the scripts' own."""
OUTPUT = "--output=outputs/%x-%A_%a.out"
FORBIDDEN = '{ echo "Access/permission denied for job 7" >&2; exit 1; }'
"""Shell's end of a command that a site keeps from its users."""
SUBMITTED = re.compile(r"^submitted: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Desk:
    """A folder to work in, with a data set of 132 excerpts and a small model."""

    cluster: LocalCluster
    folder: Path
    settings: list[str]
    """Overrides of the data and of the model."""

    def train(self, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("train", *self.command(*overrides), **environment)

    def command(self, *overrides: str) -> list[str]:
        """Return the arguments of `irmas.train` for a sweep on this cluster."""
        return [*overrides, *self.settings, *TASK, "hydra/launcher=slurm"]

    def submit(self, *overrides: str) -> dict[str, str]:
        """Train on the cluster; return the numbers of the submitted jobs: array1, array2, ..., data and ranking."""
        done = self.train(*overrides)
        assert done.returncode == 0, done.stdout + done.stderr
        return job_numbers(done.stdout)

    def by_hand(self, name: str, *options: str, package: Path = ROOT) -> str:
        """Submit the stage `train` of a package as an operator does; return the number of its array."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = ["env", f"PATH={path}", f"PYTHONPATH={package}", "sbatch", "--parsable", *SMALL, OUTPUT, *options]
        script = str(package / "slurm" / "irmas.sbatch")
        return self.cluster.run(*command, script, "train", f"outputs/{name}", cwd=self.folder)

    def run(self, command: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return irmas(command, *args, cwd=self.folder, **(self.cluster.environment | environment))

    def start(self, command: str, *args: str, **environment: str) -> subprocess.Popen[str]:
        return start(command, *args, cwd=self.folder, **(self.cluster.environment | environment))

    def sweep(self, name: str) -> Path:
        return self.folder / "outputs" / name

    def wait_for_ranking(self, job: str, timeout_s: float = 240, state: str = "COMPLETED") -> None:
        """Wait until the ranking job ends: COMPLETED, or FAILED where nothing could be ranked."""
        wait_until(lambda: self.state(job) in ("COMPLETED", "FAILED"), f"the end of the ranking job {job}", timeout_s)
        assert self.state(job) == state

    def processes(self, task: str, name: str = "python") -> list[int]:
        """Return the processes of an array task, such as 123_4, whose name begins so; slurmstepd is none of them."""
        array, _, index = task.partition("_")
        marks = {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={index}".encode()}
        pids = []
        for pid, process_name in self.cluster.processes().items():
            try:
                environment = set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if marks <= environment and process_name.startswith(name):
                pids.append(pid)
        return pids

    def state(self, job: str) -> str:
        """Return the state of a job or an array task, as squeue shows it."""
        return self.cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")


def wrapped(desk: Desk, **scripts: str) -> str:
    """Return a PATH on which these commands are the site's own."""
    folder = desk.folder / "site"
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def job_numbers(stdout: str) -> dict[str, str]:
    """Return the jobs that a command printed as submitted: array1, array2, ..., data and ranking."""
    match = SUBMITTED.search(stdout)
    assert match, stdout
    jobs: dict[str, str] = {}
    for part in re.split(r" -> | \+ ", match[1]):
        stage, number = part.split()
        arrays = sum(name.startswith("array") for name in jobs)
        jobs[f"array{arrays + 1}" if stage == "array" else stage] = number.partition("_")[0]
    return jobs


def run_of(desk: Desk, sweep: str, number: int) -> Path:
    """Return the folder of a run of a sweep over `seed`, in which seed and run ID are the same."""
    return desk.sweep(sweep) / "runs" / f"00{number}-seed={number}"


def table(desk: Desk, sweep: str) -> str:
    """Return what irmas.status prints."""
    done = desk.run("status", f"outputs/{sweep}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def send(number: signal.Signals, *folders: Path) -> None:
    """Send a signal to the processes that train the runs."""
    for run in folders:
        os.kill(status(run)["pid"], number)


def hold(*folders: Path, restart: int = 0) -> None:
    """Stop each run's process after its first epochs, so that it does not end before it is disturbed."""
    remaining = list(folders)

    def are_held() -> bool:
        for run in remaining[:]:
            now = status(run)
            if now["state"] == RUNNING and now["epoch"] >= 1 and now["restart"] == restart:
                send(signal.SIGSTOP, run)
                remaining.remove(run)
        return not remaining

    wait_until(are_held, f"{[run.name for run in folders]} train, start {restart + 1}", 120)


def let_go(*folders: Path) -> None:
    """Let held processes end in good order: send SIGCONT to each as soon as it has a SIGTERM to handle."""
    for run in folders:
        pid = status(run)["pid"]
        wait_until(lambda: _has_sigterm(pid), f"{run.name} has to end", 120)  # noqa: B023
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _has_sigterm(pid: int) -> bool:
    """Return whether a SIGTERM is pending, or has ended the process."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    pending = re.findall(r"^S\w+Pnd:\s*(\w+)", text, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in pending)


def epochs(run: Path) -> list[int]:
    """Return the epochs that the run's log has, in its order."""
    return [int(number) for number in re.findall(r"epoch +(\d+)/", (run / "log.txt").read_text())]
