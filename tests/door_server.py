"""Opens doors, each in a fork of one process that has everything imported: many mistakes in few seconds.

A case is a line of JSON on stdin, its outcome a line on stdout. `doors.Doors` starts it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
import tempfile
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins

for name in ("train", "prepare", "rank", "status", "sweep.array", "sweep.prepare", "sweep.submit", "compose"):
    importlib.import_module(f"irmas.{name}")
Plugins.instance()
OverridesParser.create().parse_override("lr=0.1")


def main() -> None:
    gc.freeze()  # so that a fork's collections leave the memory shared
    for line in sys.stdin:
        case = json.loads(line)
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            if (child := os.fork()) == 0:
                _become(case, stdout.fileno(), stderr.fileno())
                break
            _, ended = os.waitpid(child, 0)
            said = [os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace") for file in (stdout, stderr)]
        print(json.dumps([os.waitstatus_to_exitcode(ended), *said]), flush=True)  # noqa: T201
    else:
        return
    # As `python -m` does it; an exception ends this process as it would end that one.
    runpy.run_module(f"irmas.{case['door']}", run_name="__main__", alter_sys=True)


def _become(case: dict[str, Any], stdout: int, stderr: int) -> None:
    for stream, file in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
        os.dup2(file, stream)
    os.chdir(case["folder"])
    os.environ.update(case["environment"])
    sys.argv = [case["door"], *case["arguments"]]
    sys.modules.pop(f"irmas.{case['door']}", None)


if __name__ == "__main__":
    main()
