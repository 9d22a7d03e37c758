"""The data that a plan's runs read, made before any of them starts.

On Slurm a job of its own, before the array: `python -m irmas.sweep.data_job outputs/<name>`
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from irmas.console import ConsoleProgress, Progress, plain_console
from irmas.data import dataset, split
from irmas.errors import UserError, in_words
from irmas.exit import Parser, report_errors
from irmas.files import obstacle
from irmas.sweep import jobs
from irmas.sweep.jobs import DataFailure
from irmas.sweep.sweep import Sweep


def make(sweep: Sweep, progress: Progress) -> None:
    """Render and compute what is missing; deal the splits. Raises DataError."""
    for config in sweep.plan.variants("data", "features"):
        cache = dataset.load(config.data, config.features, progress)
        split.load_or_make(config.data, cache, sweep.splits)


def is_made(sweep: Sweep) -> bool:
    """Whether every feature cache is there: `make` then takes seconds at most."""
    return all(dataset.is_built(config.data, config.features) for config in sweep.plan.variants("data", "features"))


def check(sweep: Sweep) -> None:
    """Raise UserError for what could not be done in the end, before the long work begins: write, or read a split."""
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
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("stopped by SIGTERM: scancel, or its time limit"))
    with report_errors("irmas.sweep.data_job"):
        _make_or_record(Sweep.open(parser.parse_args().sweep))


def _make_or_record(sweep: Sweep) -> None:
    try:
        make(sweep, ConsoleProgress(plain_console()))
    except BaseException as error:
        message = str(error) if isinstance(error, SystemExit) else in_words(error)
        failure = DataFailure(os.environ.get("SLURM_JOB_ID", ""), message or repr(error))
        jobs.record_data_failure(sweep, failure)
        raise
    jobs.record_data_failure(sweep, None)


if __name__ == "__main__":
    main()
