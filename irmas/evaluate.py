"""Tests a trained model by IRMAS's own protocol: `python -m irmas.evaluate outputs/<name> standin`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from irmas.console import ConsoleProgress, counted, plain_console, plain_table, print_table
from irmas.data.cache import SETTINGS
from irmas.errors import UserError, report_errors
from irmas.evaluation import evaluator, testset
from irmas.evaluation.evaluator import DROP, MIXED, Evaluation, Options
from irmas.evaluation.protocol import MAX, MEAN, ORACLE, TUNED, Metric, RuleMetrics
from irmas.files import FIGURES, VECTOR, obstacle
from irmas.inference.recognizer import Recognizer
from irmas.labels import INSTRUMENTS
from irmas.learning.device import set_up
from irmas.predict import model_parser, number
from irmas.standin.corpus import render_test_part

STANDIN = "standin"
STANDIN_FOLDER = Path("data/standin")
DEFAULT_THRESHOLD = 0.5


def main() -> None:
    parser = model_parser("irmas.evaluate", "Test a trained model by IRMAS's own protocol.")
    add = parser.add_argument
    data = "test parts (wav and txt), a folder with one subfolder per class, a feature cache, or `standin` (rendered)"
    add("data", nargs="+", metavar="DATA", help=data)
    method = "an excerpt's scores: mean of its windows; max: their sum, over that of the highest class (default: mean)"
    add("--aggregate", choices=(MEAN, MAX), default=MEAN, help=method)
    threshold = f"the fixed threshold (default: {DEFAULT_THRESHOLD})"
    add("--threshold", type=number(0.001, 1), default=DEFAULT_THRESHOLD, metavar="T", help=threshold)
    add("--damaged", choices=("refuse", DROP), default="refuse", help="files that cannot be used (default: refuse)")
    add("--figures", nargs="+", choices=VECTOR, default=[], help=FIGURES)
    out = "for the results (default: evaluation/<name of DATA> in MODEL's folder)"
    add("--out", type=Path, metavar="FOLDER", help=out)
    with report_errors("irmas.evaluate"):
        evaluate(parser.parse_args())


def evaluate(args: Namespace) -> None:
    """Evaluate the model on the data, write the results, and print them.

    Raises UserError if the model, the data and the options do not fit together, or if nothing can be written.
    """
    caches = [data for data in args.data if (Path(data) / SETTINGS).exists()]
    if caches and (args.window or args.hop):
        option = "--window" if args.window else "--hop"
        raise UserError(f"{option}: {caches[0]} is a feature cache, which holds one log-mel per excerpt")
    set_up(torch.device("cpu"), threads=1)
    recognizer = Recognizer.load([args.model, *args.others], args.window, args.hop)
    files = [net.file for net in recognizer.nets if net.file is not None]
    if len(files) < len(recognizer.nets):
        raise UserError("an exported net does not record what it was trained on: evaluate the model.pt that it is of")
    console = plain_console()
    progress = ConsoleProgress(console)
    sources = dict.fromkeys(args.data)
    paths = [render_test_part(STANDIN_FOLDER, progress) if source == STANDIN else Path(source) for source in sources]
    data = testset.read(paths, files)
    home = args.model if args.model.is_dir() else args.model.parent
    folder = args.out or home / "evaluation" / _results_name(paths, args)
    if reason := obstacle(folder):
        raise UserError(f"{folder}: {reason}; --out FOLDER writes elsewhere")
    options = Options(args.aggregate, args.threshold, args.damaged)
    result = evaluator.evaluate(recognizer, files, data, options, folder, progress)
    written = evaluator.write(folder, result, args.figures)
    _print(console, result)
    console.print(f"\nwritten: {' '.join(map(str, written))}")
    if any(metrics.rule.name == TUNED for metrics in result.rules):
        console.print(f"mixtures: {folder / MIXED}")


def _results_name(paths: Sequence[Path], args: Namespace) -> str:
    """Return the name of the results folder, with the options that differ from their defaults."""
    threshold = None if args.threshold == DEFAULT_THRESHOLD else args.threshold
    changed = {"window": args.window, "hop": args.hop, "with": len(args.others) or None, "threshold": threshold}
    parts = [f"{key}={value:g}" for key, value in changed.items() if value is not None]
    if args.aggregate == MAX:
        parts.append(MAX)
    return ",".join(["+".join(path.resolve().name for path in paths), *parts])


def _print(console: Console, result: Evaluation) -> None:
    data, recognizer, reported = result.data, result.recognizer, result.reported
    averaged = f"{len(recognizer.names)} nets, averaged:\n  " if len(recognizer.names) > 1 else ""
    console.print("\n" + averaged + "\n  ".join(recognizer.names))
    summary = f"{data}: {counted(len(result.excerpts), 'excerpt')} of {counted(result.sources, data.source)}"
    if data.is_multi_label:
        labels = int(result.scored.truth.sum())
        summary += f", {labels} labels, {labels / len(result.excerpts):.1f} per excerpt"
    console.print(summary)
    if data.features is None:
        is_mean = result.options.aggregate == MEAN
        method = "mean of their scores" if is_mean else "their sum over that of the highest class"
        console.print(f"windows of {recognizer.window_s:g} s every {recognizer.hop_s:g} s, {method}")
    console.print()
    print_table(console, _rule_table(result))
    value, interval = _cells(result.ranking_precision)
    interval = f", 95 % interval {interval}" if result.ranking_precision.interval else ""
    console.print(f"\nLRAP {value}{interval}: of the classes' order, without threshold\n")
    if (threshold := reported.rule.threshold) is not None:
        console.print(f"by class, at the threshold {threshold:.3f} ({reported.rule.name}):\n")
    print_table(console, _class_table(reported))
    for remark in result.remarks():
        console.print(f"\n{remark}", style="yellow")


def _rule_table(result: Evaluation) -> Table:
    """Return the metrics of each rule; for one label, micro F1, precision and recall are all equal to the accuracy."""
    if not result.data.is_multi_label:
        headings = ["named", "accuracy", "95 % interval", "macro F1", "95 % interval"]
        rows = [[rule.rule.name, *_cells(rule.micro_f1), *_cells(rule.macro_f1)] for rule in result.rules]
        return plain_table(headings, rows, left=headings[:1])
    headings = ["threshold", "value", "micro F1", "95 % interval", "macro F1", "95 % interval", "precision", "recall"]
    rows = []
    for metrics in result.rules:
        name = metrics.rule.name
        if name == ORACLE:
            name = "oracle (chosen on this very data: optimistic)"
        f1 = [*_cells(metrics.micro_f1), *_cells(metrics.macro_f1)]
        rows.append([name, f"{metrics.rule.threshold:.3f}", *f1, f"{metrics.precision:.3f}", f"{metrics.recall:.3f}"])
    return plain_table(headings, rows, left=headings[:1])


def _class_table(metrics: RuleMetrics) -> Table:
    headings = ["class", "instrument", "excerpts", "precision", "recall", "F1", "95 % interval"]
    rows = []
    for entry in metrics.classes:
        values = [f"{entry.precision:.3f}", f"{entry.recall:.3f}", *_cells(entry.f1)] if entry.support else ["-"] * 4
        rows.append([entry.label, INSTRUMENTS.get(entry.label, ""), str(entry.support), *values])
    return plain_table(headings, rows, left=headings[:2])


def _cells(metric: Metric) -> tuple[str, str]:
    """Return a metric's value and its interval."""
    interval = metric.interval
    return f"{metric.value:.3f}", f"{interval.low:.3f} - {interval.high:.3f}" if interval else "-"


if __name__ == "__main__":
    main()
