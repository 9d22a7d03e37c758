"""The report's net: its size, its work, and what each setting changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from irmas.config import Model
from irmas.learning.model import Classifier


def net(
    dropout: float = 0.4, classes: int = 11, mean_db: float = -50.0, std_db: float = 20.0, **model: Any
) -> Classifier:
    torch.manual_seed(0)
    return Classifier(Model(**model), classes, dropout, mean_db, std_db)


def small(**settings: Any) -> Classifier:
    changed: dict[str, Any] = {"filters": [4, 6], "dense": 8} | settings
    return net(**changed)


def log_mel(batch: int, bands: int, frames: int) -> Tensor:
    return torch.randn(batch, 1, bands, frames, generator=torch.Generator().manual_seed(0)) * 20 - 50


def multiplications(model: nn.Module, x: Tensor) -> int:
    """Return the number of multiplications of convolutions and dense layers, for one excerpt."""
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += module.weight.numel() * output[0, 0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.inference_mode():
        model.eval()(x)
    return total


def test_the_reports_net_has_its_size_and_its_work() -> None:
    model = net()
    assert sum(weight.numel() for weight in model.parameters()) == 457_451
    assert multiplications(model, log_mel(1, 224, 224)) == pytest.approx(0.73e9, rel=0.01)


@pytest.mark.parametrize("geometry", [(1, 1), (1, 50), (3, 2), (17, 31), (64, 64), (128, 94)])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_any_geometry_passes(geometry: tuple[int, int], pooling: str) -> None:
    logits = net(pooling=pooling).eval()(log_mel(2, *geometry))
    assert logits.shape == (2, 11)
    assert torch.isfinite(logits).all()


def test_each_setting_changes_the_net_as_it_says() -> None:
    convolutions = [
        module for module in small(filters=[4, 6, 8], convs_per_block=2).modules() if isinstance(module, nn.Conv2d)
    ]
    shapes = [(module.in_channels, module.out_channels, module.kernel_size) for module in convolutions]
    five, three = (5, 5), (3, 3)
    assert shapes == [(1, 4, five), (4, 4, three), (4, 6, three), (6, 6, three), (6, 8, three), (8, 8, three)]
    dense, output = [module for module in small(dense=13, classes=5).head if isinstance(module, nn.Linear)]
    assert (dense.in_features, dense.out_features, output.out_features) == (6, 13, 5)


def test_pooling_is_the_mean_or_the_maximum_over_what_the_blocks_leave() -> None:
    x = log_mel(2, 16, 24)
    left = small().eval().blocks((x + 50) / 20)
    for pooling, pooled in (("average", left.mean((2, 3))), ("max", left.flatten(2).max(2).values)):
        model = small(pooling=pooling).eval()
        torch.testing.assert_close(model(x), model.head(pooled))


def test_each_block_halves_both_axes_and_rounds_up() -> None:
    assert net().eval().blocks(log_mel(1, 224, 223)).shape == (1, 256, 14, 14)
    assert net().eval().blocks(log_mel(1, 17, 1)).shape == (1, 256, 2, 1)


def test_dropout_acts_in_training_only() -> None:
    x = log_mel(4, 16, 16)
    model, without = small(dropout=0.5), small(dropout=0.0)
    torch.testing.assert_close(model.eval()(x), without.eval()(x), rtol=0, atol=0)
    assert not torch.equal(model.eval()(x), model.train()(x))
    hidden = model.head[:3](torch.ones(1000, 6))
    assert float((hidden == 0).float().mean()) > 0.4


def test_the_normalization_belongs_to_the_net() -> None:
    x = log_mel(2, 16, 16)
    shifted = small(mean_db=-40.0, std_db=10.0).eval()
    torch.testing.assert_close(small().eval()(x), shifted((x + 50) / 2 - 40))
    other = small()
    other.load_state_dict(shifted.state_dict())
    assert (float(other.mean_db), float(other.std_db)) == (-40.0, 10.0)


@pytest.mark.parametrize(("rolls", "shifts"), [(1, [0]), (2, [0, 5]), (4, [0, 2, 5, 7])])
def test_probabilities_are_averaged_over_rolled_versions(rolls: int, shifts: list[int]) -> None:
    x = log_mel(3, 16, 10)
    model = small(rolls=rolls, classes=5).eval()
    versions = torch.stack([model(x.roll(-shift, 3)).softmax(1) for shift in shifts])
    averaged = model.log_probabilities(x).exp()
    torch.testing.assert_close(averaged, versions.mean(0))
    assert rolls == 1 or not torch.allclose(averaged, versions[0], atol=1e-5)
