"""Markdown and HTML of the report: counts and foreign text in Markdown, and the Markdown as one HTML page."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

from irmas.config import shown

NONE = "-"
PLOTS = "plots"
"""Name of the folder of the pictures, beside the report."""

CSS = """
:root { color-scheme: light; }
body { max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #262c38; background: #fff;
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1, h2, h3 { line-height: 1.25; break-after: avoid; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid #c9cdd4; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.45rem; border-bottom: 1px solid #c9cdd4; vertical-align: bottom; }
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


def counted(n: int, one: str) -> str:
    """Return `1 run`, `3 runs`."""
    return f"{n} {one}" if n == 1 else f"{n} {one}s"


def listed(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plain(value: Any) -> str:
    """Return a setting's value as plain text: a path may hold characters that are special in Markdown or HTML."""
    return re.sub(r"[\\`*_<>&|()~]", lambda match: f"&#{ord(match[0])};", shown(value))


def setting(key: str, value: Any) -> str:
    """Return `lr 0.001`, or `model=deep` where the value is a word."""
    return f"{key}{'=' if isinstance(value, str) else ' '}{plain(value)}"


def code(text: str) -> str:
    """Return a line of foreign text within backquotes, where nothing is special in Markdown or HTML."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def html(markdown_text: str, pictures: Mapping[str, bytes]) -> str:
    """Return one self-contained page, which includes the pictures, PNG by file name.

    Raises KeyError where a picture of the text is missing.
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
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title[1] if title else ''}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
