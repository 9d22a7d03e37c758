"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from irmas.config import Config


class EagerAdam(Adam):
    """torch's Adam without its preparations for torch.compile, which import torch._dynamo: half as much again as torch.

    `unwrap` leaves a method as it is where another torch does not wrap it.
    """

    add_param_group = inspect.unwrap(Adam.add_param_group)
    zero_grad = inspect.unwrap(Adam.zero_grad)
    step = torch.no_grad()(inspect.unwrap(Adam.step))
    state_dict = inspect.unwrap(Adam.state_dict)
    load_state_dict = inspect.unwrap(Adam.load_state_dict)


def make_optimizer(model: nn.Module, config: Config) -> Adam:
    """Adam with l2 * sum(w^2) in the loss, over the kernels only: never batch norm or biases.

    The penalty's gradient is 2 * l2 * w, hence the factor; Adam's weight_decay is this coupled form (AdamW's is not).
    """
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": kernels, "weight_decay": 2 * config.l2}, {"params": others}]
    return EagerAdam(groups, lr=config.lr)


class Schedule:
    """When the learning rate changes.

    `constant`; `plateau`: halved by each third epoch in a row without a new lowest val/loss; `onecycle`: step by step
    up to lr, then to nearly zero (Smith & Topin 2019), Adam's first beta the other way round.
    """

    def __init__(self, optimizer: Adam, config: Config, steps_per_epoch: int) -> None:
        self.by_step: LRScheduler | None = None
        self.by_loss: ReduceLROnPlateau | None = None
        if config.schedule == "onecycle":
            self.by_step = OneCycleLR(optimizer, config.lr, total_steps=config.epochs * steps_per_epoch)
        elif config.schedule == "plateau":
            # torch's patience is the number of bad epochs that it lets pass.
            self.by_loss = ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0)

    def after_step(self) -> None:
        if self.by_step is not None:
            self.by_step.step()

    def after_epoch(self, val_loss: float) -> None:
        if self.by_loss is not None:
            self.by_loss.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        scheduler = self.by_step or self.by_loss
        return scheduler.state_dict() if scheduler is not None else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        scheduler = self.by_step or self.by_loss
        if scheduler is not None:
            scheduler.load_state_dict(state)
