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
from irmas.sweep import plan as plans
from irmas.sweep.jobs import DataFailure
from irmas.sweep.plan import Plan


def make(sweep: Path, plan: Plan, progress: Progress) -> None:
    """Render and compute what is missing; deal the splits. Raises DataError."""
    for config in plan.variants("data", "features"):
        cache = dataset.load(config.data, config.features, progress)
        split.load_or_make(config.data, cache, sweep / "splits")


def is_made(plan: Plan) -> bool:
    """Whether every feature cache is there: `make` then takes seconds at most."""
    return all(dataset.is_built(config.data, config.features) for config in plan.variants("data", "features"))


def check(sweep: Path, plan: Plan) -> None:
    """Raise UserError for what could not be done in the end, before the long work begins: write, or read a split."""
    for folder in (sweep / "runs", sweep / "splits", sweep / jobs.FOLDER):
        if reason := obstacle(folder):
            raise UserError(f"{sweep}: cannot be written, since {reason}")
    for config in plan.variants("data", "features"):
        dataset.refuse_unwritable(config.data, config.features)
        if config.data.split.endswith(".csv"):
            split.read_list(Path(config.data.split))


def main() -> None:
    parser = Parser("irmas.sweep.data_job", "Make the data of a sweep.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("stopped by SIGTERM: scancel, or its time limit"))
    with report_errors("irmas.sweep.data_job"):
        sweep = parser.parse_args().sweep
        _make_or_tell(sweep, plans.read(sweep))


def _make_or_tell(sweep: Path, plan: Plan) -> None:
    try:
        make(sweep, plan, ConsoleProgress(plain_console()))
    except BaseException as error:
        said = str(error) if isinstance(error, SystemExit) else in_words(error)
        failure = DataFailure(os.environ.get("SLURM_JOB_ID", ""), said or repr(error))
        jobs.record_data_failure(sweep, failure)
        raise
    jobs.record_data_failure(sweep, None)


if __name__ == "__main__":
    main()
