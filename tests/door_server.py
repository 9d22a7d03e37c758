"""Opens doors, each in a fork of one process that has everything imported: many mistakes and sweeps in few seconds.

A case is a line of JSON on stdin, its outcome a line on stdout. `doors.Doors` starts it.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import pkgutil
import runpy
import sys
import tempfile
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins

import irmas
from irmas import processes
from irmas.sweep import pool

for info in pkgutil.walk_packages(irmas.__path__, "irmas."):
    importlib.import_module(info.name)
Plugins.instance()
OverridesParser.create().parse_override("lr=0.1")
# What trains is forked from the door: a server of its own would import torch anew.
FORK = multiprocessing.get_context("fork")
for module in (pool, processes):
    setattr(module, "fork_server", lambda *_: FORK)  # noqa: B010


def main() -> None:
    gc.freeze()  # so that a fork's collections leave the memory shared
    for line in sys.stdin:
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            # It ends without taking torch apart, which takes longer than most doors.
            child = FORK.Process(target=_open, args=(json.loads(line), stdout.fileno(), stderr.fileno()))
            child.start()
            child.join()
            said = [os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace") for file in (stdout, stderr)]
        print(json.dumps([child.exitcode, *said]), flush=True)  # noqa: T201


def _open(case: dict[str, Any], stdout: int, stderr: int) -> None:
    """As `python -m` does it; an exception ends this process as it would end that one."""
    for stream, file in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
        os.dup2(file, stream)
    os.chdir(case["folder"])
    os.environ.update(case["environment"])
    sys.argv = [case["door"], *case["arguments"]]
    sys.modules.pop(f"irmas.{case['door']}", None)
    runpy.run_module(f"irmas.{case['door']}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
