"""Configurations: the rules, and the dotted form in which they are compared and stored."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from irmas.config import (
    RULES,
    Config,
    Data,
    Model,
    Prepare,
    check,
    differing_key,
    flatten,
    from_flat,
    setting_names,
    shown,
)
from irmas.errors import ConfigError


def test_the_defaults_keep_every_rule() -> None:
    check(Config())
    check(Prepare())


def test_every_rule_is_about_a_setting_and_every_setting_has_one() -> None:
    settings = {name for name in setting_names() if name not in {"data", "features", "model", "augment"}}
    assert settings == set(RULES)


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
    ],
)
def test_a_value_outside_its_rule_is_refused_by_name(key: str, value: object) -> None:
    changed = from_flat(flatten(asdict(Config())) | {key: value})
    with pytest.raises(ConfigError) as refused:
        check(changed)
    assert refused.value.key == key
    assert RULES[key][1] in str(refused.value)
    assert shown(value) in str(refused.value)


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
    assert from_flat(flatten(asdict(config))) == config


def test_a_setting_of_another_version_is_refused_by_key() -> None:
    flat = flatten(asdict(Config()))
    with pytest.raises(ConfigError, match=r"model\.no_such=true"):
        from_flat(flat | {"model.no_such": True})


def test_what_an_earlier_version_did_not_know_is_what_it_did_without() -> None:
    flat = flatten(asdict(Config()))
    earlier = {key: value for key, value in flat.items() if key != "model.dense"} | {"model.convs_per_block": 2}
    assert from_flat(earlier) == Config(model=Model(convs_per_block=2))
    assert differing_key(earlier, flat | {"model.convs_per_block": 2}) is None
    assert differing_key(earlier, flat | {"model.convs_per_block": 2, "model.dense": 8}) == "model.dense"
