"""Nets of users' own: `model.builder=mylab.nets:build model.args={width: 32}`.

A builder is a function of the number of classes and of the arguments, by name. It returns a module from log-mels in dB,
(batch, 1, bands, frames), to logits, (batch, classes), for any batch and any number of frames.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from irmas.config import Config, Model, shown
from irmas.errors import ConfigError, first_line

CLASSES, BATCH = 11, 2
"""Numbers with which a net is tried before anything is submitted."""


def build(model: Model, num_classes: int) -> nn.Module:
    """Return the module that the builder makes. Raise ConfigError where it makes none."""
    assert model.builder is not None
    name, _, function = model.builder.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # of users' code
        raise _refusal(model, f"{name} cannot be imported ({_described(error)})") from error
    builder = getattr(module, function, None)
    if not callable(builder):
        raise _refusal(model, f"{module.__file__} has no function {function}")
    try:
        net = builder(num_classes, **(model.args or {}))
    except Exception as error:
        raise _refusal(model, f"it fails ({_described(error)})") from error
    if not isinstance(net, nn.Module):
        raise _refusal(model, f"it returns {type(net).__name__}, no torch.nn.Module")
    return net


def check(config: Config) -> None:
    """Raise ConfigError where the net of a configuration does not take its log-mels, or cannot be trained."""
    model, features, pool = config.model, config.features, config.data.pool
    if model.builder is None:
        return
    net = build(model, CLASSES)
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise _refusal(model, "its net has no parameters to train")
    shape = (BATCH, 1, features.n_mels // pool, features.n_frames // pool)
    try:
        logits = net(torch.full(shape, -features.top_db / 2))
    except Exception as error:
        raise _refusal(model, f"its net fails on log-mels of shape {shape} ({_described(error)})") from error
    if not isinstance(logits, Tensor) or logits.shape != (BATCH, CLASSES) or not logits.is_floating_point():
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise _refusal(model, f"its net gives {given} for {BATCH} excerpts and {CLASSES} classes, not {BATCH, CLASSES}")


def _refusal(model: Model, reason: str) -> ConfigError:
    arguments = "" if model.args is None else f" model.args={shown(model.args)}"
    return ConfigError("model.builder", f"{model.builder}{arguments}", reason)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
