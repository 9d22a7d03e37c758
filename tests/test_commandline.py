"""Mistakes on the command line: one message, exit code 2, nothing written."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from commands import ENVIRONMENT, ROOT, irmas
from forked_commands import Commands
from test_architecture import COMMANDS

from irmas.cli import overrides
from irmas.config import SWEEP_WIDE, Config, flatten
from irmas.errors import UserError
from irmas.results.best import END

MISTAKES = [
    (["dropuot=0.3"], ["dropuot", "did you mean dropout", "settings:", "groups:"]),
    (["+dropout=0.3"], ["+dropout=0.3", "dropout=..."]),
    (["+dropuot=0.3"], ["dropuot", "did you mean dropout"]),
    (["++lr=0.1"], ["++lr=0.1", "lr=..."]),
    (["~augment"], ["~augment"]),
    (["data.siez=3"], ["data.siez", "data.size"]),
    (["dropout=1.5"], ["dropout=1.5", "at least 0 and less than 1"]),
    (["dropout=nan"], ["dropout=nan", "at least 0"]),
    (["lr=-1"], ["lr=-1", "above 0"]),
    (["lr=nan"], ["lr=nan", "above 0"]),
    (["lr=inf"], ["lr=inf", "above 0"]),
    (["lr=null"], ["lr", "above 0"]),
    (["epochs=0"], ["epochs=0", "from 1"]),
    (["epochs=many"], ["epochs=many", "a whole number from 1"]),
    (["epochs=1.5"], ["epochs=1.5", "a whole number from 1"]),
    (["class_weights=maybe"], ["class_weights=maybe", "true, false"]),
    (["device=gpu"], ["device=gpu", "auto, cuda, cpu"]),
    (["schedule=cosine"], ["schedule=cosine", "constant, plateau, onecycle"]),
    (["model.filters=[32,many]"], ["model.filters", "[32,64,128,256]"]),
    (["data=irmaz"], ["data=irmaz", "folder, irmas, standin"]),
    (["sweep=reprot"], ["sweep=reprot", "none, report"]),
    (["hydra/launcher=basic"], ["hydra/launcher=basic", "local"]),
    (["hydra/sweeper=basic"], ["hydra/sweeper=basic", "grid"]),
    (["dropout=0.3", "dropout=0.4"], ["dropout is given twice"]),
    (["-m", "features=small", "features=small,report"], ["features is given twice"]),
    (["hydra.launcher.procs=2"], ["hydra.launcher.procs", "runs_at_once"]),
    (["seed=1,2", "-m", "hydra.launcher.procs=2"], ["hydra.launcher.procs", "runs_at_once"]),
    (["hydra.launcher.runs_at_once=0", "data=standin"], ["hydra.launcher.runs_at_once=0", "from 1"]),
    (["hydra.launcher.processes=2"], ["hydra.launcher.processes: was renamed; give hydra.launcher.runs_at_once\n"]),
    (["hydra/launcher=slurm", "hydra.launcher.points_per_task=2"], ["renamed; give hydra.launcher.runs_per_task\n"]),
    (["dropout=0.3,"], ["dropout=0.3,", "cannot be read"]),
    (["data.root=ü"], ["data.root=ü", "quoted"]),
    (["model=null"], ["model=null", "deep, own, report"]),
    (["-m", "sweep=report,null"], ["sweep=report,null", "none, report"]),
    (["-m", "model=deep,3"], ["model=deep,3", "deep, own, report"]),
    (["-r"], ["-r", "--help"]),
    (["hydra/launcher=slurm", "hydra.launcher.throttle=two"], ["hydra.launcher.throttle=two", "from 1, or null"]),
    (["hydra/launcher=slurm", "hydra.launcher.mem=1.5"], ["hydra.launcher.mem=1.5", "as in 8G"]),
    (["hydra/launcher=slurm", "hydra.launcher.wait=maybe"], ["hydra.launcher.wait=maybe", "true, false"]),
    (["hydra/launcher=slurm", "hydra.launcher.prepare=5"], ["hydra.launcher.prepare", "partition cpus mem"]),
    (["hydra/launcher=slurm", "hydra.launcher.rank.cpus=x"], ["hydra.launcher.rank.cpus=x", "from 1"]),
    (["hydra/launcher=slurm", "hydra.launcher.sbatch.nice=1"], ["hydra.launcher.sbatch.nice", "no such setting"]),
    (["hydra/launcher=slurm", "hydra.launcher.sbatch={nice:[1]}", "data=standin"], ["sbatch=", "one line each"]),
    (["hydra.sweep.dir=elsewhere"], ["hydra.sweep.dir=elsewhere", "only hydra/launcher"]),
    (["hydra.output_subdir=.hydra"], ["hydra.output_subdir", "only hydra/launcher"]),
    (["hydra/job_logging=default"], ["hydra/job_logging", "only hydra/launcher"]),
    (["+hydra.callbacks.a._target_=builtins.print"], ["hydra.callbacks", "only hydra/launcher"]),
    (["hydra.launcher._target_=os.system"], ["_target_", "only hydra/launcher"]),
    (["+hydra.launcher.more=1"], ["+hydra.launcher.more=1", "none is added"]),
    (["hydra.sweeper.params=3"], ["hydra.sweeper.params=3", "settings and their values"]),
    (["--config-dir=elsewhere"], ["--config-dir", "--help"]),
    (["--experimental-rerun=config.pickle"], ["--experimental-rerun", "--help"]),
    (["--resolve"], ["--resolve", "--cfg"]),
    (["--nope"], ["--nope", "--help"]),
    (["dropout"], ["dropout", "cannot be read as key=value"]),
    (["-m", "dropout=0.3,", "lr=0.1"], ["dropout=0.3,: cannot be read", "'<EOF>'); commas without"]),
    (["=3"], ["=3", "no setting"]),
    (["features.seconds=0.00001", "data=standin"], ["features.seconds", "1 to 65536 frames"]),
    (["features.seconds=600", "features.hop_length=1", "data=standin"], ["features.seconds", "1 to 65536 frames"]),
    (["data=standin", "data.root="], ["data.root=", "a folder"]),
    (["data=standin", "data.cache_dir="], ["data.cache_dir=", "a folder"]),
    (["data.cache="], ["data.cache=", "a feature cache"]),
    (["data.cache='a\nb'"], ["data.cache=", "without line breaks"]),
    (["data.root=~/IRMAS"], ["data.root=~/IRMAS", "$HOME stands for your folder, ~ does not"]),
    (['data.cache_dir="~/cache"'], ["data.cache_dir=~/cache", "$HOME/... is expanded by the shell"]),
    # Sweeps of nothing.
    (["-m", "dropout="], ["dropout=", "at least 0"]),
    (["-m", "dropout=[]"], ["dropout=[]", "at least 0"]),
    (["-m", "dropout=choice()"], ["dropout=choice()", "cannot be read"]),
    (["-m", "dropout=range(1,1)"], ["dropout=range(1,1)", "no value"]),
    (["-m", "model=glob(z*)"], ["model=glob(z*)", "no value"]),
    (["-m", "data=standin", "model.filters=[],[8]"], ["model.filters=[]", "1 to 12"]),
    (["-m", "dropout=0.3\n0.4"], ["dropout=0.3", "cannot be read"]),
    (["-m", "data=folder", "data.root='a\nb',c"], ["data.root=a\nb", "without line breaks"]),
    (["-m", "data=folder", "data.root='a,b',c"], ["a,b", "no such folder"]),
    (["name=../elsewhere"], ["name=../elsewhere", "letters"]),
    (["name=" + "x" * 101], ["name=", "up to 100"]),
    (["-m", "name=a,b"], ["name=a", "whole sweep"]),
    (["-m", "note='a','b'"], ["note='a'", "whole sweep"]),
    (["note=" + "x" * 201], ["note=", "one line of up to 200"]),
    (["note=a\nb"], ["note=a", "one line of up to 200"]),
    (["-m", "data=standin", "dropout=0.3,1.5"], ["dropout=1.5", "less than 1"]),
    (["-m", "data=standin", "dropout=0.3,0.30"], ["dropout=0.3", "twice"]),
    (["-m", "data=standin", "lr=interval(0.1,1)"], ["lr=interval(0.1,1): search=random draws", "a grid needs values"]),
    (["-m", "data=standin", "model=report,depp"], ["model=depp", "deep, own, report"]),
    (["data.size=200"], ["data.size=200", "only data=standin"]),
    (["data=folder"], ["data.root=", "must be a folder"]),
    (["data=folder", "data.root=nowhere"], ["data.root", "nowhere", "no such folder"]),
    (["data.cache=nowhere"], ["data.cache", "nowhere", "no such folder"]),
    (["search=halton"], ["search=halton", "none, random"]),
    (["search.runs=3", "data=standin"], ["search.runs=3", "only search=random"]),
    (["search=random", "data=standin"], ["search=random: needs settings"]),
    (["search=random", "lr=1,2", "search.runs=0"], ["search.runs=0", "from 1 to 10000"]),
    (["search=random", "lr=1,2", "search.runs=null"], ["search.runs=null", "needs it"]),
    (["search=random", "lr=1,2", "search.runs=3"], ["search.runs=3", "at most 2"]),
    (["search=random,none", "lr=1,2", "data=standin"], ["search=random", "whole sweep"]),
    (["search=random", "lr=1,2", "points=a.csv"], ["points=a.csv", "one of the two"]),
    (["search=random", "dropout=interval(0.1,1)"], ["dropout=interval(0.1,1): its end 1 must be at least 0 and less"]),
    (["search=random", "batch_size=interval(2.5,9)"], ["batch_size=interval(2.5,9): its end 2.5 must be a whole"]),
    (["search=random", "lr=interval(2,1)"], ["lr=interval(2,1)", "below the second"]),
    (["search=random", "l2=tag(log,interval(0,1))"], ["l2=tag(log,interval(0,1))", "above 0"]),
    (["search=random", "lr=tag(log,choice(1,2))"], ["lr=tag(log,choice(1,2))", "only an interval is tagged"]),
    (["search=random", "lr=tag(exp,interval(1,2))"], ["lr=tag(exp,interval(1,2))", "tag(log,interval("]),
    (["search=random", "schedule=interval(1,2)"], ["schedule=interval(1,2)", "only a number"]),
    (["search=random", "lr=1,2", "seed=interval(0,2)"], ["seed=interval(0,2)", "needs values, as in seed=0,1"]),
    (["search=random", "lr=0.1,20", "search.runs=2", "data=standin"], ["lr=20", "at most 10"]),
    (["search=tpe", "data=standin"], ["search=tpe: needs settings"]),
    (["search=tpe", "lr=1,2", "search.runs=null"], ["search.runs=null", "search=tpe needs it"]),
    (["search=tpe", "lr=1,2", "search.runs=3"], ["search.runs=3", "at most 2"]),
    (["search=tpe", "lr=0.1,20", "search.runs=2", "data=standin"], ["lr=20", "at most 10"]),
    (["search=tpe", "lr=interval(1,20)", "data=standin"], ["lr=interval(1,20): its end 20 must be"]),
    (["search=tpe", "lr=interval(1,2)", "seed=0,1"], ["seed=0,1: search=tpe trains each point once", "irmas.refine"]),
    (["search=tpe", "lr=interval(1,2)", "data.fold=0,1"], ["data.fold=0,1: search=tpe trains each point once"]),
    (["search=tpe", "features=small,report", "search.runs=2", "data=standin"], ["features=small: is needed before"]),
    (
        ["search=tpe", "epochs=interval(1,20)", "halving=3", "search.runs=5", "data=standin"],
        ["halving=3", "at most epochs=1"],
    ),
    (["points=missing.csv", "data=standin"], ["missing.csv: No such file"]),
    (["points=~/a.csv", "data=standin"], ["~/a.csv"]),
    (["-m", "points=a.csv,b.csv", "data=standin"], ["points=a.csv", "whole sweep"]),
    ([], ["data.root", "python -m irmas.prepare download=true", "data=standin"]),
]


@pytest.mark.parametrize(("arguments", "wanted"), MISTAKES, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_is_one_message_and_writes_nothing(
    arguments: list[str], wanted: list[str], commands: Commands, tmp_path: Path
) -> None:
    launcher = [] if any("launcher=" in text for text in arguments) else ["hydra/launcher=local"]
    result = commands.refuse("train", *arguments, *launcher, folder=tmp_path)
    for text in wanted:
        assert text in result


def test_on_a_cluster_without_sbatch_nothing_trains_unasked(commands: Commands, tmp_path: Path) -> None:
    hidden = {"PATH": str(tmp_path), "SLURM_CONF": "/opt/slurm.conf"}
    message = commands.refuse("train", "data=standin", folder=tmp_path, **hidden)
    assert "sbatch is not on the PATH, but this machine has a Slurm (SLURM_CONF=/opt/slurm.conf)" in message
    assert "module load slurm), or give hydra/launcher=local" in message
    assert commands.run("train", "--help", folder=tmp_path, **hidden).code == 0


def test_without_a_slurm_runs_train_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    monkeypatch.setattr(overrides, "SLURM_FOLDER", tmp_path / "slurm")
    assert overrides.default_launcher() == "local"
    (tmp_path / "slurm").mkdir()
    with pytest.raises(UserError, match=re.escape(f"has a Slurm ({tmp_path}/slurm)")):
        overrides.default_launcher()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0.1,0.3,\n0.2,1.5,\n", "line 3, column dropout: dropout=1.5: must be at least 0 and less than 1"),
        ("0.1,many,\n", "line 2, column dropout: dropout=many: must be at least 0 and less than 1"),
        ("0.1,,depp\n", "line 2, column model: model=depp: must be one of deep, own, report"),
        ("0.1,0.3,\n0.1,,\n0.1,0.4,\n", "line 2, column lr: lr=0.1 dropout=0.4: appears twice in the sweep"),
    ],
)
def test_a_wrong_value_in_a_file_of_points_is_named_by_line_and_column(
    rows: str, message: str, commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text(f"lr,dropout,model\n{rows}")
    result = commands.refuse("train", "points=p.csv", "data=standin", "hydra/launcher=local", folder=tmp_path)
    assert result.startswith(f"irmas.train: p.csv: {message}")


@pytest.mark.parametrize("arguments", [["dropout=0.3"], ["-m", "data=standin", "features=small,report"]])
def test_prepare_takes_only_its_own_settings_and_no_sweep(
    arguments: list[str], commands: Commands, tmp_path: Path
) -> None:
    commands.refuse("prepare", *arguments, folder=tmp_path)


OTHER = """
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class OtherSweeper(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        self.launcher.launch([["dropout=0.1"]], initial_job_idx=0)


ConfigStore.instance().store(group="hydra/sweeper", name="other", node={"_target_": "hydra_plugins.other.OtherSweeper"})
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["search=random"], "search.runs=32: only hydra/sweeper=grid"), (["points=a.csv"], "points=a.csv: only hydra/sw")],
)
def test_another_sweeper_neither_draws_nor_lists_points(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "other.py").write_text(OTHER)
    command = ["hydra/sweeper=other", "data=standin", *arguments]
    done = irmas("train", *command, cwd=tmp_path, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"irmas.train: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["hydra_plugins"]


def test_rank_names_the_sweeps_that_there_are(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    (tmp_path / "outputs" / "mine" / "plan.yaml").touch()
    result = commands.refuse("rank", "outputs/other", folder=tmp_path)
    assert result == "irmas.rank: outputs/other: no sweep is here (plan.yaml is missing); sweeps: outputs/mine\n"


def test_options_and_settings_stand_in_any_order(commands: Commands, tmp_path: Path) -> None:
    result = commands.run("train", "lr=0.1", "--cfg", "job", "dropout=0.2", "-m", folder=tmp_path)
    assert result.code == 0
    assert "dropout: 0.2\nlr: 0.1\n" in result.stdout
    assert "-m" not in commands.refuse("train", "data=standin", "-m", "lr=-1", "hydra/launcher=local", folder=tmp_path)


@pytest.mark.parametrize(
    "note", ["first try, 2 convs", "it's (a) [test] {x}: 50% of ${y} #1", "C:\\", "a\\'b", "x=1,2", "", "ünï ☃"]
)
def test_a_note_is_any_line_of_text(note: str, commands: Commands, tmp_path: Path) -> None:
    result = commands.run("train", f"note={note}", "-m", "--cfg", "job", folder=tmp_path)
    assert result.code == 0, result.stderr
    assert yaml.safe_load(result.stdout)["note"].replace("\\${", "${") == note


@pytest.mark.parametrize("arguments", [["--info"], ["lr=0.1", "-i"], ["--info", "defaults", "--", "lr=0.1"]])
def test_what_hydra_shows_of_itself_takes_settings_too(
    arguments: list[str], commands: Commands, tmp_path: Path
) -> None:
    result = commands.run("train", *arguments, folder=tmp_path)
    assert result.code == 0
    assert "Defaults List" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "prepare",
        "rank",
        "refine",
        "status",
        "compare",
        "clean",
        "evaluate",
        "sweep.array_task",
        "sweep.data_job",
    ],
)
def test_a_real_command_refuses_like_a_fork_of_one(command: str, tmp_path: Path) -> None:
    done = irmas(command, "--nope", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"irmas.{command}: ")
    assert done.stderr.endswith(f"; python -m irmas.{command} --help shows what it takes\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "prepare", "rank", "refine", "compare", "clean"])
def test_help_shows_how_to_call_the_command(command: str, tmp_path: Path) -> None:
    done = irmas(command, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m irmas.{command}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def main(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "irmas", *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_one_name_for_all_commands_lists_them_and_loads_little(tmp_path: Path) -> None:
    done = main("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    _, _, listed = done.stdout.partition("commands:\n")
    assert {line.split()[0] for line in listed.splitlines()} == COMMANDS - {"__main__"}
    assert all((ROOT / "irmas" / f"{command}.py").is_file() for command in COMMANDS)
    code = "import sys, irmas.__main__; print(sorted({'torch', 'hydra', 'numpy', 'rich'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert loaded.stdout == "[]\n", loaded.stderr


@pytest.mark.parametrize(
    "arguments", [["status", "outputs/x"], ["rank", "--help"], ["train", "lr=0.1", "--cfg", "job"], ["train", "lr=-1"]]
)
def test_a_command_does_the_same_under_either_name(arguments: list[str], tmp_path: Path) -> None:
    done, module = main(*arguments, cwd=tmp_path), irmas(arguments[0], *arguments[1:], cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (module.returncode, module.stdout, module.stderr)


@pytest.mark.parametrize(("arguments", "wanted"), [([], "required: command"), (["statsu"], "'statsu'")])
def test_a_wrong_command_is_one_message(arguments: list[str], wanted: str, tmp_path: Path) -> None:
    done = main(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert wanted in done.stderr
    assert done.stderr.startswith("irmas: ")
    assert done.stderr.endswith("; python -m irmas --help shows what it takes\n")


def test_a_whole_best_of_an_earlier_version_takes_defaults_and_a_truncated_one_is_refused(
    commands: Commands, tmp_path: Path
) -> None:
    settings = {key: value for key, value in asdict(Config(lr=0.01)).items() if key not in ("dropout", "augment")}
    own = {key: value for key, value in settings.items() if key not in SWEEP_WIDE}
    text = yaml.safe_dump(own, sort_keys=False)
    best, call = tmp_path / "best.yaml", ["train", "best=best.yaml", "hydra/launcher=local"]
    best.write_text(text + END.format(len(flatten(own))))
    result = commands.run(*call, "--cfg", "job", folder=tmp_path)
    assert result.code == 0, result.stderr
    assert result.stdout.startswith("dropout: 0.4\nlr: 0.01\n")
    for damaged in (text, text[:-30], text.replace("lr: 0.01\n", "") + END.format(len(flatten(own)))):
        best.write_text(damaged)
        assert "best.yaml: is truncated" in commands.refuse(*call, folder=tmp_path)
