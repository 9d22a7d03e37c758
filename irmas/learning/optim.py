"""Adam, Muon for the kernels of convolutions, and the learning rate over a run."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from irmas.config import Config

MUON_LR = 50.0
"""Muon's learning rate as a multiple of `lr`: 0.05 beside Adam's 0.001."""
MOMENTUM = 0.6
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration, which lift small singular values fastest."""
STEPS = 3


class Eager(Optimizer):
    """torch's Optimizer without its wrappers for torch.compile, which import torch._dynamo.

    That import costs 1.2 s of CPU time at the start of each run, as much as torch itself (1.3 s; torch 2.14). Tests
    fail if another torch imports it elsewhere or changes Adam; `unwrap` returns a method that is not wrapped as it is.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class EagerAdam(Eager, Adam):
    step = torch.no_grad()(inspect.unwrap(Adam.step))


class Muon(Eager):
    """Nesterov momentum whose update of each kernel, (filters, channels, height, width), is orthogonalized.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with one row of a matrix per filter. As in their training of
    CIFAR-10 (github.com/KellerJordan/cifar10-airbench), each kernel is scaled to the norm sqrt(filters) before each
    update, so that a penalty on it would shrink nothing. torch.optim.Muon takes matrices only.
    """

    def __init__(self, kernels: Iterable[Tensor], lr: float) -> None:
        super().__init__(kernels, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # it takes no closure
        for group in self.param_groups:
            for kernel in group["params"]:
                self._update(kernel, kernel.grad, group["lr"])

    def _update(self, kernel: Tensor, gradient: Tensor, lr: float | Tensor) -> None:
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        momentum = state["momentum"].mul_(MOMENTUM).add_(gradient)
        update = orthogonalized(gradient.add(momentum, alpha=MOMENTUM).flatten(1)).view_as(kernel)
        kernel.mul_(len(kernel) ** 0.5 / kernel.norm()).sub_(update * lr)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return the matrix, (rows, columns), with singular values near 1, by a Newton-Schulz iteration.

    In bfloat16 on CUDA, where the iteration tolerates it and it is fastest; in the matrix's own precision on the CPU.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    is_tall = len(x) > x[0].numel()
    x = x.T if is_tall else x  # the smaller Gram matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)


def make_optimizers(model: nn.Module, config: Config) -> list[Optimizer]:
    """Return Adam and, where it is set, Muon for the kernels of convolutions that have several input channels.

    Adam has l2 * sum(w^2) in the loss, over the kernels that it trains: never over batch norm or biases. The penalty's
    gradient is 2 * l2 * w, hence the factor; Adam's weight_decay is this coupled form (AdamW's is not).
    """
    weights = list(model.parameters())
    by_muon = [weight for weight in weights if config.optimizer == "muon" and weight.ndim == 4 and weight.shape[1] > 1]
    taken = set(map(id, by_muon))
    kernels = [weight for weight in weights if weight.ndim > 1 and id(weight) not in taken]
    rest = [weight for weight in weights if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": kernels, "weight_decay": 2 * config.l2}, {"params": rest}]
    adam = EagerAdam(groups, lr=config.lr)
    return [adam, Muon(by_muon, lr=MUON_LR * config.lr)] if by_muon else [adam]


class Schedule:
    """The learning rate of an optimizer over the run.

    `constant` keeps it. `plateau` halves it after each third epoch in a row without a new lowest val/loss. `onecycle`
    raises it step by step to the optimizer's own and lowers it to nearly zero (Smith & Topin 2019), Adam's first beta
    inversely.
    """

    def __init__(self, optimizer: Optimizer, config: Config, steps_per_epoch: int) -> None:
        self._scheduler: OneCycleLR | ReduceLROnPlateau | None = None
        if config.schedule == "onecycle":
            highest, total = optimizer.defaults["lr"], config.epochs * steps_per_epoch
            is_adam = "betas" in optimizer.defaults
            self._scheduler = OneCycleLR(optimizer, highest, total_steps=total, cycle_momentum=is_adam)
        elif config.schedule == "plateau":
            # torch's patience is the number of bad epochs before it acts.
            self._scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0)

    def after_step(self) -> None:
        if isinstance(self._scheduler, OneCycleLR):
            self._scheduler.step()

    def after_epoch(self, val_loss: float) -> None:
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        return self._scheduler.state_dict() if self._scheduler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._scheduler:
            self._scheduler.load_state_dict(state)
