"""The train command with hydra.launcher.wait=true, for people and for Hydra's other sweepers."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import yaml
from cluster.sweeps import Desk, hold, run_of, send
from commands import ROOT
from left_behind import ranking, runs, status

from irmas.run.events import RANKED

PROPOSING = '''
import json
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class ProposingSweeper(Sweeper):
    """Two dropouts, then two learning rates with the better of them."""

    def __init__(self, file):
        self.file = file

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        batch = [["dropout=0.1"], ["dropout=0.9"]]
        first = self.launcher.launch(batch, initial_job_idx=0)
        accuracies = [job.return_value for job in first]
        better = batch[accuracies.index(max(accuracies))]
        second = self.launcher.launch([[*better, "lr=0.0005"], [*better, "lr=0.002"]], initial_job_idx=2)
        with open(self.file, "w") as file:
            json.dump([*accuracies, *(job.return_value for job in second)], file)


ConfigStore.instance().store(
    group="hydra/sweeper", name="proposing", node={"_target_": "hydra_plugins.proposing.ProposingSweeper", "file": "?"}
)
'''


def test_a_command_that_waits_can_be_interrupted_and_rerun(desk: Desk) -> None:
    command = desk.command("-m", "epochs=10", "name=w", "hydra.launcher.wait=true")
    sweep = desk.sweep("w")
    first, second = (run_of(desk, "w", number) for number in (1, 2))
    process = desk.start("train", *command, "seed=1,2")
    hold(first, second)
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "")
    assert stdout.splitlines()[-1].startswith("detached: ")
    assert stdout.endswith("; python -m irmas.status outputs/w --watch\n")

    again = desk.start("train", *command, "seed=1,2")
    assert again.stdout
    assert again.stdout.readline() == "outputs/w: 2 runs, 0 finished before, 2 in the queue\n"
    send(signal.SIGCONT, first, second)
    stdout, stderr = again.communicate(timeout=120)
    assert (again.returncode, stderr) == (0, "")
    assert "submitted" not in stdout
    assert "run 1 seed=1  COMPLETED in task" in stdout
    assert "outputs/w: 2 of 2 runs finished" in stdout
    assert [entry["rank"] for entry in ranking(sweep)] == [1, 1]  # seeds

    third = run_of(desk, "w", 3)
    third.mkdir()
    trained = yaml.safe_load((first / "config.yaml").read_text())
    (third / "config.yaml").write_text(yaml.safe_dump(trained | {"batch_size": 16}))
    failed = desk.run("train", *command, "seed=1,2,3")
    assert failed.returncode == 1, failed.stderr
    assert "run 3 FAILED: " in failed.stdout
    assert re.search("batch_size=16.*batch_size=32", failed.stdout)


def test_a_sweeper_that_proposes_points_receives_the_accuracies(desk: Desk, tmp_path: Path) -> None:
    plugins = tmp_path / "path" / "hydra_plugins"
    plugins.mkdir(parents=True)
    (plugins / "proposing.py").write_text(PROPOSING)
    received = tmp_path / "accuracies.json"
    done = desk.train(
        "hydra/sweeper=proposing",
        f"hydra.sweeper.file={received}",
        "hydra.launcher.wait=true",
        "epochs=2",
        "name=proposed",
        PYTHONPATH=os.pathsep.join([str(plugins.parent), str(ROOT)]),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("submitted: array") == 2
    folders = runs(desk.sweep("proposed"))
    last = [status(run) for run in folders]
    assert [run["state"] for run in last] == ["COMPLETED"] * 4
    accuracies = [run["metrics"][RANKED] for run in last]
    assert json.loads(received.read_text()) == accuracies
    better = "0.1" if accuracies[0] >= accuracies[1] else "0.9"
    assert [run.name for run in folders[2:]] == [
        f"00{n}-dropout={better},lr={lr}" for n, lr in ((3, 0.0005), (4, 0.002))
    ]
    assert len({run["job"].partition("_")[0] for run in last}) == 2
