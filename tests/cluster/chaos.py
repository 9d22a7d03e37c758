"""Random faults on a running sweep, round after round: each must end with the ranking of the undisturbed one.

    make chaos MINUTES=60 SEED=1

A real cluster of its own is started, and wiped at the end. The seed decides kinds, targets and moments of the
faults, as far as Slurm's own timing lets it. The log, and the folders of rounds that ended otherwise, stay.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster import faults
from cluster.faults import Scene
from cluster.localcluster import LocalCluster
from cluster.sweeps import Desk
from commands import copied_package, irmas, wait_until
from left_behind import runs, scalars, status
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from irmas.run.events import event_files

GRID = ["-m", "dropout=0.3,0.5", "lr=0.001,0.0005,0.0001"]
EPOCHS = 20
"""Six such runs take a minute on two cores."""
DATA = ["data=standin", "data.size=132", "features=small"]
DISK = "192m"
"""Size of the disk for a round's outputs; its runs take 70 MB."""
COMMANDS = 3
"""Commands that may make no progress after the last fault."""
HELP_S, STUCK_S = 40, 240
"""Seconds without progress after the last fault until an operator helps, and until the round fails."""
LINES = 12
"""Lines shown of the log of a run that is not COMPLETED."""


@dataclass
class Log:
    """A line for each thing that happens, on the terminal and in a file."""

    path: Path
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self.began:7.1f} s  {text}"
        print(line, flush=True)  # noqa: T201
        with self.path.open("a") as file:
            file.write(line + "\n")


@dataclass
class Outcome:
    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    requeues: int = 0
    """Starts of tasks that were not their first."""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """The results of the undisturbed sweep."""

    ranking: bytes
    scalars: dict[str, dict[str, dict[int, float]]]
    """Values by run, tag and step, without times."""


def run(desk: Desk, seconds: float, seed: int, epochs: int = EPOCHS) -> Outcome:
    """Play rounds in the desk's folder for so many seconds, and until the last of them has ended."""
    log, outcome = Log(desk.folder / "chaos.log"), Outcome()
    log.say(f"seed {seed}, {seconds / 60:g} minutes; log: {log.path}")
    if os.geteuid() != 0:
        log.say("no disk gets full: only root can mount one of its own")
    sweep = [*GRID, f"epochs={epochs}"]
    reference = undisturbed(desk, sweep)
    log.say(f"the undisturbed sweep of {len(reference.scalars)} runs has ended")
    end = time.monotonic() + seconds
    while time.monotonic() < end or not outcome.rounds:
        outcome.rounds += 1
        name = f"round-{outcome.rounds}"
        rng = random.Random(f"{seed} {outcome.rounds}")
        folder = desk.folder / name
        (folder / "outputs").mkdir(parents=True)
        with own_disk(folder / "outputs"):
            problems = Round(replace(desk, folder=folder), name, sweep, rng, log, outcome).play(reference, end)
        for problem in problems:
            log.say(f"{name}: PROBLEM: {problem}")
        outcome.problems += [f"{name}: {problem}" for problem in problems]
        if problems:
            shutil.copytree(desk.cluster.root / "log", folder / "slurm-log")
            log.say(f"{name}: kept in {folder}")
        else:
            shutil.rmtree(folder)
    return outcome


def undisturbed(desk: Desk, sweep: list[str]) -> Reference:
    job = desk.submit(*sweep, "name=undisturbed", "hydra.launcher.runs_per_task=6")
    desk.wait_for_ranking(job["ranking"], 600)
    return results(desk.sweep("undisturbed"))


def results(sweep: Path) -> Reference:
    return Reference((sweep / "ranking.csv").read_bytes(), {run.name: scalars(run) for run in runs(sweep)})


@contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """Mount a small disk in the folder, which can be filled; its files stay there afterwards."""
    if os.geteuid() != 0:
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "chaos", folder], check=True)
    try:
        yield
        shutil.copytree(folder, folder.with_name("kept"))
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    folder.rmdir()
    folder.with_name("kept").rename(folder)


