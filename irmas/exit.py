"""Shared by all commands: a user's mistake is one message on stderr and exit code 2."""

from __future__ import annotations

import argparse
import errno
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from irmas.errors import UserError, in_words


class Parser(argparse.ArgumentParser):
    """The parser of `python -m <command>`. A wrong call is a mistake like any other: parse inside `report_errors`."""

    def __init__(
        self, command: str, description: str = "", epilog: str | None = None, *, add_help: bool = True
    ) -> None:
        super().__init__(
            prog=f"python -m {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            add_help=add_help,
            formatter_class=argparse.HelpFormatter if epilog is None else argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help shows what it takes")


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a type for an option's value, a number from `low` to `high`; others are refused."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text}: must be a number from {low:g} to {high:g}")
        return value

    return parse


@contextmanager
def report_errors(command: str, stopped: str = "stopped") -> Iterator[None]:
    """End the process with 2 after an error that a user can mend, with one message and no traceback; with 130 after
    Ctrl-C."""
    # Where HOME cannot be written, matplotlib would log each time that it builds its font cache.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        try:
            os.getcwd()  # noqa: PTH109  its error names no file
        except FileNotFoundError:
            raise UserError("the current directory no longer exists; cd to another") from None
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # as in `| head`; the rest of the buffer is discarded
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, OSError) as error:
        message = in_words(error)
        if message is None and isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message = "the output cannot be written: no space left on device"
        if message is None:
            raise
        print(f"{command}: {message}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\n{command}: {stopped}", file=sys.stderr)  # noqa: T201
        raise SystemExit(130) from None
