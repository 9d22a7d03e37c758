"""How a job starts Python: setup script, container, srun, memory and cores of the site."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from cluster.sweeps import Desk, job_numbers, table
from commands import ROOT, wait_until
from left_behind import ranking, runs, status


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_job_starts_in_a_container_with_the_sites_cores_memory_and_mpi(desk: Desk) -> None:
    """The container is a stand-in, which writes down how it was called and has a Python of its own."""
    calls, path = desk.folder / "calls", f"PATH={Path(sys.executable).parent}:$PATH"
    container = script(desk.folder / "container", f'echo "$MARK $@" >>{calls}\nshift 2\nexec env {path} "$@"')
    setup = script(desk.folder / "setup.sh", "export MARK=ready")
    settings = [f"hydra.launcher.prefix='{container} exec image.sif'", f"hydra.launcher.setup={setup}"]
    settings += [
        "hydra.launcher.srun={mpi: none, cpu_bind: none}",
        "hydra.launcher.sbatch={mem_per_cpu: 1G, ntasks: 1}",
    ]
    job = desk.submit("-m", "seed=1", "epochs=1", "name=site", *settings, "hydra.launcher.rank.mem=null")
    shown = desk.cluster.run("scontrol", "show", "job", job["array1"])
    assert "MinMemoryCPU=1G" in shown
    desk.wait_for_ranking(job["ranking"])
    assert [entry["rank"] for entry in ranking(desk.sweep("site"))] == [1]
    lines = calls.read_text().splitlines()
    assert lines[0].startswith("ready exec image.sif env ")
    assert " python -u -m irmas.sweep.array_task outputs/site" in lines[0]
    assert lines[1].endswith(" python -u -m irmas.rank outputs/site")


def test_a_container_that_clears_the_environment_trains_the_runs_of_its_task(desk: Desk) -> None:
    """As apptainer --cleanenv: the task still knows what it is, and imports the sweep's copy of the source."""
    prefix = f"hydra.launcher.prefix='env -i PATH={Path(sys.executable).parent}:/usr/bin:/bin'"
    job = desk.submit("-m", "seed=1,2", "epochs=1", "name=clean", prefix)
    desk.wait_for_ranking(job["ranking"])
    states = [(status(run)["state"], status(run)["job"]) for run in runs(desk.sweep("clean"))]
    assert states == [("COMPLETED", f"{job['array1']}_{index}") for index in (1, 2)]
    assert list(desk.sweep("clean").glob("code/*/irmas/sweep/__pycache__/array_task.*"))


def test_a_failing_setup_script_ends_the_task_with_its_name(desk: Desk) -> None:
    setup = script(desk.folder / "setup.sh", "module load cuda/99\nexport MARK=1")
    job = desk.submit("-m", "seed=1", "epochs=1", "name=failing", f"hydra.launcher.setup={setup}")["array1"]
    wait_until(lambda: desk.state(f"{job}_1") == "FAILED", "the task FAILED", 60)
    output = (desk.sweep("failing") / "slurm" / f"{job}_1.out").read_text()
    assert f"{setup} ended with 127" in output
    assert not list(desk.sweep("failing").glob("runs/*/status.json")), "it trains nothing"
    assert re.search(rf"FAILED .*{job}_1\.out: .* ended with 127", table(desk, "failing"))


def test_a_job_by_hand_from_inside_another_one_has_its_own_resources(desk: Desk) -> None:
    done = desk.train("-m", "seed=1", "epochs=1", "name=inside", "hydra.launcher.submit=false")
    assert done.returncode == 0, done.stderr
    inherited = ("env", "SLURM_MEM_PER_CPU=1024", "SLURM_CPU_BIND=cores", "SLURM_GPUS_PER_TASK=1", "SLURM_NTASKS=2")
    own = (f"PATH={Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", f"PYTHONPATH={ROOT}")
    lines = [line.strip() for line in done.stdout.splitlines() if "sbatch --parsable" in line]
    pasted = desk.cluster.run(
        *inherited, *own, "bash", "-ec", "\n".join([*lines[:-1], "echo $array1"]), cwd=desk.folder
    )
    wait_until(lambda: desk.state(f"{pasted}_1") == "COMPLETED", "the task COMPLETED", 60)
    (run,) = runs(desk.sweep("inside"))
    assert status(run)["state"] == "COMPLETED"


def test_a_clusters_file_gives_resources_per_point_mail_and_a_program_at_the_end(desk: Desk) -> None:
    """The mail program is a stand-in, which writes down the subject and the address."""
    mails, summary, file = desk.folder / "mails", desk.folder / "summary", desk.folder / "slurm.yaml"
    mailer = script(desk.folder / "mailer", f'echo "$2 to $3" >>{mails}')
    program = script(desk.folder / "program", f'echo "$1" >{summary}; cat >>{summary}; exit 3')
    file.write_text(
        f"account: irmas\nmail: me@site.org\nat_end: [{program}, 'a $(b)']\n"
        "rules: [{when: {lr: 0.001}, mem: 3G, time: 20}]\n"
    )
    with desk.cluster.configured(f"MailProg={mailer}\n"):
        done = desk.train("-m", "lr=0.003,0.001,0.0001", "epochs=1", "name=mailed", IRMAS_SLURM_CONFIG=str(file))
        assert done.returncode == 0, done.stderr
        assert f"cluster settings: {file}\n" in done.stdout
        assert "limit: 2 h or 20 min per start of a task\n" in done.stdout
        job = job_numbers(done.stdout)
        assert f"array {job['array1']}_[1,3] + array {job['array2']}_[2] -> ranking {job['ranking']}\n" in done.stdout
        for array, memory in (("array1", "2G"), ("array2", "3G")):
            shown = desk.cluster.run("scontrol", "show", "job", job[array])
            assert f"MinMemoryNode={memory}" in shown
            assert "Account=irmas" in shown
        desk.wait_for_ranking(job["ranking"])
        name = "ranking-mailed: 3 COMPLETED"
        wait_until(mails.exists, "the mail", 30)
    (mail,) = mails.read_text().splitlines()
    assert f"Name={name} Ended" in mail
    assert mail.endswith(" to me@site.org")
    words, head, *_ = summary.read_text().splitlines()
    assert (words, head) == ("a $(b)", "outputs/mailed: 3 COMPLETED")
    output = (desk.sweep("mailed") / "slurm" / f"{job['ranking']}.out").read_text()
    assert f"at_end: {program}: ended with 3\n" in output
    assert f"ranking job {job['ranking']}: COMPLETED" in table(desk, "mailed"), "the renamed job is still the sweep's"
    assert desk.cluster.run("sacct", "-nPX", "-j", job["ranking"], "-o", "JobName") == name


def test_jobs_write_a_shared_sweep_for_its_group(desk: Desk) -> None:
    (desk.folder / "outputs").mkdir()
    (desk.folder / "outputs").chmod(0o2775)
    before = os.umask(0o077)
    try:
        job = desk.submit("-m", "seed=1", "epochs=1", "name=shared")
    finally:
        os.umask(before)
    desk.wait_for_ranking(job["ranking"])
    written = [path for path in desk.sweep("shared").rglob("*") if not path.is_symlink()]
    assert any(path.name == "model.pt" for path in written)
    closed = [path for path in written if path.stat().st_mode & 0o060 != 0o060 and path.suffix != ".out"]
    assert closed == []
    assert all(path.stat().st_mode & 0o040 for path in written), "a job's output can be read"
