"""Tunes a predominant-instrument recogniser for IRMAS with sweeps on a Slurm cluster."""

import os
import sys
from _signal import SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]  # imported already

__version__ = "0.1.0"


def leave(number: int, frame: object) -> None:
    """End this process at once, with the exit code of Ctrl-C: nothing has begun that would have to be undone."""
    os._exit(130)


# A command and no program that imports the package: while it starts, a KeyboardInterrupt would end in tracebacks of
# half imported modules or, raised in a callback of Python's, be lost. `errors.interruptible` ends this.
if os.path.basename(sys.argv[0]) in ("-m", "irmas") and getsignal(SIGINT) is default_int_handler:  # noqa: PTH119
    signal(SIGINT, leave)
