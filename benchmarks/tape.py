"""What stands in for a CUDA graph on the CPU, as strictly: operations are recorded with their tensors and numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from cuda_graph import WARM_UP, Sums, Work
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """The operations of some work, in order; `play` does them again on the same tensors, without its Python code.

    Whatever number the Python code had read is thereby part of the tape, as it is of a graph. An operation that reads a
    tensor back raises RuntimeError.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Callable[..., Any], Any, dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("reads a number back from the device")
        results = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def play(self) -> None:
        for func, args, kwargs, results in self.operations:
            given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves([args, kwargs]) if _is_tensor(leaf)}
            for kept, fresh in zip(tree_leaves(results), tree_leaves(func(*args, **kwargs)), strict=True):
                # Otherwise it is a view, or was changed in place.
                if _is_tensor(kept) and kept.untyped_storage().data_ptr() not in given:
                    kept.copy_(fresh)


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, Tensor)


class TapeRecorder:
    """A `Recorder` that plays tapes."""

    def warm_up(self, work: Work) -> None:
        for _ in range(WARM_UP):
            work()

    def record(self, work: Work) -> Work:
        with Tape() as tape:
            sums = work()

        def replay() -> Sums:
            tape.play()
            return sums

        return replay


class CallRecorder(TapeRecorder):
    """A `Recorder` that keeps the work itself and does it again: for what a tape refuses."""

    def record(self, work: Work) -> Work:
        kept: list[Tensor] = []

        def replay() -> Sums:
            sums = work()
            kept[:] = kept or [torch.empty_like(each) for each in sums]
            for place, each in zip(kept, sums, strict=True):
                place.copy_(each)
            return kept[0], kept[1]

        return replay
