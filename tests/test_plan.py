"""The plan: numbers, names, what may be added to it, and that it survives the disk."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from factories import read_plan, run_folder, write_plan
from hypothesis import given
from hypothesis import strategies as st

from irmas.config import Config, Search, flatten
from irmas.data import dataset
from irmas.errors import ConfigError, UserError
from irmas.sweep.plan import Plan, PlannedRun, expand, freeze
from irmas.sweep.sweep import PLAN, RUNS, Sweep

REPORT = {"dropout": ["0.3", "0.4", "0.5"], "lr": ["0.001", "0.0005", "0.0001"], "l2": ["0.001", "0.0001"]}


def change(overrides: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what the composer would, with the group `model` for all groups."""
    ((key, text),) = overrides.items()
    if key == "model":
        return {"model.convs_per_block": 2 if text == "deep" else 1}
    return {key: value_of(key)(text)}


def value_of(key: str) -> Callable[[str], Any]:
    if key == "model.filters":
        return json.loads
    return str if key == "model" else type(flatten(asdict(Config()))[key])


def make(axes: Mapping[str, list[str]], base: Config | None = None, name: str = "mine", data: str = "d1") -> Plan:
    overrides = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    base = base or Config()
    return Plan(name, list(axes), data, "source", "commit", base, expand(base, overrides, change))


def test_a_sweep_that_lost_its_plan_gets_it_from_the_same_command_and_from_no_other(tmp_path: Path) -> None:
    write_plan(tmp_path, make(REPORT))
    for run in make(REPORT).runs:
        run_folder(tmp_path, run).path.mkdir(parents=True)
    (tmp_path / "plan.yaml").unlink()
    with pytest.raises(
        UserError, match=r"plan\.yaml is missing, and runs/002-dropout=0\.3,lr=0\.001,l2=0\.0001 is not"
    ):
        write_plan(tmp_path, make(REPORT | {"l2": ["0.001"]}))
    write_plan(tmp_path, make(REPORT))
    assert read_plan(tmp_path) == make(REPORT)


@pytest.mark.parametrize(("given", "kept"), [("second", "second"), (None, "first"), ("", "")])
def test_a_rerun_replaces_the_note_or_keeps_it(given: str | None, kept: str, tmp_path: Path) -> None:
    write_plan(tmp_path, make(REPORT, Config(note="first")))
    write_plan(tmp_path, make(REPORT, Config(note=given)))
    assert read_plan(tmp_path) == make(REPORT, Config(note=kept))


def test_run_ids_are_the_reports() -> None:
    plan = make(REPORT)
    values = {run.id: tuple(run.overrides.values()) for run in plan.runs}
    assert len(values) == 18
    assert values[1] == (0.3, 1e-3, 1e-3)
    assert values[8] == (0.4, 1e-3, 1e-4)
    assert values[14] == (0.5, 1e-3, 1e-4)
    assert values[16] == (0.5, 5e-4, 1e-4)


def test_each_run_has_its_own_configuration() -> None:
    plan = make(REPORT)
    config = plan.config_of(plan.runs[7])
    assert (config.dropout, config.lr, config.l2) == (0.4, 1e-3, 1e-4)
    assert replace(config, dropout=0.4, lr=1e-3, l2=1e-4) == replace(Config(), dropout=0.4, lr=1e-3, l2=1e-4)


def test_a_groups_option_gives_way_to_a_single_setting_whatever_their_order() -> None:
    for axes in (
        {"model": ["deep"], "model.convs_per_block": ["3"]},
        {"model.convs_per_block": ["3"], "model": ["deep"]},
    ):
        plan = make(axes)
        assert plan.config_of(plan.runs[0]).model.convs_per_block == 3
        assert plan.value(plan.runs[0], "model") == "deep"


def test_a_plan_survives_the_disk(tmp_path: Path) -> None:
    plan = make(REPORT)
    assert write_plan(tmp_path / "mine", plan) == (plan, plan.runs)
    assert read_plan(tmp_path / "mine") == plan


