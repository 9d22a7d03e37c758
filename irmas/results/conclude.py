"""What a ranking leads to, on disk: report, pictures, and the winner's settings."""

from __future__ import annotations

from pathlib import Path

from irmas.files import atomic_write
from irmas.results import best, dashboard, page, plots, report
from irmas.results.outcomes import Confusion
from irmas.results.page import PLOTS
from irmas.results.ranking import Ranking
from irmas.results.statistics import Analysis

REPORT, PAGE = "report.md", "report.html"


def write(sweep: Path, ranking: Ranking, analysis: Analysis | None, confusion: Confusion | None) -> Path:
    """The report's page. The same ranking writes the same bytes. Raises OSError, with the file's path.

    `analysis` is None where no run has finished, `confusion` where the leader's predictions are missing.
    """
    pictures = {}
    if analysis and len(analysis.points) > 1:
        pictures = plots.draw(ranking, analysis, confusion)
    folder = sweep / PLOTS
    folder.mkdir(exist_ok=True)
    for stale in set(folder.glob("*.png")) - {folder / name for name in pictures}:
        stale.unlink()
    for name, png in pictures.items():
        atomic_write(folder / name, png)
    if pictures:
        dashboard.write(sweep, pictures)
    text = report.markdown(ranking, analysis, confusion, list(pictures))
    atomic_write(sweep / REPORT, text)
    atomic_write(sweep / PAGE, page.html(text, pictures))
    if analysis:
        atomic_write(sweep / best.BEST, best.text(ranking, analysis))
    return sweep / PAGE
