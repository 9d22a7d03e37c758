"""Values, names and files of others make this package do nothing beyond their content."""

from __future__ import annotations

import ast
import os
import re
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from commands import ENVIRONMENT, ROOT
from factories import read_plan, write_plan
from hypothesis import given
from hypothesis import strategies as st
from test_sbatch import values

from irmas.config import Config, check
from irmas.errors import ConfigError, UserError
from irmas.processes import current_task
from irmas.provenance import source_digest
from irmas.sweep import array_task, jobs, settings
from irmas.sweep import submit as submission
from irmas.sweep.jobs import ARRAY, DataFailure, Job
from irmas.sweep.plan import Plan, PlannedRun
from irmas.sweep.sbatch import SCRIPT, job_requests, shell_lines
from irmas.sweep.submit import submit
from irmas.sweep.sweep import OUTPUTS, Sweep
from irmas.sweep.sweep import PLAN as PLAN_FILE

HOSTILE = "a 'b\" $(touch owned); `touch owned` & *"
PLAN = Plan("mine", ["lr"], "d", "s", "", Config(), [PlannedRun(i, {"lr": i / 10}, {"lr": i / 10}) for i in (1, 2)])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a hostile name, whose Slurm keeps what it is handed in `handed/`."""
    folder, bin_ = tmp_path / HOSTILE / "here", tmp_path / "bin"
    folder.mkdir(parents=True)
    bin_.mkdir()
    keep = f"""
        handed={shlex.quote(str(tmp_path))}/handed; mkdir -p "$handed"; number=$(ls "$handed" | wc -l)
        [ $0 = "${{0%/sbatch}}" ] || env > "$handed/../environment"
        [ $0 = "${{0%/sbatch}}" ] || [ -e outputs/*/.submit.lock ] || touch "$handed/../unlocked"
        for word in "$@"; do printf '%s\\0' "$word"; done > "$handed/$((number + 100))"
        [ ! -e "$handed/refuse" ] || {{ echo "sbatch: error: no" >&2; exit 1; }}
        for word in "$@"; do [ "${{word#--job-name=}}" = "$word" ] || name=${{word#--job-name=}}; done
        printf '%s\\037' $((number + 100)) N/A PENDING None '' 0:00 "$name" "$PWD" >>"$handed/../queue"
        echo "(null)" >>"$handed/../queue"
        [ ! -e "$handed/mute" ] || {{ echo Thank you, job 7; exit; }}
        case "$*" in *--parsable*) echo $((number + 100)) ;; *) echo "Submitted batch job $((number + 100))" ;; esac"""
    folder_of_answers = shlex.quote(str(tmp_path))
    answers = {"sbatch": keep, "srun": keep, "sacct": "", "scancel": f"echo $* >>{folder_of_answers}/cancelled"}
    answers["squeue"] = f"cat {folder_of_answers}/queue 2>/dev/null; true"
    answers["scontrol"] = "[ $1 != show ] || echo MaxArraySize = 1001"
    for name, answer in answers.items():
        (bin_ / name).write_text(f"#!/bin/bash\n{answer}\n")
        (bin_ / name).chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setattr("irmas.sweep.data_job.is_made", lambda plan: False)
    return folder


def handed(desk: Path) -> list[list[str]]:
    """The words of each call of sbatch or srun."""
    files = sorted((desk.parent.parent / "handed").iterdir())
    return [file.read_bytes().decode().split("\0")[:-1] for file in files]


def sources() -> Iterator[tuple[Path, ast.AST]]:
    for path in [*ROOT.glob("irmas/**/*.py"), *ROOT.glob("hydra_plugins/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            yield path, node


def test_nothing_loads_a_pickle() -> None:
    named = {text for _, node in sources() if (text := ast.unparse(node)).startswith("pickle.")}
    assert named == {"pickle.UnpicklingError"}
    for path, node in sources():
        if isinstance(node, ast.ImportFrom | ast.Import):
            modules = {getattr(node, "module", None), *(name.name for name in node.names)}
            assert not modules & {"cloudpickle", "dill", "joblib", "shelve", "marshal"}, path
            assert path.name == "checkpoint.py" or "pickle" not in modules, path
        if isinstance(node, ast.Call):
            call, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            is_empty = ast.unparse(node) == "exec('')"  # of errors.report_errors, which says why
            assert is_empty or call not in ("eval", "exec", "os.system", "os.popen", "yaml.load"), path
            assert call != "torch.load" or given.get("weights_only") == "True", path
            assert not call.endswith("np.load") or "allow_pickle" not in given, path
            assert "shell" not in given, path


def test_a_submission_writes_and_names_no_pickle(desk: Path) -> None:
    submit(PLAN, settings.read(values()))
    scripts = [path.read_text() for path in Path("outputs/mine/slurm").glob("[0-9]*.sh")]
    assert len(scripts) == 3
    assert not any("submitit" in text or "pickle" in text or "pkl" in text for text in scripts)
    assert not list(desk.rglob("*.pkl"))


def test_a_job_inherits_nothing_of_the_job_that_submits_it(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SBATCH_GRES", "SRUN_DEBUG", "MINE"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    submit(PLAN, settings.read(values()))
    lines = (desk.parent.parent / "environment").read_text().splitlines()
    assert {line for line in lines if line.endswith("=7")} == {"SLURM_CONF=7", "MINE=7"}
    assert os.environ["SLURM_JOB_ID"] == os.environ["CUDA_VISIBLE_DEVICES"] == "7"


def test_account_qos_and_partition_of_the_environment_count_and_are_shown(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They stay in the jobs' environment, so that the rounds of irmas.refine have them too."""
    for key in ("ACCOUNT", "QOS", "PARTITION", "GRES", "EXPORT"):
        monkeypatch.setenv(f"SBATCH_{key}", f"my-{key.lower()}")
    submission.launch(PLAN, settings.read(values(qos="long")), append=False, by_hand=False)
    lines = capsys.readouterr().out.splitlines()
    assert "hydra.launcher.account=my-account, from SBATCH_ACCOUNT" in lines
    assert "hydra.launcher.partition=my-partition, from SBATCH_PARTITION" in lines
    assert not any("SBATCH_QOS" in line for line in lines), "hydra.launcher.qos is given"
    assert "not used: SBATCH_EXPORT SBATCH_GRES; give such options as hydra.launcher.sbatch" in lines
    environment = (desk.parent.parent / "environment").read_text()
    assert {"SBATCH_ACCOUNT=my-account", "SBATCH_PARTITION=my-partition"} < set(environment.splitlines())
    assert "my-gres" not in environment
    assert all("--qos=long" in words and not any("my-" in word for word in words) for words in handed(desk))


def forbid_updates(desk: Path, error: str) -> None:
    """Let scontrol fail with an error, except for what it shows."""
    scontrol = desk.parent.parent / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/bash\n[ $1 = show ] && echo MaxArraySize = 9 || {{ echo "{error}" >&2; exit 1; }}\n')


@pytest.mark.parametrize("error", ["Access/permission denied for job 101", "slurm_update error: Invalid user id"])
def test_where_users_may_not_update_jobs_they_begin_by_themselves(
    error: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forbid_updates(desk, error)
    assert len(submit(PLAN, settings.read(values())).jobs) == 3
    assert re.search(r"\nthe jobs begin at \d\d:\d\d or later: this site .*\n$", capsys.readouterr().out)
    assert not (desk.parent.parent / "cancelled").exists()
    assert len(jobs.recorded_jobs(Sweep.of(PLAN))) == 3


def test_a_job_that_slurm_refuses_to_begin_is_refused(desk: Path) -> None:
    forbid_updates(desk, "Requested node configuration is not available")
    with pytest.raises(UserError, match=r"nothing is submitted: .* \(scontrol: Requested node"):
        submit(PLAN, settings.read(values()))
    assert (desk.parent.parent / "cancelled").read_text() == "100 101 102\n"


def test_more_tasks_than_slurm_takes_in_an_array_name_the_setting(desk: Path) -> None:
    sbatch = desk.parent.parent / "bin" / "sbatch"
    error = "sbatch: error: Batch job submission failed: Invalid job array specification"
    sbatch.write_text(f'#!/bin/bash\necho "{error}" >&2; exit 1\n')
    with pytest.raises(UserError, match=r"Invalid job array specification\); a larger hydra.launcher.runs_per_task"):
        submit(PLAN, settings.read(values()))


def test_a_tasks_starts_are_counted_and_never_more_than_slurm_counts(desk: Path) -> None:
    """Slurm's own count has starts that reached no run; a number that Slurm gives again has starts of another job."""
    sweep, task = Sweep.of(PLAN), replace(current_task(), job="12", index=3)
    counts = [array_task._restarts(sweep, replace(task, restart=restart)) for restart in (0, 4, 5)]
    assert counts == [0, 1, 2]
    assert [array_task._restarts(sweep, replace(task, restart=restart)) for restart in (0, 1)] == [0, 1]
    assert array_task._restarts(sweep, replace(task, index=4, restart=2)) == 0
    (sweep.slurm / "12_5.starts").mkdir()
    assert array_task._restarts(sweep, replace(task, index=5, restart=2)) == 2


@pytest.mark.parametrize("umask", [0, 0o027, 0o077])
def test_the_folder_of_jobs_is_its_users_alone_whatever_the_umask(umask: int, desk: Path) -> None:
    before = os.umask(umask)
    try:
        jobs.record_job(Sweep(OUTPUTS / "by-hand", PLAN), Job("1", ARRAY, "irmas", 0.0))
        jobs.record_data_failure(Sweep(OUTPUTS / "failed", PLAN), DataFailure("1", "no"))
        submit(replace(PLAN, name="submitted"), settings.read(values()))
        submit(replace(PLAN, name="printed"), settings.read(values()), by_hand=True)
    finally:
        os.umask(before)
    modes = {sweep.name: stat.S_IMODE((sweep / "slurm").stat().st_mode) for sweep in OUTPUTS.iterdir()}
    assert modes == dict.fromkeys(("by-hand", "failed", "submitted", "printed"), 0o700)


def test_values_reach_slurm_as_they_are_and_never_a_shell(desk: Path) -> None:
    setup = desk / f"{HOSTILE}.sh"
    setup.write_text("export GREETING=hello\n")
    changed = {
        "partition": "$(touch`touch)owned;",
        "setup": str(setup),
        "sbatch": {"comment": HOSTILE, "reservation": "x"},
    }
    submit(PLAN, settings.read(values(**changed)))
    calls = handed(desk)
    for words, args in zip(calls, (["data"], ["train"], ["rank"]), strict=True):
        script = next(number for number, word in enumerate(words) if word.endswith(".sh"))
        assert words[0] == "--begin=now+120"
        assert words[script + 1 : script + 5] == [
            f"--python={sys.executable}",
            f"--setup={setup}",
            *args,
            "outputs/mine",
        ]
        assert not any(line.startswith("#SBATCH") for line in Path(words[script]).read_text().splitlines())
    assert {f"--comment={HOSTILE}", "--partition=$(touch`touch)owned;"} < set(calls[1])
    inside = ENVIRONMENT | {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", "PATH": os.environ["PATH"]}
    script = calls[1].index(f"--python={sys.executable}") - 1
    subprocess.run(["bash", *calls[1][script:], "a b", "$(c)"], env=inside, check=True)
    assert handed(desk)[-1] == [
        *("--ntasks=1", "--export=ALL", "--cpus-per-task=2"),
        *(sys.executable, "-u", "-m", "irmas.sweep.array_task", "outputs/mine", "--requeues", "10", "a b", "$(c)"),
    ]
    assert not list(desk.parent.parent.rglob("owned"))


@given(st.one_of(st.text(max_size=30), st.floats(), st.booleans(), st.lists(st.text())))
def test_no_setting_of_the_launcher_is_more_than_a_line_of_a_batch_script(value: object) -> None:
    for key in ("partition", "account", "qos", "constraint", "exclude", "gpus", "mem", "time", "sbatch", "throttle"):
        with suppress(ConfigError):
            settings.read(values(**{key: {"comment": value} if key == "sbatch" else value}))
            assert len(str(value).splitlines()) <= 1


@pytest.mark.parametrize(
    "key", ["a b", "comment\nexport", "Comment", "-x", "c", "array", "chdir", "wrap", "kill_on_invalid_dep"]
)
def test_no_name_of_an_option_is_anything_else(key: str) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.sbatch"):
        settings.read(values(sbatch={key: 1}))


def test_the_lines_to_submit_by_hand_are_safe_to_paste(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irmas.sweep.sbatch.SCRIPT", desk.parent / "scripts of mine" / "irmas.sbatch")
    setup = desk / "set $HOME up.sh"
    setup.touch()
    launcher = settings.read(values(partition="$HOME", setup=str(setup), sbatch={"comment": HOSTILE}))
    sweep = Sweep.of(replace(PLAN, name=HOSTILE))
    lines = shell_lines(job_requests(sweep, launcher, [1, 2], 1000, True, [], per_task=1))
    subprocess.run(["bash", "-euc", "\n".join(lines)], check=True)
    data, array, ranking = handed(desk)
    for words, stage in ((data, "data"), (array, "train"), (ranking, "rank")):
        script = words.index("../scripts of mine/irmas.sbatch")
        assert words[script + 2 : script + 5] == [f"--setup={setup}", stage, f"outputs/{HOSTILE}"]
    assert f"--comment={HOSTILE}" in array
    assert "--partition=$HOME" in array
    assert "--dependency=afterok:100" in array
    assert "--dependency=afterany:101" in ranking
    assert not list(desk.parent.parent.rglob("owned"))


STAGES = {
    "data": "irmas.sweep.data_job",
    "train": "irmas.sweep.array_task",
    "rank": "irmas.rank",
    "refine": "irmas.refine",
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("by_variable", [True, False])
def test_the_script_passes_its_arguments_on_as_they_are(stage: str, by_variable: bool, desk: Path) -> None:
    setup = desk / "set up.sh"
    setup.write_text("export LOADED=yes; echo $NOT_SET\n")  # as module systems do
    inside = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", "PATH": os.environ["PATH"]}
    inside |= {"IRMAS_SETUP": str(setup)} if by_variable else {}
    options = [] if by_variable else [f"--setup={setup}", "--python=/my python"]
    command = ["bash", str(SCRIPT), *options, stage, f"outputs/{HOSTILE}", "--runs", "1-2"]
    subprocess.run(command, env=inside, check=True)
    python = "python" if by_variable else "/my python"
    options = ["--ntasks=1", "--export=ALL", "--cpus-per-task=2"]
    expected = [*options, python, "-u", "-m", STAGES[stage], f"outputs/{HOSTILE}", "--runs", "1-2"]
    assert handed(desk) == [expected]
    assert not (desk / "owned").exists()


@pytest.mark.parametrize(
    ("job", "stage", "message"),
    [("", "train", "run this with sbatch: sbatch slurm/irmas.sbatch"), ("7", "outputs/x", "must be data, train, rank")],
)
def test_the_script_refuses_what_is_no_job_or_no_stage(job: str, stage: str, message: str, desk: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": job}
    done = subprocess.run(["bash", SCRIPT, stage], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("slurm/irmas.sbatch: ")
    assert message in done.stderr


@given(st.one_of(st.text(max_size=120), st.sampled_from(["..", ".", "", "a/..", "../a", "a\n", "~", "-a", "\0"])))
def test_no_name_leaves_the_folder_of_outputs(name: str) -> None:
    with suppress(ConfigError):
        check(replace(Config(), name=name))
        assert (OUTPUTS / name).resolve().parent == OUTPUTS.resolve()
        assert shlex.quote(name) == name


def test_a_link_that_a_user_has_made_is_followed(desk: Path) -> None:
    """Outputs on a larger disk, say: whoever can make a link there can write there anyway."""
    (desk.parent / "scratch").mkdir()
    OUTPUTS.symlink_to(desk.parent / "scratch")
    write_plan(OUTPUTS / "mine", PLAN)
    assert (desk.parent / "scratch" / "mine" / PLAN_FILE).is_file()


def refuse_all(desk: Path) -> None:
    (desk.parent.parent / "handed").mkdir()
    (desk.parent.parent / "handed" / "refuse").touch()


def test_a_refused_submission_leaves_nothing(desk: Path) -> None:
    refuse_all(desk)
    with pytest.raises(UserError, match="nothing is submitted"):
        submit(replace(PLAN, source=source_digest()), settings.read(values()))
    assert list(desk.iterdir()) == []


def test_what_was_accepted_without_a_number_is_cancelled_by_name(desk: Path) -> None:
    (desk.parent.parent / "handed").mkdir()
    (desk.parent.parent / "handed" / "mute").touch()
    with pytest.raises(UserError, match=r"It printed:\n  Thank you, job 7$"):
        submit(PLAN, settings.read(values()))
    assert (desk.parent.parent / "cancelled").read_text() == "101\n"
    assert list(desk.iterdir()) == []


def test_a_refused_submission_leaves_what_was_there(desk: Path) -> None:
    refuse_all(desk)
    write_plan(OUTPUTS / "mine", PLAN)
    (OUTPUTS / "mine" / "splits").mkdir()
    (OUTPUTS / "mine" / "notes.txt").touch()
    before = {path: path.read_bytes() if path.is_file() else b"" for path in desk.rglob("*")}
    with pytest.raises(UserError, match="nothing is submitted"):
        submit(replace(PLAN, runs=[*PLAN.runs, PlannedRun(3, {"lr": 0.3}, {"lr": 0.3})]), settings.read(values()))
    assert {path: path.read_bytes() if path.is_file() else b"" for path in desk.rglob("*")} == before


def test_a_command_that_waited_for_a_refused_one_submits(desk: Path) -> None:
    sweep = Sweep.of(PLAN)
    with ThreadPoolExecutor() as pool:
        with suppress(KeyboardInterrupt), submission._undone_if_refused(sweep):
            jobs.private_folder(sweep)
            sweep.write()
            waiting = pool.submit(submit, PLAN, settings.read(values()))
            time.sleep(0.5)  # until it waits; if it does not yet, nothing is tested, and nothing fails
            raise KeyboardInterrupt
        assert len(waiting.result(timeout=30).jobs) == 3
    assert read_plan(sweep.path) == PLAN
    assert len(jobs.recorded_jobs(sweep)) == 3
    assert not (desk.parent.parent / "unlocked").exists()