class Round:
    """The same sweep under another name, disturbed for one to three minutes and then left to end."""

    def __init__(self, desk: Desk, name: str, sweep: list[str], rng: random.Random, log: Log, outcome: Outcome) -> None:
        self.name, self.rng, self.log, self.outcome = name, rng, log, outcome
        self.throttle = rng.choice(["null", "3", "4"])
        self.per_task, self.at_once = rng.choice([(1, 1), (2, 1), (2, 2)])
        settings = {"throttle": self.throttle, "runs_per_task": self.per_task, "runs_at_once": self.at_once}
        own = [f"hydra.launcher.{key}={value}" for key, value in settings.items()]
        command = desk.command(*sweep, f"name={name}", *own)
        self.scene = Scene(desk, desk.sweep(name), command, rng, copied_package(desk.folder / "package"))
        self.problems: list[str] = []
        self.last_progress, self.idle_commands = 0, 0
        self.seen: tuple[int, list[str] | None] = (0, None)
        self.seen_at, self.is_helped = time.monotonic(), False
        self.kills_controller = False

    def play(self, reference: Reference, end: float) -> list[str]:
        """Play the round and return the problems that it had."""
        lasts = min(self.rng.uniform(60, 180), max(end - time.monotonic(), 20))
        load = f"throttle {self.throttle}, {self.per_task} runs per task, {self.at_once} at once"
        self.say(f"{lasts:.0f} s of faults, {load}")
        try:
            self.start_command()
            self.disturb(time.monotonic() + lasts)
            if not self.problems:
                self.compare(reference)
        except (AssertionError, subprocess.SubprocessError, OSError) as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        finally:
            self.clear()
        outputs = (self.scene.sweep / "slurm").glob("*.out")
        self.outcome.requeues += sum(
            int(n) > 1 for path in outputs for n in STARTS.findall(path.read_text("utf-8", "replace"))
        )
        return self.problems

    def say(self, text: str) -> None:
        self.log.say(f"{self.name}: {text}")

    def disturb(self, last_fault: float) -> None:
        """Disturb the sweep until every run is COMPLETED and the queue is empty, or a problem is found."""
        next_fault = time.monotonic() + self.rng.uniform(2, 8)
        while not self.problems:
            self.repair()
            self.finish_commands()
            is_over = time.monotonic() > last_fault
            queue = self.scene.queue()
            if not self.scene.commands and any("requeued held" in line for line in queue or []):
                self.start_command()  # which releases it
            if queue == [] and not self.scene.commands and not self.scene.repairs:
                if self.is_complete():
                    return
                self.check_status()
                self.judge_progress(is_over)
                self.start_command(kills_controller=not is_over and self.rng.random() < 0.3)
            elif time.monotonic() > next_fault and not is_over and (struck := faults.strike(self.scene)):
                self.outcome.faults[struck[0]] += 1
                self.say(struck[1])
                next_fault = time.monotonic() + self.rng.uniform(1, 8)
            elif is_over:
                self.judge_time(queue)
            time.sleep(0.2)

    def start_command(self, *, kills_controller: bool = False) -> None:
        self.kills_controller = kills_controller
        self.say(f"the sweep command again, process {self.scene.start_command().pid}")

    def repair(self) -> None:
        for due in [each for each in self.scene.repairs if each[0] < time.monotonic()]:
            self.scene.repairs.remove(due)
            due[2]()
            self.say(due[1])

    def finish_commands(self) -> None:
        """Log how commands ended, each with 0, or with 2 and one message."""
        for command in [each for each in self.scene.commands if each.poll() is not None]:
            self.scene.commands.remove(command)
            stdout, stderr = command.communicate()
            self.outcome.commands += 1
            lines = [line for line in stdout.splitlines() if line.startswith(("submitted", "released", "outputs/"))]
            refused = stderr.strip().splitlines()[-1:]
            self.say(f"command {command.pid} ended with {command.returncode}: {'; '.join([*lines, *refused])}")
            if command.returncode not in (0, 2) or "Traceback" in stderr:
                self.problems.append(f"a command ended with {command.returncode} and printed\n{stderr}")
            if self.kills_controller and "submitted" in stdout and (line := faults.forget(self.scene)):
                self.outcome.faults["kill_controller_after_submission"] += 1
                self.say(f"{line}, right after a submission")
            self.kills_controller = False

    def progress(self) -> int:
        return sum(status(run)["epoch"] for run in runs(self.scene.sweep))

    def is_complete(self) -> bool:
        states = [status(run)["state"] for run in runs(self.scene.sweep)]
        return len(states) == 6 and set(states) == {"COMPLETED"}

    def check_status(self) -> None:
        """Check that irmas.status shows no run as PENDING or RUNNING while the queue is empty."""
        if not (self.scene.sweep / "plan.yaml").exists():
            return
        done = self.scene.desk.run("status", f"outputs/{self.name}", PYTHONPATH=str(self.scene.package))
        first = (done.stdout.splitlines() or [""])[0]
        if self.scene.queue() == [] and (done.returncode or re.search("PENDING|RUNNING", first)):
            self.problems.append(f"nothing is in the queue, and irmas.status prints\n{done.stdout}{done.stderr}")

    def judge_progress(self, is_over: bool) -> None:
        progress = self.progress()
        self.idle_commands = self.idle_commands + 1 if is_over and progress == self.last_progress else 0
        self.last_progress = progress
        if self.idle_commands > COMMANDS:
            self.fail(f"{COMMANDS} commands brought no run further")

    def judge_time(self, queue: list[str] | None) -> None:
        """Fail, or help once, if nothing happens: a job without slurmstepd is RUNNING until its node registers."""
        now = (self.progress(), queue)
        if now != self.seen:
            self.seen, self.seen_at, self.is_helped = now, time.monotonic(), False
        stands_still = time.monotonic() - self.seen_at
        if stands_still > STUCK_S:
            self.fail(f"nothing has happened for {STUCK_S} s; in the queue: {queue}")
        elif stands_still > HELP_S and not self.is_helped:
            self.is_helped = True
            for node in ("n1", "n2", "n3", "n4"):
                with suppress(ProcessLookupError):
                    os.kill(self.scene.desk.cluster.slurmd(node), signal.SIGKILL)
            self.scene.up()
            self.say(f"for {HELP_S} s nothing has happened: every slurmd was restarted; in the queue: {queue}")

    def fail(self, why: str) -> None:
        """Record a problem, with the ends of the logs of runs that are not COMPLETED."""
        lines = [why]
        for run in runs(self.scene.sweep):
            now = status(run)
            if now["state"] != "COMPLETED":
                log = (run / "log.txt").read_text(errors="replace") if (run / "log.txt").exists() else ""
                lines += [f"{run.name} {now['state']} {now.get('message', '')}", *log.splitlines()[-LINES:]]
        self.problems.append("\n    ".join(lines))

    def compare(self, reference: Reference) -> None:
        """Compare the results bit for bit, after one more command, which has nothing to do but to rank."""
        ranking = self.scene.sweep / "ranking.csv"
        before = ranking.read_bytes() if ranking.exists() else b""
        ranked = "was written" if before == reference.ranking else "was missing or old"
        again = self.scene.desk.run("train", *self.scene.command, PYTHONPATH=str(self.scene.package))
        self.outcome.commands += 1
        if again.returncode or "submitted" in again.stdout or "6 finished before" not in again.stdout:
            self.problems.append(f"the command of a finished sweep printed\n{again.stdout}{again.stderr}")
            return
        now = results(self.scene.sweep)
        if now.ranking != reference.ranking:
            self.problems.append(f"ranking\n{now.ranking.decode()}instead of\n{reference.ranking.decode()}")
        self.problems += differences(reference, now)
        for run in runs(self.scene.sweep):
            self.problems += two_writers(run)
        starts = sum(len(event_files(run)) for run in runs(self.scene.sweep))
        self.say(
            f"ended after {starts} starts of 6 runs, {'WRONG' if self.problems else 'as undisturbed'}; "
            f"the last ranking {ranked} before the last command"
        )

    def clear(self) -> None:
        """End and mend everything of the round that still runs, waits or is broken."""
        for command in self.scene.commands:
            command.kill()
            command.communicate()
        for _, _, repair in self.scene.repairs:
            repair()
        cluster = self.scene.desk.cluster
        cluster.up()
        for partition in ("main", "high"):
            cluster.run("scancel", f"--partition={partition}")
        for pid, name in cluster.processes().items():
            if name.startswith("python") and b"SLURM_JOB_ID=" in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not cluster.run("squeue", "-h"), "an empty queue", 240)


