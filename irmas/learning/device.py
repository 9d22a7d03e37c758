"""Every switch of torch: the device of a run, its threads, its random numbers."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch.utils import deterministic

from irmas.config import Config, run_digest
from irmas.errors import UserError
from irmas.processes import keep_freed_memory

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def choose_device(device: str) -> torch.device:
    """Return the device that a setting means; `auto` takes CUDA if torch sees it, otherwise the CPU.

    Raises UserError, with node, driver and torch build, if a GPU is allocated or set and torch sees none: a run that
    was meant for a GPU would otherwise spend hours on a CPU in silence.
    """
    if device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    # What Slurm and others write if they allocate no GPU.
    if device == "auto" and visible in ("", "-1", "NoDevFiles"):
        return torch.device("cpu")
    reason = "device=cuda" if device == "cuda" else f"CUDA_VISIBLE_DEVICES={visible}"
    driver = NVIDIA_DRIVER.read_text().splitlines()[0] if NVIDIA_DRIVER.exists() else "no NVIDIA driver is loaded"
    build = f"torch {torch.__version__} built for CUDA {torch.version.cuda}"
    where = f"node {platform.node()}; {driver}; {build}"
    raise UserError(f"{reason}: torch sees no GPU ({where}); device=cpu trains on the CPU")


@contextmanager
def explain_out_of_memory(config: Config, at_once: int = 1, per_gpu: int = 1) -> Iterator[None]:
    """Raise UserError, naming the settings that need less, if there is too little memory in the block.

    Of `at_once` runs, which share the memory of this machine or task, `per_gpu` share a GPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # CUDA and its libraries raise an error of their own where the memory that other processes leave is too small.
        if isinstance(error, torch.OutOfMemoryError) or re.search("CUDA error: out of mem|ALLOC_FAILED", str(error)):
            where, is_shared, more = "the GPU", per_gpu > 1, "hydra.launcher.gpus=<type>:1 takes a larger GPU"
        elif isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            where, is_shared, more = "the process", at_once > 1, "hydra.launcher.mem=... gives more"
        else:
            raise
        size = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
        needed = f" (tried to allocate {size[1]})" if size else ""
        fewer = f"hydra.launcher.runs_at_once={at_once} or " if is_shared else ""
        less = f"raise data.pool={config.data.pool} or take features=small"
        remedy = f"lower {fewer}batch_size={config.batch_size}, {less}"
        node = platform.node()
        raise UserError(f"{where} has too little memory on node {node}{needed}: {remedy}; on Slurm {more}") from error


def set_up(device: torch.device, threads: int) -> None:
    """Set torch's process-wide switches (allocator, threads, determinism); call it before the first tensor."""
    if device.type == "cpu":
        keep_freed_memory()
        torch.set_num_threads(threads)
    # Only a warning, since not every CUDA kernel has a deterministic form.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")
    # Otherwise every new tensor is first filled with NaN: 3 % of a step's CPU time, and nothing reads it.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def seed(config: Config, epoch: int) -> None:
    """Seed torch with the run's own stream for an epoch, so that a resumed run draws the same numbers.

    Epoch 0 draws the initial weights.
    """
    sequence = np.random.SeedSequence([config.seed, int(run_digest(config), 16), epoch])
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context of bfloat16 on CUDA; on the CPU that is ten times slower than float32."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def describe(device: torch.device) -> str:
    """Return the GPU's name, or the CPU's threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
