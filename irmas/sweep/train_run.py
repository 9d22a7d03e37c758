"""Train one planned run of a sweep, from its configuration to its final state.

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
from irmas.console import ConsoleProgress, plain_console
from irmas.data import dataset, split
from irmas.errors import Parser, UserError, in_words, report_errors
from irmas.learning import trainer
from irmas.learning.device import choose_device, describe, explain_out_of_memory, set_up
from irmas.learning.learner import load_examples
from irmas.processes import cpu_count
from irmas.provenance import source_digest, versions
from irmas.run.folder import CANCELLED, FAILED, FINAL, INTERRUPTED, RUNNING, RunFolder, Status
from irmas.run.lease import LEASE_LOST, LeaseLost, Writer
from irmas.sweep import adaptive, jobs, slurm
from irmas.sweep.plan import PlannedRun
from irmas.sweep.pruning import Halving
from irmas.sweep.sweep import Sweep

log = logging.getLogger(__name__)

source_digest()  # reads the source at import: a process trains with what it has imported, whatever is edited since


class Interrupted(BaseException):
    """SIGTERM, Ctrl-C or a closed terminal. No failure, hence no Exception."""


def train(sweep: Sweep, threads: int, at_once: int = 1, per_gpu: int = 1) -> Status:
    """Train the first run of the plan, unless it is finished, and record in its status file how it ended.

    `at_once` is the number of runs that use the same memory, `per_gpu` of those that use the same GPU.
    Raises RunBusyError if another process trains it, LeaseLost if one has taken over, and otherwise what ended the run:
    Interrupted, UserError or any other error; as a UserError if the status file cannot be written.
    """
    run = sweep.plan.runs[0]
    with sweep.run_folder(run).acquire(lambda rival: is_stale(rival, jobs.recorded_cluster(sweep))) as folder:
        status = folder.status()
        if status.state in FINAL:
            log.info("run %d is %s already", run.id, status.state)
            return status
        try:
            return _train(folder, sweep, run, threads, at_once, per_gpu)
        except LeaseLost:
            raise
        except BaseException as error:
            _record_end(folder, error)
            raise


def is_stale(writer: Writer, cluster: str = "") -> bool:
    """Return whether Slurm has given up on another writer, in a job of `cluster`; empty: that of this machine.

    One outside Slurm is stale only if its lock is free.
    """
    here = Writer.here()
    if not writer.job:
        return False
    if writer.job == here.job:
        return writer.restart < here.restart
    # Without Slurm, the folder was copied here from a cluster.
    if shutil.which("squeue") is None:
        return True
    with slurm.on_cluster(cluster):
        return not slurm.is_running(writer.job)


def _record_end(folder: RunFolder, error: BaseException) -> None:
    """Write what ended the run into its status file; raise it as a UserError where that cannot be written."""
    state, message = FAILED, in_words(error) or "".join(traceback.format_exception(error)).strip()
    if isinstance(error, Interrupted):
        state, message = CANCELLED, INTERRUPTED
    try:
        folder.write_status(replace(folder.status(), state=state, message=message))
    except OSError as unwritable:
        raise UserError(message) from unwritable


def _train(folder: RunFolder, sweep: Sweep, run: PlannedRun, threads: int, at_once: int, per_gpu: int) -> Status:
    plan = sweep.plan
    source = source_digest(plan.builders)
    sweep.refuse_source(source)
    run = adaptive.with_point(folder, sweep, run)
    config = plan.config_of(run)
    folder.write_config(config)
    folder.write_status(replace(folder.status(), state=RUNNING, epochs=config.epochs, message="", exit_code=None))
    device = choose_device(config.device)
    set_up(device, threads)
    cache = dataset.load(config.data, config.features, ConsoleProgress(plain_console()))
    parts = split.load_or_make(config.data, cache, sweep.splits)
    _log_data(config.data.split, parts)
    origin = {"commit": plan.commit.removesuffix("+"), "dirty": plan.commit.endswith("+"), "source": source}
    origin |= {"plan_source": plan.source, "data": plan.data, "node": platform.node(), "device": describe(device)}
    folder.write_provenance(origin | {"train_excerpts": len(parts.train), "versions": versions()})
    settings = {key: plan.value(run, key) for key in plan.swept or ["dropout", "lr", "l2"]}
    hparams = {key: value if isinstance(value, int | float) else shown(value) for key, value in settings.items()}
    prune = Halving(sweep, run.id, config.halving, config.epochs).reason_to_stop if config.halving else None
    with explain_out_of_memory(config, at_once, per_gpu):
        examples = load_examples(cache, parts, config.data.pool, device)
        return trainer.fit(folder, config, examples, device, hparams, prune)


def _log_data(kind: str, parts: split.Split) -> None:
    log.info("%d excerpts train, %d validate, split by %s", len(parts.train), len(parts.validation), kind)
    if kind == "all":
        log.warning("the validation excerpts are trained on too (data.split=all): val/... does not show how good it is")
    elif parts.leaking:
        log.warning(
            "this split leaks: %.1f %% of the validation excerpts have a sibling of the same recording in training, "
            "so accuracies are optimistic; data.split=recording keeps recordings apart",
            100 * parts.leaking,
        )


def start() -> None:
    """Set up a process of its own: log lines to stdout; SIGTERM, Ctrl-C and a closed terminal raise Interrupted.

    A signal that was ignored when the command began, as nohup does with a closed terminal, stays ignored.
    """
    line = "%(asctime)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=line, datefmt="%H:%M:%S", stream=sys.stdout, force=True)
    logging.captureWarnings(True)
    signals = [
        number
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]

    def interrupt(number: int, frame: object) -> None:
        for one in signals:  # a second one would interrupt the writing of the status
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted

    for one in signals:
        signal.signal(one, interrupt)


def main() -> None:
    parser = Parser("irmas.sweep.train_run", "Train one run of a sweep.")
    parser.add_argument("sweep", type=Path, metavar="outputs/<name>")
    parser.add_argument("id", type=int, help="the run's ID, from 1")
    parser.add_argument("--threads", type=int, default=cpu_count(), help="CPU threads (default: all cores)")
    with report_errors("irmas.sweep.train_run"):
        args = parser.parse_args()
        start()
        try:
            sweep = Sweep.open(args.sweep, [args.id])
            if not sweep.plan.runs:
                raise UserError(f"{sweep}: has no run {args.id}")
            train(sweep, args.threads)
        except Interrupted:
            sys.exit(INTERRUPTED)
        except LeaseLost as error:
            log.warning("%s", error)
            sys.exit(LEASE_LOST)


if __name__ == "__main__":
    main()
