"""The data that a sweep's runs read, made before any of them starts.

`python -m irmas.sweep.data_job outputs/<name>`, on Slurm a job before the array: stage `data` of slurm/irmas.sbatch.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from irmas.console import ConsoleProgress, Progress, plain_console
from irmas.data import dataset, split
from irmas.errors import Parser, UserError, in_words, report_errors
from irmas.files import obstacle
from irmas.processes import current_task
from irmas.sweep import jobs
from irmas.sweep.jobs import DataFailure
from irmas.sweep.sweep import Sweep


def make(sweep: Sweep, progress: Progress) -> None:
    """Render audio, compute features and write splits where they are missing. Raises DataError."""
    for config in sweep.plan.variants("data", "features"):
        cache = dataset.load(config.data, config.features, progress)
        split.load_or_make(config.data, cache, sweep.splits)


def is_made(sweep: Sweep) -> bool:
    """Return whether every feature cache exists, so that `make` takes seconds at most."""
    return all(dataset.is_built(config.data, config.features) for config in sweep.plan.variants("data", "features"))


def check(sweep: Sweep) -> None:
    """Raise UserError where a folder cannot be written or a split cannot be read, before the long work begins."""
    for folder in (sweep.runs, sweep.splits, sweep.slurm):
        if reason := obstacle(folder):
            raise UserError(f"{sweep}: cannot be written, since {reason}")
    for config in sweep.plan.variants("data", "features"):
        dataset.refuse_unwritable(config.data, config.features)
        if config.data.split.endswith(".csv"):
            split.read_list(Path(config.data.split))


def main() -> None:
    parser = Parser("irmas.sweep.data_job", "Make the data of a sweep.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    cause = "scancel, or its time limit"
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: sys.exit(f"stopped by {signal.Signals(number).name}: {cause}"))
    with report_errors("irmas.sweep.data_job"):
        sweep = Sweep.open(parser.parse_args().sweep)
        try:
            make(sweep, ConsoleProgress(plain_console()))
        except BaseException as error:
            message = str(error) if isinstance(error, SystemExit) else in_words(error)
            jobs.record_data_failure(sweep, DataFailure(current_task().job, message or repr(error)))
            raise
        jobs.record_data_failure(sweep, None)


if __name__ == "__main__":
    main()
