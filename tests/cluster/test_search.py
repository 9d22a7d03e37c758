"""Runs of an array that choose their points when they start: search=tpe."""

from __future__ import annotations

from cluster.sweeps import Desk
from commands import wait_until
from left_behind import ranking, runs, status

from irmas.run.folder import COMPLETED
from irmas.sweep.sweep import Sweep


def test_a_requeued_task_keeps_the_point_that_its_run_has_chosen(desk: Desk) -> None:
    command = ["search=tpe", "lr=tag(log,interval(1e-4,1e-2))", "dropout=0.3,0.4", "epochs=6", "name=found"]
    submitted = desk.submit(*command, "search.runs=3")
    sweep = desk.sweep("found")
    first = sweep / "runs" / "001"
    wait_until(lambda: status(first)["epoch"] > 0, "the first epoch of run 1", 240)
    point = (first / "point.json").read_text()
    desk.cluster.run("scontrol", "requeue", f"{submitted['array1']}_1")
    desk.wait_for_ranking(submitted["ranking"])
    assert [run.name for run in runs(sweep)] == ["001", "002", "003"]
    assert [status(run)["state"] for run in runs(sweep)] == [COMPLETED] * 3
    assert status(first)["restart"] == 1
    assert (first / "point.json").read_text() == point
    ranked = {entry["id"]: entry for entry in ranking(sweep)}
    for run in Sweep.open(sweep).plan.runs:
        assert {"lr", "dropout"} == run.overrides.keys()
        assert run.overrides.items() <= ranked[run.id].items()
