"""Sites whose Slurm, or whose wrappers of its commands, behave otherwise than the defaults."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from cluster.localcluster import LocalCluster
from cluster.sweeps import FORBIDDEN, Desk, hold, job_numbers, run_of, table, wrapped
from commands import ENVIRONMENT, marked, wait_until
from left_behind import ranking, runs, status

EPILOG_S = 8
COMMAND = ["-m", "seed=1,2", "epochs=1"]
HELD = "hydra.launcher.sbatch={hold: true}"
SBATCH, SCONTROL = shutil.which("sbatch"), shutil.which("scontrol")


def queued(desk: Desk, *options: str) -> list[str]:
    return sorted(desk.cluster.run("squeue", "-h", "-t", "PENDING,RUNNING", "-o", "%j", *options).split())


def test_tasks_that_are_completing_are_not_in_the_queue(desk: Desk) -> None:
    """A long Epilog: a cancelled sweep is submitted again in full, a preempted task is not submitted twice."""
    epilog = desk.cluster.root / "epilog"
    epilog.write_text(f"#!/bin/sh\nsleep {EPILOG_S}\n")
    epilog.chmod(0o755)
    command = ["-m", "seed=1,2", "epochs=4", "name=cg"]
    with desk.cluster.configured(f"Epilog={epilog}\n"):
        first = desk.submit(*command)
        hold(*(run_of(desk, "cg", number) for number in (1, 2)))
        desk.cluster.run("scontrol", "requeue", f"{first['array1']}_2")
        desk.cluster.run("scancel", f"{first['array1']}_1")
        wait_until(lambda: desk.state(first["array1"]).split() == ["COMPLETING"] * 2, "both tasks are completing")
        assert f"waits in task {first['array1']}_1" not in table(desk, "cg")
        began = time.monotonic()
        done = desk.train(*command)
    assert done.returncode == 0, done.stderr
    assert f"COMPLETING: {first['array1']}_1 {first['array1']}_2" in done.stdout
    assert "2 runs, 0 finished before, 1 in the queue" in done.stdout
    assert time.monotonic() - began < 40
    second = desk.cluster.run("squeue", "-h", "-n", "irmas-cg", "-t", "PENDING,RUNNING", "-r", "-o", "%i").split()
    assert len(second) == 2
    assert f"{first['array1']}_2" in second
    ranked = desk.cluster.run("squeue", "-h", "-n", "ranking-cg", "-t", "PENDING", "-o", "%i").split()
    desk.wait_for_ranking(max(ranked, key=int))
    assert [status(run)["state"] for run in runs(desk.sweep("cg"))] == ["COMPLETED"] * 2
    assert [entry["rank"] for entry in ranking(desk.sweep("cg"))] == [1, 1]  # seeds


def test_a_run_that_is_trained_inside_salloc_is_running_and_is_not_submitted(desk: Desk) -> None:
    """The job is interactive, so that no record of the sweep has its number."""
    command = ["-m", "seed=1,2", "epochs=40", "name=mine"]
    desk.cluster.run("scancel", *desk.submit(*command, HELD).values())
    here = ["device=cpu", "hydra/launcher=local", "hydra.launcher.runs_at_once=1"]
    python = [sys.executable, "-m", "irmas.train", *command, *desk.settings, *here]
    salloc = ["salloc", "--cpus-per-task=1", "--mem=2G", *python]
    environment = ENVIRONMENT | desk.cluster.environment | {"IRMAS_TEST_MARK": f"{desk.folder}"}
    first = run_of(desk, "mine", 1)
    with subprocess.Popen(salloc, cwd=desk.folder, env=environment):
        try:
            wait_until(lambda: status(first)["state"] == "RUNNING", "run 1 trains", 120)
            hold(first)
            assert status(first)["job"]
            assert re.search(r"^ +1 +1 +RUNNING +", table(desk, "mine"), re.MULTILINE)
            ranked = desk.run("rank", "outputs/mine")
            assert ranked.returncode == 1
            assert "FAILED" not in ranked.stdout
            assert status(first)["state"] == "RUNNING"
            done = desk.train(*command, HELD)
            assert "2 runs, 0 finished before, 0 in the queue, 1 training outside the queue" in done.stdout, done.stderr
            array = job_numbers(done.stdout)["array1"]
            assert desk.cluster.run("squeue", "-h", "-r", "-j", array, "-o", "%K") == "2"
        finally:
            for pid in marked(f"{desk.folder}"):
                os.kill(pid, signal.SIGKILL)
    assert re.search("1 (FAILED|CANCELLED)", table(desk, "mine")), "its lock is free on the node where it ran"


def test_a_wrapper_that_prints_the_bare_number_is_understood(desk: Desk) -> None:
    path = wrapped(desk, sbatch=f'echo "Charged to account 12"; exec {SBATCH} --parsable "$@"')
    done = desk.train(*COMMAND, "name=num", HELD, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    submitted = job_numbers(done.stdout)
    assert desk.cluster.run("squeue", "-h", "-j", submitted["array1"], "-o", "%j") == "irmas-num"
    assert queued(desk) == ["irmas-num", "ranking-num"]


def test_no_number_in_a_banner_harms_another_job(desk: Desk) -> None:
    """A notice names a running job; then a line that looks like the reply does."""
    mine = desk.cluster.sbatch("sleep 300", "--job-name=mine")
    path = wrapped(desk, sbatch=f'echo "Welcome. Your last job {mine} used 3 SU."; exec {SBATCH} "$@"')
    refused = desk.train(*COMMAND, "name=banner", "hydra.launcher.rank.sbatch={qos: nope}", PATH=path)
    assert refused.returncode == 2, refused.stdout
    assert "Invalid qos" in refused.stderr
    assert queued(desk) == ["mine"]

    path = wrapped(desk, sbatch=f'{SBATCH} "$@"; echo Submitted batch job {mine}')
    refused = desk.train(*COMMAND, "name=banner", PATH=path)
    assert refused.returncode == 2, refused.stdout
    assert f"the number {mine}, which is not that of a new job irmas-banner" in refused.stderr
    assert queued(desk) == ["mine"]
    assert desk.state(mine) in ("PENDING", "RUNNING")
    assert not desk.sweep("banner").exists()


def test_a_reply_without_a_number_is_shown_and_what_slurm_took_is_cancelled(desk: Desk) -> None:
    path = wrapped(desk, sbatch=f'{SBATCH} "$@" >/dev/null; echo "Thank you."; echo "Your job is job 7."')
    refused = desk.train(*COMMAND, "name=unread", PATH=path)
    assert refused.returncode == 2, refused.stdout
    assert refused.stderr.count("irmas.train: ") == 1
    assert "It printed:\n  Thank you.\n  Your job is job 7." in refused.stderr
    assert queued(desk) == []
    assert not desk.sweep("unread").exists()


def test_a_job_whose_submission_timed_out_is_found_by_its_name(desk: Desk) -> None:
    failure = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    late = f'{SBATCH} "$@" || exit; case "$*" in *--array*) echo "{failure}" >&2; exit 1; esac'
    done = desk.train(*COMMAND, "name=late", HELD, PATH=wrapped(desk, sbatch=late))
    assert done.returncode == 0, done.stdout + done.stderr
    submitted = job_numbers(done.stdout)
    assert f"but Slurm has accepted the job: {submitted['array1']}" in done.stdout
    assert desk.cluster.run("squeue", "-h", "-j", submitted["array1"], "-o", "%j") == "irmas-late"
    assert queued(desk) == ["irmas-late", "ranking-late"]


def test_a_job_that_slurm_shows_only_later_is_found_by_the_next_command(desk: Desk) -> None:
    failure = f'{SBATCH} "$@"; echo "sbatch: error: the plugin failed" >&2; exit 1'
    refused = desk.train(*COMMAND, "name=lost", PATH=wrapped(desk, sbatch=failure, squeue="true"))
    assert refused.returncode == 2, refused.stdout
    assert "the plugin failed" in refused.stderr
    assert queued(desk) == ["irmas-lost"]
    lost = desk.cluster.run("squeue", "-h", "-n", "irmas-lost", "-o", "%F")
    done = desk.train(*COMMAND, "name=lost", HELD)
    assert done.returncode == 0, done.stderr
    assert f"cancelled: {lost}, which an earlier command submitted without a record" in done.stdout
    assert job_numbers(done.stdout)["array1"] != lost
    assert queued(desk) == ["irmas-lost", "ranking-lost"]


def test_where_users_may_not_update_jobs_a_sweep_begins_by_itself(desk: Desk) -> None:
    path = wrapped(desk, scontrol=f'[ $1 != update ] || {FORBIDDEN}; exec {SCONTROL} "$@"')
    done = desk.train(*COMMAND, "name=forbidden", PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"the jobs begin at \d\d:\d\d or later: this site forbids scontrol update", done.stdout)
    submitted = job_numbers(done.stdout)
    assert queued(desk) == ["irmas-forbidden", "ranking-forbidden"]
    assert "BeginTime" in table(desk, "forbidden")
    assert "2 in the queue" in desk.train(*COMMAND, "name=forbidden", PATH=path).stdout
    for number in submitted.values():
        desk.cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")
    desk.wait_for_ranking(submitted["ranking"])


def test_where_an_array_may_have_few_tasks_a_sweep_has_several(desk: Desk) -> None:
    with desk.cluster.scheduled("max_array_tasks=2"):
        submitted = desk.submit("-m", "seed=1,2,3", "epochs=1", "name=few", HELD)
    assert submitted.keys() == {"array1", "array2", "ranking"}
    listed = desk.cluster.run("squeue", "-h", "-r", "-n", "irmas-few", "-o", "%i").split()
    assert sorted(listed) == [f"{submitted['array1']}_1", f"{submitted['array1']}_2", f"{submitted['array2']}_1"]


@pytest.fixture(scope="module")
def second(whole_cluster: LocalCluster) -> Iterator[list[str]]:
    """The option of a second cluster."""
    with whole_cluster.second():
        yield ["--clusters=second"]


def test_a_sweep_on_another_cluster_is_submitted_trained_and_shown_there(desk: Desk, second: list[str]) -> None:
    done = desk.train(*COMMAND, "name=two", "hydra.launcher.cluster=second")
    assert done.returncode == 0, done.stdout + done.stderr
    submitted = job_numbers(done.stdout)
    assert f"scancel --clusters=second {' '.join(submitted.values())}" in done.stdout
    assert queued(desk) == []
    wait_until(lambda: "RUNNING in task" in table(desk, "two") or " RUNNING " in table(desk, "two"), "a run trains", 60)
    assert "FAILED" not in desk.run("status", "outputs/two", SLURM_CLUSTERS="local").stdout
    ranking_job = ["squeue", "-h", "-t", "all", *second, "-j", submitted["ranking"], "-o", "%T"]
    wait_until(lambda: desk.cluster.run(*ranking_job).endswith("COMPLETED"), "the ranking", 120)
    assert [status(run)["state"] for run in runs(desk.sweep("two"))] == ["COMPLETED"] * 2
    assert [entry["rank"] for entry in ranking(desk.sweep("two"))] == [1, 1]  # seeds
    assert "2 finished before" in desk.train(*COMMAND, "name=two").stdout


def test_all_commands_ask_the_cluster_of_the_environment(desk: Desk, second: list[str]) -> None:
    """The sweep then stays there until nothing of it is queued; the records outlast the variable."""
    done = desk.train(*COMMAND, "name=env", HELD, SLURM_CLUSTERS="second")
    assert done.returncode == 0, done.stdout + done.stderr
    submitted = job_numbers(done.stdout)
    assert (queued(desk), queued(desk, *second)) == ([], ["irmas-env", "ranking-env"])
    assert "2 in the queue" in desk.train(*COMMAND, "name=env", HELD).stdout
    assert "JobHeldUser" in table(desk, "env")
    moved = desk.train(*COMMAND, "name=env", HELD, "hydra.launcher.cluster=local")
    assert moved.returncode == 2, moved.stdout
    assert "its jobs are on cluster second, and this command submits to local" in moved.stderr
    desk.cluster.run("scancel", *second, *submitted.values())
    moved = desk.train(*COMMAND, "name=env", HELD, "hydra.launcher.cluster=local")
    assert moved.returncode == 0, moved.stderr
    assert (queued(desk), queued(desk, *second)) == (["irmas-env", "ranking-env"], [])
    assert "2 in the queue" in desk.train(*COMMAND, "name=env", HELD, SLURM_CLUSTERS="local").stdout
    several = desk.train(*COMMAND, "name=new", SLURM_CLUSTERS="local,second")
    assert several.returncode == 2, several.stdout
    assert "SLURM_CLUSTERS=local,second: must name one cluster" in several.stderr


def test_an_sbatch_that_submits_elsewhere_is_refused_and_leaves_nothing(desk: Desk, second: list[str]) -> None:
    path = wrapped(desk, sbatch=f'exec {SBATCH} --clusters=second "$@"')
    refused = desk.train(*COMMAND, "name=elsewhere", PATH=path)
    assert refused.returncode == 2, refused.stdout
    assert "sbatch submits to cluster second, and Slurm's other commands ask local" in refused.stderr
    assert (queued(desk), queued(desk, *second)) == ([], [])
    assert not desk.sweep("elsewhere").exists()


@pytest.mark.parametrize("name", ["local", "second"])
def test_the_printed_lines_go_to_the_same_cluster(desk: Desk, second: list[str], name: str) -> None:
    options = [f"hydra.launcher.cluster={name}", HELD, "hydra.launcher.rank.sbatch={hold: true}"]
    printed = desk.train(*COMMAND, f"name=hand-{name}", *options, "hydra.launcher.submit=false")
    lines = [line for line in printed.stdout.splitlines() if "sbatch --parsable" in line]
    assert len(lines) == 2, printed.stdout + printed.stderr
    desk.cluster.run("bash", "-ec", "\n".join(lines), cwd=desk.folder)
    assert queued(desk, f"--clusters={name}") == [f"irmas-hand-{name}", f"ranking-hand-{name}"]
    assert "JobHeldUser" in table(desk, f"hand-{name}")
    assert "2 in the queue" in desk.train(*COMMAND, f"name=hand-{name}", *options).stdout
    desk.cluster.run("scancel", *second, "--partition=main")
