"""What a ranking job reports when it ends: its name in Slurm, a summary for a program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from factories import grid, write_run
from forked_commands import Commands

from irmas.results import ending, ranking
from irmas.run.folder import FAILED
from irmas.sweep import jobs
from irmas.sweep.jobs import ARRAY, RANKING, Job
from irmas.sweep.sweep import Sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Seven runs, of which the first failed and run 6 is the best."""
    axes = {"lr": [0.001 * number for number in range(1, 8)]}
    sweep = Sweep(tmp_path / "outputs" / "mine", grid(axes)).write()[0]
    write_run(sweep, 1, [(0.5, 1.0)], FAILED, "no")
    for number in range(2, 7):
        write_run(sweep, number, [(number / 16, 1.0)])
    write_run(sweep, 7, [(0.25, 0.5)])
    return sweep


@pytest.fixture
def job(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this process the ranking job 12; return the file in which its scontrol writes how it was called."""
    calls = tmp_path / "calls"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{calls}\n[ ! -e {calls}-refused ]\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_NAME", "ranking-mine")
    for number, stage in ((11, ARRAY), (12, RANKING)):
        jobs.record_job(sweep, Job(str(number), stage, jobs.job_name(stage, sweep), 1.0))
    return calls


def test_a_program_gets_the_states_the_first_rows_and_the_report(sweep: Sweep) -> None:
    lines = ending.summary(ranking.rank(sweep)).splitlines()
    assert lines[0] == f"{sweep}: 6 COMPLETED 1 FAILED"
    assert [line.split()[:2] for line in lines[2:8]] == [
        ["rank", "run"],
        *[[str(rank), str(run)] for rank, run in enumerate((6, 5, 7, 4, 3), start=1)],
    ]
    assert lines[8:] == ["", f"report: {sweep.page}"]


def test_a_sweep_without_a_ranked_run_has_a_summary(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "none", grid({})).write()[0]
    write_run(sweep, 1, [], FAILED, "no")
    summary = ending.summary(ranking.rank(sweep))
    assert summary == f"{sweep}: 1 FAILED\n\nno run is ranked\n\nreport: {sweep.page}\n"


def test_the_ranking_job_carries_the_states_in_its_name_and_in_its_record(sweep: Sweep, job: Path) -> None:
    ending.announce(ranking.rank(sweep), [])
    name = "ranking-mine: 6 COMPLETED 1 FAILED"
    assert "," not in name, "squeue would take it for two names"
    assert job.read_text().splitlines()[-3:] == ["update", "JobId=12", f"JobName={name}"]
    assert [record.name for record in jobs.recorded_jobs(sweep)] == ["irmas-mine", name]


def test_a_job_that_was_requeued_after_its_end_is_renamed_again(
    sweep: Sweep, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_NAME", "ranking-mine: 7 FAILED")
    ending.announce(ranking.rank(sweep), [])
    assert job.read_text().endswith("JobName=ranking-mine: 6 COMPLETED 1 FAILED\n")


@pytest.mark.parametrize("name", ["interactive", "irmas-mine", "ranking-mine-too", ""])
def test_no_other_job_is_renamed(sweep: Sweep, job: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    ending.announce(ranking.rank(sweep), [])
    assert "update" not in (job.read_text() if job.exists() else "")


def test_a_name_that_slurm_refuses_is_not_recorded(sweep: Sweep, job: Path) -> None:
    result = ranking.rank(sweep)
    Path(f"{job}-refused").touch()
    ending.announce(result, [])
    (Path(f"{job}-refused").parent / "bin" / "scontrol").unlink()
    ending.announce(result, [])
    assert jobs.recorded_jobs(sweep)[1].name == "ranking-mine"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (["/does/not/exist"], "No such file or directory"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "ended with 3"),
        ([sys.executable, "-c", "import time; time.sleep(9)"], "did not end within 0.5 s"),
        ([sys.executable, "-c", "pass"], ""),
    ],
)
def test_a_program_that_fails_is_one_line(
    sweep: Sweep, program: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ending, "LIMIT_S", 0.5 if "sleep" in program[-1] else 60.0)
    ending.announce(ranking.rank(sweep), program)
    assert capfd.readouterr().err == (f"{sweep}: at_end: {program[0]}: {reason}\n" if reason else "")


def test_the_command_hands_its_words_on_without_a_shell(sweep: Sweep, tmp_path: Path, commands: Commands) -> None:
    code = "import sys; print(sys.argv[1:], sys.stdin.read().splitlines()[0]); sys.exit(4)"
    words = [f"--at-end={word}" for word in (sys.executable, "-c", code, "a b", "$(touch owned)", "--runs")]
    done = commands.run("rank", "outputs/mine", *words, folder=tmp_path)
    assert "['a b', '$(touch owned)', '--runs'] outputs/mine: 6 COMPLETED 1 FAILED\n" in done.stdout, done
    assert (done.code, done.stderr) == (0, f"outputs/mine: at_end: {sys.executable}: ended with 4\n")
    assert not (tmp_path / "owned").exists()
    for run in sweep.runs.iterdir():
        (run / "status.json").unlink()
    unranked = commands.run("rank", "outputs/mine", *words, folder=tmp_path)
    assert unranked.code == 1
    assert "'--runs'] outputs/mine: 7 " in unranked.stdout
