"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from irmas.config import Config


class EagerAdam(Adam):
    """torch's Adam without its wrappers for torch.compile, which import torch._dynamo.

    That import costs 1.2 s of CPU time at the start of each run, as much as torch itself (1.3 s; torch 2.14). Tests
    fail if another torch imports it elsewhere or changes Adam; `unwrap` returns a method that is not wrapped as it is.
    """

    add_param_group = inspect.unwrap(Adam.add_param_group)
    zero_grad = inspect.unwrap(Adam.zero_grad)
    step = torch.no_grad()(inspect.unwrap(Adam.step))
    state_dict = inspect.unwrap(Adam.state_dict)
    load_state_dict = inspect.unwrap(Adam.load_state_dict)


def make_optimizer(model: nn.Module, config: Config) -> Adam:
    """Return Adam with l2 * sum(w^2) in the loss, over the kernels only: never batch norm or biases.

    The penalty's gradient is 2 * l2 * w, hence the factor; Adam's weight_decay is this coupled form (AdamW's is not).
    """
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    rest = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": kernels, "weight_decay": 2 * config.l2}, {"params": rest}]
    return EagerAdam(groups, lr=config.lr)


class Schedule:
    """The learning rate over the run.

    `constant` keeps it. `plateau` halves it after each third epoch in a row without a new lowest val/loss. `onecycle`
    raises it step by step to lr and lowers it to nearly zero (Smith & Topin 2019), Adam's first beta inversely.
    """

    def __init__(self, optimizer: Adam, config: Config, steps_per_epoch: int) -> None:
        self._scheduler: OneCycleLR | ReduceLROnPlateau | None = None
        if config.schedule == "onecycle":
            self._scheduler = OneCycleLR(optimizer, config.lr, total_steps=config.epochs * steps_per_epoch)
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
