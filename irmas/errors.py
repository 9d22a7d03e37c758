"""The errors that a user can fix, and how a command ends on them: one message on stderr, exit code 2."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, NoReturn

from irmas import leave

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

REPEATED_S = 0.1
"""Seconds after which a dropped KeyboardInterrupt is raised again."""


class UserError(Exception):
    """A mistake of the user's; the message names what was wrong and what is allowed."""


class ConfigError(UserError):
    """A setting with a wrong name, type or value; `value` is as on the command line."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}={value}: {allowed}")
        self.key, self.value, self.allowed = key, value, allowed


class DataError(UserError):
    """A data set or feature cache that is missing, damaged or does not fit."""


class RunFailedError(Exception):
    """Stands for the accuracy of a failed run in the results that a sweeper reads."""


def in_words(error: BaseException) -> str | None:
    """Return the message of an error that a user can fix; None where only a traceback helps."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, which may show a whole file."""
    return (str(error) or repr(error)).splitlines()[0]


class Parser(argparse.ArgumentParser):
    """The parser of `python -m <command>`. It raises UserError after a wrong call: parse inside `report_errors`."""

    def __init__(self, command: str, description: str = "", epilog: str = "", *, add_help: bool = True) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        about = f"python -m {command}", None, description, epilog
        super().__init__(*about, formatter_class=formatter, allow_abbrev=False, add_help=add_help)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help shows what it takes")


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in the block, which has work to undo; elsewhere it ends a command at once."""
    if signal.getsignal(signal.SIGINT) is not leave:
        yield
        return
    hook = sys.unraisablehook
    sys.unraisablehook = _show_no_interrupt
    signal.signal(signal.SIGALRM, _repeat)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, leave)
        sys.unraisablehook = hook


def _interrupt(number: int, frame: object) -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, REPEATED_S, REPEATED_S)
    raise KeyboardInterrupt


def _repeat(number: int, frame: object) -> None:
    """Raise a KeyboardInterrupt again that was dropped: in a callback of Python's, or by a library while it imports."""
    error = sys.exception()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    if error is None:
        raise KeyboardInterrupt


def _show_no_interrupt(dropped: UnraisableHookArgs) -> None:
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)


@contextmanager
def report_errors(command: str, stopped: str = "stopped", *, starting: bool = False) -> Iterator[None]:
    """End the process with 2 and one message after an error that a user can fix, with 130 after Ctrl-C.

    The block is `interruptible`, unless it is `starting` alone and marks what is by itself.
    """
    # Where HOME cannot be written, matplotlib would log each time that it builds its font cache.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        with nullcontext() if starting else interruptible():
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
        # After a KeyboardInterrupt in a string's code, such as that of a dataclass, Python ends by SIGINT instead.
        exec("")  # noqa: S102
        raise SystemExit(130) from None
