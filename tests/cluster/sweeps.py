"""A researcher at the login node: commands started with the cluster in the environment, and what they leave behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster.localcluster import LocalCluster
from commands import ROOT, irmas, start, wait_until

TASK = ["device=cpu", "hydra.launcher.cpus=1", "hydra.launcher.mem=2G"]
"""The pretended GPUs have no CUDA; two tasks fit on a node."""
SMALL = ["--cpus-per-task=1", "--mem=2G"]
"""What jobs that are submitted by hand get instead of the scripts' own resources."""
SUBMITTED = re.compile(r"^submitted: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Desk:
    """A folder to work in, with a data set of 132 excerpts."""

    cluster: LocalCluster
    folder: Path
    data: list[str]

    def train(self, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("train", *self.command(*overrides), **environment)

    def command(self, *overrides: str) -> list[str]:
        """The arguments of `irmas.train` for a sweep on this cluster."""
        return [*overrides, *self.data, *TASK, "hydra/launcher=slurm"]

    def submit(self, *overrides: str) -> dict[str, str]:
        """Numbers of the submitted jobs: array1, array2, ..., and data and ranking."""
        done = self.train(*overrides)
        assert done.returncode == 0, done.stdout + done.stderr
        return numbers(done.stdout)

    def by_hand(self, name: str, *options: str) -> str:
        """The number of an array that an operator submits with slurm/sweep.sbatch."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = ["env", f"PATH={path}", f"PYTHONPATH={ROOT}", "sbatch", "--parsable", *SMALL, *options]
        return self.cluster.run(*command, str(ROOT / "slurm" / "sweep.sbatch"), f"outputs/{name}", cwd=self.folder)

    def run(self, command: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return irmas(command, *args, cwd=self.folder, **(self.cluster.environment | environment))

    def start(self, command: str, *args: str) -> subprocess.Popen[str]:
        return start(command, *args, cwd=self.folder, **self.cluster.environment)

    def sweep(self, name: str) -> Path:
        return self.folder / "outputs" / name

    def wait_for_ranking(self, job: str, timeout_s: float = 240) -> None:
        wait_until(lambda: self.state(job) == "COMPLETED", f"ranking job {job} COMPLETED", timeout_s)

    def processes(self, task: str, name: str = "python") -> list[int]:
        """Of an array task, such as 123_4: those whose name begins so; slurmstepd is not its own."""
        array, _, index = task.partition("_")
        marks = {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={index}".encode()}
        found = []
        for pid, its_name in self.cluster.processes().items():
            try:
                environment = set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if marks <= environment and its_name.startswith(name):
                found.append(pid)
        return found

    def state(self, job: str) -> str:
        """Slurm's word about a job or an array task."""
        return self.cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")


def numbers(said: str) -> dict[str, str]:
    match = SUBMITTED.search(said)
    assert match, said
    found: dict[str, str] = {}
    for part in re.split(r" -> | \+ ", match[1]):
        stage, number = part.split()
        arrays = sum(name.startswith("array") for name in found)
        found[f"array{arrays + 1}" if stage == "array" else stage] = number.partition("_")[0]
    return found


def run_of(desk: Desk, sweep: str, number: int) -> Path:
    return desk.sweep(sweep) / "runs" / f"00{number}-seed={number}"


def table(desk: Desk, sweep: str) -> str:
    done = desk.run("status", f"outputs/{sweep}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def epochs(run: Path) -> list[int]:
    """As the run's log tells them."""
    return [int(number) for number in re.findall(r"epoch +(\d+)/", (run / "log.txt").read_text())]