def test_a_task_reads_its_own_runs_alone(tmp_path: Path) -> None:
    write_plan(tmp_path, make(REPORT))
    assert [run.id for run in read_plan(tmp_path, [3, 18]).runs] == [3, 18]
    assert read_plan(tmp_path, [19]).runs == []


def test_the_same_command_leaves_the_plan_as_it_is(tmp_path: Path) -> None:
    write_plan(tmp_path, make(REPORT))
    before = (tmp_path / RUNS).read_bytes()
    plan, requested = write_plan(tmp_path, make(REPORT))
    assert (tmp_path / RUNS).read_bytes() == before
    assert requested == plan.runs


def test_a_larger_grid_keeps_the_old_ids_and_appends(tmp_path: Path) -> None:
    old = make({"dropout": ["0.4", "0.5"], "lr": ["0.001"]})
    write_plan(tmp_path, old)
    plan, requested = write_plan(tmp_path, make({"dropout": ["0.3", "0.4", "0.5"], "lr": ["0.01", "0.001"]}))
    assert plan.runs[:2] == old.runs
    assert [run.id for run in plan.runs] == [1, 2, 3, 4, 5, 6]
    assert [run.id for run in requested] == [3, 4, 5, 1, 6, 2]
    for run in plan.runs:
        config = plan.config_of(run)
        assert (config.dropout, config.lr) == (run.overrides["dropout"], run.overrides["lr"])


def test_a_new_axis_extends_a_grid_that_held_it_fixed(tmp_path: Path) -> None:
    write_plan(tmp_path, make({"dropout": ["0.3", "0.4"]}))
    plan, _ = write_plan(tmp_path, make({"dropout": ["0.3", "0.4"], "seed": ["0", "1"]}))
    assert [(plan.config_of(p).dropout, plan.config_of(p).seed) for p in plan.runs] == [
        (0.3, 0),
        (0.4, 0),
        (0.3, 1),
        (0.4, 1),
    ]
    assert plan.swept == ["dropout", "seed"]
    assert plan.value(plan.runs[0], "seed") == 0


def test_a_swept_folder_stays_with_its_points_when_the_grid_grows(tmp_path: Path) -> None:
    write_plan(tmp_path, make({"data.root": ["a", "b"]}))
    plan, _ = write_plan(tmp_path, make({"data.root": ["a", "b"], "seed": ["0", "1"]}))
    configs = [plan.config_of(run) for run in plan.runs]
    assert [(config.data.root, config.seed) for config in configs] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_a_single_run_grows_into_a_grid(tmp_path: Path) -> None:
    write_plan(tmp_path, make({}, replace(Config(), dropout=0.3)))
    plan, _ = write_plan(tmp_path, make({"dropout": ["0.3", "0.4"]}))
    assert [plan.config_of(run).dropout for run in plan.runs] == [0.3, 0.4]


def begin(sweep: Path) -> None:
    """Leave what a run that was trained leaves."""
    (sweep / "runs" / "001").mkdir(parents=True)
    (sweep / "runs" / "001" / "config.yaml").touch()


@pytest.mark.parametrize(
    ("new", "key"),
    [
        (make({"dropout": ["0.3", "0.4"]}, replace(Config(), epochs=3)), "epochs"),
        (make({"dropout": ["0.3", "0.4"]}, data="d2"), "data"),
        (make({"dropout": ["0.3"]}), "name"),
        (make({"dropout": ["0.3", "0.4"], "lr": ["0.01"]}), "name"),
    ],
)
def test_any_other_difference_is_refused_by_name_and_changes_nothing(new: Plan, key: str, tmp_path: Path) -> None:
    write_plan(tmp_path, make({"dropout": ["0.3", "0.4"]}))
    begin(tmp_path)
    before = (tmp_path / RUNS).read_bytes(), (tmp_path / PLAN).read_bytes()
    with pytest.raises(ConfigError) as refused:
        write_plan(tmp_path, new)
    assert refused.value.key == key
    assert ((tmp_path / RUNS).read_bytes(), (tmp_path / PLAN).read_bytes()) == before


