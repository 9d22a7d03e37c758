"""The copies of the package's source in a sweep, with which its runs train whatever is edited meanwhile.

A sweep whose plan.yaml has `source: <digest>` trains with the copy `outputs/<name>/code/<digest>`. Later versions of
the package use an old copy through the following alone, which must therefore keep its form:

- `python -m irmas.sweep.array_task outputs/<name>` and `irmas.sweep.data_job`, with their options (slurm/irmas.sbatch)
- `python -m irmas.sweep.pool outputs/<name>`, with its options (`train`)
- `check` and `from_flat` of `irmas.config`, `report_errors` of `irmas.errors` (`refuse_unknown`)
- plan.yaml, with the keys that it had when the copy was made (`Sweep.write`), and the lines of points.jsonl
- the files of a run
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from irmas.config import Config
from irmas.errors import UserError
from irmas.files import atomic_write
from irmas.provenance import PACKAGE, built_source, package_source

REMEDY = "allow_code_change=true or another name takes the present source"
CHECK = """
import json, sys
from irmas.config import check, from_flat
from irmas.errors import report_errors
with report_errors("irmas"):
    for line in sys.stdin:
        check(from_flat(json.loads(line)))
"""


def keep(copy: Path, builders: Iterable[str] = ()) -> None:
    """Copy the package's source and nets of users' own into a new folder, which appears whole or not at all.

    Raises OSError.
    """
    partial = copy.with_name(f".{copy.name}")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed command
    try:
        package = {f"{PACKAGE.name}/{name}": content for name, content in package_source().items()}
        for name, content in {**package, **built_source(builders)}.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
        partial.rename(copy)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def refuse_unknown(copy: Path, configs: Iterable[Config]) -> None:
    """Raise UserError, naming the setting, for the first value that the source of a copy does not have or allow."""
    defaults = Config().flat()
    changes = [{key: value for key, value in config.flat().items() if value != defaults[key]} for config in configs]
    lines = "".join(json.dumps(flat) + "\n" for flat in changes)
    command = [sys.executable, "-P", "-c", CHECK]
    done = subprocess.run(command, env=_environment(copy), input=lines, capture_output=True, text=True, check=False)
    if done.returncode:
        message = done.stderr.strip().rpartition("\n")[2].removeprefix("irmas: ")
        raise UserError(f"{message}: the sweep trains with the source of {copy}; {REMEDY}")


def train(copy: Path, sweep: Path, runs: str, at_once: int) -> None:
    """Train runs on this machine, in a pool of processes that import the source of a copy.

    The pool ends with this process or an exception in it, since its stdin does; Ctrl-C of a terminal does not reach it.
    Raises SystemExit where the pool ended with an error, which it has printed.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "irmas.sweep.pool",
        str(sweep),
        "--runs",
        runs,
        "--runs-at-once",
        f"{at_once}",
    ]
    process = subprocess.Popen(command, env=_environment(copy), stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    try:
        code = process.wait()
    finally:
        process.stdin.close()
        process.wait()
    if code:
        raise SystemExit(code)


def _environment(copy: Path) -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(copy.absolute()), *([path] if path else [])])}
