"""Writes a trained net as an ONNX file: `python -m irmas.export MODEL model.onnx`."""

from __future__ import annotations

from pathlib import Path

from irmas.console import plain_console
from irmas.errors import Parser, UserError, report_errors
from irmas.files import obstacle


def main() -> None:
    parser = Parser("irmas.export", "Write a trained net as an ONNX file, for programs without torch.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="model.pt, a run, or a sweep: its winner")
    parser.add_argument("onnx", type=Path, metavar="model.onnx", help="the file to write")
    with report_errors("irmas.export"):
        args = parser.parse_args()
        export(args.model, args.onnx)


def export(model: Path, onnx: Path) -> None:
    """Write a model as ONNX; all runs of a sweep's winner become one net, which averages them.

    Raises UserError if there is no model, the packages are missing, or the file cannot be written.
    """
    from irmas.inference import onnx_file  # here, so that --help is quick: torch takes seconds to import
    from irmas.inference.recognizer import model_files
    from irmas.learning.net import read_net

    if onnx.suffix != onnx_file.SUFFIX:
        raise UserError(f"{onnx}: must end in {onnx_file.SUFFIX}")
    if reason := "is a folder" if onnx.is_dir() else obstacle(onnx.absolute().parent):
        raise UserError(f"{onnx}: {reason}")
    if model.suffix == onnx_file.SUFFIX:
        raise UserError(f"{model}: is an exported net already")
    paths = model_files(model)
    files = [file for path in paths if (file := read_net(path).file)]
    onnx.parent.mkdir(parents=True, exist_ok=True)
    onnx_file.write_onnx(onnx, files)
    difference = onnx_file.difference(onnx, files)
    assert difference < 1e-4, f"{onnx}: its probabilities differ from the net's by {difference}"  # rounding: 1e-7
    averaged = f", the average of {len(files)} nets" if len(files) > 1 else ""
    end = f"written: {onnx}{averaged}; on noise its probabilities differ from torch's by {difference:.0e} at most"
    plain_console().print(*paths, end, sep="\n")


if __name__ == "__main__":
    main()
