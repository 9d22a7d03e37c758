"""Batch-norm statistics of clean training excerpts: their arithmetic, what they leave alone, and where they end up."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_trainer import CPU, settings, state_of, toy, train
from torch import Tensor, nn
from torch.nn import functional as F

from irmas.config import Augment, Model
from irmas.learning.learner import Learner
from irmas.learning.model import Classifier, draw_for_norms, recompute_norms
from irmas.run import events, model_file
from irmas.run.folder import RunFolder


def one_layer() -> tuple[nn.Sequential, nn.BatchNorm2d]:
    """A net whose batch norm comes first, so that its inputs are the batches themselves."""
    norm = nn.BatchNorm2d(3, momentum=0.1)
    return nn.Sequential(norm, nn.Dropout(0.5)), norm


def unequal_batches() -> list[Tensor]:
    """Batches of 5, 1 and 14 excerpts with means far apart."""
    generator = torch.Generator().manual_seed(0)
    sizes, levels = (5, 1, 14), (0.0, 40.0, -7.0)
    return [torch.randn(size, 3, 4, 6, generator=generator) + at for size, at in zip(sizes, levels, strict=True)]


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if "running" in name}


def test_statistics_are_pooled_over_batches_of_any_size() -> None:
    model, norm = one_layer()
    batches = unequal_batches()
    whole = torch.cat(batches).double()
    recompute_norms(model, batches)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean.double(), whole.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), whole.var((0, 2, 3)), rtol=1e-5, atol=0)
    # The mean of the batches' variances is another number: what lies between the batches counts.
    apart = torch.stack([batch.double().var((0, 2, 3)) for batch in batches]).mean(0)
    assert bool((norm.running_var > 10 * apart).all())


def test_what_was_before_does_not_matter_and_nothing_else_changes() -> None:
    model, norm = one_layer()
    batches = unequal_batches()
    recompute_norms(model, batches)
    once = statistics(model)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.fill_(torch.nan)
    norm.running_var.fill_(torch.inf)
    model.train()
    recompute_norms(model, iter(batches))
    for name, value in statistics(model).items():
        assert torch.equal(value, once[name]), name
    assert norm.momentum == 0.1
    assert not norm._forward_hooks
    assert not any(module.training for module in model.modules())


def test_a_batch_that_fails_leaves_the_net_usable() -> None:
    model, norm = one_layer()
    with pytest.raises(RuntimeError):
        recompute_norms(model, [*unequal_batches(), torch.zeros(2, 4, 4, 6)])
    assert (norm.momentum, norm.training, len(norm._forward_hooks)) == (0.1, False, 0)


def test_deeper_layers_see_each_batch_under_its_own_statistics_without_dropout() -> None:
    model = Classifier(Model(filters=[4, 8], dense=8), 3, dropout=0.9, mean_db=-40.0, std_db=20.0)
    log_mel_db = -80 * torch.rand(12, 1, 16, 24, generator=torch.Generator().manual_seed(1))
    recompute_norms(model, [log_mel_db])
    first, second = (module for module in model.blocks if isinstance(module, nn.BatchNorm2d))
    conv, deeper = (module for module in model.blocks if isinstance(module, nn.Conv2d))
    x = conv((log_mel_db + 40) / 20)
    x = F.batch_norm(x, None, None, first.weight, first.bias, training=True)
    x = deeper(F.max_pool2d(F.relu(x), 2, ceil_mode=True))
    assert second.running_var is not None
    torch.testing.assert_close(second.running_var, x.var((0, 2, 3)))
    # One batch of everything: what is normalized by the statistics is what was normalized in the batch.
    model.blocks.train()
    as_in_training = model(log_mel_db)
    torch.testing.assert_close(model.eval()(log_mel_db), as_in_training, rtol=0, atol=2e-3)


def test_no_generator_moves_and_masks_and_dropout_are_off() -> None:
    config = settings(dropout=0.9, augment=Augment(freq_masks=3, freq_width=0.9))
    learner = Learner(config, toy(), CPU)
    np.random.seed(3)
    learner.validate(1)
    after = statistics(learner.model)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    scalars, _ = learner.validate(1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    torch.manual_seed(17)
    assert learner.validate(1)[0] == scalars
    for name, value in statistics(learner.model).items():
        assert torch.equal(value, after[name]), name


def test_all_runs_draw_the_same_excerpts_at_random() -> None:
    train_rows = torch.arange(10_000, 14_000)
    drawn = draw_for_norms(train_rows)
    assert torch.equal(drawn, draw_for_norms(train_rows))
    assert len(drawn) == 500
    assert len(set(drawn.tolist())) == 500
    assert set(drawn.tolist()) <= set(train_rows.tolist())
    # Neither the first rows nor each eighth one: classes lie one behind the other in a cache.
    assert float(drawn.double().mean()) == pytest.approx(12_000, abs=200)
    assert len(set(drawn.diff().tolist())) > 10
    one, other = (Learner(settings(seed=seed, lr=lr), toy(), CPU) for seed, lr in ((0, 0.1), (5, 0.2)))
    assert torch.equal(one.clean, other.clean)
    assert set(one.clean.tolist()) <= set(toy().train.tolist())


@pytest.mark.parametrize(("excerpts", "drawn"), [(1, 1), (127, 127), (128, 128), (300, 128), (2000, 250)])
def test_an_eighth_is_drawn_and_128_at_least(excerpts: int, drawn: int) -> None:
    assert len(draw_for_norms(torch.arange(excerpts))) == drawn


def test_pairs_of_excerpts_whose_last_maps_have_one_bin_are_validated() -> None:
    # 1032 train in pairs, whose 129 clean ones leave one alone.
    examples = replace(toy(), train=torch.arange(75).repeat(14)[:1032], features=torch.rand(75, 2, 2))
    learner = Learner(settings(batch_size=2), examples, CPU)
    assert len(learner.clean) == 129
    assert math.isfinite(learner.validate(1)[0][events.VAL_LOSS])


def test_the_statistics_that_are_validated_are_stored(tmp_path: Path) -> None:
    config, examples = settings(epochs=3), toy()
    status = train(tmp_path / "run", config, examples)
    assert status.metrics is not None
    folder = RunFolder(tmp_path / "run")
    stored = {"checkpoint": state_of(folder.path)["model"], "model file": model_file.read(folder.model).weights}
    targets = examples.targets[examples.validation]
    for name, weights in stored.items():
        model = Classifier(config.model, 3, config.dropout, 0.0, 1.0)
        model.load_state_dict(weights)
        with torch.inference_mode():
            logits = model.eval()(examples.decibels(examples.validation))
        accuracy = float((logits.argmax(1) == targets).double().mean())
        assert accuracy == status.metrics[events.VAL_ACCURACY], name
        assert float(F.cross_entropy(logits, targets)) == pytest.approx(status.metrics[events.VAL_LOSS], rel=1e-5), name
        # They are those of clean training excerpts under the stored weights.
        expected = statistics(model)
        recompute_norms(model, [examples.decibels(rows) for rows in draw_for_norms(examples.train).tensor_split(4)])
        for tag, value in statistics(model).items():
            torch.testing.assert_close(value, expected[tag], msg=f"{name}: {tag}")


def test_a_net_that_has_diverged_is_validated_all_the_same() -> None:
    learner = Learner(settings(), toy(), CPU)
    with torch.no_grad():
        learner.model.blocks[0].weight.fill_(torch.nan)
    scalars, answers = learner.validate(1)
    assert math.isnan(scalars[events.VAL_LOSS])
    assert scalars[events.RANKED] == scalars[events.VAL_ACCURACY] == answers.correct.mean()
