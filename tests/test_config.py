"""Configurations: the rules, and the dotted form in which they are compared and stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import pytest

from irmas import config as schema
from irmas.config import (
    RULES,
    Config,
    Data,
    Model,
    Prepare,
    averaged_epochs,
    check,
    differing_key,
    flatten,
    from_flat,
    run_digest,
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


def test_the_digest_of_a_run_is_that_of_the_settings_that_change_it() -> None:
    one = Config(lr=0.01, data=Data(split="clip"), model=Model(filters=[8, 16]))
    digest = run_digest(one)
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    alike = [
        replace(one, seed=7),
        replace(one, name="x", device="cuda", allow_code_change=True, halving=3),
        replace(one, data=replace(one.data, root="/a", cache="/b", cache_dir="/c", recordings="/d.csv")),
        from_flat(flatten(asdict(one))),
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


@pytest.mark.parametrize(("epoch", "averaged"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (12, 4), (13, 5), (50, 5)])
def test_a_third_of_the_epochs_but_at_most_five_are_averaged(epoch: int, averaged: int) -> None:
    assert averaged_epochs("constant", epoch) == averaged_epochs("plateau", epoch) == averaged
    assert averaged_epochs("onecycle", epoch) == 1
