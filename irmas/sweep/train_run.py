"""What one task of a sweep does: one point of the plan, from its configuration to its final state.

By hand: `python -m irmas.sweep.train_run outputs/<name> 8`
"""

from __future__ import annotations

import logging
import platform
import shutil
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from irmas.config import shown
from irmas.console import Silent
from irmas.data import dataset, split
from irmas.errors import UserError, in_words
from irmas.exit import Parser, report_errors
from irmas.learning import trainer
from irmas.learning.device import choose_device, describe, explain_out_of_memory, set_up
from irmas.processes import cpu_count
from irmas.provenance import source_digest, versions
from irmas.run.folder import (
    CANCELLED,
    FAILED,
    FINAL,
    INTERRUPTED,
    REPLACED,
    RUNNING,
    Replaced,
    RunFolder,
    Status,
    Writer,
)
from irmas.sweep import slurm
from irmas.sweep.plan import PlannedRun
from irmas.sweep.pruning import Halving
from irmas.sweep.sweep import Sweep

log = logging.getLogger(__name__)

SOURCE = source_digest()
"""Read with the source itself: runs of a pool are trained by what the pool imported, whatever is edited since."""


class UntoldError(UserError):
    """What ended a run, where its status file cannot be written to say it."""


class Stopped(BaseException):
    """End in good order: SIGTERM, Ctrl-C, a closed terminal. Not an Exception, so that nothing calls it a failure."""


def run_point(sweep: Sweep, threads: int) -> Status:
    """Train the first run of the plan, unless it is finished. Whatever happens is recorded in its status file.

    Raises RunBusyError where another process trains it, Replaced where one has taken over, and again whatever
    ended the run; UntoldError where the status file cannot be written.
    """
    run = sweep.plan.runs[0]
    try:
        with sweep.run_folder(run).held(gone) as folder:
            return _unless_finished(folder, sweep, run, threads)
    except Replaced as replaced:
        log.warning("%s", replaced)
        raise


def gone(writer: Writer) -> bool:
    """Whether Slurm no longer counts on another writer. Of one outside Slurm its lock alone tells."""
    here = Writer.here()
    if not writer.job:
        return False
    if writer.job == here.job:
        return writer.restart < here.restart
    if shutil.which("squeue") is None:
        return True  # its folder was copied here from a cluster
    return not slurm.is_running(writer.job)


def _unless_finished(folder: RunFolder, sweep: Sweep, run: PlannedRun, threads: int) -> Status:
    status = folder.status()
    if status.state in FINAL:
        log.info("run %d is %s already", run.id, status.state)
        return status
    try:
        return _train(folder, sweep, run, threads)
    except Replaced:
        raise
    except Stopped:
        _say(folder, CANCELLED, INTERRUPTED)
        raise
    except BaseException as error:
        _say(folder, FAILED, in_words(error) or "".join(traceback.format_exception(error)).strip())
        raise


def _say(folder: RunFolder, state: str, error: str) -> None:
    try:
        folder.write_status(replace(folder.status(), state=state, message=error))
    except OSError as unwritable:
        raise UntoldError(error) from unwritable


def _train(folder: RunFolder, sweep: Sweep, run: PlannedRun, threads: int) -> Status:
    plan = sweep.plan
    sweep.refuse_source(SOURCE)
    config = plan.config_of(run)
    folder.write_config(config)
    folder.write_status(replace(folder.status(), state=RUNNING, epochs=config.epochs, message="", exit_code=None))
    device = choose_device(config.device)
    set_up(device, threads)
    cache = dataset.load(config.data, config.features, _LoggedProgress())
    parts = split.load_or_make(config.data, cache, sweep.splits)
    _log_data(config.data.split, parts)
    folder.write_provenance(
        {
            "commit": plan.commit.removesuffix("+"),
            "dirty": plan.commit.endswith("+"),
            "source": SOURCE,
            "plan_source": plan.source,
            "data": plan.data,
            "node": platform.node(),
            "device": describe(device),
            "versions": versions(),
        }
    )
    hparams = {key: plan.value(run, key) for key in plan.swept or ["dropout", "lr", "l2"]}
    plain = {key: value if isinstance(value, int | float) else shown(value) for key, value in hparams.items()}
    verdict = Halving(sweep, run.id, config.halving, config.epochs).reason_to_stop if config.halving else None
    with explain_out_of_memory(config):
        examples = trainer.load_examples(cache, parts, config.data.pool, device)
        return trainer.fit(folder, config, examples, device, plain, verdict)


def _log_data(kind: str, parts: split.Split) -> None:
    log.info("%d excerpts train, %d validate, split by %s", len(parts.train), len(parts.validation), kind)
    if kind == "all":
        log.warning("the validation excerpts are trained on too (data.split=all): val/... does not tell how good it is")
    elif parts.leaking:
        log.warning(
            "this split leaks: %.1f %% of the validation excerpts have a sibling of the same recording in training, "
            "so accuracies are optimistic; data.split=recording keeps recordings apart",
            100 * parts.leaking,
        )


class _LoggedProgress(Silent):
    """Progress in the run's log: one line per task."""

    def start(self, task: str, total: int, unit: str = "excerpts") -> None:
        log.info("%s: %d %s", task, total, unit)


def start() -> None:
    """For a process of its own: lines to stdout, and an orderly stop by SIGTERM, Ctrl-C or a closed terminal."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stdout,
        force=True,
    )
    logging.captureWarnings(True)

    endings = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def stop(number: int, frame: object) -> None:
        for ending in endings:  # once: a second one would interrupt the last words
            signal.signal(ending, signal.SIG_IGN)
        raise Stopped

    for ending in endings:
        signal.signal(ending, stop)


def main() -> None:
    parser = Parser("irmas.sweep.train_run", "Train one run of a plan.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("id", type=int, help="the run's number, from 1")
    parser.add_argument("--threads", type=int, default=cpu_count(), help="CPU threads (default: all cores)")
    with report_errors("irmas.sweep.train_run"):
        arguments = parser.parse_args()
        start()
        try:
            sweep = Sweep.open(arguments.sweep, [arguments.id])
            if not sweep.plan.runs:
                raise UserError(f"{sweep}: has no run {arguments.id}")
            run_point(sweep, arguments.threads)
        except Stopped:
            sys.exit(INTERRUPTED)
        except Replaced:
            sys.exit(REPLACED)


if __name__ == "__main__":
    main()
