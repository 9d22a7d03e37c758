"""The pipeline that a user writes first: Hydra's basic launcher, wav files and log-mels in a DataLoader, plain torch.

    python benchmarks/naive.py -m hydra/sweeper=basic dropout=0.3,0.4 +... (started by benchmarks/sweep.py)

Model and SpecAugment are the project's own, so that both sides train the same net; everything else is its own.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import hydra
import soundfile
import torch
from hydra.core.config_store import ConfigStore
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram, Resample

from irmas.config import Augment, Features, Model
from irmas.learning.model import Classifier, augmented


@dataclass
class Settings:
    listing: str = ""
    """A csv with the columns path, label, part."""
    hop_length: int = 1050
    n_mels: int = 64
    dropout: float = 0.4
    lr: float = 0.001
    l2: float = 0.0001
    epochs: int = 5


ConfigStore.instance().store("settings", Settings)


class Excerpts(Dataset[tuple[Tensor, int]]):
    def __init__(self, settings: Settings, part: str) -> None:
        with Path(settings.listing).open() as file:
            listed = list(csv.DictReader(file))
        self.classes = sorted({row["label"] for row in listed})
        self.files = [(row["path"], self.classes.index(row["label"])) for row in listed if row["part"] == part]
        features = Features(hop_length=settings.hop_length, n_mels=settings.n_mels)
        self.samples = features.n_samples
        self.resample = Resample(44_100, features.sample_rate)
        self.mel = MelSpectrogram(
            features.sample_rate,
            features.n_fft,
            hop_length=features.hop_length,
            n_mels=features.n_mels,
            mel_scale="slaney",
            norm="slaney",
        )
        self.decibels = AmplitudeToDB(top_db=80)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, target = self.files[index]
        samples, _ = soundfile.read(path, dtype="float32")
        waveform = self.resample(torch.from_numpy(samples.mean(1)))[: self.samples]
        waveform = nn.functional.pad(waveform, (0, self.samples - len(waveform)))
        return self.decibels(self.mel(waveform / waveform.abs().max()))[None], target


def class_weights(data: Excerpts) -> Tensor:
    counts = torch.bincount(torch.tensor([target for _, target in data.files]), minlength=len(data.classes))
    return len(data) / (len(data.classes) * counts)


@hydra.main(version_base=None, config_name="settings")
def main(settings: Settings) -> None:
    torch.manual_seed(0)
    train, validation = Excerpts(settings, "train"), Excerpts(settings, "validation")
    train_loader = DataLoader(train, batch_size=32, shuffle=True, num_workers=2)
    validation_loader = DataLoader(validation, batch_size=32, num_workers=2)
    first = torch.stack([train[index][0] for index in range(0, len(train), max(len(train) // 32, 1))])
    mean_db = float(first.mean())
    model = Classifier(Model(), len(train.classes), settings.dropout, mean_db, float(first.std()))
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, weight_decay=2 * settings.l2)
    loss_of = nn.CrossEntropyLoss(class_weights(train))
    with SummaryWriter(".") as writer:
        for epoch in range(1, settings.epochs + 1):
            model.train()
            for batch, targets in train_loader:
                loss = loss_of(model(augmented(batch, Augment(), mean_db)), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            correct, summed = 0, 0.0
            with torch.no_grad():
                for batch, targets in validation_loader:
                    logits = model(batch)
                    summed += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
                    correct += int((logits.argmax(1) == targets).sum())
            writer.add_scalar("train/loss", float(loss), epoch)
            writer.add_scalar("val/loss", summed / len(validation), epoch)
            writer.add_scalar("val/accuracy", correct / len(validation), epoch)
    Path("result.json").write_text(json.dumps({"accuracy": correct / len(validation)}))


if __name__ == "__main__":
    main()
