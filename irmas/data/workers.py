"""Excerpts that are computed in processes of their own, a core each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from irmas.errors import DataError
from irmas.processes import fork_server, keep_freed_memory, uninterrupted, when_parent_ends

T = TypeVar("T")

PRELOADED = "irmas.data.features"


@contextmanager
def mapped(
    function: Callable[..., T], *arguments: Iterable[Any], path: Path, workers: int, chunksize: int = 1
) -> Iterator[Iterator[T]]:
    """Yields `map(function, *arguments)`, computed for `path` in so many processes, which end with this one.

    Raises DataError where one of them was killed.
    """
    with ProcessPoolExecutor(workers, mp_context=fork_server(PRELOADED), initializer=_set_up) as pool:
        try:
            with uninterrupted():
                results = pool.map(function, *arguments, chunksize=chunksize)
            yield results
        except BrokenProcessPool:
            raise DataError(f"{path}: a process that computes it was killed; was there too little memory?") from None
        except BaseException:  # Ctrl-C or a full disk need not wait for the rest
            pool.shutdown(cancel_futures=True)
            raise


def _set_up() -> None:
    when_parent_ends(lambda: os._exit(1))  # otherwise it waits for work forever where the parent was killed
    keep_freed_memory()
