"""What a command expects, and what a sweep has taken by Slurm's own accounting."""

from __future__ import annotations

import re

import pytest
from cluster.localcluster import LocalCluster
from cluster.sweeps import Desk, job_numbers, table
from commands import wait_until

from irmas.sweep import slurm

EXPECTED = (
    r"^expected: 2 runs x 3 epochs, (under )?0\.\d+ GPU hours, about \d+ s with 2 at a time, .* kB \(from run 1 of "
)


def test_a_pilot_measures_what_the_other_runs_are_expected_to_take(desk: Desk) -> None:
    command = ["seed=1,2,3", "epochs=3", "name=costs", "hydra.launcher.max_hours=9"]
    refused = desk.train(*command)
    assert (refused.returncode, desk.sweep("costs").exists()) == (2, False)
    assert "max_hours=9.0: no epoch of the net and data of 3 runs is measured on the CPU yet" in refused.stderr
    pilot = desk.train(*command, "hydra.launcher.pilot=true")
    assert "outputs/costs: 1 run, 0 finished before" in pilot.stdout, pilot.stderr
    desk.wait_for_ranking(job_numbers(pilot.stdout)["ranking"])

    too_much = desk.train(*command[:-1], "hydra.launcher.max_hours=0.00001")
    assert too_much.returncode == 2
    assert "max_hours=1e-05: 2 runs would take " in too_much.stderr
    rest = desk.train(*command, "hydra.launcher.pilot=true")
    assert re.search(EXPECTED, rest.stdout, re.MULTILINE), rest.stdout
    assert "outputs/costs: 3 runs, 1 finished before" in rest.stdout
    jobs = job_numbers(rest.stdout)
    desk.wait_for_ranking(jobs["ranking"])
    wait_until(lambda: len(desk.cluster.accounted(jobs["array1"])) == 2, "2 tasks in sacct")
    shown = table(desk, "costs")
    used = (
        r"^used:    (under )?0\.\d+ GPU hours in 3 starts of 3 tasks: \d+% in epochs, 0% lost to restarts, \d+% idle$"
    )
    assert re.search(used, shown, re.MULTILINE), shown
    assert re.search("^tasks:   .* of 2 h at most; hydra.launcher.time=4 would fit$", shown, re.MULTILINE), shown


def test_slurms_estimate_of_a_start(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    waiting = cluster.sbatch("true", "--begin=2039-11-29T14:05", "--array=1-2")
    assert slurm.expected_start([waiting]) == "2039-11-29 14:05"
    assert slurm.expected_start(["99999"]) == ""
