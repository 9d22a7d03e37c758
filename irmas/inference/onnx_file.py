"""Trained nets as ONNX files, for programs without torch.

A file's input: `log_mel_db`, (batch, 1, bands, frames), float32, pooled, in dB under each window's own maximum;
batch and frames are free. Its output: `probabilities`, (batch, classes). Its metadata hold classes, front end, pool,
versions, the self-test and `sha256`, the digest of the whole file in which the digest itself is 64 zeros.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from irmas.config import Features
from irmas.errors import UserError
from irmas.files import atomic_write
from irmas.learning.model import LogMelNet
from irmas.learning.net import Net, Probabilities, classifier, torch_net
from irmas.run.model_file import ModelFile

SUFFIX = ".onnx"
INPUT, OUTPUT = "log_mel_db", "probabilities"
VERSION = 1
"""Raise it whenever what the metadata holds changes its meaning."""
NO_DIGEST = b"0" * 64
ENTRY = re.compile(rb"(sha256..)([0-9a-f]{64})", re.DOTALL)
"""The digest's metadata entry in a file: between key and value are two bytes, the value's tag and its length."""
MISSING = (
    "ONNX files need the packages onnx, onnxruntime and onnxscript: python -m pip install onnx onnxruntime onnxscript; "
    "in the project's folder python -m pip install -c constraints.txt -e '.[onnx]' installs the tested versions"
)


class _Average(nn.Module):
    """The nets' average, as `Recognizer` computes it."""

    def __init__(self, files: Sequence[ModelFile]) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(map(classifier, files))

    def forward(self, log_mel_db: Tensor) -> Tensor:
        nets = cast("Iterable[LogMelNet]", self.classifiers)
        return torch.stack([net.log_probabilities(log_mel_db).exp() for net in nets]).mean(0)


def write_onnx(path: Path, files: Sequence[ModelFile]) -> None:
    """Write one net, or the average of several of the same classes and front end.

    Raises UserError if their front ends differ or the packages are missing, OSError if the disk is full.
    """
    first = files[0]
    if any((file.features, file.pool) != (first.features, first.pool) for file in files):
        raise UserError("only nets of the same front end (features, data.pool) go into one ONNX file")
    try:
        import onnxscript  # noqa: F401  which torch's exporter needs
    except ImportError:
        raise UserError(MISSING) from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of operators of torchvision
    # At least two of each: torch takes an axis of length 1 for a constant one.
    log_mel_db = torch.zeros(2, 1, first.features.n_mels // first.pool, max(2, first.features.n_frames // first.pool))
    program = torch.onnx.export(
        _Average(files).eval(),
        (log_mel_db,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch"), 3: torch.export.Dim("frames")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    values = {"version": VERSION, "classes": first.classes, "features": asdict(first.features), "pool": first.pool}
    answers = np.mean([torch_net(file).self_test() for file in files], axis=0)
    for key, value in (values | {"versions": first.versions, "self_test": answers.tolist()}).items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    model.metadata_props.add(key="sha256", value=NO_DIGEST.decode())
    content = model.SerializeToString()
    atomic_write(path, _with_entry(content, hashlib.sha256(content).hexdigest().encode()))


def _with_entry(content: bytes, digest: bytes) -> bytes:
    """Return the file with another digest in its metadata entry; unchanged if it has no such entry."""
    return ENTRY.sub(rb"\g<1>" + digest, content)


def _is_intact(content: bytes) -> bool:
    entry = ENTRY.search(content)
    # Files of irmas 0.1 end with the entry, 76 bytes, and its digest is that of all bytes before it.
    signed = _with_entry(content, NO_DIGEST), content[:-76]
    return entry is not None and entry[2].decode() in [hashlib.sha256(part).hexdigest() for part in signed]


def difference(path: Path, files: Sequence[ModelFile]) -> float:
    """Return the largest difference between the probabilities of an exported file and of its nets, on noise."""
    features, pool = files[0].features, files[0].pool
    shape = 8, features.n_mels // pool, features.n_frames // pool
    noise_db = torch.from_numpy(np.random.default_rng(0).uniform(-features.top_db, 0, shape).astype(np.float32))
    average = np.mean([torch_net(file).probabilities(noise_db) for file in files], axis=0)
    return float(np.abs(read_onnx(path).probabilities(noise_db) - average).max())


def read_onnx(path: Path) -> Net:
    """Return the net of an exported file, run by onnxruntime on the CPU.

    Raises UserError if the file is absent, damaged or not exported by irmas, or if onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(MISSING) from None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not _is_intact(content):
        raise UserError(f"{path}: is damaged, or was not written by python -m irmas.export")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    if metadata["version"] != str(VERSION):
        raise UserError(f"{path}: is of version={metadata['version']}, not version={VERSION}; export the net again")
    try:
        features = Features(**json.loads(metadata["features"]))
    except TypeError as error:  # which names the unknown setting
        raise UserError(f"{path}: was written by another version of irmas ({error})") from None

    def probabilities(log_mel_db: Tensor) -> Probabilities:
        return session.run([OUTPUT], {INPUT: log_mel_db[:, None].numpy()})[0]  # type: ignore[no-any-return]

    net = Net(json.loads(metadata["classes"]), features, int(metadata["pool"]), probabilities)
    net.check(path, json.loads(metadata.get("self_test", "[]")))
    return net
