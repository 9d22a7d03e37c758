"""Arguments of sbatch: arrays, their indices, dependencies; the script, and what is used of submitit."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import submitit
from commands import ENVIRONMENT
from factories import grid
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from irmas import processes
from irmas.config import Config, Model
from irmas.errors import ConfigError
from irmas.sweep import settings, slurm
from irmas.sweep.executor import Executor
from irmas.sweep.jobs import ARRAY, Work
from irmas.sweep.plan import Plan
from irmas.sweep.sbatch import SCRIPT, JobRequest, job_requests, shell_lines
from irmas.sweep.sweep import Sweep

ROOT = Path(__file__).parent.parent
SHIPPED: Any = OmegaConf.to_container(OmegaConf.structured(settings.Settings), resolve=True)


DEMO = Sweep.of(Plan("demo", [], "", "", "", Config()))


def values(**changes: Any) -> dict[str, Any]:
    """Return the shipped settings of the launcher, with changes."""
    return {**SHIPPED, **changes}


def requests(
    ids: list[int], max_index: int = 1000, *, needs_data: bool = False, queued: tuple[str, ...] = (), **changes: Any
) -> list[JobRequest]:
    launcher = settings.read(values(**changes))
    per_task = launcher.per_task("auto")
    return job_requests(DEMO, launcher, ids, max_index, needs_data, queued, per_task=per_task)


def arrays(requested: list[JobRequest]) -> list[JobRequest]:
    return [request for request in requested if request.stage == ARRAY]


def script_arguments(request: JobRequest) -> list[str]:
    python, *args = request.arguments
    assert python == f"--python={sys.executable}"
    return args


def test_the_index_is_the_run_id_where_slurm_accepts_it() -> None:
    (array,) = arrays(requests([*range(7, 19), *range(1, 4)], max_index=18, throttle=6))
    assert array.options["array"] == "1-3,7-18%6"
    assert array.work == Work()
    assert script_arguments(array) == ["train", "outputs/demo", "--requeues", "10"]


def test_several_runs_per_task_are_arguments_of_the_script() -> None:
    (array,) = arrays(requests(list(range(1, 19)), runs_per_task=6))
    assert array.options["array"] == "1-3"
    assert script_arguments(array)[2:-2] == ["--runs", "1-18", "--runs-per-task", "6"]
    (array,) = arrays(requests(list(range(1, 19)), runs_per_task=6, runs_at_once=2))
    assert script_arguments(array)[2:-2] == ["--runs", "1-18", "--runs-per-task", "6", "--runs-at-once", "2"]


@pytest.mark.parametrize(
    ("changes", "device", "at_once", "per_task"),
    [
        ({}, "auto", 1, 1),
        ({"gpus": 0}, "auto", 1, 1),
        ({"gpus": 4}, "auto", 4, 4),
        ({"gpus": "a100:4"}, "cuda", 4, 4),
        ({"gpus": 4}, "cpu", 1, 1),
        ({"gpus": 4, "runs_at_once": 1}, "auto", 1, 1),
        ({"gpus": 4, "runs_per_task": 12}, "auto", 4, 12),
        ({"runs_at_once": 6}, "cpu", 6, 6),
        ({"runs_at_once": 6, "runs_per_task": 12}, "auto", 6, 12),
    ],
)
def test_a_task_has_a_run_for_each_of_its_gpus(
    changes: dict[str, Any], device: str, at_once: int, per_task: int
) -> None:
    launcher = settings.read(values(**changes))
    assert (launcher.at_once(device), launcher.per_task(device)) == (at_once, per_task)


def test_with_a_throttle_each_array_waits_for_the_one_before_and_the_ranking_for_all() -> None:
    requested = requests(list(range(1, 19)), max_index=7, throttle=6)
    assert [array.options["array"] for array in arrays(requested)] == ["1-7%6", "1-7%6", "1-4%6"]
    assert [array.after_any for array in arrays(requested)] == [(), ("array1",), ("array2",)]
    assert requested[-1].after_any == ("array1", "array2", "array3")
    assert not any(array.after_any for array in arrays(requests(list(range(1, 19)), max_index=7)))


@given(
    ids=st.lists(st.integers(1, 3000), min_size=1, max_size=60, unique=True),
    per_task=st.integers(1, 7),
    max_index=st.integers(1, 2000),
)
def test_every_run_is_in_one_task_whatever_the_limits(ids: list[int], per_task: int, max_index: int) -> None:
    trained: list[int] = []
    for array in arrays(requests(ids, max_index, runs_per_task=per_task)):
        indices = slurm.expand_ranges(array.options["array"])
        assert max(indices) <= max_index
        for index in indices:
            of_task = array.work.ids(index, 3000)
            assert 1 <= len(of_task) <= per_task
            trained += of_task
    assert sorted(trained) == sorted(ids)


def test_an_array_behind_the_data_job_is_cancelled_if_that_fails() -> None:
    data, array, ranking = requested = requests([1, 2], needs_data=True, queued=("7",))
    command = array.command("script", {"data": "12"}.__getitem__)
    assert {"--dependency=afterok:12", "--kill-on-invalid-dep=yes"} < set(command)
    assert "--dependency=afterany:7:13" in ranking.command("script", {"7": "7", "array1": "13"}.__getitem__)
    assert "gres" not in data.options
    printed = ["outputs/demo/slurm/%j.out", "outputs/demo/slurm/%A_%a.out", "outputs/demo/slurm/%j.out"]
    assert [request.options["output"] for request in requested] == printed
    lines = shell_lines(requested)
    assert lines[0].startswith("data=$(sbatch --parsable --job-name=data-demo ")
    assert "--array=1-2 " in lines[1]
    assert "--dependency=afterok:${data%%;*}" in lines[1]
    assert lines[1].endswith(f"slurm/irmas.sbatch --python={sys.executable} train outputs/demo --requeues 10)")
    assert "--dependency=afterany:7:${array1%%;*}" in lines[2]


def test_the_printed_lines_are_the_commands_that_are_executed() -> None:
    script = os.path.relpath(SCRIPT.resolve())
    for request, line in zip(requested := requests([1, 2], setup=__file__), shell_lines(requested), strict=True):
        words = shlex.split(line.removeprefix(f"{request.name}=$(").removesuffix(")"))
        assert words == request.command(script, "${{{}%%;*}}".format, "--parsable")


def test_the_script_asks_for_what_the_launcher_asks_for() -> None:
    """GPUs, cores and memory excepted, which a site may want to give itself."""
    (array,) = arrays(requests([1]))
    expected = {key: str(value) for key, value in array.options.items() if value is not None and value is not True}
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines)
    assert array.options["requeue"] is True
    assert options.pop("requeue") == ""
    own = {"job-name", "output", "array", "gres", "cpus-per-task", "mem"}
    assert not {"gres", "cpus-per-task", "mem"} & options.keys(), "a line by hand could not drop it"
    assert {k: v for k, v in options.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"mem": "8G", "cpus-per-task": 2}),
        ({"mem": None, "cpus": None}, {"mem": None, "cpus-per-task": None}),
        ({"sbatch": {"mem_per_cpu": "4G"}}, {"mem-per-cpu": "4G", "cpus-per-task": 2}),
        ({"sbatch": {"mem_per_gpu": "40G", "cpus_per_gpu": 8}}, {"mem-per-gpu": "40G", "cpus-per-gpu": 8}),
        ({"sbatch": {"ntasks": 1}}, {"mem": "8G", "cpus-per-task": 2, "ntasks": 1}),
    ],
)
def test_memory_and_cores_may_be_the_sites_or_asked_for_in_another_way(
    changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    (array,) = arrays(requests([1], **changes))
    about = ("mem", "cpus-per", "ntasks")
    assert {key: value for key, value in array.options.items() if key.startswith(about)} == expected
    given = [word for word in array.command("x", "1".format) if word.startswith(tuple(f"--{name}" for name in about))]
    assert sorted(given) == sorted(f"--{key}={value}" for key, value in expected.items() if value is not None)


def test_a_prefix_starts_the_python_of_its_own_environment() -> None:
    prefix, srun = "apptainer exec --nv 'my image.sif'", {"mpi": "none", "cpu_bind": "none"}
    (array,) = arrays(requests([1], prefix=prefix, srun=srun))
    assert array.arguments[: array.arguments.index("train")] == [
        *("--prefix=apptainer", "--prefix=exec", "--prefix=--nv", "--prefix=my image.sif"),
        *("--srun=--mpi=none", "--srun=--cpu-bind=none"),
    ]


def test_mail_and_a_program_are_the_ranking_jobs() -> None:
    data, array, ranking = requests([1], needs_data=True, mail="me@site.org", at_end=["a b", "-s", "$(c)"])
    about = {"mail-user": "me@site.org", "mail-type": "END,FAIL"}
    assert {key: value for key, value in ranking.options.items() if key.startswith("mail")} == about
    assert not any(key.startswith("mail") for request in (data, array) for key in request.options)
    assert script_arguments(ranking) == ["rank", "outputs/demo", "--at-end=a b", "--at-end=-s", "--at-end=$(c)"]
    (line,) = shell_lines([ranking])
    assert line.endswith("rank outputs/demo '--at-end=a b' --at-end=-s '--at-end=$(c)'")
    (*_, failed) = requests([1], mail="me@site.org", rank=SHIPPED["rank"] | {"sbatch": {"mail_type": "FAIL"}})
    assert (failed.options["mail-type"], failed.options["mail-user"]) == ("FAIL", "me@site.org")


GRID = grid({"lr": [0.1, 0.01], "model.convs_per_block": [1, 2, 3]}, name="demo")
"""Runs 1 to 6, of which 2 and 5 have two convolutions per block."""


def of_grid(*entries: dict[str, Any], per_task: int = 0, **changes: Any) -> list[tuple[str, JobRequest]]:
    """Return the arrays for the grid with these rules, each behind its indices."""
    launcher = settings.read(values(rules=list(entries), **changes))
    per_task = per_task or launcher.per_task("auto")
    requested = job_requests(Sweep.of(GRID), launcher, range(1, 7), 1000, True, (), per_task=per_task)
    assert requested[-1].after_any == tuple(array.name for array in arrays(requested))
    return [(str(array.options["array"]), array) for array in arrays(requested)]


def test_points_that_differ_in_a_resource_have_arrays_of_their_own() -> None:
    deep = {"when": {"model.convs_per_block": [2, 3]}, "mem": "16G", "partition": "big", "sbatch": {"nice": 5}}
    slow = {"when": {"model.convs_per_block": 3, "lr": 0.1}, "mem": "32G", "gpus": "a100:1", "sbatch": {"comment": "x"}}
    of_base, of_deep, of_slow = (array for _, array in of_grid(deep, slow, account="mir", sbatch={"nice": 1}))
    assert [array.options["array"] for array in (of_base, of_deep, of_slow)] == ["1,4", "2,5-6", "3"]
    assert {array.work for array in (of_base, of_deep, of_slow)} == {Work()}, "the index stays the run ID"
    names = ("mem", "partition", "gres", "nice", "comment", "account")
    assert [tuple(array.options.get(name) for name in names) for array in (of_base, of_deep, of_slow)] == [
        ("8G", None, "gpu:1", 1, None, "mir"),
        ("16G", "big", "gpu:1", 5, None, "mir"),
        ("32G", "big", "gpu:a100:1", 5, "x", "mir"),
    ]
    assert not any(array.after_any for array in (of_base, of_deep, of_slow)), "they run side by side"
    assert of_slow.after_ok == "data"


def test_with_a_throttle_the_arrays_of_points_run_one_after_another() -> None:
    deep = {"when": {"model.convs_per_block": 2}, "account": "big", "qos": "long"}
    (_, first), (_, second) = of_grid(deep, throttle=2)
    assert (first.options["array"], second.options["array"], second.after_any) == ("1,3-4,6%2", "2,5%2", ("array1",))
    assert (first.options["account"], second.options["account"], second.options["qos"]) == (None, "big", "long")


def test_points_that_need_fewer_gpus_have_fewer_runs_per_task() -> None:
    wide = {"when": {"model.convs_per_block": 2}, "gpus": 2}
    (_, one), (_, two) = of_grid(wide)
    assert (one.work.runs_per_task, two.work) == (1, Work("2,5", 2))
    (_, one), (_, two) = of_grid(wide, per_task=3)  # as Slurm's submit limit requires
    assert (one.work, two.work) == (Work("1,3-4,6", 3), Work("2,5", 3))
    shared = {"when": {"lr": 0.1}, "runs_at_once": 3}
    (_, three), (_, alone) = of_grid(shared)
    assert (three.work, alone.work) == (Work("1-3", 3), Work())
    assert three.arguments[-4:] == ["--runs-at-once", "3", "--requeues", "10"]
    assert "--runs-at-once" not in alone.arguments


def test_rules_that_do_not_go_together_are_refused() -> None:
    long_warning = {"when": {"lr": 0.1}, "time": 4}
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.rules: time=4: must exceed hydra\.launcher\.warning=300"):
        of_grid(long_warning, warning=300, time=60)
    # Each goes with the other settings, and run 2 has both.
    several = ({"when": {"lr": 0.1}, "gpus": 4}, {"when": {"model.convs_per_block": 2}, "runs_at_once": None})
    with pytest.raises(ConfigError, match=r"launcher\.gpus=4: must be at most hydra\.launcher\.runs_per_task=2"):
        of_grid(*several, runs_per_task=2, runs_at_once=2)
    with pytest.raises(ConfigError, match=r"launcher\.rules: gpus=4: must be at most hydra\.launcher\.runs_per_task"):
        of_grid({"when": {"lr": 0.1}, "gpus": 4}, runs_per_task=2)


def test_a_rule_of_a_setting_that_runs_choose_when_they_start_is_refused() -> None:
    plan = replace(GRID, options=[{"overrides": {"model": "deep"}, "changes": {"model.convs_per_block": 2}}])
    deep, slow = ({"when": when, "mem": "16G"} for when in ({"model.convs_per_block": 2}, {"lr": 0.1}))
    with pytest.raises(
        ConfigError, match=r"^hydra\.launcher\.rules=model\.convs_per_block: search=tpe chooses it when"
    ):
        job_requests(Sweep.of(plan), settings.read(values(rules=[deep])), range(1, 7), 1000, True, (), per_task=1)
    job_requests(Sweep.of(plan), settings.read(values(rules=[slow])), range(1, 7), 1000, True, (), per_task=1)


def test_a_list_valued_setting_matches_as_a_value() -> None:
    own = settings.read(values(rules=[{"when": {"model.filters": [8, 16]}, "mem": "1G"}]))
    assert own.of_point(Config(model=Model(filters=[8, 16])).flat()).mem == "1G"
    assert own.of_point(Config().flat()) is own


@pytest.mark.parametrize(
    ("time", "words"),
    [("5400", "3 d 18 h"), ("1:30:00", "1 h 30 min"), ("4:05", "4 min 5 s"), ("2-0", "2 d"), ("0", "0 min")],
)
def test_a_time_limit_is_shown_as_it_was_understood(time: str, words: str) -> None:
    assert slurm.spelled_out(time) == words
    assert slurm.spelled_out("UNLIMITED") == "UNLIMITED"


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the script in a folder as a job's first process; its srun prints how it was called, and some variables."""
    (tmp_path / "srun").write_text('#!/bin/bash\necho "$@"\nenv | grep ^SLURM_ | sort\necho MARK=$MARK\n')
    (tmp_path / "srun").chmod(0o755)

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        env = ENVIRONMENT | {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"} | variables
        script = ["bash", str(SCRIPT), *words, "train", "outputs/a"]
        return subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    ("setup", "code", "reason"),
    [
        ("module load cuda/99\nexport MARK=1\n", 127, "setup.sh ended with 127; write || true after a"),
        ("false\ntrue\n", 1, "setup.sh ended with 1"),
        ("if then\n", 2, "setup.sh ended with 2"),
        ("exit 0\n", 1, "setup.sh ended with 0"),
        ("export MARK=1\r\n", 2, "setup.sh has the line ends of Windows: sed -i 's/\\r$//' setup.sh"),
    ],
)
def test_a_setup_script_that_fails_ends_the_job(
    job: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, setup: str, code: int, reason: str
) -> None:
    (tmp_path / "setup.sh").write_text(setup)
    for words, variables in ((["--setup=setup.sh"], {}), ([], {"IRMAS_SETUP": "setup.sh"})):
        done = job(*words, **variables)
        assert (done.returncode, done.stdout) == (code, "")
        assert reason in done.stderr.replace("./", "")


