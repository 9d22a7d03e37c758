"""This process, its Slurm task and its children: how they start and end, and how work is spread over all cores.

No other module reads the SLURM_* variables of a task.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver, get_context, parent_process, resource_tracker, util
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeVar

from irmas.errors import DataError

T = TypeVar("T")

BINDINGS = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
CGROUP, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
LONGEST_TMPDIR = 70
"""Bytes of a TMPDIR in which multiprocessing can make its sockets, some 30 bytes deeper."""


@dataclass(frozen=True)
class SlurmTask:
    """An array task, or a job that is no array, as its environment describes it; empty outside Slurm."""

    job: str
    """Number of the job or of the whole array."""
    index: int | None
    """Array index; None for a job that is no array."""
    name: str
    cluster: str
    """Name of the Slurm cluster."""
    restart: int
    """Number of times that Slurm has requeued the job."""
    node: str
    """Slurm's name of this machine; outside Slurm its own."""
    cpus: int | None
    """CPUs of the task; None where Slurm does not limit them."""

    @property
    def id(self) -> str:
        """Return `123_4`, or `123` for a job that is no array; empty outside Slurm."""
        return self.job if self.index is None or not self.job else f"{self.job}_{self.index}"


def current_task() -> SlurmTask:
    get = os.environ.get
    index, cpus = get("SLURM_ARRAY_TASK_ID"), get("SLURM_CPUS_PER_TASK") or get("SLURM_CPUS_ON_NODE")
    return SlurmTask(
        job=get("SLURM_ARRAY_JOB_ID") or get("SLURM_JOB_ID", ""),
        index=None if index is None else int(index),
        name=get("SLURM_JOB_NAME", ""),
        cluster=get("SLURM_CLUSTER_NAME", "").lower(),
        restart=int(get("SLURM_RESTART_COUNT", "0")),
        node=get("SLURMD_NODENAME") or platform.node(),
        cpus=None if cpus is None else int(cpus),
    )


def cpu_count() -> int:
    """Return the cores this process may use: under Slurm those of its task, in a container those of its CPU quota."""
    limits = [len(os.sched_getaffinity(0)), current_task().cpus, *_cpu_quotas()]
    return max(1, min(limit for limit in limits if limit))


def _cpu_quotas() -> Iterator[int]:
    """Yield the CPU quotas, in cores rounded up, of this process's control group (version 2) and those around it."""
    with suppress(OSError):
        group = CGROUP.read_text().rpartition("0::")[2].strip()
        for folder in (CGROUPS / group.lstrip("/") / "cpu.max").parents:
            if not folder.is_relative_to(CGROUPS):
                return
            with suppress(OSError, ValueError):  # "max 100000" is no limit
                quota, period = map(int, (folder / "cpu.max").read_text().split())
                yield math.ceil(quota / period)


@cache
def torch_gpus() -> int:
    """Return the number of GPUs that torch sees; 0 also where it fails, or does not answer within a minute.

    Another process loads it, since children of one that has loaded CUDA cannot use it.
    """
    command = [sys.executable, "-P", "-c", "import torch; print(torch.cuda.device_count())"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        return int(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    return 0


def fork_server(preload: str) -> ForkServerContext:
    """Return a context whose children start with module `preload` imported (3 s each otherwise).

    The first call in this process decides what is preloaded. Children inherit no thread or lock. Ctrl-C, and the
    warning that Slurm sends to every process of a task, do not reach them: their parent handles both.
    """
    # OpenMP's threads wait for each other by spinning, by default so long that two of them, beside one other busy
    # process, took 15 times as long as one. With a tenth of that it is 1.4 times, and nothing is lost alone.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    # A site's binding of threads would put the first thread of each child on the same core.
    for name in BINDINGS:
        os.environ.pop(name, None)
    context = get_context("forkserver")
    context.set_forkserver_preload([preload])
    resource_tracker.ensure_running()  # first, since it unblocks SIGINT
    # Blocked and not ignored: the server and its children inherit it, also while torch is imported, and a Ctrl-C of
    # this moment is not lost but waits.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR2})
    _choose_socket_folder()
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _choose_socket_folder() -> None:
    """Let the fork server's sockets lie in /tmp where TMPDIR is too long for the 107 bytes of a socket's path."""
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TMPDIR:
        before, tempfile.tempdir = tempfile.tempdir, "/tmp"  # noqa: S108  in which it makes a folder of its own
        util.get_temp_dir()  # chosen by its first call
        tempfile.tempdir = before


@contextmanager
def mapped(
    function: Callable[..., T], *arguments: Iterable[Any], path: Path, workers: int, chunksize: int = 1
) -> Iterator[Iterator[T]]:
    """Yield `map(function, *arguments)`, computed in `workers` processes, which end with this one.

    Raises DataError, naming `path` as what was computed, if one of them is killed.
    """
    context = fork_server("irmas.data.features")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_set_up_worker) as pool:
        try:
            with uninterrupted():
                results = pool.map(function, *arguments, chunksize=chunksize)
            yield results
        except BrokenProcessPool:
            raise DataError(f"{path}: a process that computes it was killed; was there too little memory?") from None
        except BaseException:  # Ctrl-C or a full disk need not wait for the rest
            pool.shutdown(cancel_futures=True)
            raise


def _set_up_worker() -> None:
    when_parent_ends(lambda: os._exit(1))  # otherwise it waits for work forever if the parent is killed
    keep_freed_memory()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C until the block is done: a child whose parent leaves while it starts prints a traceback."""
    interrupts: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if interrupts:
        raise KeyboardInterrupt


def when_parent_ends(action: Callable[[], None]) -> None:
    """Call `action` in a thread of this child once its parent is gone, even if it was killed with -9.

    The fork server does not notice: it lives as long as its children.
    """
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        action()

    threading.Thread(target=wait, daemon=True).start()


def keep_freed_memory() -> None:
    """Keep the memory of freed arrays for the next ones of a loop.

    glibc maps and unmaps each large array, and the page faults cost a quarter of the CPU time or more.
    """
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