def test_settings_that_change_no_result_may_differ_and_the_last_ones_hold(tmp_path: Path) -> None:
    write_plan(tmp_path, make({}))
    plan, _ = write_plan(tmp_path, make({}, replace(Config(), device="cpu")))
    assert read_plan(tmp_path) == plan
    assert plan.config.device == "cpu"


def test_another_source_is_refused_with_both_digests_unless_it_is_allowed(tmp_path: Path) -> None:
    plan = make({"seed": ["0"]})
    Sweep(tmp_path, plan).refuse_source(plan.source)
    with pytest.raises(UserError, match=r"source source, which now is edited; .*allow_code_change=true") as refused:
        Sweep(tmp_path, plan).refuse_source("edited")
    assert str(tmp_path) in str(refused.value)
    allowed = replace(plan, config=replace(plan.config, allow_code_change=True))
    Sweep(tmp_path, allowed).refuse_source("edited")


def test_until_a_run_has_begun_data_can_be_mended_and_source_edited(tmp_path: Path) -> None:
    write_plan(tmp_path, make({}))
    mended = replace(make({}), source="edited", data="mended")
    plan, _ = write_plan(tmp_path, mended)
    assert (plan.source, plan.data) == ("edited", "mended")
    begin(tmp_path)
    with pytest.raises(ConfigError, match="made from other data"):
        write_plan(tmp_path, replace(mended, data="other"))


def test_a_plan_keeps_its_source_until_a_change_is_allowed(tmp_path: Path) -> None:
    write_plan(tmp_path, make({}))
    begin(tmp_path)
    plan, _ = write_plan(tmp_path, replace(make({}), source="edited", commit="later"))
    assert (plan.source, plan.commit) == ("source", "commit")
    allowed = make({}, replace(Config(), allow_code_change=True))
    plan, _ = write_plan(tmp_path, replace(allowed, source="edited", commit="later"))
    assert (plan.source, plan.commit) == ("edited", "later")
    assert read_plan(tmp_path) == plan
    plan, _ = write_plan(tmp_path, replace(make({}), source="edited", commit="later"))
    assert (plan.source, plan.config.allow_code_change) == ("edited", False)


def test_a_search_grows_and_is_not_mixed_with_another_one(tmp_path: Path) -> None:
    def search(lrs: list[str], runs: int, seed: int = 0, space: str = "interval(0.01,0.1)") -> Plan:
        return replace(make({"lr": lrs}, Config(search=Search("random", runs, seed))), space={"lr": space})

    write_plan(tmp_path, search(["0.01", "0.02"], 2))
    plan, _ = write_plan(tmp_path, search(["0.01", "0.02", "0.03"], 3))
    assert read_plan(tmp_path) == plan
    assert (plan.config.search.runs, len(plan.runs)) == (3, 3)
    assert plan.searched == "search=random search.runs=3 search.seed=0 lr=interval(0.01,0.1)"
    assert make({"lr": ["0.1"]}).searched == ""
    refused = {
        r"^search\.runs=2: sweep mine has 3": search(["0.01", "0.02"], 2),
        r"^search\.seed=1: sweep mine was made with search\.seed=0": search(["0.04", "0.05", "0.06"], 3, 1),
        r"searches lr=interval\(0\.01,0\.1\), and this command lr=interval\(0\.01,0\.2\)": search(
            ["0.04", "0.05", "0.06"], 3, space="interval(0.01,0.2)"
        ),
        r"^search\.method=none: ": make({"lr": ["0.01", "0.02", "0.03"]}),
    }
    for message, other in refused.items():
        with pytest.raises(ConfigError, match=message):
            write_plan(tmp_path, other)


