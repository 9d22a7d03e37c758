"""The penalty on the kernels, and the learning-rate schedules."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam

from irmas.config import Config, Model
from irmas.learning.model import Classifier
from irmas.learning.optim import Muon, Schedule, make_optimizers


def test_the_penalty_is_l2_times_the_sum_of_squares_of_the_kernels_alone() -> None:
    torch.manual_seed(0)
    l2 = 0.3
    model = Classifier(Model(filters=[3, 4], dense=5), 3, 0.0, 0.0, 1.0).double()
    for weight in model.parameters():  # batch norm's begin as 0 and 1
        nn.init.normal_(weight)
    x, targets = torch.randn(6, 1, 8, 9, dtype=torch.double), torch.tensor([0, 1, 2, 0, 1, 2])
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(kernels) == 4
    penalized = F.cross_entropy(model(x), targets) + l2 * sum(kernel.square().sum() for kernel in kernels)
    expected = torch.autograd.grad(penalized, list(model.parameters()))

    [optimizer] = make_optimizers(model, Config(l2=l2))
    F.cross_entropy(model(x), targets).backward()
    optimizer.step()
    for weight, gradient in zip(model.parameters(), expected, strict=True):
        # After one step the running mean is (1 - beta1) times the gradient that Adam saw.
        torch.testing.assert_close(optimizer.state[weight]["exp_avg"] / 0.1, gradient, rtol=1e-10, atol=1e-12)


def test_the_optimizer_is_torchs_adam_to_the_last_bit() -> None:
    torch.manual_seed(0)
    ours, theirs = (copy.deepcopy(net) for net in [Classifier(Model(filters=[3], dense=5), 3, 0.0, 0.0, 1.0)] * 2)
    [optimizer] = make_optimizers(ours, Config(l2=0.1))
    reference = Adam(make_optimizers(theirs, Config(l2=0.1))[0].param_groups)
    for step in range(6):
        x, targets = torch.randn(6, 1, 8, 9), torch.tensor([0, 1, 2, 0, 1, 2])
        for net, each in ((ours, optimizer), (theirs, reference)):
            each.zero_grad()
            F.cross_entropy(net(x), targets).backward()
            each.step()
            if step == 3:  # as a resumed run does
                each.load_state_dict(copy.deepcopy(each.state_dict()))
        for ours_now, theirs_now in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(ours_now, theirs_now)


def test_muon_trains_the_kernels_behind_the_first_and_adam_the_rest() -> None:
    model = Classifier(Model(filters=[3, 4], convs_per_block=2, dense=5), 3, 0.0, 0.0, 1.0)
    adam, muon = make_optimizers(model, Config(optimizer="muon", lr=0.002, l2=0.3))
    convolutions = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    dense = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    assert [id(weight) for weight in muon.param_groups[0]["params"]] == [id(weight) for weight in convolutions[1:]]
    assert {id(weight) for weight in adam.param_groups[0]["params"]} == {id(w) for w in [convolutions[0], *dense]}
    trained = [weight for each in (adam, muon) for group in each.param_groups for weight in group["params"]]
    assert sorted(map(id, trained)) == sorted(map(id, model.parameters()))
    assert (adam.param_groups[0]["weight_decay"], adam.param_groups[1]["weight_decay"]) == (0.6, 0)
    assert (adam.param_groups[0]["lr"], muon.param_groups[0]["lr"]) == (0.002, 0.1)


def orthogonalized_by_svd(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the iteration is defined to do: its odd polynomial, applied to the singular values."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    a, b, c = 3.4445, -4.7750, 2.0315
    values /= np.linalg.norm(values)
    for _ in range(3):
        values = a * values + b * values**3 + c * values**5
    return np.asarray(left * values @ right)


@pytest.mark.parametrize("shape", [(6, 2, 3, 3), (40, 2, 3, 3), (5, 5, 1, 1)])
def test_muon_follows_its_definition(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=shape)
    ours = nn.Parameter(torch.from_numpy(kernel.copy()).to(memory_format=torch.channels_last))
    muon = Muon([ours], lr=0.05)
    momentum = np.zeros(shape)
    for step in range(1, 5):
        muon.param_groups[0]["lr"] = 0.05 / step  # as a schedule does
        gradient = rng.normal(size=shape)
        ours.grad = torch.from_numpy(gradient)
        muon.step()
        momentum = 0.6 * momentum + gradient
        update = orthogonalized_by_svd((gradient + 0.6 * momentum).reshape(shape[0], -1)).reshape(shape)
        kernel = kernel * np.sqrt(shape[0]) / np.linalg.norm(kernel) - 0.05 / step * update
        np.testing.assert_allclose(ours.detach().numpy(), kernel, rtol=1e-9, atol=1e-12)


def test_one_cycle_gives_muon_its_multiple_of_the_rate_at_each_step() -> None:
    model = Classifier(Model(filters=[3, 4], dense=5), 3, 0.0, 0.0, 1.0)
    config = Config(optimizer="muon", schedule="onecycle", lr=0.003, epochs=2)
    optimizers = make_optimizers(model, config)
    schedules = [Schedule(optimizer, config, 10) for optimizer in optimizers]
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    highest = 0.0
    for _ in range(20):
        adam_lr, muon_lr = (optimizer.param_groups[0]["lr"] for optimizer in optimizers)
        highest = max(highest, adam_lr)
        assert muon_lr == pytest.approx(50 * adam_lr)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.after_step()
    assert highest == pytest.approx(0.003, rel=0.02)


def schedule_of(name: str, lr: float = 0.1, epochs: int = 4, steps: int = 5) -> tuple[Adam, Schedule]:
    weight = nn.Parameter(torch.ones(1))
    optimizer = Adam([weight], lr=lr)
    weight.grad = torch.ones(1)
    return optimizer, Schedule(optimizer, Config(schedule=name, lr=lr, epochs=epochs), steps)


def run(optimizer: Adam, schedule: Schedule, losses: list[float], steps: int = 5) -> list[float]:
    """The learning rate of every step."""
    rates = []
    for loss in losses:
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(loss)
    return rates


def test_constant_stays() -> None:
    assert set(run(*schedule_of("constant"), [3.0, 9.0, 9.0, 9.0, 9.0, 9.0])) == {0.1}


def test_plateau_halves_after_three_epochs_without_a_lower_loss() -> None:
    losses = [1.0, 1.0, 1.0, 0.99999, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    rates = run(*schedule_of("plateau"), losses, steps=1)
    assert rates == pytest.approx([0.1] * 7 + [0.05] * 3 + [0.025])


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 2), (2, 3), (4, 5), (15, 42)])
def test_onecycle_takes_every_step_and_ends_near_zero(epochs: int, steps: int) -> None:
    rates = run(*schedule_of("onecycle", epochs=epochs, steps=steps), [1.0] * epochs, steps)
    assert rates[-1] < 0.1 / 1000
    if len(rates) == 630:
        peak = rates.index(max(rates))
        assert max(rates) == pytest.approx(0.1)
        assert peak == pytest.approx(0.3 * 630, abs=2)
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize("name", ["constant", "plateau", "onecycle"])
def test_a_schedule_that_goes_on_is_the_one_that_never_stopped(name: str) -> None:
    losses = [2.0, math.pi, 2.0, 2.5, 2.5, 2.0]
    whole = run(*schedule_of(name, epochs=6), losses)
    optimizer, schedule = schedule_of(name, epochs=6)
    first = run(optimizer, schedule, losses[:3])
    again, second = schedule_of(name, epochs=6)
    again.load_state_dict(optimizer.state_dict())
    second.load_state_dict(schedule.state_dict())
    assert first + run(again, second, losses[3:]) == whole
    assert name == "constant" or len(set(whole)) > 1
