"""Random faults on a cluster: each picks its target, strikes, and returns a line about it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cluster.sweeps import Desk
from left_behind import runs, status


@dataclass(frozen=True)
class Running:
    """A job or array task in state RUNNING."""

    id: str
    """123_4, or 123 for the ranking."""
    number: str
    """Slurm's own number, also of an array task, in the names of its steps."""
    node: str


@dataclass
class Scene:
    """A sweep that is under way, and the repairs that faults leave to do."""

    desk: Desk
    sweep: Path
    command: list[str]
    """Arguments of `irmas.train`."""
    rng: random.Random
    package: Path
    """The source that the sweep command runs with, which may be edited."""
    environment: dict[str, str] = field(default_factory=dict)
    """Further environment of the commands."""
    repairs: list[tuple[float, str, Callable[[], None]]] = field(default_factory=list)
    """Due time (time.monotonic()), description and action of each repair."""
    commands: list[subprocess.Popen[str]] = field(default_factory=list)
    """Sweep commands under way."""

    def start_command(self) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(self.package), **self.environment}
        self.commands.append(self.desk.start("train", *self.command, **environment))
        return self.commands[-1]

    def repair(self, after_s: float, description: str, action: Callable[[], None]) -> None:
        self.repairs.append((time.monotonic() + after_s, description, action))

    def up(self) -> None:
        """Bring the cluster back as its operator does."""
        done = self.desk.cluster.up()
        assert done.returncode == 0, done.stdout + done.stderr

    def controller(self) -> int | None:
        return next((pid for pid, name in self.desk.cluster.processes().items() if name == "slurmctld"), None)

    def queue(self, states: str = "all") -> list[str] | None:
        """Return `id|number|state|node|reason` of each job in the queue, or None without a controller."""
        if self.controller() is None:  # squeue would try for 9 s
            return None
        only = [] if states == "all" else ["-t", states]
        done = self.desk.cluster.call("squeue", "-h", "-r", "-p", "main", *only, "-o", "%i|%A|%T|%N|%r")
        return sorted(done.stdout.splitlines()) if done.returncode == 0 else None

    def running(self) -> list[Running]:
        return [Running(task, number, node) for task, number, _, node, _ in self.tasks("running")]

    def tasks(self, states: str = "all") -> list[list[str]]:
        """Return the fields of each job in the queue; none without a controller."""
        return [line.split("|") for line in self.queue(states) or []]

    def running_array_task(self) -> Running | None:
        tasks = [task for task in self.running() if "_" in task.id]
        return self.rng.choice(tasks) if tasks else None


Fault = Callable[[Scene], str | None]
"""Strike and return a description, or None where there is no target."""


def kill_child(scene: Scene) -> str | None:
    """Kill the process that trains; the task's own process sees it end."""
    training = [run for path in runs(scene.sweep) if (run := status(path))["state"] == "RUNNING"]
    training = [run for run in training if run["pid"] in scene.desk.processes(run["job"])]
    if not training:
        return None
    run = scene.rng.choice(training)
    os.kill(run["pid"], signal.SIGKILL)
    return f"kill -9 {run['pid']}, which trains in task {run['job']} on {run['node']}, after epoch {run['epoch']}"


def kill_task(scene: Scene) -> str | None:
    return _kill(
        scene, "its own process", lambda task: [pid for pid in _python(scene, task) if _is(pid, "sweep.array_task")]
    )


def kill_everything(scene: Scene) -> str | None:
    """Kill all processes of a task, as when memory runs out."""
    return _kill(scene, "all of its Python", lambda task: _python(scene, task))


def kill_srun(scene: Scene) -> str | None:
    return _kill(scene, "srun", lambda task: scene.desk.processes(task.id, "srun"))


def kill_step(scene: Scene) -> str | None:
    """Kill Slurm's own process above the task's, which live on."""
    step = scene.rng.choice(["0", "batch"])
    steps = [pid for pid, name in scene.desk.cluster.processes().items() if name == "slurmstepd"]
    marked = lambda task: [pid for pid in steps if _is(pid, f"[{task.number}.{step}]")]  # noqa: E731
    return _kill(scene, f"slurmstepd of step {step}", marked)


def requeue(scene: Scene) -> str | None:
    return _slurm(scene, scene.running(), "scontrol", "requeue")


def preempt(scene: Scene) -> str | None:
    task = scene.running_array_task()
    if task is None:
        return None
    options = ["--partition=high", "--gres=gpu:2", f"--nodelist={task.node}", "--output=/dev/null"]
    return (
        f"a job preempts what runs on {task.node}" if _succeeds(scene, "sbatch", *options, "--wrap=sleep 3") else None
    )


def cancel_running(scene: Scene) -> str | None:
    return _slurm(scene, scene.running(), "scancel")


def cancel_pending(scene: Scene) -> str | None:
    return _slurm(scene, [Running(task, number, "") for task, number, *_ in scene.tasks("pending")], "scancel")


def lose_node(scene: Scene) -> str | None:
    """Kill a node's slurmd; the processes of its jobs live on, unknown to Slurm."""
    task = scene.running_array_task()
    if task is None:
        return None
    daemon = scene.desk.cluster.slurmd(task.node)
    if scene.desk.cluster.processes().get(daemon) != "slurmd":
        return None
    os.kill(daemon, signal.SIGKILL)
    after_s = scene.rng.uniform(2, 45)  # DOWN after 15 to 30
    scene.repair(after_s, f"slurmd of {task.node} comes back", scene.up)
    return f"kill -9 slurmd of {task.node}, where task {task.id} runs, for {after_s:.0f} s"


