"""The nets behind a path: a model file, a run's folder, or a sweep, which stands for its winner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from irmas.errors import UserError
from irmas.inference import onnx_file
from irmas.inference.recognizer import Recognizer, torch_net
from irmas.results import ranking
from irmas.run import model_file
from irmas.run.folder import COMPLETED, CONFIG, RunFolder
from irmas.sweep.sweep import Sweep


def load(paths: Sequence[Path], window_s: float | None = None, hop_s: float | None = None) -> Recognizer:
    """Return the average of all nets that the paths name.

    A window is as long as the excerpts of the training unless `window_s` is given, a hop half as long as a window.
    Raises UserError, naming the path, if there is no model, or if the nets cannot be averaged.
    """
    files = [file for path in paths for file in model_files(path)]
    nets = [
        onnx_file.read(file) if file.suffix == onnx_file.SUFFIX else torch_net(model_file.read(file)) for file in files
    ]
    window_s = window_s or nets[0].features.seconds
    return Recognizer(nets, [str(file) for file in files], window_s, hop_s or window_s / 2)


def model_files(path: Path) -> list[Path]:
    """Return a file itself, a run's model file, or those of a sweep's winner, one for each of its seeds.

    Raises UserError if there is none.
    """
    if not path.is_dir():
        return [path]
    if (path / CONFIG).exists():
        folders = [RunFolder(path)]
    else:
        ranked = ranking.rank(Sweep.open(path))
        best = {row.id for row in ranked.runs if row.rank == 1 and row.state == COMPLETED}
        folders = [ranked.sweep.run_folder(run) for run in ranked.plan.runs if run.id in best]
        if not folders:
            raise UserError(f"{path}: has no finished run; python -m irmas.status {path} lists their states")
    for folder in folders:
        if not folder.model.exists():
            state = folder.status().state
            raise UserError(f"{folder.path}: has no {folder.model.name}, because the run is {state}, not {COMPLETED}")
    return sorted(folder.model for folder in folders)
