"""Writes a trained net as an ONNX file: `python -m irmas.export MODEL model.onnx`."""

from __future__ import annotations

from pathlib import Path

from irmas.console import plain_console
from irmas.errors import UserError
from irmas.exit import Parser, report_errors
from irmas.files import obstacle

ALIKE = 1e-4
"""Two programs' rounding makes a difference of 1e-7 in a probability."""


def main() -> None:
    parser = Parser("irmas.export", "Write a trained net as an ONNX file, for programs without torch.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="model.pt, a run, or a sweep: its winner")
    parser.add_argument("onnx", type=Path, metavar="model.onnx", help="the file to write")
    with report_errors("irmas.export"):
        arguments = parser.parse_args()
        export(arguments.model, arguments.onnx)


def export(model: Path, onnx: Path) -> None:
    """All seeds of a sweep's winner become one net, which averages them.

    Raises UserError where there is no model, the packages are missing, or the file could not be written.
    """
    from irmas.inference import models, onnx_file  # here, so that --help is quick: torch takes seconds to import
    from irmas.inference.recognizer import TorchNet
    from irmas.run import model_file

    if onnx.suffix != onnx_file.SUFFIX:
        raise UserError(f"{onnx}: must end in {onnx_file.SUFFIX}")
    if reason := "is a folder" if onnx.is_dir() else obstacle(onnx.absolute().parent):
        raise UserError(f"{onnx}: {reason}")
    if model.suffix == onnx_file.SUFFIX:
        raise UserError(f"{model}: is an exported net already")
    files = models.model_files(model)
    nets = [TorchNet(model_file.read(file)) for file in files]
    onnx.parent.mkdir(parents=True, exist_ok=True)
    onnx_file.write(onnx, nets)
    difference = onnx_file.difference(onnx, nets)
    assert difference < ALIKE, f"{onnx}: its probabilities differ from the net's by {difference}"
    console = plain_console()
    for file in files:
        console.print(file)
    averaged = f", the average of {len(nets)} nets" if len(nets) > 1 else ""
    console.print(
        f"written: {onnx}{averaged}; on noise its probabilities differ from torch's by {difference:.0e} at most"
    )


if __name__ == "__main__":
    main()
