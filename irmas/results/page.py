"""How the report is written: numbers, foreign text and tables in Markdown, and the Markdown as one HTML page."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from irmas.config import shown

if TYPE_CHECKING:  # scipy takes half a second to import, and doors count things too
    from irmas.results.bootstrap import Interval

NONE = "-"
PLOTS = "plots"
"""The folder of the pictures, beside the report."""

CSS = """
:root { color-scheme: light; }
body { max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #262c38; background: #fff;
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1, h2, h3 { line-height: 1.25; break-after: avoid; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid #c9cdd4; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #c9cdd4; vertical-align: bottom; }
td { white-space: nowrap; }
th { border-bottom-color: #262c38; }
img { max-width: 100%; }
code { font-size: 0.875rem; overflow-wrap: anywhere; }
pre { padding: 0.7rem; background: #f3f4f6; white-space: pre-wrap; }
@media print {
  @page { margin: 18mm; }
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  table { display: table; font-size: 8.5pt; }
  th, td { padding: 0.15rem 0.4rem; }
  table, tr, img, pre { break-inside: avoid; }
}
"""


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def whole_percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def points(difference: float) -> str:
    """Percentage points."""
    return f"{100 * difference:.2f} point{'' if round(100 * difference, 2) == 1 else 's'}"


def between(interval: Interval) -> str:
    """In a sentence; its unit is that of the number before it."""
    return f"95 % interval {100 * interval.low:.2f} to {100 * interval.high:.2f}"


def in_cell(value: float, interval: Interval | None) -> str:
    """In a table, in per cent or points, as its heading says."""
    found = f"{100 * value:.2f}"
    return f"{found} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]" if interval else found


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def p_in_cell(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def yes_no(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "not known"}[value]


def counted(n: int, one: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{n} {one}" + "s" * (n != 1)


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plain(value: Any) -> str:
    """A setting's value as plain text, whatever is in it: a path may hold what Markdown and HTML would read."""
    return re.sub(r"[\\`*_<>&|()~]", lambda found: f"&#{ord(found[0])};", shown(value))


def setting(key: str, value: Any) -> str:
    """`lr 0.001`, `model=deep`: a word needs more than a space to be told from its key."""
    return f"{key}{'=' if isinstance(value, str) else ' '}{plain(value)}"


def code(text: str) -> str:
    """A line of foreign text, as it is: within backquotes nothing is read as Markdown or HTML."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """The first `left` columns are text, the others numbers."""
    rule = [":---" if column < left else "---:" for column in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def picture(name: str, pictures: Iterable[str], alternative: str) -> list[str]:
    """Where there is such a picture."""
    return [f"![{alternative}]({PLOTS}/{name})"] if name in pictures else []


def html(markdown_text: str, pictures: Mapping[str, bytes]) -> str:
    """One page that needs nothing else: the pictures, PNG by their file name, are in it.

    Raises KeyError where one of them is missing.
    """
    import markdown

    body = markdown.markdown(markdown_text, extensions=["tables", "fenced_code"])
    body = re.sub(r"(?<=\d) %", "&nbsp;%", body)
    title = re.search(r"<h1>(.*?)</h1>", body)

    def embedded(source: re.Match[str]) -> str:
        png = base64.b64encode(pictures[source[2].removeprefix(f"{PLOTS}/")]).decode()
        return f'{source[1]}src="data:image/png;base64,{png}"'

    body = re.sub(r'(<img [^>]*?)src="([^"]*)"', embedded, body)
    return (
        '<!DOCTYPE html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title[1] if title else ''}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
