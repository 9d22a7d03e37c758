"""The report's tables and how it was measured, for a paper: text that LaTeX inputs, with the package booktabs."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

WIDEST = 50
"""Most characters of a column whose lines do not wrap."""
MEASURED = "How this was measured"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "…": r"\dots{}",
    "[": "{[}",  # at the start of a row it would be an argument of the row before
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """Return plain text as LaTeX shows it."""
    return "".join(SPECIAL.get(character, character) for character in text)


def inline(text: str) -> str:
    r"""Return a line of the report's Markdown: `code`, **bold** and character references; 5 % does not break."""
    parts = []
    for part in re.split(r"(\*\*.+?\*\*|`.+?`)", text):
        command, inside = ("", part)
        if part.startswith("**"):
            command, inside = r"\textbf", part[2:-2]
        elif part.startswith("`"):
            command, inside = r"\texttt", part[1:-1]
        plain = escaped(inside if command == r"\texttt" else html.unescape(inside))
        plain = re.sub(r"(?<=\d) (?=\\%)", "~", plain)
        parts.append(f"{command}{{{plain}}}" if command else plain)
    return "".join(parts)


def tables(report: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield the heading of each table of a report, and the table; its caption ends with the paragraph below it."""
    for section in re.split(r"^## ", report, flags=re.MULTILINE)[1:]:
        heading, _, rest = section.partition("\n")
        blocks = rest.strip().split("\n\n")
        for block, following in zip(blocks, [*blocks[1:], ""], strict=True):
            if block.startswith("|"):
                is_note = not re.match(r"[|!#-]|```", following) and not following.endswith(":")
                caption = f"{inline(heading)} of the sweep {escaped(name)}."
                caption += f" {inline(following.splitlines()[0])}" if is_note and following else ""
                yield heading, table(block.splitlines(), caption, f"{name} {heading}")


def table(lines: Sequence[str], caption: str, label: str) -> str:
    """Return lines of a Markdown table as a floating table."""
    head, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    cells = [[inline(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    kinds = ["r" if cell.endswith(":") else "l" for cell in rule]
    columns = [r"p{0.6\linewidth}" if width > WIDEST else kind for kind, width in zip(kinds, widths, strict=True)]
    first, *others = [f"    {' & '.join(row)} \\\\" for row in cells]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{caption}}}",
            f"  \\label{{tab:{re.sub(r'[^a-z0-9]+', '-', label.lower())}}}",
            f"  \\begin{{tabular}}{{{''.join(columns)}}}",
            *(r"    \toprule", first, r"    \midrule", *others, r"    \bottomrule"),
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def measured(report: str) -> str:
    """Return the report's section on how it was measured as a paragraph."""
    _, _, rest = report.partition(f"## {MEASURED}\n")
    text = re.split(r"^## ", rest, flags=re.MULTILINE)[0]
    return f"\\paragraph{{{MEASURED}}}\n" + "\n".join(inline(line) for line in text.strip().splitlines()) + "\n"
