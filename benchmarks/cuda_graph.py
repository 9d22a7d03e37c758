"""A training step that is recorded once as a CUDA graph and then replayed: a candidate, measured by gpu_steps.py.

`GraphLearner` is a `Learner` whose step differs in two ways. What the schedules change is in tensors, which are filled
before each replay (`CapturableAdam`, `CapturableMuon`). The device's part of the step, `Learner._compute`, is replayed
from a graph, one for each of the two sizes of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim import Optimizer

from irmas.config import Config
from irmas.learning.learner import Examples, Learner
from irmas.learning.optim import EagerAdam, Muon, Schedule

WARM_UP = 3
"""Steps ahead of a recording: libraries choose algorithms and allocate, and torch.compile compiles."""

Sums = tuple[Tensor, Tensor]
Work = Callable[[], Sums]


class CapturableAdam(EagerAdam):
    """Adam whose step reads all that changes over a run from tensors, in a few kernels for all parameters.

    `fill` does the host's part: it counts the step and writes the factors that follow from learning rate, betas,
    penalty and count. State and groups are those of torch's Adam without `capturable`: a checkpoint fits both, on any
    device. torch's own `capturable` takes a learning rate as a tensor, but reads a tensor of beta1 back to the host
    (foreach in `_foreach_lerp_` and `_foreach_pow`, fused in its arguments), which a recording refuses; one cycle
    changes beta1. Its form for single tensors does not, but needs some ten kernels for each parameter.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr)
        like = self.param_groups[0]["params"][0]
        self.factors = torch.zeros((len(self.param_groups), 4), dtype=like.dtype, device=like.device)

    def fill(self) -> None:
        factors = []
        for group in self.param_groups:
            steps = [self._state_of(weight)["step"] for weight in group["params"]]
            torch._foreach_add_(steps, 1)  # on the host
            count, (beta1, beta2) = steps[0].item(), group["betas"]
            rate = group["lr"] / (1 - beta1**count)
            factors.append([group["weight_decay"], 1 - beta1, (1 - beta2**count) ** 0.5, -rate])
        fill(self.factors, factors)

    def _state_of(self, weight: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        return state

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # it takes no closure
        """Do the device's part of a step; `fill` is the other."""
        for group, (penalty, share, correction, rate) in zip(self.param_groups, self.factors, strict=True):
            weights, beta2 = group["params"], group["betas"][1]
            means = [self.state[weight]["exp_avg"] for weight in weights]
            squares = [self.state[weight]["exp_avg_sq"] for weight in weights]
            gradients = torch._foreach_mul(weights, penalty)
            torch._foreach_add_(gradients, [weight.grad for weight in weights])
            changes = torch._foreach_sub(gradients, means)
            torch._foreach_mul_(changes, share)
            torch._foreach_add_(means, changes)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
            divisors = torch._foreach_sqrt(squares)
            torch._foreach_div_(divisors, correction)
            torch._foreach_add_(divisors, group["eps"])
            updates = torch._foreach_div(means, divisors)
            torch._foreach_mul_(updates, rate)
            torch._foreach_add_(weights, updates)


class CapturableMuon(Muon):
    """Muon whose step reads its learning rate from a tensor."""

    def __init__(self, kernels: list[Tensor], lr: float) -> None:
        super().__init__(kernels, lr)
        self.rate = torch.zeros((), dtype=kernels[0].dtype, device=kernels[0].device)

    def fill(self) -> None:
        [group] = self.param_groups
        for kernel in group["params"]:
            self.state[kernel].setdefault("momentum", torch.zeros_like(kernel))
        fill(self.rate, group["lr"])

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # it takes no closure
        for kernel in self.param_groups[0]["params"]:
            self._update(kernel, kernel.grad, self.rate)


def fill(target: Tensor, values: object) -> None:
    """Write numbers of the host into a tensor without waiting for the device, which may be steps behind."""
    target.copy_(torch.tensor(values, dtype=target.dtype), non_blocking=True)


def capturable(optimizer: Optimizer) -> Optimizer:
    """Return a new optimizer of the same parameters and settings whose step can be recorded."""
    if isinstance(optimizer, Muon):
        return CapturableMuon(optimizer.param_groups[0]["params"], optimizer.defaults["lr"])
    return CapturableAdam(optimizer.param_groups, optimizer.defaults["lr"])


class FilledLearner(Learner):
    """A learner that steps as `Learner` does, with the optimizers of `GraphLearner`."""

    def __init__(self, config: Config, examples: Examples, device: torch.device) -> None:
        super().__init__(config, examples, device)
        self.optimizers = [capturable(optimizer) for optimizer in self.optimizers]
        self.schedules = [Schedule(optimizer, config, self.steps) for optimizer in self.optimizers]

    def _step(self, rows: Tensor) -> Sums:
        for optimizer in self.optimizers:
            if isinstance(optimizer, CapturableAdam | CapturableMuon):
                optimizer.fill()
        return super()._step(rows)


class Recorder(Protocol):
    """A way to record work on tensors that stay where they are."""

    def warm_up(self, work: Work) -> None:
        """Do the work WARM_UP times, as it will be recorded."""

    def record(self, work: Work) -> Work:
        """Return what does the same work again, and returns the same tensors each time."""


class CudaRecorder:
    """CUDA graphs, which share memory: one is replayed at a time.

    torch keeps the state of its own generator with each graph that draws from it: a replay draws the numbers that the
    recorded work would draw, from the seed and the position that the generator then has, and advances it.
    """

    def __init__(self) -> None:
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def warm_up(self, work: Work) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            sums = work()

        def replay() -> Sums:
            graph.replay()
            return sums

        return replay


class GraphLearner(FilledLearner):
    """A learner whose step is recorded for each size of batch at its first one, and replayed from then on.

    `compiler` compiles the net of a step; its dropout then draws numbers of its own.
    """

    def __init__(
        self,
        config: Config,
        examples: Examples,
        device: torch.device,
        recorder: Recorder,
        compiler: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__(config, examples, device)
        self.recorder = recorder
        self.compiled = compiler(self.model.forward) if compiler else None
        self.replays: dict[int, tuple[Tensor, Work]] = {}
        """Rows that a graph reads, and its replay, by the size of the batch."""

    def _compute(self, rows: Tensor) -> Sums:
        if len(rows) not in self.replays:
            self.replays[len(rows)] = self._recorded(rows.clone())
        place, replay = self.replays[len(rows)]
        place.copy_(rows)
        return replay()

    def _recorded(self, place: Tensor) -> tuple[Tensor, Work]:
        def work() -> Sums:
            # Training alone is compiled: validation has other sizes, and hooks for its statistics.
            compiled: AbstractContextManager[object] = nullcontext()
            if self.compiled:
                compiled = patch.object(self.model, "forward", self.compiled)
            with compiled:
                return super(GraphLearner, self)._compute(place)

        restore = self._snapshot()
        self.recorder.warm_up(work)
        self.model.zero_grad()  # the recorded backward pass then allocates its gradients where the graph keeps them
        replay = self.recorder.record(work)
        restore()
        return place, replay

    def _snapshot(self) -> Callable[[], None]:
        """Return what sets weights, statistics, optimizers and generator to what they are now, in place."""
        states = [state for optimizer in self.optimizers for state in optimizer.state.values()]
        tensors = [*self.model.state_dict().values(), *(tensor for state in states for tensor in state.values())]
        copies = [tensor.clone() for tensor in tensors]
        generator = torch.cuda if self.device.type == "cuda" else torch
        drawn = generator.get_rng_state()

        def restore() -> None:
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
            generator.set_rng_state(drawn)

        return restore

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.replays.clear()  # they update the optimizers' former tensors
