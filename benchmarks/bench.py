"""All benchmarks one after the other, and their table in benchmarks/README.md: `make bench`.

    PYTHONPATH=tests python benchmarks/bench.py [--rounds 3] [step start ...]

Each is a process of its own; one that fails is said at the end, with exit code 1, and the table keeps to the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

from rounds import BENCHMARKS, ENVIRONMENT, HEAD, PEERS, ROOT, Row

ALL = (
    "sweep",
    "step",
    "start",
    "front_end",
    "reading",
    "submitting",
    "command_line",
    "cluster_sweep",
    "growth",
)
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->\n"
OURS = ("torch", "torchaudio", "tensorboard", "hydra-core", "submitit")
THEIRS = ("librosa", "tbparse", "hydra-submitit-launcher", "tensorboard-data-server")


def machine() -> str:
    """Where and with what the table was measured."""
    processor = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{len(os.sched_getaffinity(0))} cores ({processor.partition(': ')[2]}), {gib:.0f} GiB"
    code = f"from importlib.metadata import version\nfor name in {THEIRS}: print(name, version(name))"
    peers = subprocess.run([PEERS, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    ours = [f"{name} {version(name)}" for name in OURS]
    return f"{date.today()}: {cores}; {', '.join([f'Python {platform.python_version()}', *ours, *peers])}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="of every benchmark (default: its own number)")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {' '.join(ALL)} (default: all)")
    given = parser.parse_args()
    rounds = [] if given.rounds is None else [f"--rounds={given.rounds}"]
    environment = ENVIRONMENT | {"PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}:{ROOT / 'tests'}"}
    failed = []
    with tempfile.TemporaryDirectory() as name:
        record = Path(name) / "rows"
        record.touch()
        for benchmark in given.names or ALL:
            sys.stderr.write(f"{benchmark}\n")
            command: list[str | Path] = [sys.executable, BENCHMARKS / f"{benchmark}.py", *rounds, "--record", record]
            if subprocess.run(command, env=environment, check=False).returncode:
                failed.append(benchmark)
        rows = [str(Row(**json.loads(line))) for line in record.read_text().splitlines()]
    readme = BENCHMARKS / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    table = "\n".join([machine(), "", HEAD, *rows])
    readme.write_text(f"{before}{BEGIN}\n{table}\n\n{END}{rest.partition(END)[2]}")
    if failed:
        sys.exit(f"failed: {' '.join(failed)}")


if __name__ == "__main__":
    main()