STARTS = re.compile(r"^outputs/\S+: task \S+ on \S+, start (\d+)", re.MULTILINE)


def differences(reference: Reference, now: Reference) -> Iterator[str]:
    """Yield the first difference of each run."""
    for name in reference.scalars.keys() | now.scalars.keys():
        was, is_ = (
            {(tag, step): value for tag, points in side.scalars.get(name, {}).items() for step, value in points.items()}
            for side in (reference, now)
        )
        for tag, step in sorted(was.keys() | is_.keys()):
            if was.get((tag, step)) != is_.get((tag, step)):
                yield f"{name}: {tag} at step {step} is {is_.get((tag, step))}, undisturbed {was.get((tag, step))}"
                break


def two_writers(run: Path) -> Iterator[str]:
    """Yield starts that wrote after a later start: only the epoch under way may still be committed."""
    began: list[float] = []
    late: list[dict[int, float]] = []
    for path in event_files(run):
        events = list(EventFileLoader(str(path)).Load())
        late.append({event.step: event.wall_time for event in events if event.summary.value})
        began.append(events[0].wall_time if events else 0.0)
    for number, steps in enumerate(late):
        for later in range(number + 1, len(late)):
            after = sorted(step for step, when in steps.items() if when > began[later])
            if len(after) > 1:
                yield f"{run.name}: start {number + 1} wrote epochs {after} after start {later + 1} had begun"


