"""Markdown and HTML of the report: counts and foreign text in Markdown, and the Markdown as one HTML page."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irmas.config import shown

NONE = "-"
PLOTS = "plots"
"""Name of the folder of the pictures, beside the report."""

TEMPLATES = Path(__file__).parent


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
    return render("report.html.j2", title=title[1] if title else "", body=body)


def render(template: str, **values: Any) -> str:
    """Return a template of this package, filled with these values, which escape foreign text themselves."""
    from jinja2 import Environment, StrictUndefined

    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = Environment(undefined=StrictUndefined, autoescape=False, **options)  # noqa: S701
    return environment.from_string((TEMPLATES / template).read_text()).render(values)
