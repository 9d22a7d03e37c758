"""Processes of our own on this machine."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from multiprocessing.context import ForkServerContext

from irmas.slurm_task import current_task


def fork_server(preload: str) -> ForkServerContext:
    """Children start with this module imported (3 s each otherwise), yet inherit no thread or lock of this process.

    There is one server a process: what it preloads the first call decides.

    Ctrl-C, and the warning that Slurm sends to every process of a task, do not reach them: their parent answers for
    them.
    """
    # OpenMP's threads wait for each other by spinning, by default so long that two of them, beside one other busy
    # process, took 15 times as long as one. With a tenth of that it is 1.4 times, and nothing is lost alone.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    context = get_context("forkserver")
    context.set_forkserver_preload([preload])
    resource_tracker.ensure_running()  # first, since it unblocks SIGINT
    # Blocked and not ignored: the server and its children inherit it, also while torch is imported, and a Ctrl-C of
    # this moment is not lost but waits.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR2})
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done: a child whose parent leaves while it starts prints a traceback."""
    asked: list[int] = []
    answer = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, answer)
    if asked:
        raise KeyboardInterrupt


def when_parent_ends(action: Callable[[], None]) -> None:
    """In a child: call `action`, in a thread, when the parent is gone, even if it was killed with -9.

    The fork server does not tell the child: it lives as long as its children.
    """
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        action()

    threading.Thread(target=wait, daemon=True).start()


def cpu_count() -> int:
    """The cores this process may use: fewer than the machine's under Slurm, which need not bind the process to them."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, current_task().cpus or allowed)


def keep_freed_memory() -> None:
    """For arrays that are made and dropped in a loop: glibc maps and unmaps each large one, and the page faults cost a
    quarter of the CPU time or more."""
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