def down_node(scene: Scene) -> str | None:
    task = scene.running_array_task()
    if task is None or not _succeeds(
        scene, "scontrol", "update", f"nodename={task.node}", "state=down", "reason=chaos"
    ):
        return None
    after_s = scene.rng.uniform(2, 20)
    scene.repair(after_s, f"{task.node} is resumed", scene.up)
    return f"{task.node}, where task {task.id} runs, is set DOWN for {after_s:.0f} s"


def kill_controller(scene: Scene) -> str | None:
    return forget(scene) if scene.running() else None


def forget(scene: Scene) -> str | None:
    """Kill slurmctld, which forgets what happened in its last seconds."""
    controller = scene.controller()
    if controller is None:
        return None
    os.kill(controller, signal.SIGKILL)
    after_s = scene.rng.uniform(0, 6)
    scene.repair(after_s, "slurmctld comes back", scene.up)
    return f"kill -9 slurmctld for {after_s:.0f} s"


def fill_disk(scene: Scene) -> str | None:
    outputs = scene.sweep.parent
    filler = outputs / "filler"
    if not os.path.ismount(outputs) or filler.exists():
        return None
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    after_s = scene.rng.uniform(1, 10)
    scene.repair(after_s, "the disk has space again", filler.unlink)
    return f"the disk is full for {after_s:.0f} s"


def run_twice(scene: Scene) -> str | None:
    if scene.commands:
        return None
    pids = [scene.start_command().pid for _ in range(2)]
    return f"the sweep command twice at once, processes {pids[0]} and {pids[1]}"


def cancel_and_rerun(scene: Scene) -> str | None:
    """Give the command while the tasks of an array that was cancelled are COMPLETING."""
    task = scene.running_array_task()
    array = task.id.partition("_")[0] if task is not None else ""
    if scene.commands or not array or not _succeeds(scene, "scancel", array):
        return None
    return f"scancel {array}, and the sweep command at once, process {scene.start_command().pid}"


def break_prolog(scene: Scene) -> str | None:
    """Let a node fail to start jobs: Slurm drains it, and holds the job until somebody releases it."""
    if (scene.desk.cluster.root / "prolog.d" / "broken").exists():
        return None
    node = scene.rng.choice(["n1", "n2", "n3", "n4"])
    prolog = scene.desk.cluster.break_prolog(f'[ "$SLURMD_NODENAME" = {node} ]')
    after_s = scene.rng.uniform(2, 20)

    def mend() -> None:
        prolog.unlink()
        scene.up()

    scene.repair(after_s, f"{node} starts jobs again", mend)
    return f"{node} starts no job for {after_s:.0f} s"


def change_sbatch(scene: Scene) -> str | None:
    """Put a site's own sbatch in the place of Slurm's."""
    if "PATH" in scene.environment:
        return None
    kind, script = scene.rng.choice([*SITES.items()])
    sbatch = scene.sweep.parent.parent / "site" / "sbatch"
    sbatch.parent.mkdir(exist_ok=True)
    sbatch.write_text(script.format(sbatch=shutil.which("sbatch")))
    sbatch.chmod(0o755)
    scene.environment["PATH"] = f"{sbatch.parent}:{os.environ['PATH']}"
    after_s = scene.rng.uniform(10, 40)
    scene.repair(after_s, "sbatch is Slurm's own again", scene.environment.clear)
    return f"sbatch {kind}, for {after_s:.0f} s"


def edit_source(scene: Scene) -> str | None:
    """Break the source that trains, once a run has begun: the sweep has a copy of its own."""
    learner = scene.package / "irmas" / "learning" / "learner.py"
    if not runs(scene.sweep) or EDIT in learner.read_text():
        return None
    with learner.open("a") as file:
        file.write(EDIT)
    return f"{learner.name} was edited, and trains nothing any more"


SITES = {
    "prints the bare number": '#!/bin/sh\nexec {sbatch} --parsable "$@"\n',
    "prints a notice": '#!/bin/sh\necho "Your last job 1 used 3 SU."\n{sbatch} "$@" || exit\necho "Thank you."\n',
    "times out": '#!/bin/sh\n{sbatch} "$@" || exit\necho "sbatch: error: Socket timed out" >&2\nexit 1\n',
}
"""Scripts in place of sbatch."""
EDIT = "raise RuntimeError('edited')\n"

# fmt: off
FAULTS: list[Fault] = [
    kill_child, kill_task, kill_everything, kill_srun, kill_step, requeue, preempt, cancel_running, cancel_pending,
    lose_node, down_node, kill_controller, fill_disk, run_twice, cancel_and_rerun, break_prolog, change_sbatch,
    edit_source,
]
# fmt: on


def strike(scene: Scene) -> tuple[str, str] | None:
    """Strike with one fault; return its kind and description, or None where no kind has a target."""
    for fault in scene.rng.sample(FAULTS, len(FAULTS)):
        if line := fault(scene):
            return fault.__name__, line
    return None


def _python(scene: Scene, task: Running) -> list[int]:
    return scene.desk.processes(task.id)


def _is(pid: int, mark: str) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _kill(scene: Scene, what: str, processes: Callable[[Running], list[int]]) -> str | None:
    """Kill processes of a random running array task."""
    task = scene.running_array_task()
    pids = processes(task) if task is not None else []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if task is None or not pids:
        return None
    return f"kill -9 {what} ({' '.join(map(str, pids))}) of task {task.id} on {task.node}"


def _slurm(scene: Scene, jobs: list[Running], *command: str) -> str | None:
    if not jobs:
        return None
    job = scene.rng.choice(jobs)
    where = f"which runs on {job.node}" if job.node else "which waits"
    return f"{' '.join(command)} {job.id}, {where}" if _succeeds(scene, *command, job.id) else None


def _succeeds(scene: Scene, *command: str) -> bool:
    return scene.desk.cluster.call(*command).returncode == 0
