"""Trained nets as an ONNX file, for programs without torch; and such a file as a net.

In: `log_mel_db`, (batch, 1, bands, frames), float32, pooled, in dB under each window's own maximum; batch and frames
are free. Out: `probabilities`, (batch, classes). Classes, front end, pool and versions are in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from irmas.config import Features
from irmas.errors import UserError
from irmas.files import atomic_write
from irmas.inference.recognizer import Net, Probabilities, TorchNet

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SUFFIX = ".onnx"
INPUT, OUTPUT = "log_mel_db", "probabilities"
VERSION = 1
"""Raise it whenever what the metadata holds changes its meaning."""
MISSING = (
    "ONNX files need the packages onnx, onnxruntime and onnxscript: python -m pip install onnx onnxruntime onnxscript; "
    "in the project's folder python -m pip install -c constraints.txt -e '.[onnx]' installs the tested versions"
)


class _Averaged(nn.Module):
    """As `Recognizer` averages them."""

    def __init__(self, nets: Sequence[TorchNet]) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(net.classifier for net in nets)

    def forward(self, log_mel_db: Tensor) -> Tensor:
        return torch.stack([net(log_mel_db).softmax(1) for net in self.classifiers]).mean(0)


def write(path: Path, nets: Sequence[TorchNet]) -> None:
    """One net, or several of the same classes and front end as the one that their average is.

    Raises UserError where their front ends differ or the packages are missing, OSError where the disk is full.
    """
    first = nets[0]
    if any((net.features, net.pool) != (first.features, first.pool) for net in nets):
        raise UserError("only nets of the same front end (features, data.pool) go into one ONNX file")
    try:
        import onnxscript  # noqa: F401  which torch's exporter needs
    except ImportError:
        raise UserError(MISSING) from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of operators of torchvision's
    # Two of each: torch takes an axis of length 1 for one that is always so.
    log_mel_db = torch.zeros(2, 1, first.features.n_mels // first.pool, max(2, first.features.n_frames // first.pool))
    program = torch.onnx.export(
        _Averaged(nets).eval(),
        (log_mel_db,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch"), 3: torch.export.Dim("frames")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for name, value in _metadata(first).items():
        model.metadata_props.add(key=name, value=value)
    atomic_write(path, _sealed(model.SerializeToString()))


def difference(path: Path, nets: Sequence[TorchNet]) -> float:
    """The largest one between the file's probabilities and the nets', on noise."""
    features, pool = nets[0].features, nets[0].pool
    shape = 8, features.n_mels // pool, features.n_frames // pool
    noise_db = torch.from_numpy(np.random.default_rng(0).uniform(-features.top_db, 0, shape).astype(np.float32))
    averaged = np.mean([net.probabilities(noise_db) for net in nets], axis=0)
    return float(np.abs(read(path).probabilities(noise_db) - averaged).max())


def _sealed(model: bytes) -> bytes:
    """With its SHA-256 as one more entry of its metadata: in protobuf a field may stand behind all others."""
    entry = b"\x0a\x06sha256\x12\x40" + hashlib.sha256(model).hexdigest().encode()
    return model + b"\x72" + bytes([len(entry)]) + entry


def _metadata(net: TorchNet) -> dict[str, str]:
    return {
        "version": str(VERSION),
        "classes": json.dumps(net.classes),
        "features": json.dumps(asdict(net.features)),
        "pool": str(net.pool),
        "versions": json.dumps(net.file.versions),
    }


@dataclass(frozen=True)
class OnnxNet:
    """An exported file, run by onnxruntime on the CPU."""

    session: InferenceSession
    classes: list[str]
    features: Features
    pool: int

    def probabilities(self, log_mel_db: Tensor) -> Probabilities:
        return self.session.run([OUTPUT], {INPUT: log_mel_db[:, None].numpy()})[0]  # type: ignore[no-any-return]


def read(path: Path) -> Net:
    """Raises UserError where it is absent, damaged, not exported by this program, or onnxruntime is missing."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(MISSING) from None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if content != _sealed(content[: -len(_sealed(b""))]):
        raise UserError(f"{path}: is damaged, or was not written by python -m irmas.export")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    if about["version"] != str(VERSION):
        raise UserError(f"{path}: is of version={about['version']}, this is version={VERSION}; export the net anew")
    try:
        features = Features(**json.loads(about["features"]))
    except TypeError as error:  # which names what is not known
        raise UserError(f"{path}: was written by another version of irmas ({error})") from None
    return OnnxNet(session, json.loads(about["classes"]), features, int(about["pool"]))
