"""What all doors share: a user's mistake is one message on stderr and exit code 2."""

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
    """Of `python -m <door>`. A wrong call is a mistake like any other: parse inside of `report_errors`."""

    def __init__(self, command: str, description: str, epilog: str | None = None) -> None:
        formatter = argparse.HelpFormatter if epilog is None else argparse.RawDescriptionHelpFormatter
        super().__init__(
            prog=f"python -m {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=formatter,
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
def report_errors(door: str, stopped: str = "stopped") -> Iterator[None]:
    """End the process with 2 after what a user can mend, told without a traceback; with 130 after Ctrl-C."""
    # Where HOME cannot be written, it would tell each time that it looks for fonts anew.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        try:
            os.getcwd()  # noqa: PTH109  its error names no file
        except FileNotFoundError:
            raise UserError("the folder that this was started in is gone; cd to another") from None
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # as in `| head`; what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, OSError) as error:
        message = in_words(error)
        if message is None and isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message = "what it prints cannot be written: no space left on device"
        if message is None:
            raise
        print(f"{door}: {message}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\n{door}: {stopped}", file=sys.stderr)  # noqa: T201
        raise SystemExit(130) from None
