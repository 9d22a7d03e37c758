"""Configurations: the rules, and the dotted form in which they are compared and stored."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from omegaconf import OmegaConf

from irmas import config as schema
from irmas.config import (
    Config,
    Data,
    Model,
    Prepare,
    Search,
    averaged_epochs,
    brief,
    check,
    first_difference,
    from_flat,
    rule,
    rules,
    run_digest,
    shown,
)
from irmas.errors import ConfigError
from irmas.sweep.settings import LocalSettings, Settings


def test_the_defaults_keep_every_rule() -> None:
    check(Config())
    check(Prepare())


@pytest.mark.parametrize("schema", [Config, Prepare, Settings, LocalSettings])
def test_every_setting_has_a_rule_and_keeps_its_type(schema: type) -> None:
    node = OmegaConf.structured(schema)
    assert {key.partition(".")[0] for key in rules(schema)} == {key for key in node if not key.startswith("_")}
    if schema is Config:
        assert rules(schema).keys() == Config().flat().keys()
        with pytest.raises(ValueError, match="many"):
            node.epochs = "many"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("lr", 0.0),
        ("lr", float("inf")),
        ("l2", -1e-9),
        ("epochs", 0),
        ("batch_size", 1),
        ("seed", -1),
        ("name", "a/b"),
        ("name", ".."),
        ("name", "a\nb"),
        ("name", ""),
        ("device", "gpu"),
        ("schedule", "cosine"),
        ("data.split", "song"),
        ("data.fold", 5),
        ("data.pool", 0),
        ("data.size", 10),
        ("data.size", 20_001),
        ("features.hop_length", 0),
        ("features.dtype", "float32"),
        ("model.filters", []),
        ("model.filters", [32, 0]),
        ("augment.time_width", 1.0),
        ("epochs", True),
        ("halving", 1),
    ],
)
def test_a_value_outside_its_rule_is_refused_by_name(key: str, value: object) -> None:
    changed = from_flat(Config().flat() | {key: value})
    with pytest.raises(ConfigError) as refused:
        check(changed)
    error = refused.value
    assert (error.key, error.value, error.allowed) == (key, shown(value), f"must be {rule(key).text}")


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (Data(size=200), "data.size"),
        (Data(recordings="list.csv"), "data.recordings"),
        (Data(source="standin", size=200), "data.size"),
        (Data(source="standin", size=200, render_seed=0, root=""), "data.root"),
        (Data(split="list.csv", fold=1), "data.fold"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(data: Data, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(replace(Config(), data=data))
    assert refused.value.key == key


def test_a_configuration_survives_its_dotted_form() -> None:
    config = replace(Config(), dropout=0.25, name="x", data=Data(split="clip", fold=3))
    config.model.filters = [8, 16]
    assert from_flat(config.flat()) == config


def test_a_setting_of_another_version_is_refused_by_key() -> None:
    flat = Config().flat()
    with pytest.raises(ConfigError, match=r"model\.no_such=true"):
        from_flat(flat | {"model.no_such": True})


def test_a_setting_that_an_earlier_version_lacks_has_its_default() -> None:
    flat = Config().flat()
    earlier = {key: value for key, value in flat.items() if key != "model.dense"} | {"model.convs_per_block": 2}
    assert from_flat(earlier) == Config(model=Model(convs_per_block=2))
    assert first_difference(earlier, flat | {"model.convs_per_block": 2}) is None
    assert first_difference(earlier, flat | {"model.convs_per_block": 2, "model.dense": 8}) == "model.dense"


def test_the_digest_of_a_run_is_that_of_the_settings_that_change_it() -> None:
    one = Config(lr=0.01, data=Data(split="clip"), model=Model(filters=[8, 16]))
    digest = run_digest(one)
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    alike = [
        replace(one, seed=7),
        replace(one, name="x", note="y", device="cuda", allow_code_change=True, halving=3),
        replace(one, points="points.csv", search=Search("random", 8, 1)),
        replace(one, data=replace(one.data, root="/a", cache="/b", cache_dir="/c", recordings="/d.csv")),
        from_flat(one.flat()),
    ]
    assert {run_digest(config) for config in alike} == {digest}
    changed = [
        Config(),
        replace(one, lr=0.02),
        replace(one, dropout=0.3),
        replace(one, epochs=16),
        replace(one, schedule="onecycle"),
        replace(one, data=replace(one.data, fold=1)),
        replace(one, model=Model(filters=[16, 8])),
        replace(one, data=Data(split="/a/split.csv")),
    ]
    assert len({digest, *map(run_digest, changed)}) == 1 + len(changed)
    assert run_digest(Config(data=Data(split="/a/split.csv"))) == run_digest(Config(data=Data(split="b.csv")))


def test_a_setting_that_is_added_later_changes_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class LaterModel(Model):
        activation: str = "relu"

    @dataclass
    class Later(Config):
        mixup: float = 0.0
        model: Model = field(default_factory=LaterModel)

    before = [run_digest(Config()), run_digest(Config(lr=0.01, model=Model(dense=8)))]
    monkeypatch.setattr(schema, "Config", Later)
    assert [run_digest(Later()), run_digest(Later(lr=0.01, model=LaterModel(dense=8)))] == before
    others = [run_digest(Later(mixup=0.5)), run_digest(Later(model=LaterModel(activation="silu")))]
    assert len({*before, *others}) == 4


def test_the_digest_of_a_run_stays_what_it_is() -> None:
    """Another one would change what every run draws."""
    assert run_digest(Config()) == "4f53cda18c2baa0c"
    assert run_digest(Config(lr=0.0005, l2=0.001, model=Model(filters=[8, 16]))) == "24df03e44d511ad8"
    assert run_digest(Config(seed=3, schedule="onecycle", data=Data(split="a.csv", fold=2))) == "52f48c8af0ab6f8a"


@pytest.mark.parametrize("key", ["data.size", "halving", "features.mel_norm"])
def test_null_is_allowed_where_the_type_has_none(key: str) -> None:
    assert rule(key).allows(None)
    assert rule(key).text.endswith(", or null")
    assert not rule("model.pooling").allows(None)


@pytest.mark.parametrize(("epoch", "averaged"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (12, 4), (13, 5), (50, 5)])
def test_a_third_of_the_epochs_but_at_most_five_are_averaged(epoch: int, averaged: int) -> None:
    assert averaged_epochs("constant", epoch) == averaged_epochs("plateau", epoch) == averaged
    assert averaged_epochs("onecycle", epoch) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3"),
        (0.00012345, "0.0001234"),
        (1.0, "1.0"),
        (12345, "12345"),
        ([0.123456, 8], "[0.1235,8]"),
        (None, "null"),
        ("deep", "deep"),
    ],
)
def test_a_table_has_four_significant_digits_at_most(value: object, text: str) -> None:
    assert brief(value) == text


STRANGE: tuple[Any, ...] = (
    [[8, 16], [32]],
    {"a": 1},
    [None],
    [],
    "",
    "x" * 300,
    math.nan,
    math.inf,
    -(10**30),
    True,
    None,
    [True],
    "~",
)


@pytest.mark.parametrize("schema", [Config, Settings, LocalSettings])
def test_a_rule_answers_whatever_the_value(schema: type) -> None:
    """Hydra's grammar nests lists and mappings at will, and a list takes anything."""
    for key, allowed in rules(schema).items():
        assert {allowed.allows(value) for value in STRANGE} <= {True, False}, key
    with pytest.raises(ConfigError, match=r"model.filters=\[\[8,16\],\[32\]\]: must be a list of 1 to 12"):
        check(Config(model=Model(filters=[[8, 16], [32]])))  # type: ignore[list-item]
