"""All benchmarks one after the other, and their table in benchmarks/README.md: `make bench`.

    PYTHONPATH=tests python benchmarks/bench.py [--rounds 3] [step start ...]

Each is a process of its own; one that fails is named at the end, with exit code 1, and the table has the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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


def renewed(text: str, rows: Sequence[str], conditions: str) -> str:
    """Return the README with these rows in place of those of the same name; rows that were not measured again stay."""
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = {_name(line): line for line in table.splitlines() if line.startswith("| ")}
    kept.pop(_name(HEAD), None)
    kept |= {_name(row): row for row in rows}
    return f"{before}{BEGIN}\n{conditions}\n\n" + "\n".join([HEAD, *kept.values()]) + f"\n\n{END}{after}"


def _name(row: str) -> tuple[str, ...]:
    """What is compared, and of what."""
    return tuple(cell.strip() for cell in row.split("|")[1:3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="of every benchmark (default: its own number)")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {' '.join(ALL)} (default: all)")
    given = parser.parse_args()
    if strange := set(given.names) - set(ALL):
        parser.error(f"there is no benchmark {min(strange)}; there are {' '.join(ALL)}")
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
    if rows:
        readme = BENCHMARKS / "README.md"
        readme.write_text(renewed(readme.read_text(), rows, machine()))
    if failed:
        sys.exit(f"failed: {' '.join(failed)}")


if __name__ == "__main__":
    main()
