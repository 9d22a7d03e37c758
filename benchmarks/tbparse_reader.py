"""The peer of reading.py, in its own interpreter: all scalars of a folder with tbparse.

python tbparse_reader.py FOLDER TOTAL
"""

from __future__ import annotations

import sys

from rounds import serve
from tbparse import SummaryReader


def read(folder: str, total: int) -> None:
    scalars = SummaryReader(folder, event_types={"scalars"}).scalars
    assert len(scalars) == total, len(scalars)


def main() -> None:
    folder, total = sys.argv[1:]
    serve(lambda: read(folder, int(total)))


if __name__ == "__main__":
    main()
