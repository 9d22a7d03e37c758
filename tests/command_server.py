"""Runs commands, each in a fork of one process that has everything imported: many mistakes and sweeps in few seconds.

A case is a line of JSON on stdin, its result a line on stdout. `forked_commands.Commands` starts this process.
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
# Training processes are forked from the command: a fork server of their own would import torch again.
FORK = multiprocessing.get_context("fork")
for module in (pool, processes):
    module.fork_server = lambda *_: FORK  # type: ignore[attr-defined]


def main() -> None:
    gc.freeze()  # Garbage collection in a fork leaves the memory shared.
    for line in sys.stdin:
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            # A forked process ends without unloading torch, which takes longer than most commands.
            child = FORK.Process(target=_run, args=(json.loads(line), stdout.fileno(), stderr.fileno()))
            child.start()
            child.join()
            output = [os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace") for file in (stdout, stderr)]
        print(json.dumps([child.exitcode, *output]), flush=True)  # noqa: T201


def _run(case: dict[str, Any], stdout: int, stderr: int) -> None:
    """Run the command as `python -m` does; an exception ends this process as it would end that one."""
    for stream, file in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
        os.dup2(file, stream)
    os.chdir(case["folder"])
    os.environ.update(case["environment"])
    sys.argv = [case["command"], *case["args"]]
    sys.modules.pop(f"irmas.{case['command']}", None)
    runpy.run_module(f"irmas.{case['command']}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
