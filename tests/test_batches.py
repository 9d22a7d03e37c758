"""What is handed to sbatch: arrays, their indices and what they wait for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from irmas.config import Config
from irmas.errors import ConfigError
from irmas.sweep import settings
from irmas.sweep.array_task import REQUEUES
from irmas.sweep.jobs import ARRAY, Work
from irmas.sweep.plan import Plan
from irmas.sweep.sbatch import SCRIPT, SCRIPTS, Batch, Order, by_hand

SHIPPED: Any = OmegaConf.to_container(OmegaConf.structured(settings.Settings), resolve=True)


def values(**given: Any) -> dict[str, Any]:
    return {key: value for key, value in SHIPPED.items() if key not in ("_target_", "submit", "wait")} | given


def batches(ids: list[int], largest: int = 1000, **given: Any) -> list[Batch]:
    chosen = settings.read(values(**{"points_per_task": 1} | given))
    order = Order(Plan("demo", [], "", "", "", Config()), chosen, largest, is_made=True, behind=[])
    return order.batches(ids, chosen.points_per_task)


def arrays(found: list[Batch]) -> list[Batch]:
    return [batch for batch in found if batch.stage == ARRAY]


def test_the_index_is_the_run_id_where_slurm_takes_it() -> None:
    (array,) = arrays(batches([*range(7, 19), *range(1, 4)], largest=18, throttle=6))
    assert array.options["array"] == "1-3,7-18%6"
    assert array.work == Work()
    assert array.arguments == ["outputs/demo", "--requeues", "10"]


def test_several_points_a_task_are_told_to_the_script() -> None:
    (array,) = arrays(batches(list(range(1, 19)), points_per_task=6))
    assert array.options["array"] == "1-3"
    assert array.arguments[1:5] == ["--runs", "1-18", "--points-per-task", "6"]


def test_with_a_throttle_one_array_waits_for_the_other_and_the_ranking_for_all() -> None:
    found = batches(list(range(1, 19)), largest=7, throttle=6)
    assert [array.options["array"] for array in arrays(found)] == ["1-7%6", "1-7%6", "1-4%6"]
    assert [array.after_any for array in arrays(found)] == [(), ("array1",), ("array2",)]
    assert found[-1].after_any == ("array1", "array2", "array3")
    assert not any(array.after_any for array in arrays(batches(list(range(1, 19)), largest=7)))


@given(
    ids=st.lists(st.integers(1, 3000), min_size=1, max_size=60, unique=True),
    per_task=st.integers(1, 7),
    largest=st.integers(1, 2000),
)
def test_every_run_is_in_one_task_whatever_the_limits(ids: list[int], per_task: int, largest: int) -> None:
    from irmas.sweep.slurm import expand_ranges

    found: list[int] = []
    for array in arrays(batches(ids, largest, points_per_task=per_task)):
        indices = expand_ranges(array.options["array"])
        assert max(indices) <= largest
        for index in indices:
            of_task = array.work.ids(index, 3000)
            assert 1 <= len(of_task) <= per_task
            found += of_task
    assert sorted(found) == sorted(ids)


def test_an_array_behind_the_data_job_is_cancelled_if_that_fails() -> None:
    chosen = settings.read(values())
    order = Order(Plan("demo", [], "", "", "", Config()), chosen, 1000, is_made=False, behind=["7"])
    data, array, ranking = order.batches([1, 2], 1)
    options = array.sbatch({"data": "12"}.__getitem__)
    assert (data.name, options["dependency"], options["kill-on-invalid-dep"]) == ("data", "afterok:12", "yes")
    assert ranking.sbatch({"7": "7", "array1": "13"}.__getitem__)["dependency"] == "afterany:7:13"
    assert "gres" not in data.options
    printed = ["outputs/demo/slurm/%j.out", "outputs/demo/slurm/%A_%a.out", "outputs/demo/slurm/%j.out"]
    assert [batch.options["output"] for batch in (data, array, ranking)] == printed
    lines = by_hand([data, array, ranking])
    assert lines[0].startswith("data=$(sbatch --parsable --job-name=data-demo ")
    assert "--array=1-2 " in lines[1]
    assert "--dependency=afterok:$data" in lines[1]
    assert lines[1].endswith("slurm/sweep.sbatch outputs/demo --requeues 10)")
    assert "--dependency=afterany:7:$array1" in lines[2]


def test_by_hand_a_task_starts_again_as_often_as_by_the_launcher() -> None:
    assert SHIPPED["requeues"] == REQUEUES


@pytest.mark.parametrize("stage", SCRIPT)
def test_the_scripts_ask_for_what_the_launcher_asks_for(stage: str) -> None:
    order = Order(Plan("demo", [], "", "", "", Config()), settings.read(values()), 1000, is_made=False, behind=[])
    batch = next(batch for batch in order.batches([1], 1) if batch.stage == stage)
    expected = {key: str(value) for key, value in batch.options.items() if value is not None and value is not True}
    lines = (SCRIPTS / SCRIPT[stage]).read_text().splitlines()
    options = [line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH")]
    told = {key: value for key, value in options if value}
    own = {"job-name", "output", "array"}
    assert {k: v for k, v in told.items() if k not in own} == {k: v for k, v in expected.items() if k not in own}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"throttle": 0}, "hydra.launcher.throttle=0: must be a whole number from 1, or null"),
        ({"points_per_task": "many"}, "hydra.launcher.points_per_task=many: must be a whole number from 1"),
        ({"gpus": "a100"}, "hydra.launcher.gpus=a100: must be a whole number from 0, or a type"),
        ({"mem": "much"}, "hydra.launcher.mem=much: must be a number with K, M, G or T"),
        ({"time": "soon"}, "hydra.launcher.time=soon: must be minutes"),
        ({"time": 2}, "hydra.launcher.time=2: Slurm looks every 30 s"),
        ({"setup": "missing.sh"}, "hydra.launcher.setup=missing.sh: there is no such file"),
        ({"partition": "a b"}, "hydra.launcher.partition=a b: must be one word"),
        ({"sbatch": {"array": "1-3"}}, "hydra.launcher.sbatch=.*other than array, chdir, dependency"),
        ({"prepare": 5}, "hydra.launcher.prepare=5: has settings: partition cpus mem time sbatch"),
        ({"rank": SHIPPED["rank"] | {"cpus": 0}}, "hydra.launcher.rank.cpus=0: must be a whole number from 1"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.read(values(**wrong))


@pytest.mark.parametrize(
    ("time", "expected"),
    [(60, 3600), ("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-12", 129600), ("1-12:30:00", 131400)],
)
def test_time_limits_are_read_as_slurm_reads_them(time: str | int, expected: int) -> None:
    assert settings.seconds(time) == expected