def test_the_script_passes_on_what_it_is_given(
    job: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "setup.sh").write_text("false || true\n[ -f none ] && true\necho $UNSET\nexport MARK=1\n")
    module = "-u -m irmas.sweep.array_task outputs/a"
    plain = job()
    assert plain.stdout.splitlines()[0] == f"--ntasks=1 --export=ALL python {module}"
    words = ("--setup=setup.sh", "--prefix=nice", "--prefix=-n 5", "--srun=--mpi=none", "--python=/a b/python")
    done = job(*words, SLURM_CPUS_PER_TASK="3", CUDA_VISIBLE_DEVICES="1")
    assert done.stderr == ""
    kept = "env SLURM_JOB_ID=7 SLURM_CPUS_PER_TASK=3 CUDA_VISIBLE_DEVICES=1"
    called = f"--ntasks=1 --export=ALL --cpus-per-task=3 --mpi=none nice -n 5 {kept} /a b/python {module}"
    assert [done.stdout.splitlines()[line] for line in (0, 1, -1)] == ["", called, "MARK=1"]


def test_a_prefix_that_clears_the_environment_keeps_what_a_task_reads_of_it(
    job: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    read = {
        *re.findall(r'get\("(\w+)"', inspect.getsource(processes.current_task)),
        "SLURM_CONF",
        "CUDA_VISIBLE_DEVICES",
    }
    assert len(read) >= 10
    done = job("--prefix=clean", **dict.fromkeys(read, "1"))
    assert {f"{name}=1" for name in read} <= set(done.stdout.splitlines()[0].split())


def test_the_script_leaves_behind_what_the_session_that_submitted_it_had(
    job: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    inherited = {"SLURM_MEM_PER_CPU": "1024", "SLURM_CPU_BIND": "cores", "SLURM_CPU_BIND_TYPE": "cores"}
    inherited |= {"SLURM_GPUS_PER_TASK": "1", "SLURM_TRES_PER_TASK": "gres:gpu:1", "SLURM_NTASKS_PER_NODE": "2"}
    done = job(**inherited, SLURM_MEM_PER_NODE="8192")
    assert [line for line in done.stdout.splitlines() if line.startswith("SLURM_")] == [
        "SLURM_JOB_ID=7",
        "SLURM_MEM_PER_NODE=8192",
    ]
    assert "SLURM_MEM_PER_CPU=1024" in job(**inherited).stdout, "the job's own, where it has no other memory"


def test_submitit_has_the_methods_that_the_executor_relies_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its underscored methods may change with any version; what calls them is tested with a sbatch that records."""
    for name in ("_make_submission_file_text", "_make_submission_command", "_submit_command"):
        mine, theirs = (inspect.signature(getattr(kind, name)) for kind in (Executor, submitit.SlurmExecutor))
        assert [*mine.parameters] == [*theirs.parameters], name
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(
            '#!/bin/sh\nprintf "%s\\n" "$@" >"${0%/*}/args"\necho Your job 17 used 3 SU; echo Submitted batch job 77\n'
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    folder = tmp_path / "jobs"
    folder.mkdir()
    assert Executor(folder).submit_script(lambda script: ["sbatch", "--comment=a b", script, "train"]) == ("77", "")
    option, script, stage = (tmp_path / "args").read_text().splitlines()
    assert (option, stage) == ("--comment=a b", "train")
    kept = folder / "77_submission.sh"
    assert Path(script).resolve() == kept
    defaults = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    assert [line for line in SCRIPT.read_text().splitlines() if line not in defaults] == kept.read_text().splitlines()
    assert {path.name for path in folder.iterdir()} == {kept.name, Path(script).name}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"throttle": 0}, "hydra.launcher.throttle=0: must be a whole number from 1, or null"),
        ({"runs_per_task": "many"}, "hydra.launcher.runs_per_task=many: must be a whole number from 1"),
        ({"runs_at_once": 0}, "hydra.launcher.runs_at_once=0: must be a whole number from 1"),
        ({"runs_per_task": 2, "runs_at_once": 3}, "hydra.launcher.runs_at_once=3: must be at most .*runs_per_task=2"),
        ({"runs_per_task": 1, "gpus": "a100:4"}, "hydra.launcher.gpus=a100:4: must be at most .*runs_per_task=1"),
        ({"gpus": "a100"}, "hydra.launcher.gpus=a100: must be a whole number from 0, or a type"),
        ({"mem": "much"}, "hydra.launcher.mem=much: must be a number with K, M, G or T"),
        ({"time": "soon"}, "hydra.launcher.time=soon: must be minutes"),
        ({"time": 2}, "hydra.launcher.time=2: must exceed hydra.launcher.warning=120"),
        ({"setup": "missing.sh"}, "hydra.launcher.setup=missing.sh: must be the path of a shell script"),
        ({"partition": "a b"}, "hydra.launcher.partition=a b: must be one word"),
        ({"sbatch": {"array": "1-3"}}, "hydra.launcher.sbatch=.*other than array, chdir, dependency"),
        ({"sbatch": {"clusters": "b"}}, "hydra.launcher.sbatch=.*hydra.launcher.cluster is that of all jobs"),
        ({"rank": SHIPPED["rank"] | {"sbatch": {"clusters": "b"}}}, "hydra.launcher.rank.sbatch=.*launcher.cluster"),
        ({"cluster": "a,b"}, "hydra.launcher.cluster=a,b: must be the name of one cluster"),
        ({"cluster": "all"}, "hydra.launcher.cluster=all: must be the name of one cluster"),
        ({"rules": {"mem": 3}}, "hydra.launcher.rules=.*must be a list of settings and the points that have them"),
        ({"rules": [3]}, "hydra.launcher.rules=3: must be settings and the points that have them"),
        ({"rules": [{"mem": "1G"}]}, "hydra.launcher.rules=.*must be settings and the points that have them"),
        ({"rules": [{"when": {"lr": 0.1}}]}, "hydra.launcher.rules=.*must be settings and the points that have them"),
        ({"rules": [{"when": {"model": 2}, "mem": 1}]}, "rules=.*a run has no setting 'model'; did you mean model."),
        ({"rules": [{"when": {"lr": "x"}, "mem": 1}]}, "hydra.launcher.rules: lr=x: must be a number above 0"),
        ({"rules": [{"when": {"lr": []}, "mem": 1}]}, "hydra.launcher.rules: lr=.*: must be a number above 0"),
        ({"rules": [{"when": {"lr": 0.1}, "throttle": 3}]}, "rules=.*a point has no 'throttle' of its own; settings:"),
        ({"rules": [{"when": {"lr": 0.1}, "mem": "x"}]}, "hydra.launcher.rules: mem=x: must be a number with K"),
        ({"rules": [{"when": {"lr": 0.1}, "sbatch": {"array": 1}}]}, "hydra.launcher.rules: sbatch=.*other than array"),
        ({"mail": "me and you"}, "hydra.launcher.mail=me and you: must be one word"),
        ({"at_end": []}, r"hydra.launcher.at_end=\[\]: must be a program and its arguments"),
        ({"at_end": ["a\nb"]}, r"hydra.launcher.at_end=\[a\nb\]: must be .*, one line each"),
        ({"prepare": 5}, "hydra.launcher.prepare=5: has settings: partition cpus mem time sbatch"),
        ({"rank": SHIPPED["rank"] | {"cpus": 0}}, "hydra.launcher.rank.cpus=0: must be a whole number from 1"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.read(values(**wrong))


@pytest.mark.parametrize(
    ("time", "expected"),
    [("60", 3600), ("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-12", 129600), ("1-12:30:00", 131400)],
)
def test_time_limits_are_read_as_slurm_reads_them(time: str, expected: int) -> None:
    assert slurm.seconds(time) == expected
