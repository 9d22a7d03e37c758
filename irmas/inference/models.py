"""From what a user names to the nets that answer: a model file, a run's folder, or a sweep's, whose winner it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from irmas.errors import UserError
from irmas.inference import onnx_file
from irmas.inference.recognizer import Net, Recognizer, TorchNet
from irmas.results import ranking
from irmas.run import model_file
from irmas.run.folder import COMPLETED, CONFIG, RunFolder
from irmas.sweep.sweep import Sweep


def load(paths: Sequence[Path], window_s: float | None = None) -> Recognizer:
    """All that the paths name, averaged. Windows are as long as the training's excerpts unless `window_s` says more.

    Raises UserError, naming the path, where there is no model, or where the nets do not go together.
    """
    files = [file for path in paths for file in model_files(path)]
    nets = [_net(file) for file in files]
    return Recognizer(nets, [str(file) for file in files], window_s or nets[0].features.seconds)


def _net(file: Path) -> Net:
    return onnx_file.read(file) if file.suffix == onnx_file.SUFFIX else TorchNet(model_file.read(file))


def model_files(path: Path) -> list[Path]:
    """A file itself; of a run's folder its model file; of a sweep's those of its winner, one for each of its seeds.

    Raises UserError where there is none.
    """
    if not path.is_dir():
        return [path]
    if (path / CONFIG).exists():
        folders = [RunFolder(path)]
    else:
        ranked = ranking.rank(Sweep.open(path))
        points = {point.id: point for point in ranked.plan.runs}
        folders = [
            ranked.sweep.run_folder(points[row.id]) for row in ranked.runs if row.rank == 1 and row.state == COMPLETED
        ]
        if not folders:
            raise UserError(f"{path}: no run has finished; python -m irmas.status {path} shows their states")
    for folder in folders:
        if not folder.model.exists():
            state = folder.status().state
            raise UserError(
                f"{folder.path}: has no {folder.model.name}, since the run is {state}; a finished run has one"
            )
    return sorted(folder.model for folder in folders)
