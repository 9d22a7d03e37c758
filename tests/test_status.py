"""The table of a sweep as a user sees it: states, reasons, logs; it writes nothing."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from commands import ENVIRONMENT, ROOT, start
from factories import age_heartbeat, read_plan, run_folder, write_plan
from forked_commands import Commands
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from irmas import status
from irmas.config import Config
from irmas.files import held_by_many
from irmas.run.events import RANKED, VAL_ACCURACY, VAL_LOSS
from irmas.run.folder import CANCELLED, COMPLETED, FAILED, INTERRUPTED, PENDING, RUNNING, RunFolder, Status
from irmas.run.lease import Writer
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.run_states import NOT_SUBMITTED, RunState, SweepState
from irmas.sweep.slurm import Task
from irmas.sweep.sweep import Sweep

MINE = Sweep.of(Plan("mine", ["lr", "l2"], "data", "source", "", Config()))
TRACEBACK = (
    "Traceback (most recent call last):\n" + "".join(f"  frame {n}\n" for n in range(9)) + "ValueError: [no] more"
)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "mine"
    points = [PlannedRun(number, {"lr": number / 10}, {"lr": number / 10}) for number in range(1, 6)]
    write_plan(folder, Plan("mine", ["lr"], "data", "source", "", Config(), points))
    scores = {RANKED: 0.5, VAL_ACCURACY: 0.75, VAL_LOSS: 1.25}
    write(folder, 1, Status(COMPLETED, epoch=15, epochs=15, metrics=scores, writer=Writer(node="n1", pid=4)))
    write(folder, 2, Status(FAILED, epoch=3, epochs=15, exit_code=1, message=TRACEBACK, writer=Writer(pid=4)))
    for number in (3, 4):
        write(folder, number, Status(CANCELLED, message=INTERRUPTED, writer=Writer(pid=4)))
    return folder


def write(sweep: Path, number: int, recorded: Status) -> RunFolder:
    folder = run_folder(sweep, read_plan(sweep, [number]).runs[0])
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.amend_status(recorded)
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_command_that_makes_its_first_run_ready_is_live(sweep: Path) -> None:
    assert not status.look(sweep).is_live
    with held_by_many(Sweep.open(sweep).pool_lock), held_by_many(Sweep.open(sweep).pool_lock):
        assert status.look(sweep).is_live
    assert not status.look(sweep).is_live


def test_the_command_shows_every_run_and_why_runs_ended_and_writes_nothing(sweep: Path, commands: Commands) -> None:
    before = contents(sweep)
    done = commands.run("status", "outputs/mine", folder=sweep.parent.parent)
    assert (done.code, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert "outputs/mine: 2 CANCELLED, 1 COMPLETED, 1 FAILED, 1 PENDING" in done.stdout
    assert ["1", "0.1", "COMPLETED", "-", "n1", "-", "15/15", "50.00%", "1.2500"] in lines
    assert [line[0] for line in lines if line and line[0].isdigit()] == ["1", "2", "3", "4", "5"]
    printed = done.stdout.split("run 2 FAILED, exit code 1\n")[1].splitlines()[: status.ERROR_LINES]
    assert [line.strip() for line in printed] == [
        line.strip() for line in TRACEBACK.splitlines()[-status.ERROR_LINES :]
    ]
    assert f"runs 3-4 CANCELLED\n    {INTERRUPTED}\n" in done.stdout
    assert contents(sweep) == before


def test_the_log_of_one_run_is_printed(sweep: Path, commands: Commands) -> None:
    text = "epoch 1\n[bold]epoch 2\n" * 1000
    (write(sweep, 2, Status(FAILED)).path / "log.txt").write_text(text)
    assert commands.run("status", "outputs/mine", "--log", "2", folder=sweep.parent.parent).stdout == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["outputs/other"], "no sweep is here"),
        (["outputs/mine", "--log", "6"], "has the runs 1 to 5"),
        (["outputs/mine", "--log", "0"], "has the runs 1 to 5"),
        (["outputs/mine", "--log", "5"], "the run has not started"),
    ],
)
def test_a_mistake_is_one_message(sweep: Path, arguments: Sequence[str], message: str, commands: Commands) -> None:
    done = commands.run("status", *arguments, folder=sweep.parent.parent)
    assert (done.code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert message in done.stderr


def test_watching_prints_changes_and_ends_when_nothing_is_live(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = Status(RUNNING, epoch=1, epochs=15, writer=Writer(node="elsewhere", pid=4))
    write(sweep, 5, running)

    def later(seconds: float) -> None:
        if seconds == status.REFRESH_S:
            write(sweep, 5, Status(COMPLETED, epoch=15, epochs=15, writer=Writer(pid=4)))

    monkeypatch.setattr(time, "sleep", later)
    state = status.watch(sweep)
    assert state.runs[4].status.state == COMPLETED
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "run 5" in line] == ["run 5 lr=0.5  COMPLETED"]
    assert "1 RUNNING" in printed[0]


def test_watching_ends_when_a_run_has_neither_lock_nor_heartbeat(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(sweep, 5, Status(RUNNING, epoch=1, epochs=15, writer=Writer("box1", 4)))
    monkeypatch.setattr(time, "sleep", lambda seconds: age_heartbeat(folder, 3600))
    assert status.watch(sweep).runs[4].status.state == FAILED
    assert "run 5 lr=0.5  FAILED: the process died without reporting an error (no heartbeat for 1 h; last on box1)" in (
        capsys.readouterr().out.splitlines()
    )
    with folder.acquire():
        state = status.look(sweep)
        (cell,) = [cell for cell in status.table(state, state.runs).columns[2].cells if "RUNNING" in str(cell)]
        assert str(cell) == "RUNNING (last heartbeat 1 h ago)"


def test_a_local_sweep_between_two_runs_is_not_over(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    def later(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            write(sweep, 5, Status(RUNNING, writer=Writer(node="elsewhere", pid=4)))
        else:
            write(sweep, 5, Status(COMPLETED, writer=Writer(pid=4)))

    monkeypatch.setattr(time, "sleep", later)
    assert status.watch(sweep).runs[4].status.state == COMPLETED
    assert slept == [status.CONFIRM_S, status.REFRESH_S, status.CONFIRM_S]


def test_ctrl_c_ends_watching_quietly(sweep: Path) -> None:
    write(sweep, 5, Status(RUNNING, writer=Writer(node="elsewhere", pid=4)))
    watching = start("status", "outputs/mine", "--watch", cwd=sweep.parent.parent)
    assert watching.stdout is not None
    assert "1 RUNNING" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, stderr = watching.communicate(timeout=30)
    assert (watching.returncode, stderr) == (130, "")


def test_on_a_terminal_a_table_is_drawn_in_place(sweep: Path) -> None:
    for point in read_plan(sweep).runs:
        run_folder(sweep, point).path.mkdir(parents=True, exist_ok=True)
        run_folder(sweep, point).log.touch()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "irmas.status", "outputs/mine", "--watch"]
    environment = ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    watching = subprocess.Popen(
        command, cwd=sweep.parent.parent, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    printed = read_until(ours, "all that a run printed")
    assert watching.wait(timeout=30) == 0
    os.close(ours)
    assert "\x1b[1A" in printed  # the cursor goes up, over the old table


def read_until(terminal: int, text: str) -> str:
    printed, end = "", time.monotonic() + 30
    while text not in printed:
        assert select.select([terminal], [], [], max(end - time.monotonic(), 0))[0], printed
        printed += os.read(terminal, 65536).decode(errors="replace")
    return printed


def test_a_screen_that_is_too_small_shows_the_runs_that_need_a_look() -> None:
    states = dict.fromkeys(range(1, 201), COMPLETED) | {150: RUNNING, 170: FAILED, 20: "TIMEOUT", 190: PENDING}
    runs = [RunState(PlannedRun(number, {}, {}), Status(state), None, None) for number, state in states.items()]
    view = status.screen(SweepState(MINE, runs, []), Console(width=100, height=9))
    assert list(view.renderables[1].columns[0].cells) == ["1", "20", "150", "170"]  # type: ignore[union-attr]
    assert str(view.renderables[2]) == "and 196 more: python -m irmas.status outputs/mine"


@pytest.mark.parametrize(("width", "heads"), [(120, 10), (80, 8), (54, 6)])
def test_a_narrow_screen_leaves_columns_out_and_cuts_none(width: int, heads: int) -> None:
    task = Task("1234567", 1, "RUNNING", node="node-gpu-01", elapsed="1:02:03")
    run = RunState(PlannedRun(1, {"lr": 0.0001, "l2": 0.0005}, {}), Status(RUNNING, epoch=3, epochs=15), task, None)
    console = Console(width=width, height=30)
    view = status.screen(SweepState(MINE, [run], []), console)
    lines = view.renderables[1]
    assert isinstance(lines, Table)
    assert len(lines.columns) == heads
    assert Measurement.get(console, console.options.update(max_width=9999), lines).maximum <= width


def test_tasks_stages_and_reasons_of_slurm_are_shown(sweep: Path) -> None:
    points = read_plan(sweep).runs
    waits = Task("7", 2, "PENDING", reason="Priority", elapsed="0:00")
    trains = Task("7", 1, "RUNNING", node="n3", elapsed="1:02")
    runs = [
        RunState(points[0], Status(RUNNING, epoch=3, epochs=15, writer=Writer(node="old")), trains, None),
        RunState(points[1], Status(PENDING, message="Priority"), waits, None),
        RunState(points[2], Status(NOT_SUBMITTED), None, None),
    ]
    stage = Task("6", None, "COMPLETED", node="n1", elapsed="0:30", name="data")
    noted = replace(MINE, plan=replace(MINE.plan, config=Config(note="with [bold] masks")))
    state = SweepState(noted, runs, [stage], "squeue: no answer")
    head = str(status.header(state)).splitlines()
    assert head == [
        "outputs/mine: 1 NOT_SUBMITTED, 1 PENDING, 1 RUNNING",
        "note: with [bold] masks",
        "data job 6: COMPLETED on n1  0:30",
        "squeue: no answer",
    ]
    columns = {str(column.header): [str(cell) for cell in column.cells] for column in status.table(state, runs).columns}
    assert columns["state"] == ["RUNNING", "PENDING (Priority)", "NOT_SUBMITTED"]
    assert columns["task"] == ["7_1", "7_2", "-"]
    assert columns["node"] == ["n3", "-", "-"]
    assert columns["elapsed"] == ["0:01:02", "-", "-"]
    assert str(next(status.failures(state))) == "run 3: not queued; rerun the sweep command to submit it"


def test_the_table_loads_without_torch() -> None:
    code = "import sys, irmas.status; print(sorted({'torch', 'hydra', 'numpy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
