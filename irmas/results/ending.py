"""The end of a ranking job: its name in Slurm carries the sweep's state, and a program receives a summary."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from irmas.console import plain_console, print_table
from irmas.processes import current_task
from irmas.results import ranking
from irmas.results.ranking import Ranking
from irmas.sweep import jobs, slurm
from irmas.sweep.jobs import RANKING
from irmas.sweep.slurm import SlurmError
from irmas.sweep.sweep import Sweep

TOP = 5
"""Rows of the ranking in a summary."""
LIMIT_S = 60.0
"""Time after which the program is killed."""


def announce(result: Ranking, program: Sequence[str]) -> None:
    """Rename the Slurm job of this process, if it is the sweep's ranking job, and run the program, if there is one.

    A program that fails is named on stderr, and changes nothing else: the ranking is written.
    """
    with suppress(SlurmError):  # the name is a convenience
        _rename_job(result.sweep, states(result))
    if program:
        sys.stdout.flush()
        if reason := _run(program, summary(result)):
            sys.stderr.write(f"{result.sweep}: at_end: {program[0]}: {reason}\n")


def states(result: Ranking) -> str:
    """Return `17 COMPLETED 1 FAILED`, the most frequent state first."""
    return " ".join(f"{count} {state}" for state, count in Counter(run.state for run in result.runs).most_common())


def summary(result: Ranking) -> str:
    """Return the states, the first rows of the ranking and the path of the report."""
    console = plain_console()
    with console.capture() as capture:
        print_table(console, ranking.table(result))
    ranked = sum(run.rank is not None for run in result.runs)
    rows = capture.get().splitlines()[: 1 + min(TOP, ranked)] if ranked else ["no run is ranked"]
    lines = [f"{result.sweep}: {states(result)}", "", *rows, "", f"report: {result.sweep.page.absolute()}"]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _rename_job(sweep: Sweep, text: str) -> None:
    """Append a text to the name of the job, also in its record: a job counts as the sweep's by number and name."""
    task, name = current_task(), jobs.job_name(RANKING, sweep)
    if not task.job or task.name.partition(":")[0] != name:  # started by hand, or in an interactive job
        return
    if slurm.rename(task.job, f"{name}: {text}"):
        for record in jobs.recorded_jobs(sweep):
            if record.job == task.job:
                jobs.record_job(sweep, replace(record, name=f"{name}: {text}"))


def _run(program: Sequence[str], text: str) -> str:
    """Run a program without a shell, with the text on its stdin; return why it failed, empty if it did not."""
    try:
        done = subprocess.run([*program], input=text, text=True, timeout=LIMIT_S, check=False)
    except OSError as error:
        return error.strerror or repr(error)
    except subprocess.TimeoutExpired:
        return f"did not end within {LIMIT_S:g} s"
    return f"ended with {done.returncode}" if done.returncode else ""