def test_batches_of_a_proposing_sweeper_are_appended(tmp_path: Path) -> None:
    write_plan(tmp_path, make({"lr": ["0.01", "0.02"]}))
    plan, requested = write_plan(tmp_path, make({"lr": ["0.03", "0.02"]}), append=True)
    assert [plan.config_of(run).lr for run in plan.runs] == [0.01, 0.02, 0.03]
    assert [run.id for run in requested] == [3, 2]


def test_the_default_name_follows_from_plan_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(axes: Mapping[str, list[str]], base: Config | None = None, data: str = "d1") -> str:
        monkeypatch.setattr(dataset, "digest", lambda _: data)
        return freeze(base or Config(), make(axes, base).runs, None).name

    default = name(REPORT)
    assert default.startswith("dropout-lr-l2-")
    for neutral in (replace(Config(), device="cpu"), replace(Config(), allow_code_change=True)):
        assert name(REPORT, neutral) == default
    others = [
        name(REPORT, data="d2"),
        name(REPORT, replace(Config(), epochs=3)),
        name(REPORT | {"lr": ["0.001"]}),
        name(dict(reversed(REPORT.items()))),
    ]
    assert len({default, *others}) == 5
    assert name({}).startswith("single-")


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.one_of(st.floats(), st.text(max_size=300)), max_size=5))
def test_a_run_folder_is_one_short_plain_file_name(overrides: dict[str, Any]) -> None:
    name = PlannedRun(7, overrides, {}).folder_name
    assert name.startswith("007")
    assert len(name.encode()) <= 120
    assert "/" not in name
    assert name.isprintable()
    assert name.isascii()


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    values = [PlannedRun(1, {"model.filters": [32] * 60 + [last]}, {}).folder_name for last in (1, 2)]
    assert values[0] != values[1]
    assert max(len(PlannedRun(1, {"data.root": "x" * n}, {}).folder_name) for n in range(200)) == 120


def test_a_folder_without_a_plan_and_a_damaged_plan_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plan\.yaml is missing"):
        read_plan(tmp_path)
    write_plan(tmp_path, make({}))
    (tmp_path / PLAN).write_text("name: [")
    with pytest.raises(UserError, match=r"plan\.yaml: is damaged"):
        read_plan(tmp_path)


AXES = {
    "dropout": st.floats(0, 0.99).map(str),
    "seed": st.integers(0, 99).map(str),
    "model": st.sampled_from(["report", "deep"]),
    "model.filters": st.lists(st.integers(1, 4096), min_size=1, max_size=3).map(str),
    "data.root": st.text(min_size=1, max_size=9),
    "data.split": st.text(max_size=9).map("{}.csv".format),
}
BASE = {key: str(flatten(asdict(Config())).get(key, "report")) for key in AXES}


@st.composite
def grids(draw: st.DrawFn) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """A grid, and a larger one: some axes have more values, in any order, and some are new, with the base's value."""
    small, larger = {}, {}
    for key in draw(st.permutations(list(AXES)))[: draw(st.integers(1, 4))]:
        values = draw(st.lists(AXES[key], min_size=1, max_size=3, unique=True))
        if draw(st.booleans()):
            small[key] = values[: draw(st.integers(1, len(values)))]
        else:
            values = list(dict.fromkeys([*values, BASE[key]]))
        larger[key] = draw(st.permutations(values))
    return small, larger


@given(grids())
def test_any_grid_survives_the_disk_and_any_larger_one_keeps_its_runs(
    axes: tuple[dict[str, list[str]], dict[str, list[str]]],
) -> None:
    small, larger = (make(one) for one in axes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert write_plan(folder, small) == (small, small.runs)
        assert read_plan(folder) == small
        written, requested = write_plan(folder, larger)
        assert read_plan(folder) == written
        before = {run.id: small.config_of(run) for run in small.runs}
        assert {number: written.config_of(written.runs[number - 1]) for number in before} == before
        assert [run.id for run in written.runs] == list(range(1, len(written.runs) + 1))
        assert list(map(written.config_of, requested)) == list(map(larger.config_of, larger.runs))
        assert write_plan(folder, larger) == (written, requested)
