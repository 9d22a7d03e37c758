"""slurm/localcluster: a real Slurm on one machine with the features that the tests of the sweeps rely on."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from cluster.localcluster import LocalCluster
from commands import wait_until

DAEMONS = sorted(["munged", "mariadbd", "slurmdbd", "slurmctld", *["slurmd"] * 4])


def daemons(cluster: LocalCluster) -> dict[int, str]:
    return {pid: name for pid, name in cluster.processes().items() if name in DAEMONS}


def job_state(cluster: LocalCluster, job: str) -> str:
    return cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T %N")


def test_an_array_of_18_runs_and_is_accounted(cluster: LocalCluster, tmp_path: Path) -> None:
    job = cluster.sbatch("echo $SLURM_ARRAY_TASK_ID", "--array=1-18", "--gres=gpu:1", f"--output={tmp_path}/%a")
    expected = {(f"{job}_{task}", "COMPLETED") for task in range(1, 19)}
    wait_until(lambda: set(cluster.accounted(job)) == expected, "18 tasks COMPLETED in sacct")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"{i}": f"{i}\n" for i in range(1, 19)}


def test_tasks_on_one_node_have_a_gpu_each(cluster: LocalCluster, tmp_path: Path) -> None:
    options = ["--array=0-1", "--nodelist=n2", "--gres=gpu:1", f"--output={tmp_path}/%a"]
    job = cluster.sbatch("echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES; sleep 2", *options)
    wait_until(lambda: job_state(cluster, job).split().count("COMPLETED") == 2, "both tasks COMPLETED")
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["n2 0\n", "n2 1\n"]


def test_the_high_partition_preempts_and_the_warned_job_is_requeued(cluster: LocalCluster, tmp_path: Path) -> None:
    output = tmp_path / "main"
    script = """
        trap 'echo warned' USR2
        echo start ${SLURM_RESTART_COUNT:-0}
        while [ ${SLURM_RESTART_COUNT:-0} = 0 ]; do sleep 1 & wait; done"""
    options = ["--exclusive", "--nodelist=n1"]
    main = cluster.sbatch(script, *options, "--signal=B:USR2@5", "--open-mode=append", f"--output={output}")
    wait_until(lambda: output.exists() and bool(output.read_text()), "the job of main has started")
    high = cluster.sbatch("true", *options, "--partition=high")
    wait_until(lambda: cluster.accounted(main)[-1:] == [(main, "COMPLETED")], "the requeued job COMPLETED", 60)
    lines = [line for line in output.read_text().splitlines() if not line.startswith("slurmstepd")]
    assert lines == ["start 0", "warned", "start 1"]
    assert cluster.accounted(main) == [(main, "PREEMPTED"), (main, "COMPLETED")]
    assert cluster.accounted(high) == [(high, "COMPLETED")]


def test_up_starts_a_slurmd_that_was_just_killed(cluster: LocalCluster) -> None:
    """The controller misses the slurmd after SlurmdTimeout only: until then every node looks idle."""
    killed = cluster.slurmd("n3")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in cluster.processes(), "the slurmd is gone")
    assert set(cluster.run("sinfo", "-h", "-N", "-p", "main", "-o", "%t").split()) == {"idle"}
    assert cluster.up().returncode == 0
    assert cluster.slurmd("n3") != killed
    assert list(cluster.processes().values()).count("slurmd") == 4
    assert cluster.run("srun", "--nodelist=n3", "printenv", "SLURMD_NODENAME") == "n3"


def test_everything_listens_on_127_0_0_1_only(cluster: LocalCluster) -> None:
    job = cluster.sbatch("srun sleep 30")
    wait_until(lambda: "srun" in cluster.processes().values(), "a step runs")
    inodes = set()
    for pid in cluster.processes():
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = handle.readlink().name
            except FileNotFoundError:
                continue
            inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    rows = [
        row.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for row in Path(table).read_text().splitlines()[1:]
    ]
    listening = [row[1].split(":") for row in rows if row[3] == "0A" and row[9] in inodes]
    first = int(cluster.environment["IRMAS_CLUSTER_PORT"])
    assert {int(port, 16) for _, port in listening} >= set(range(first, first + 6))
    assert {address for address, _ in listening} == {"0100007F"}
    cluster.run("scancel", job)


def test_up_twice_changes_nothing_and_takes_no_time(cluster: LocalCluster) -> None:
    before, start = daemons(cluster), time.monotonic()
    again = cluster.up()
    assert time.monotonic() - start < 5
    assert (again.returncode, "already up" in again.stdout) == (0, True)
    assert daemons(cluster) == before
    assert sorted(before.values()) == DAEMONS


def test_an_array_beyond_max_array_size_is_refused(cluster: LocalCluster, small_cluster: LocalCluster) -> None:
    for local, size in ((cluster, 1001), (small_cluster, 4)):
        job = local.sbatch("true", f"--array=0-{size - 1}", "--hold")
        local.run("scancel", job)
        refused = local.call("sbatch", f"--array=0-{size}", "--hold", "--wrap=true")
        assert refused.returncode == 1
        assert "Invalid job array specification" in refused.stderr


def test_the_limited_qos_refuses_a_ninth_job(cluster: LocalCluster) -> None:
    refused = cluster.call("sbatch", "--qos=limited", "--array=1-9", "--hold", "--wrap=true")
    assert refused.returncode == 1
    assert "QOSMaxSubmitJobPerUserLimit" in refused.stderr
    job = cluster.sbatch("true", "--qos=limited", "--array=1-8", "--hold")
    cluster.run("scancel", job)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_can_submit_to_the_cluster_of_root(cluster: LocalCluster) -> None:
    assert cluster.run("runuser", "-u", "nobody", "--", "srun", "id", "-un", cwd=Path("/")) == "nobody"


def test_down_leaves_no_process_of_its_own_behind_and_its_neighbour_alone(
    cluster: LocalCluster, small_cluster: LocalCluster
) -> None:
    neighbour = cluster.sbatch("sleep 60")
    job = small_cluster.sbatch("setsid sleep 61 & setsid sleep 62")
    wait_until(lambda: job_state(cluster, neighbour).startswith("RUNNING"), "the neighbour runs")
    wait_until(lambda: list(small_cluster.processes().values()).count("sleep") == 2, "both processes of the job run")
    node = job_state(small_cluster, job).split()[1]
    os.kill(small_cluster.slurmd(node), signal.SIGKILL)
    before, cgroups = daemons(cluster), [link.resolve() for link in small_cluster.root.glob("cgroup/*")]

    assert small_cluster.down().returncode == 0
    assert small_cluster.processes() == {}
    assert daemons(cluster) == before
    assert job_state(cluster, neighbour).startswith("RUNNING")
    cluster.run("scancel", neighbour)

    assert small_cluster.up().returncode == 0
    wait_until(lambda: small_cluster.run("squeue", "-h") == "", "no job is left")
    for _ in range(2):
        assert small_cluster.down("--wipe").returncode == 0
        assert not small_cluster.root.exists()
        assert not any(cgroup.exists() for cgroup in cgroups)
    assert small_cluster.up().returncode == 0


def test_a_folder_of_something_else_is_left_alone() -> None:
    local = LocalCluster()
    precious = local.root / "slurm.conf"
    precious.write_text("of another cluster")
    for refused in (local.up(), local.down("--wipe")):
        assert refused.returncode == 2
        assert "in use for something else: set IRMAS_CLUSTER" in refused.stderr
    assert [path.read_text() for path in local.root.iterdir()] == ["of another cluster"]
    shutil.rmtree(local.root)


def test_a_taken_port_is_refused(cluster: LocalCluster) -> None:
    local = LocalCluster(PORT=cluster.environment["IRMAS_CLUSTER_PORT"])
    refused = local.up()
    assert refused.returncode == 2
    assert "is taken: set IRMAS_CLUSTER_PORT" in refused.stderr
    local.down("--wipe")
    assert not local.root.exists()
