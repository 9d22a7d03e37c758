"""Tests a trained model by IRMAS's own protocol: `python -m irmas.evaluate outputs/<name> standin`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from irmas.console import ConsoleProgress, plain_console, plain_table, print_table
from irmas.data.cache import SETTINGS
from irmas.errors import UserError
from irmas.evaluation import evaluator, testset
from irmas.evaluation.evaluator import DROP, MIXED, Evaluation, Settings
from irmas.evaluation.protocol import MAX, MEAN, MIXTURES, ORACLE, Figure, Judgement
from irmas.exit import Parser, report_errors
from irmas.files import obstacle
from irmas.inference import models
from irmas.inference.recognizer import Recognizer, TorchNet
from irmas.inference.windows import LONGEST_WINDOW_S, SHORTEST_HOP_S, SHORTEST_WINDOW_S
from irmas.labels import INSTRUMENTS
from irmas.learning.device import set_up
from irmas.results.page import counted
from irmas.standin import songs

STANDIN = "standin"
FIXED_AT = 0.5
STANDIN_FOLDER = Path("data/standin")


def main() -> None:
    parser = _parser()
    with report_errors("irmas.evaluate"):
        _evaluate(parser.parse_args())


def _parser() -> Parser:
    parser = Parser("irmas.evaluate", "Test a trained model by IRMAS's own protocol.")
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a sweep (its winner), a run, or a model.pt")
    what = "test parts (wav and txt), a folder with a subfolder a class, a feature cache, or `standin`: a rendered part"
    add("data", nargs="+", metavar="DATA", help=what)
    more = "average with this model too; may be given several times"
    add("--with", dest="others", type=Path, action="append", default=[], metavar="MODEL", help=more)
    add(
        "--window",
        type=_number(SHORTEST_WINDOW_S, LONGEST_WINDOW_S),
        metavar="S",
        help="seconds heard at once (default: as the training's excerpts)",
    )
    add(
        "--hop",
        type=_number(SHORTEST_HOP_S, LONGEST_WINDOW_S),
        metavar="S",
        help="seconds from window to window (default: half a window)",
    )
    how = "an excerpt's scores: the mean of its windows', or their sum over that of the highest class (default: mean)"
    add("--aggregate", choices=(MEAN, MAX), default=MEAN, help=how)
    add("--threshold", type=_number(0.001, 1), default=FIXED_AT, metavar="T", help="the fixed one (default: 0.5)")
    add("--damaged", choices=("refuse", DROP), default="refuse", help="files that cannot be used (default: refuse)")
    where = "for the results (default: evaluation/<name of DATA> in MODEL's folder)"
    add("--out", type=Path, metavar="FOLDER", help=where)
    return parser


def _number(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text}: must be a number from {least:g} to {most:g}")
        return value

    return read


def _evaluate(asked: argparse.Namespace) -> None:
    set_up(torch.device("cpu"), threads=1)
    recognizer = models.load([asked.model, *asked.others], asked.window)
    hop_s = asked.hop or recognizer.window_s / 2
    _refuse(asked, recognizer, hop_s)
    files = [net.file for net in recognizer.nets if isinstance(net, TorchNet)]
    if len(files) < len(recognizer.nets):
        raise UserError("an exported net does not tell what it was trained on: evaluate the model.pt that it is of")
    console = plain_console()
    progress = ConsoleProgress(console)
    paths = [
        songs.render(STANDIN_FOLDER, progress) if data == STANDIN else Path(data) for data in dict.fromkeys(asked.data)
    ]
    found = testset.read(paths, recognizer.classes, recognizer.nets, files)
    folder = asked.out or _home(asked.model) / "evaluation" / _name(paths, asked)
    if reason := obstacle(folder):
        raise UserError(f"{folder}: {reason}; --out FOLDER writes elsewhere")
    settings = Settings(hop_s, asked.aggregate, asked.threshold, asked.damaged)
    result = evaluator.evaluate(recognizer, files, found, settings, folder, progress)
    written = evaluator.write(folder, result, recognizer, settings)
    _print(console, result, recognizer, settings)
    console.print(f"\nwritten: {' '.join(map(str, written))}")
    if MIXTURES in (judgement.rule.name for judgement in result.judgements):
        console.print(f"mixtures: {folder / MIXED}")


def _refuse(asked: argparse.Namespace, recognizer: Recognizer, hop_s: float) -> None:
    if hop_s > recognizer.window_s:
        raise UserError(f"--hop {hop_s:g}: must be at most as long as a window, which is {recognizer.window_s:g} s")
    for name, net in zip(recognizer.names, recognizer.nets, strict=True):
        frames = replace(net.features, seconds=recognizer.window_s).n_frames
        if frames < net.pool:
            raise UserError(f"--window {asked.window:g}: is too short for {name}: {frames} frames, it takes {net.pool}")
    caches = [data for data in asked.data if (Path(data) / SETTINGS).exists()]
    if caches and (asked.window or asked.hop):
        given = "--window" if asked.window else "--hop"
        raise UserError(f"{given}: {caches[0]} is a feature cache, which holds one log-mel an excerpt")


def _name(paths: Sequence[Path], asked: argparse.Namespace) -> str:
    """Of the data, and of what differs from the defaults: comparing two ways must not cost the first one's results."""
    given = {"window": asked.window, "hop": asked.hop, "with": len(asked.others) or None}
    told = [f"{key}={value:g}" for key, value in given.items() if value is not None]
    told += [f"threshold={asked.threshold:g}"] * (asked.threshold != FIXED_AT) + [MAX] * (asked.aggregate == MAX)
    return ",".join(["+".join(path.resolve().name for path in paths), *told])


