"""States of runs: the rules that merge the recorded status with Slurm's reply, and which task trains which run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from factories import age_heartbeat, read_plan, run_folder, write_plan

from irmas.config import Config
from irmas.run.folder import (
    CANCELLED,
    COMPLETED,
    DIVERGED,
    FAILED,
    INTERRUPTED,
    PENDING,
    RUNNING,
    SILENT_S,
    RunFolder,
    Status,
)
from irmas.run.lease import Writer
from irmas.sweep import jobs, run_states, slurm
from irmas.sweep.jobs import ARRAY, DATA, RANKING, Job, Work, named_sweep, record_job, recorded_jobs
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.run_states import (
    NOT_SUBMITTED,
    SweepState,
    merge_state,
    pick_task,
    record_dead_runs,
    sweep_state,
    with_slurm,
)
from irmas.sweep.slurm import Task
from irmas.sweep.submit import settled_state
from irmas.sweep.sweep import Sweep

NOW = 1_000_000.0
OLD_S = SILENT_S + 60
"""Age of the last heartbeat of a process that may be dead."""
NEW = Status()
"""The status of a run that no process has begun."""
RUNS = Status(RUNNING, epoch=2, epochs=9, updated=NOW - 1, writer=Writer(node="n1", pid=5, job="7_1"))
ENDED = replace(RUNS, state=COMPLETED, epoch=9)
STOPS = replace(RUNS, state=CANCELLED, message=INTERRUPTED)
RAISED = replace(RUNS, state=FAILED, exit_code=1, message="Traceback ...\nRuntimeError: no")
KILLED = replace(RUNS, state=FAILED, exit_code=-9, message="killed by signal 9")
BY_HAND = replace(RUNS, writer=replace(RUNS.writer, job=""))
REFUSED = Status(FAILED, message="was started 11 times")
SETTLED = replace(RUNS, state="NODE_FAIL", message="NODE_FAIL in Slurm, its node failed")


def task(state: str, **more: str) -> Task:
    """Return the task 7_1, which has run for 100 s."""
    return Task(job="7", index=1, state=state, elapsed="1:40", **more)


@pytest.mark.parametrize(
    ("recorded", "task", "state", "error"),
    [
        # What is final stays, even if the task is run again.
        (ENDED, task("TIMEOUT"), COMPLETED, ""),
        (replace(RUNS, state=DIVERGED, message="nan"), task("PENDING"), DIVERGED, "nan"),
        # In the queue.
        (NEW, task("PENDING", reason="Priority"), PENDING, "Priority"),
        (STOPS, task("PENDING", reason="BeginTime"), PENDING, "BeginTime"),
        (RUNS, task("REQUEUED"), PENDING, ""),
        (RAISED, task("CONFIGURING"), PENDING, ""),
        (RAISED, Task("8", 1, "PENDING"), PENDING, ""),
        (BY_HAND, task("PENDING"), RUNNING, ""),
        # The task runs.
        (RUNS, task("RUNNING"), RUNNING, ""),
        (RUNS, task("COMPLETING"), RUNNING, ""),
        (replace(STOPS, updated=NOW - 110), task("COMPLETING"), CANCELLED, INTERRUPTED),
        (NEW, task("COMPLETING"), PENDING, "its task 7_1 is completing"),
        (NEW, task("RUNNING"), PENDING, "waits in task 7_1"),
        (RUNS, Task("8", 1, "RUNNING", elapsed="1:40"), PENDING, "waits in task 8_1"),
        (RAISED, task("RUNNING"), FAILED, RAISED.message),
        (replace(RAISED, updated=NOW - 110), task("RUNNING"), PENDING, "waits in task 7_1"),
        (SETTLED, Task("8", 1, "RUNNING", elapsed="1:40"), PENDING, "waits in task 8_1"),
        # The process died without recording it.
        (RUNS, task("OUT_OF_MEMORY"), "OUT_OF_MEMORY", "out of memory"),
        (RUNS, task("TIMEOUT"), "TIMEOUT", "resume it after epoch 2"),
        (replace(RUNS, epoch=0), task("NODE_FAIL"), "NODE_FAIL", "to restart it"),
        (RUNS, task("PREEMPTED"), "PREEMPTED", "priority"),
        (RUNS, task("CANCELLED"), CANCELLED, "scancel"),
        (RUNS, task("FAILED", exit_code="3:0"), FAILED, "exit code 3:0"),
        (RUNS, task("FAILED", reason="JobLaunchFailure"), FAILED, "JobLaunchFailure"),
        (RUNS, task("COMPLETED"), FAILED, "without reporting an error"),
        (RUNS, None, FAILED, "Slurm has no record of job 7_1"),
        (BY_HAND, None, RUNNING, ""),
        # It was interrupted, and does not know why.
        (STOPS, task("TIMEOUT"), "TIMEOUT", "time limit"),
        (STOPS, task("PREEMPTED"), "PREEMPTED", "higher-priority"),
        (STOPS, task("FAILED", exit_code="1:0"), FAILED, "exit code 1:0"),
        (STOPS, task("CANCELLED"), CANCELLED, INTERRUPTED),
        (STOPS, None, CANCELLED, INTERRUPTED),
        # It failed.
        (RAISED, task("FAILED", exit_code="1:0"), FAILED, RAISED.message),
        (RAISED, task("OUT_OF_MEMORY"), FAILED, RAISED.message),
        (KILLED, task("OUT_OF_MEMORY"), "OUT_OF_MEMORY", "out of memory"),
        (KILLED, task("CANCELLED"), CANCELLED, "scancel"),
        (KILLED, task("FAILED", exit_code="1:0"), FAILED, KILLED.message),
        (KILLED, None, FAILED, KILLED.message),
        (SETTLED, None, "NODE_FAIL", SETTLED.message),
        # It never began.
        (NEW, None, NOT_SUBMITTED, ""),
        (NEW, task("CANCELLED"), CANCELLED, "to restart it"),
        (NEW, task("FAILED", exit_code="3:0"), FAILED, "exit code 3:0"),
        (NEW, task("COMPLETED"), NOT_SUBMITTED, ""),
        (REFUSED, task("FAILED", exit_code="1:0"), FAILED, REFUSED.message),
        (Status(CANCELLED, message="settled"), None, CANCELLED, "settled"),
        (
            Status(CANCELLED, message="of a task before"),
            task("CANCELLED"),
            CANCELLED,
            "CANCELLED in Slurm, by scancel",
        ),
    ],
)
def test_the_joined_state(recorded: Status, task: Task | None, state: str, error: str) -> None:
    joined = merge_state(recorded, task, NOW)
    assert joined.state == state
    assert error in joined.message if error else not joined.message
    assert replace(joined, state="", message="", exit_code=None) == replace(
        recorded, state="", message="", exit_code=None
    )


@pytest.mark.parametrize(("code", "expected"), [("3:0", 3), ("0:9", -9), ("", None)])
def test_the_exit_code_is_slurms_where_nobody_else_saw_it(code: str, expected: int | None) -> None:
    assert merge_state(RUNS, task("FAILED", exit_code=code), NOW).exit_code == expected
    assert merge_state(KILLED, task("TIMEOUT", exit_code=code), NOW).exit_code == -9


def test_a_task_that_failed_before_its_run_began_is_explained_by_what_it_printed(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "mine", Plan("mine", [], "", "", "", Config(), []))
    sweep.slurm.mkdir(parents=True)
    output, failed = sweep.slurm / "7_1.out", task("FAILED", exit_code="127:0")
    assert jobs.last_line(sweep, failed) == ""
    output.write_text("\nsrun: error: n1: task 0: Exited with exit code 1\n")
    assert jobs.last_line(sweep, failed) == ""
    output.write_bytes(b"loading\nsetup.sh ended with 127 \x1b\n\nsrun: error: n1: task 0: Exited with exit code 1\n")
    found = jobs.last_line(sweep, failed)
    assert found == f"{output}: setup.sh ended with 127 \\x1b"
    message = f"FAILED in Slurm, exit code 127:0, {found}; rerun the sweep command to restart it"
    assert merge_state(NEW, failed, NOW, output=found).message == message
    assert merge_state(RAISED, failed, NOW, output=found) == RAISED, "its own reason says more"
    output.write_text("srun: error: Unable to create step for job 7: Invalid generic resource (gres) specification\n")
    assert "Invalid generic resource" in jobs.last_line(sweep, failed)


def test_a_run_without_data_is_cancelled_unless_it_waits_or_began() -> None:
    assert merge_state(NEW, task("CANCELLED"), NOW, "no data") == Status(CANCELLED, message="no data")
    assert merge_state(NEW, task("PENDING"), NOW, "no data").state == PENDING
    assert merge_state(RAISED, None, NOW, "no data") == RAISED


def test_the_task_that_counts_is_live_or_the_one_that_the_file_is_of() -> None:
    first, second = Task("9", 1, "TIMEOUT"), Task("10", 1, "CANCELLED")
    assert pick_task(NEW, [second, first]) == second
    assert pick_task(replace(RUNS, writer=replace(RUNS.writer, job="9_1")), [second, first]) == first
    assert pick_task(replace(RUNS, writer=replace(RUNS.writer, job="8_1")), [second, first]) is None
    waits, trains = Task("12", 1, "PENDING"), Task("11", 1, "RUNNING")
    assert pick_task(RUNS, [first, waits]) == waits
    assert pick_task(RUNS, [waits, trains]) == trains
    assert pick_task(replace(RUNS, writer=replace(RUNS.writer, job="12_1")), [trains, waits]) == waits


# ---- a sweep on disk, and rows of squeue and sacct


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "mine"
    points = [PlannedRun(number, {"lr": number / 10}, {"lr": number / 10}) for number in range(1, 7)]
    write_plan(folder, Plan("mine", ["lr"], "data", "source", "", Config(), points))
    return folder


def write(sweep: Path, number: int, status: Status) -> RunFolder:
    folder = run_folder(sweep, read_plan(sweep, [number]).runs[0])
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.amend_status(status)
    return folder


@pytest.mark.parametrize(("state", "to_be_ranked"), [("PENDING", True), ("RUNNING", False), ("COMPLETED", False)])
def test_a_ranking_that_has_begun_is_not_to_be_waited_for(state: str, to_be_ranked: bool) -> None:
    sweep = Sweep.of(Plan("mine", [], "data", "source", "", Config()))
    ranking = Task("9", None, state, name=RANKING)
    assert SweepState(sweep, [], [ranking]).is_to_be_ranked == to_be_ranked
    assert not SweepState(sweep, [], [replace(ranking, name=DATA)]).is_to_be_ranked


def corrected(sweep: Path, queued: Sequence[Task] = (), accounted: Sequence[Task] | None = ()) -> SweepState:
    """Return the merged state; `accounted` is None where sacct must not be queried."""

    def accounting(jobs: Iterable[str]) -> list[Task]:
        assert accounted is not None
        return [task for task in accounted if task.job in list(jobs)]

    return with_slurm(Sweep.open(sweep), queued, accounting)


def states(state: SweepState) -> dict[int, tuple[str, str]]:
    """Return state and task by run."""
    return {run.planned.id: (run.status.state, run.task.id if run.task else "") for run in state.runs}


def submit(sweep: Path, job: str, work: Work | None = None, stage: str = ARRAY, after: str = "") -> None:
    record_job(
        Sweep.open(sweep),
        Job(job, stage, "irmas-mine" if stage == ARRAY else f"irmas-{stage}", 0.0, work or Work(), after),
    )


def array(job: str, states_of: dict[int, str], name: str = "irmas-mine", **more: str) -> list[Task]:
    return [Task(job, index, state, name=name, **more) for index, state in states_of.items()]


def test_a_sweep_that_was_never_on_slurm_queries_nothing(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(sweep, 1, ENDED)
    monkeypatch.setenv("PATH", str(tmp_path))
    state = sweep_state(Sweep.open(sweep))
    assert (state.note, state.runs[0].status.state, state.runs[1].status.state) == ("", COMPLETED, PENDING)


def test_a_controller_that_is_silent_leaves_the_recorded_states(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    submit(sweep, "7")
    write(sweep, 1, RUNS)
    monkeypatch.setenv("PATH", str(tmp_path))
    state = sweep_state(Sweep.open(sweep))
    assert "squeue: is not installed here" in state.note
    assert [run.status.state for run in state.runs] == [RUNNING, *[PENDING] * 5]


def test_packed_tasks_train_the_runs_of_their_list(sweep: Path) -> None:
    submit(sweep, "7", Work("2-6", 2))
    write(sweep, 2, RUNS)
    assert states(corrected(sweep, array("7", {1: "RUNNING", 2: "PENDING", 3: "PENDING"}))) == {
        1: (NOT_SUBMITTED, ""),
        2: (RUNNING, "7_1"),
        3: (PENDING, "7_1"),
        4: (PENDING, "7_2"),
        5: (PENDING, "7_2"),
        6: (PENDING, "7_3"),
    }


def test_sacct_is_not_queried_where_squeue_explains_every_run(sweep: Path) -> None:
    submit(sweep, "7")
    write(sweep, 1, ENDED)
    corrected(sweep, array("7", dict.fromkeys(range(2, 7), "PENDING")), None)
    with pytest.raises(AssertionError):
        corrected(sweep, array("7", dict.fromkeys(range(2, 6), "PENDING")), None)


def test_a_task_that_stays_completing_counts_as_ended_once_its_process_is_gone(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(sweep, "7")
    for number, age_s in {1: OLD_S, 2: 0, 3: OLD_S}.items():
        age_heartbeat(write(sweep, number, replace(RUNS, writer=replace(RUNS.writer, job=f"7_{number}"))), age_s)
    monkeypatch.setattr(slurm, "queue", lambda names: array("7", dict.fromkeys(range(1, 5), "COMPLETING")))
    monkeypatch.setattr(slurm, "accounting", lambda jobs: [])
    monkeypatch.setattr("irmas.sweep.submit.COMPLETING_WAIT_S", 0.0)
    with run_folder(sweep, read_plan(sweep, [3]).runs[0]).acquire(lambda rival: True):
        state = settled_state(Sweep.open(sweep))
    assert [run.task.is_live for run in state.runs if run.task] == [False, True, True, False]
    assert [state for state, _ in states(state).values()][:4] == [CANCELLED, RUNNING, RUNNING, CANCELLED]
    printed = capsys.readouterr().out
    assert "waiting for Slurm to end or requeue what is COMPLETING: 7_1 7_2 7_3 7_4" in printed
    assert "still COMPLETING after 0 s: 7_1 7_2 7_3 7_4; 7_2 7_3 may still train" in printed.replace("\n", " ")


INSIDE_SALLOC = replace(RUNS, writer=Writer("n1", 5, "99"))


def test_a_run_that_trains_in_a_job_of_which_slurm_reports_nothing_is_running_as_long_as_it_lives(sweep: Path) -> None:
    submit(sweep, "7")
    ages = {1: 0, 2: OLD_S, 3: OLD_S, 4: 0, 5: 0}
    folders = {number: write(sweep, number, INSIDE_SALLOC) for number in ages}
    for number, age_s in ages.items():
        age_heartbeat(folders[number], age_s)
    folders[5].amend_status(replace(INSIDE_SALLOC, writer=replace(INSIDE_SALLOC.writer, node=Writer.here().node)))
    queued, before = array("7", {1: "PENDING", 2: "PENDING"}, reason="Priority"), folders[1].recorded()
    with folders[3].acquire(lambda rival: True):  # its lock is proof enough
        state = corrected(sweep, queued)
        record_dead_runs(state)
    assert list(states(state).values())[:5] == [
        (RUNNING, "7_1"),
        (PENDING, "7_2"),
        (RUNNING, ""),
        (RUNNING, ""),
        (FAILED, ""),  # its lock is free on the node where it ran
    ]
    assert state.runs[0].status.message == ""
    assert state.runs[2].status.message == "last heartbeat 6 min ago"
    assert "Slurm has no record of job 99" in state.runs[4].status.message
    assert folders[1].recorded() == before
    assert [folders[number].recorded().state for number in ages] == [*[RUNNING] * 4, FAILED]
    assert states(corrected(sweep, [], array("7", {1: "CANCELLED"})))[1] == (RUNNING, "")
    folders[1].amend_status(replace(INSIDE_SALLOC, writer=RUNS.writer))
    assert states(corrected(sweep, [], array("7", {1: "TIMEOUT"})))[1] == ("TIMEOUT", "7_1"), "Slurm reports its end"


@pytest.mark.parametrize("state", ["RUNNING", "SUSPENDED"])
def test_a_task_that_runs_without_a_heartbeat_says_how_old_it_is(sweep: Path, state: str) -> None:
    submit(sweep, "7")
    age_heartbeat(write(sweep, 1, RUNS), 3 * 3600 + 90)
    run = corrected(sweep, array("7", {1: state, 2: "PENDING"})).runs[0]
    assert (run.status.state, run.status.message) == (RUNNING, "last heartbeat 3 h 1 min ago")


def test_a_task_that_nobody_recorded_is_known_by_its_arguments(sweep: Path) -> None:
    shutil.copytree(sweep, sweep.with_name("other"))
    home = {"name": "irmas", "folder": str(sweep.parent.parent)}
    queued = [
        *array("7", {1: "PENDING"}, command="/x/irmas.sbatch train outputs/mine --requeues 3", **home),
        *array("8", {2: "PENDING"}, command="/x/earlier.sbatch outputs/mine/ --runs 2-4 --points-per-task=2", **home),
        *array(
            "9", {2: "PENDING"}, command="/x/irmas.sbatch train outputs/mine --runs 3,5-6 --runs-per-task 2", **home
        ),
        *array("10", {6: "PENDING"}, command="/x/irmas.sbatch train outputs/other", **home),
        *array("11", {6: "PENDING"}, command="/x/irmas.sbatch train outputs/gone", **home),
    ]
    for number, stage in (("12", "data"), ("13", "rank"), ("14", "refine")):  # these train nothing
        queued.append(Task(number, None, "PENDING", command=f"/x/irmas.sbatch {stage} outputs/mine", **home))
    tasks = {number: task for number, (_, task) in states(corrected(sweep, queued)).items() if task}
    assert tasks == {1: "7_1", 4: "8_2", 6: "9_2"}


def test_the_record_of_an_earlier_version_is_read(sweep: Path) -> None:
    submit(sweep, "7", Work("2-6", 2))
    record = Sweep.open(sweep).slurm / "7.json"
    values = json.loads(record.read_text())
    values["work"]["points_per_task"] = values["work"].pop("runs_per_task")
    record.write_text(json.dumps(values))
    assert [job.work for job in recorded_jobs(Sweep.open(sweep))] == [Work("2-6", 2)]


def test_arguments_are_read_with_spaces_in_names(sweep: Path) -> None:
    spaced = sweep.with_name("my sweep")
    shutil.copytree(sweep, spaced)
    command = f"/my scripts/irmas.sbatch --python=/x --setup=/my home/setup.sh train --runs 1,3 {spaced} --requeues 10"
    assert named_sweep(Task("7", command=command, folder="/")) == (spaced, Work("1,3"))
    assert named_sweep(Task("7", command="/x/7_submission.sh", folder="/")) is None
    for mistyped in ("--runs one", "--runs-per-task 2.5"):
        assert named_sweep(Task("7", command=f"/x/sweep.sbatch {spaced} {mistyped}", folder="/")) is None


def test_a_number_that_was_given_out_again_is_not_the_recorded_job(sweep: Path) -> None:
    submit(sweep, "7")
    submit(sweep, "8", stage=RANKING)
    age_heartbeat(write(sweep, 1, RUNS), OLD_S)
    shutil.copytree(sweep, sweep.with_name("other"))
    home = {"name": "irmas-ranking", "folder": str(sweep.parent.parent)}
    queued = [Task("8", None, "RUNNING", command="/x/rank.sbatch outputs/other", **home)]
    state = corrected(sweep, queued, array("7", {1: "TIMEOUT"}, name="another"))
    assert (state.runs[0].status.state, state.runs[0].task, state.stages) == (FAILED, None, [])
    assert states(corrected(sweep, array("7", {1: "RUNNING"}, name="irmas")))[1] == (FAILED, "")
    assert states(corrected(sweep, queued, array("7", {1: "TIMEOUT"})))[1] == ("TIMEOUT", "7_1")


def test_sacct_goes_before_squeue_on_an_end_but_not_where_it_lags(sweep: Path) -> None:
    submit(sweep, "7")
    for number in (1, 2, 3):
        write(sweep, number, replace(RUNS, writer=replace(RUNS.writer, job=f"7_{number}")))
    queued = array("7", {1: "FAILED", 2: "TIMEOUT", 3: "RUNNING"})
    accounted = array("7", {1: "OUT_OF_MEMORY", 2: "RUNNING", 3: "PREEMPTED", 4: "RUNNING", 5: "CANCELLED"})
    assert [state for state, _ in states(corrected(sweep, queued, accounted)).values()] == [
        "OUT_OF_MEMORY",
        "TIMEOUT",
        RUNNING,
        NOT_SUBMITTED,
        CANCELLED,
        NOT_SUBMITTED,
    ]


def test_a_final_state_waits_while_sacct_lags_behind_squeue_but_not_for_ever(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(sweep, "7")
    for number in (1, 2):
        write(sweep, number, replace(RUNS, writer=replace(RUNS.writer, job=f"7_{number}")))
    recorded = [array("7", {1: state, 2: "RUNNING"}) for state in ("RUNNING", "OUT_OF_MEMORY")]
    monkeypatch.setattr(slurm, "queue", lambda names: array("7", {1: "FAILED", 2: "RUNNING"}))
    monkeypatch.setattr(slurm, "accounting", lambda jobs: recorded.pop(0))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert states(sweep_state(Sweep.open(sweep), is_final=True))[1] == ("OUT_OF_MEMORY", "7_1")
    assert recorded == []
    monkeypatch.setattr(run_states, "LAG_S", 0.0)
    monkeypatch.setattr(slurm, "accounting", lambda jobs: array("7", {1: "RUNNING"}))
    assert states(sweep_state(Sweep.open(sweep), is_final=True))[1] == (FAILED, "7_1")


def test_without_data_the_runs_are_cancelled_with_the_reason(sweep: Path) -> None:
    submit(sweep, "6", stage=DATA)
    submit(sweep, "7", after="6")
    write(sweep, 1, ENDED)
    accounted = [Task("6", None, "FAILED", exit_code="2:0", name="irmas-data")]
    state = corrected(sweep, [], accounted)
    assert [run.status.state for run in state.runs] == [COMPLETED, *[CANCELLED] * 5]
    assert state.runs[1].status.message == "the data job 6 is FAILED: exit code 2:0"
    assert [(stage.name, stage.state) for stage in state.stages] == [("data", "FAILED")]

    (sweep / "slurm" / "data.json").write_text(json.dumps({"job": "6", "error": "standin: disk full"}))
    assert corrected(sweep, [], accounted).runs[1].status.message.endswith("job 6 is FAILED: standin: disk full")
    assert corrected(sweep).runs[1].status.message.endswith("job 6 is FAILED: standin: disk full")

    submit(sweep, "9", after="8")
    assert corrected(sweep, [], accounted).runs[1].status.state == NOT_SUBMITTED


def test_a_sweep_lives_as_long_as_its_ranking_job(sweep: Path) -> None:
    submit(sweep, "7")
    submit(sweep, "8", stage=RANKING)
    for number in range(1, 7):
        write(sweep, number, ENDED)
    ranking = Task("8", None, "PENDING", reason="Dependency", name="irmas-ranking")
    assert corrected(sweep, [*array("7", {1: "COMPLETED"}), ranking]).is_live
    assert not corrected(sweep).is_live


def test_a_damaged_file_is_told_and_not_written_over(sweep: Path) -> None:
    submit(sweep, "7")
    path = write(sweep, 1, RUNS).path / "status.json"
    path.write_text("{")
    state = corrected(sweep, array("7", {1: "TIMEOUT"}))
    assert (state.runs[0].status.state, "is damaged" in state.runs[0].status.message) == (FAILED, True)
    record_dead_runs(state)
    assert path.read_text() == "{"


def test_a_damaged_record_of_a_job_is_named_and_costs_no_run(sweep: Path) -> None:
    submit(sweep, "7")
    (sweep / "slurm" / "7.json").write_text("{")
    write(sweep, 1, replace(RUNS, state=COMPLETED))
    state = sweep_state(Sweep.open(sweep))
    assert state.runs[0].status.state == COMPLETED
    assert "slurm/7.json: is damaged" in state.note
    assert "remove it" in state.note


def test_a_task_that_slurm_holds_for_a_nodes_sake_says_how_it_goes_on() -> None:
    held = replace(task("PENDING"), reason="launch failed requeued held")
    assert merge_state(NEW, held, NOW).message == "launch failed requeued held; rerun the sweep command to release it"
    for other in (replace(held, reason="JobHeldUser"), replace(held, state="CANCELLED")):
        assert not other.is_held


def test_settling_writes_the_ends_of_dead_runs_and_nothing_else(sweep: Path) -> None:
    submit(sweep, "7")
    recorded = {
        1: RUNS,
        2: replace(RUNS, writer=replace(RUNS.writer, job="7_2")),
        3: ENDED,
        5: replace(RUNS, writer=replace(RUNS.writer, job="7_5")),
    }
    folders = {number: write(sweep, number, status) for number, status in recorded.items()}
    ends = {1: "TIMEOUT", 2: "RUNNING", 3: "COMPLETED", 4: "CANCELLED", 5: "NODE_FAIL"}
    state = corrected(sweep, array("7", ends))
    folders[5].amend_status(replace(recorded[5], epoch=3))  # a process has resumed it since
    before = {number: folder.recorded() for number, folder in folders.items()}

    record_dead_runs(state)
    dead = folders[1].recorded()
    assert (dead.state, dead.epoch, dead.job, dead.node, dead.pid) == ("TIMEOUT", 2, "7_1", "n1", 5)
    assert "resume it after epoch 2" in dead.message
    assert run_folder(sweep, state.runs[3].planned).recorded().state == CANCELLED
    assert {number: folders[number].recorded() for number in (2, 3, 5)} == {
        number: before[number] for number in (2, 3, 5)
    }
    assert not (run_folder(sweep, state.runs[5].planned).path / "status.json").exists()
    assert states(corrected(sweep))[1] == ("TIMEOUT", "")  # outlives Slurm's memory


def test_ten_thousand_runs_are_joined_in_a_moment(tmp_path: Path) -> None:
    sweep, total = tmp_path / "outputs" / "mine", 10_000
    points = [PlannedRun(number, {"seed": number}, {"seed": number}) for number in range(1, total + 1)]
    plan = Plan("mine", ["seed"], "data", "source", "", Config(), points)
    record_job(Sweep(sweep, plan), Job("7", ARRAY, "irmas-mine", 0.0))
    queued = array("7", dict.fromkeys(range(1, total + 1), "PENDING"))
    start = time.process_time()
    state = with_slurm(Sweep(sweep, plan), queued, lambda jobs: [])
    assert time.process_time() - start < 3
    assert {run.status.state for run in state.runs} == {PENDING}