def summary(outcome: Outcome) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.faults.items()))
    lines = [
        f"{outcome.rounds} rounds, {sum(outcome.faults.values())} faults, {outcome.commands} commands, "
        f"{outcome.requeues} starts after a requeue",
        f"faults: {kinds}",
        *outcome.problems,
        f"{len(outcome.problems)} problems" if outcome.problems else "every round ended as the undisturbed sweep",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cluster.chaos", description="Random faults on a running sweep.")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = Path("outputs/chaos", f"{time.strftime('%Y%m%d-%H%M%S')}-seed-{args.seed}").absolute()
    folder.mkdir(parents=True)
    data = [*DATA, f"data.root={folder}/data", f"data.cache_dir={folder}/cache"]
    cluster = LocalCluster()
    try:
        started = cluster.up()
        if started.returncode:
            sys.exit(started.stderr.strip())
        made = irmas("prepare", *data, cwd=folder)
        assert made.returncode == 0, made.stderr
        outcome = run(Desk(cluster, folder, data), 60 * args.minutes, args.seed)
    finally:
        cluster.down("--wipe")
    text = summary(outcome)
    (folder / "summary.txt").write_text(text + "\n")
    print(text)  # noqa: T201
    for name in ("data", "cache", "outputs"):
        if not outcome.problems:
            shutil.rmtree(folder / name, ignore_errors=True)
    sys.exit(1 if outcome.problems else 0)


if __name__ == "__main__":
    main()
