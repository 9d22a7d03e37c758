"""What programs read: the JSON of status, ranking and comparison, whose form docs/json.md describes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT
from factories import answer, grid, write_run
from forked_commands import Commands, contents

from irmas.config import Config
from irmas.console import print_json
from irmas.run.folder import FAILED
from irmas.sweep.sweep import Sweep

PAGE = (ROOT / "docs" / "json.md").read_text()
CALLS = (
    ["status"],
    ["status", "outputs/a"],
    ["rank", "outputs/a", "--table"],
    ["compare", "outputs/a", "outputs/b", "outputs/c"],
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two sweeps of three runs (the second one failed, the third one has not begun) and an empty one."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("a", "b"):
        plan = grid({"lr": (0.1, 0.2, 0.3)}, Config(note=f"[{name}]"), name)
        sweep = Sweep(folder / "outputs" / name, plan).write()[0]
        answer(write_run(sweep, 1, [(0.5, 1.5), (0.75, 1.25)]), 48)
        write_run(sweep, 2, [(0.5, 1.5)], FAILED, "Traceback ...\nValueError: no")
    Sweep(folder / "outputs" / "c", grid({"lr": (0.1,)}, name="c")).write()
    return folder


def printed(call: list[str], home: Path, commands: Commands) -> dict[str, Any]:
    done = commands.run(*call, "--json", folder=home)
    assert (done.code, done.stderr) == (0, "")
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def keys(value: Any) -> Iterator[str]:
    """Yield the names of all entries, without those of settings and of states."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield key
            if key not in ("settings", "states"):
                yield from keys(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from keys(entry)


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_an_object_has_its_version_and_entries_that_the_page_names(
    call: list[str], home: Path, commands: Commands
) -> None:
    content = printed(call, home, commands)
    assert content["version"] == 1
    assert "`version` is 1." in PAGE
    assert isinstance(content["warnings"], list)
    assert set(keys(content)) <= set(re.findall(r"`(\w+)`", PAGE))


def test_the_list_of_sweeps(home: Path, commands: Commands) -> None:
    (home / "outputs" / "bad").mkdir(exist_ok=True)
    (home / "outputs" / "bad" / "plan.yaml").write_text("{")
    by_name = {entry["sweep"]: entry for entry in printed(["status"], home, commands)["sweeps"]}
    assert by_name.keys() == {"outputs/a", "outputs/b", "outputs/c", "outputs/bad"}
    assert by_name["outputs/a"]["states"] == {"COMPLETED": 1, "FAILED": 1, "PENDING": 1}
    assert by_name["outputs/a"]["note"] == "[a]"
    assert "is damaged" in by_name["outputs/bad"]["problem"]


def test_the_states_of_a_sweep(home: Path, commands: Commands) -> None:
    content = printed(["status", "outputs/a"], home, commands)
    assert (content["sweep"], content["note"], content["is_live"], content["jobs"]) == ("outputs/a", "[a]", False, [])
    first, second, third = content["runs"]
    assert (first["id"], first["settings"], first["state"], first["epoch"]) == (1, {"lr": 0.1}, "COMPLETED", 2)
    assert second["message"] == "Traceback ...\nValueError: no"
    assert (third["state"], third["epoch"], third["val_accuracy"], third["node"]) == ("PENDING", 0, None, None)


def test_the_ranking_is_that_of_the_table(home: Path, commands: Commands) -> None:
    before = contents(home)
    content = printed(["rank", "outputs/a", "--table"], home, commands)
    assert contents(home) == before
    assert [(run["rank"], run["id"], run["settings"]) for run in content["runs"]] == [
        (1, 1, {"lr": 0.1}),
        (None, 2, {"lr": 0.2}),
        (None, 3, {"lr": 0.3}),
    ]
    assert content["runs"][0]["val_accuracy"] == 0.75


def test_the_comparison_is_that_of_the_text(home: Path, commands: Commands) -> None:
    content = printed(["compare", "outputs/a", "outputs/b", "outputs/c"], home, commands)
    best = content["sweeps"][0]["best"]
    assert (best["settings"], best["runs"], best["val_accuracy"]) == ({"lr": 0.1}, [1], 0.75)
    assert best["interval"]["low"] < 0.75 < best["interval"]["high"]
    assert content["settings"] == {"lr": ["0.1,0.2,0.3", "0.1,0.2,0.3", "0.1"], "note": ["[a]", "[b]", "-"]}
    difference, refused = content["differences"]
    assert content["sweeps"][2]["best"] is None
    assert refused["not_compared"] == "no run of outputs/c has finished"
    assert (difference["sweep"], difference["baseline"], difference["excerpts"]) == ("outputs/b", "outputs/a", 64)
    assert (difference["observed"]["value"], difference["is_shown"]) == (0, False)
    assert (home / content["picture"]).is_file()


def test_a_mistake_leaves_stdout_empty(home: Path, commands: Commands) -> None:
    assert "no sweep is here" in commands.refuse("status", "outputs/none", "--json", folder=home)
    assert "--json: goes with --table" in commands.refuse("rank", "outputs/a", "--json", folder=home)
    assert "not allowed with" in commands.refuse("status", "outputs/a", "--json", "--watch", folder=home)


def test_numbers_that_are_not_finite_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"runs": ({"loss": math.nan, "high": math.inf, "low": 0.5},)})
    assert json.loads(capsys.readouterr().out) == {"version": 1, "runs": [{"loss": None, "high": None, "low": 0.5}]}