def _home(model: Path) -> Path:
    return model if model.is_dir() else model.parent


def _print(console: Console, result: Evaluation, recognizer: Recognizer, settings: Settings) -> None:
    found, chief = result.found, result.chief
    averaged = f"{len(recognizer.names)} nets, averaged:\n  " if len(recognizer.names) > 1 else ""
    console.print("\n" + averaged + "\n  ".join(recognizer.names))
    heard = f"{counted(len(result.excerpts), 'excerpt')} of {counted(result.sources, found.source)}"
    console.print(f"{found}: {heard}{_labels(result)}")
    if found.features is None:
        how = "mean of their scores" if settings.aggregate == MEAN else "their sum over that of the highest class"
        console.print(f"windows of {recognizer.window_s:g} s every {settings.hop_s:g} s, {how}")
    console.print()
    print_table(console, _rules(result))
    lrap = result.ranking_precision
    interval = f", 95 % interval {_interval(lrap)}" if lrap.interval else ""
    console.print(f"\nLRAP {_figure(lrap)}{interval}: of the classes' order, without threshold\n")
    if chief.rule.threshold is not None:
        console.print(f"by class, at the threshold {chief.rule.threshold:.3f} ({chief.rule.name}):\n")
    print_table(console, _classes(chief))
    for remark in result.remarks():
        console.print(f"\n{remark}", style="yellow")


def _labels(result: Evaluation) -> str:
    total = int(result.scored.truth.sum())
    return f", {total} labels, {total / len(result.excerpts):.1f} an excerpt" if result.found.is_multi_label else ""


def _rules(result: Evaluation) -> Table:
    """Where each excerpt has one label and one answer, micro F1, precision and recall are all the accuracy."""
    several = result.found.is_multi_label
    rows = []
    for judgement in result.judgements:
        rule = judgement.rule
        f1 = [cell(figure) for figure in (judgement.micro_f1, judgement.macro_f1) for cell in (_figure, _interval)]
        others = [f"{judgement.precision:.3f}", f"{judgement.recall:.3f}"] if several else []
        name = "oracle (chosen on this very data: optimistic)" if rule.name == ORACLE else rule.name
        rows.append([name, *([f"{rule.threshold:.3f}"] if rule.threshold is not None else []), *f1, *others])
    figures = ["micro F1" if several else "accuracy", "95 % interval", "macro F1", "95 % interval"]
    heads = ["threshold", "value", *figures, "precision", "recall"] if several else ["named", *figures]
    return plain_table(heads, rows, left=heads[:1])


def _classes(judgement: Judgement) -> Table:
    rows = [
        [of.label, INSTRUMENTS.get(of.label, ""), str(of.support)]
        + ([f"{of.precision:.3f}", f"{of.recall:.3f}", _figure(of.f1), _interval(of.f1)] if of.support else ["-"] * 4)
        for of in judgement.classes
    ]
    heads = ["class", "instrument", "excerpts", "precision", "recall", "F1", "95 % interval"]
    return plain_table(heads, rows, left=heads[:2])


def _figure(figure: Figure) -> str:
    return f"{figure.value:.3f}"


def _interval(figure: Figure) -> str:
    return f"{figure.interval.low:.3f} - {figure.interval.high:.3f}" if figure.interval else "-"


if __name__ == "__main__":
    main()
