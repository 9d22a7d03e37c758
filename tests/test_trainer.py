"""A training run on toy data learns, is repeatable, resumes after any interruption, and records how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F

from irmas.config import Augment, Config, Data, Model, averaged_epochs
from irmas.data.cache import FeatureCache
from irmas.data.split import Split
from irmas.errors import DataError, UserError
from irmas.learning import learner as learners
from irmas.learning import trainer
from irmas.learning.learner import Examples, Learner, load_examples
from irmas.learning.model import Classifier, augmented
from irmas.learning.trainer import fit
from irmas.run import checkpoint, events, predictions
from irmas.run.folder import COMPLETED, DIVERGED, FAILED, PRUNED, RunFolder, Status
from irmas.run.lease import Writer

CPU = torch.device("cpu")
CLASSES = ["cel", "flu", "voi"]
NAMES = np.array([f"{row:03d}" for row in range(75)])
SCALE, OFFSET = 80 / 255, -80.0
SCALARS = {
    events.TRAIN_LOSS,
    events.TRAIN_ACCURACY,
    events.VAL_LOSS,
    events.VAL_ACCURACY,
    events.VAL_MACRO_F1,
    events.RANKED,
    events.LR,
    events.EPOCH_S,
    events.EXCERPTS_PER_S,
}
CLOCKS = {tag for tag in SCALARS if tag.startswith("time/")}


pytestmark = pytest.mark.usefixtures("one_thread")


def toy_cache(seed: int = 0, excerpts: int = 75, bands: int = 16, frames: int = 24) -> FeatureCache:
    """Return features that are louder every other band, every other frame, or nowhere, by class."""
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(excerpts) % 4 % 3)
    level = rng.normal(100, 25, (excerpts, bands, frames))
    level[targets == 0, ::2] += 60
    level[targets == 1, :, ::2] += 60
    features = level.clip(0, 255).astype(np.uint8)
    names = [f"{row:03d}" for row in range(excerpts)]
    return FeatureCache(Path("toy"), features, names, [CLASSES[target] for target in targets], names, SCALE, OFFSET)


def toy_split(excerpts: int = 75) -> Split:
    rows = np.arange(excerpts)
    return Split(rows[rows % 5 > 0], rows[rows % 5 == 0], 0.0, [f"{row // 3}" for row in rows])


def toy(seed: int = 0) -> Examples:
    return load_examples(toy_cache(seed), toy_split(), 1, CPU)


def mislabelled() -> Examples:
    """Every validation label is wrong, so that what is learned raises the validation loss."""
    examples = toy()
    targets = examples.targets.clone()
    targets[examples.validation] = (targets[examples.validation] + 1) % 3
    return replace(examples, targets=targets)


def settings(**changes: Any) -> Config:
    model = Model(filters=[4, 8], dense=8)
    return replace(Config(epochs=8, batch_size=16, lr=0.01, dropout=0.2, model=model), **changes)


def train(path: Path, config: Config, examples: Examples) -> Status:
    path.mkdir(exist_ok=True)
    return fit(RunFolder(path), config, examples, CPU, {"lr": config.lr})


def state_of(path: Path) -> dict[str, Any]:
    return dict(torch.load(RunFolder(path).checkpoint, weights_only=True))


def scalars_of(path: Path) -> dict[str, dict[int, float]]:
    run = events.read_scalars(path)
    assert not run.problems
    return {tag: points for tag, points in run.values.items() if tag not in CLOCKS}


def same(one: Any, other: Any) -> bool:
    """Return whether two states are equal bit by bit, but for clocks."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key not in CLOCKS)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_learns_an_easy_problem(tmp_path: Path) -> None:
    config = settings(schedule="onecycle", model=Model(filters=[8, 16], dense=16))
    status = train(tmp_path / "run", config, toy())
    assert status.state == COMPLETED
    assert status.metrics is not None
    assert status.metrics[events.VAL_ACCURACY] > 0.9
    assert status.metrics[events.VAL_MACRO_F1] > 0.9
    losses = list(scalars_of(tmp_path / "run")[events.TRAIN_LOSS].values())
    assert losses[-1] < losses[0] / 2


def test_the_seed_alone_decides(tmp_path: Path) -> None:
    config = settings(epochs=2)
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        torch.rand(7)  # what was drawn before does not matter
        train(tmp_path / name, replace(config, seed=seed), toy())
    assert same(state_of(tmp_path / "one"), state_of(tmp_path / "again"))
    assert scalars_of(tmp_path / "one") == scalars_of(tmp_path / "again")
    assert not same(state_of(tmp_path / "one")["model"], state_of(tmp_path / "other")["model"])
    first, other = (Learner(replace(config, seed=seed), toy(), CPU).model.state_dict() for seed in (0, 1))
    assert not torch.equal(first["blocks.0.weight"], other["blocks.0.weight"])


def test_two_points_of_one_seed_share_neither_weights_nor_order_nor_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    orders, masks, weights = list[list[int]](), list[Tensor](), list[Tensor]()
    step = Learner._step

    def masked(log_mel_db: Tensor, augment: Augment, fill_db: float) -> Tensor:
        result = augmented(log_mel_db, augment, fill_db)
        masks.append(result == fill_db)
        return result

    def ordered(self: Learner, rows: Tensor) -> tuple[Tensor, Tensor]:
        orders[-1].extend(rows.tolist())
        return step(self, rows)

    monkeypatch.setattr(learners, "augmented", masked)
    monkeypatch.setattr(Learner, "_step", ordered)
    for changes in ({}, {"lr": 0.02}, {"dropout": 0.3}, {"l2": 0.001}, {"schedule": "plateau"}):
        learner = Learner(settings(**changes), toy(), CPU)
        weights.append(learner.model.state_dict()["blocks.0.weight"])
        orders.append([])
        learner.train_epoch(1, lambda step: None)
    for one in range(5):
        for other in range(one):
            assert not torch.equal(weights[one], weights[other])
            assert orders[one] != orders[other]
            assert not torch.equal(masks[4 * one], masks[4 * other])  # of the first of four steps


def test_the_same_settings_and_seed_give_the_same_run_wherever_they_stand(tmp_path: Path) -> None:
    one = settings(epochs=2, seed=3)
    other = replace(
        one,
        name="elsewhere",
        device="cpu",
        allow_code_change=True,
        halving=3,
        data=Data(root="/far", cache="/far/cache", cache_dir="/far/caches"),
    )
    for name, config in (("one", one), ("other", other)):
        train(tmp_path / name, config, toy())
    for part in ("model", "optimizer", "correct"):
        assert same(state_of(tmp_path / "one")[part], state_of(tmp_path / "other")[part])
    assert scalars_of(tmp_path / "one") == scalars_of(tmp_path / "other")


def test_a_run_is_pruned_between_two_epochs(tmp_path: Path) -> None:
    calls = []

    def prune(epoch: int, accuracy: float) -> str:
        calls.append((epoch, accuracy))
        return "too far behind" if epoch == 3 else ""

    status = fit(RunFolder(tmp_path), settings(), toy(), CPU, {}, prune)
    assert (status.state, status.epoch, status.message) == (PRUNED, 3, "too far behind")
    assert RunFolder(tmp_path).status().state == PRUNED
    accuracies = scalars_of(tmp_path)[events.RANKED]
    assert [epoch for epoch, _ in calls] == [1, 2, 3]
    assert [accuracy for _, accuracy in calls] == pytest.approx([accuracies[epoch] for epoch in (1, 2, 3)])
    assert list(accuracies) == [1, 2, 3]
    assert state_of(tmp_path)["epoch"] == 3
    # Its process was killed before it recorded that: the next start calls for the same epoch before it trains.
    RunFolder(tmp_path).write_status(replace(status, state=FAILED))
    calls.clear()
    assert fit(RunFolder(tmp_path), settings(), toy(), CPU, {}, prune).state == PRUNED
    assert [epoch for epoch, _ in calls] == [3]
    assert scalars_of(tmp_path)[events.RANKED] == accuracies


def test_a_run_that_is_never_pruned_ends_as_one_without_pruning(tmp_path: Path) -> None:
    without = train(tmp_path / "without", settings(), toy())
    (tmp_path / "kept").mkdir()
    kept = fit(RunFolder(tmp_path / "kept"), settings(), toy(), CPU, {}, lambda epoch, accuracy: "")
    assert same(kept.metrics, without.metrics)
    assert same(state_of(tmp_path / "kept"), state_of(tmp_path / "without"))


class Interrupted(BaseException):
    pass


def fails_at(call: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, but its n-th call raises Interrupted."""
    calls = 0

    def instead(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Interrupted
        return function(*arguments, **named)

    return instead


MOMENTS: dict[str, tuple[object, str, int]] = {
    "before the first step": (Learner, "_step", 1),
    "in the middle of epoch 5": (Learner, "_step", 4 * 4 + 3),
    "with epoch 6's events written, but not its checkpoint": (checkpoint, "save", 6),
    "with epoch 4's checkpoint written, but not its status": (RunFolder, "write_status", 1 + 4),
    "with the last checkpoint written, but nothing behind it": (RunFolder, "write_status", 1 + 8),
    "with everything but the last status": (RunFolder, "write_status", 1 + 8 + 1),
}


TRAININGS: dict[str, dict[str, Any]] = {
    "constant": {"schedule": "constant"},
    "plateau": {"schedule": "plateau"},
    "onecycle": {"schedule": "onecycle"},
    "muon": {
        "schedule": "onecycle",
        "optimizer": "muon",
        "lr": 0.001,
        "label_smoothing": 0.1,
        "augment": Augment(roll=True),
        "model": Model([4, 8], dense=8, rolls=2),
    },
    "muon, plateau": {"schedule": "plateau", "optimizer": "muon", "lr": 0.001},
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folders = {}
    for training, changes in TRAININGS.items():
        folders[training] = tmp_path_factory.mktemp("whole")
        train(folders[training], settings(**changes), mislabelled())
    return folders


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_goes_on_ends_as_one_that_was_never_stopped(
    training: str, moment: str, uninterrupted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, config = tmp_path / "run", settings(**TRAININGS[training])
    owner, name, call = MOMENTS[moment]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fails_at(call, getattr(owner, name)))
        with pytest.raises(Interrupted):
            train(path, config, mislabelled())
    status = train(path, config, mislabelled())
    whole = uninterrupted[training]
    assert (status.state, status.epoch) == (COMPLETED, 8)
    assert same(state_of(path), state_of(whole))
    assert len(state_of(path)["correct"]) == averaged_epochs(config.schedule, 8)
    assert RunFolder(path).predictions.read_bytes() == RunFolder(whole).predictions.read_bytes()
    assert scalars_of(path) == scalars_of(whole)
    assert same(status.metrics, RunFolder(whole).status().metrics)
    rates = scalars_of(whole)[events.LR].values()
    assert len(set(rates)) > 1 or training == "constant"
    shown = EventAccumulator(str(path), size_guidance={"scalars": 0})
    shown.Reload()
    assert [point.step for point in shown.Scalars(events.VAL_LOSS)] == list(range(1, 9))


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from test_trainer import TRAININGS, mislabelled, settings, train
from irmas.learning.learner import Learner

torch.set_num_threads(1)
step, steps = Learner._step, 0
def killed_in_epoch_3(self, rows):
    global steps
    steps += 1
    if steps == 2 * 4 + 3:
        self.load_state_dict(self.state_dict())
        assert "torch._dynamo" not in sys.modules, "its import takes half as long again as torch's"
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, rows)
Learner._step = killed_in_epoch_3
train(Path(sys.argv[2]), settings(**TRAININGS["muon"]), mislabelled())
"""


def test_a_run_that_was_killed_goes_on(uninterrupted: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (RunFolder(path).status().state, RunFolder(path).status().epoch) == (FAILED, 2)
    train(path, settings(**TRAININGS["muon"]), mislabelled())
    assert same(state_of(path), state_of(uninterrupted["muon"]))
    assert scalars_of(path) == scalars_of(uninterrupted["muon"])


SLOW = """
import sys, time
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from test_trainer import CPU, mislabelled, settings
from irmas.learning.learner import Learner
from irmas.learning.trainer import fit
from irmas.run.folder import RunFolder
from irmas.run.lease import LeaseLost

torch.set_num_threads(1)
step = Learner._step
def slow_step(self, rows):
    time.sleep(0.1)
    return step(self, rows)
Learner._step = slow_step
try:
    with RunFolder(Path(sys.argv[2])).acquire() as folder:
        fit(folder, settings(schedule="onecycle"), mislabelled(), CPU, {"lr": 0.01})
except LeaseLost:
    sys.exit("lost")
"""


def test_a_run_that_is_taken_over_ends_as_one_that_was_never_disturbed(
    uninterrupted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = RunFolder(tmp_path / "run"), settings(schedule="onecycle")
    command = [sys.executable, "-c", SLOW, str(Path(__file__).parent), str(run.path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as old:
        try:
            while run.status().epoch < 2:
                assert old.poll() is None
                time.sleep(0.02)
            with run.acquire(lambda writer: writer.pid == old.pid) as folder:
                (left,) = events.event_files(run.path)
                size = left.stat().st_size
                assert old.poll() is None
                fit(folder, config, mislabelled(), CPU, {"lr": config.lr})
                assert old.communicate(timeout=30)[1] == "lost\n"
        finally:
            old.kill()
    status = run.status()
    assert (status.state, status.epoch, status.pid) == (COMPLETED, 8, os.getpid())
    assert left.stat().st_size == size
    assert same(state_of(run.path), state_of(uninterrupted["onecycle"]))
    assert scalars_of(run.path) == scalars_of(uninterrupted["onecycle"])


def test_the_failure_of_an_earlier_start_is_cleared(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.amend_status(Status(FAILED, message="killed", exit_code=-9, writer=Writer("far", 0, "12", 3)))
    train(run.path, settings(epochs=1), toy())
    status = run.status()
    assert (status.state, status.message, status.exit_code) == (COMPLETED, "", None)
    assert status.writer == Writer.here()


def test_a_run_that_only_lacks_its_last_status_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, config = tmp_path / "run", settings(epochs=2)
    first = train(path, config, toy())
    (path / "status.json").unlink()
    monkeypatch.delattr(Learner, "train_epoch")
    status = train(path, config, toy())
    assert (status.state, status.epoch) == (COMPLETED, 2)
    assert same(status.metrics, first.metrics)


def by_hand(path: Path, config: Config, cache: FeatureCache, rows: NDArray[np.intp]) -> tuple[float, float]:
    """Return loss and accuracy of the stored weights, in double precision."""
    model = Classifier(config.model, 3, config.dropout, 0.0, 1.0)
    model.load_state_dict(state_of(path)["model"])
    decibels = torch.from_numpy(cache.features[rows].astype(np.float64) * SCALE + OFFSET)[:, None]
    model.double().eval()
    frames, rolls = decibels.shape[3], config.model.rolls
    logits = [model(decibels.roll(-(frames * i // rolls), 3)).detach().numpy() for i in range(rolls)]
    targets = np.array([CLASSES.index(cache.labels[row]) for row in rows])
    shares = np.mean([np.exp(scores) / np.exp(scores).sum(1, keepdims=True) for scores in logits], 0)
    losses = -np.log(shares[range(len(rows)), targets])
    return float(np.mean(losses)), float(np.mean(shares.argmax(1) == targets))


@pytest.mark.parametrize(
    ("l2", "class_weights", "smoothing", "rolls"), [(0.0, False, 0.0, 1), (0.05, True, 0.2, 1), (0.0, True, 0.0, 5)]
)
def test_val_loss_is_plain_cross_entropy_of_averaged_probabilities(
    tmp_path: Path, l2: float, class_weights: bool, smoothing: float, rolls: int
) -> None:
    model = Model(filters=[4, 8], dense=8, rolls=rolls)
    config = settings(epochs=1, l2=l2, class_weights=class_weights, label_smoothing=smoothing, model=model)
    status = train(tmp_path / "run", config, toy())
    assert status.metrics is not None
    loss, accuracy = by_hand(tmp_path / "run", config, toy_cache(), toy_split().validation)
    assert status.metrics[events.VAL_LOSS] == pytest.approx(loss, rel=1e-5)
    assert status.metrics[events.VAL_ACCURACY] == pytest.approx(accuracy)


def test_train_loss_and_accuracy_are_means_over_excerpts(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(settings(batch_size=7), toy(), CPU)
    sizes: list[int] = []

    def first_class(batch: Tensor) -> Tensor:
        logits: Tensor = torch.eye(3)[:1].expand(len(batch), 3) + 0 * next(learner.model.parameters()).sum()
        return logits

    def loss(logits: Tensor, targets: Tensor, *_: object, **__: object) -> Tensor:
        sizes.append(len(targets))
        return 0 * logits.sum() + len(sizes)

    monkeypatch.setattr(learner.model, "forward", first_class)
    monkeypatch.setattr(F, "cross_entropy", loss)
    scalars = learner.train_epoch(1, lambda step: None)
    assert len(set(sizes)) > 1
    assert scalars[events.TRAIN_LOSS] == pytest.approx(np.average(range(1, len(sizes) + 1), weights=sizes))
    train_targets = toy().targets[toy().train]
    assert scalars[events.TRAIN_ACCURACY] == pytest.approx(float((train_targets == 0).double().mean()))


def test_class_weights_come_from_the_training_part() -> None:
    targets = torch.tensor([0, 0, 0, 1, 2, 2] + [1] * 9)
    examples = Examples(
        torch.rand(15, 4, 4),
        targets,
        CLASSES,
        train=torch.arange(6),
        validation=torch.arange(6, 15),
        scale=1,
        offset=0,
        names=NAMES[:15],
        recordings=NAMES[:15],
    )
    weights = Learner(settings(), examples, CPU).weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([6 / 9, 6 / 3, 6 / 6])
    assert Learner(settings(class_weights=False), examples, CPU).weights is None


def test_the_normalization_comes_from_the_training_part() -> None:
    cache, split = toy_cache(), toy_split()
    model = Learner(settings(), toy(), CPU).model
    decibels = cache.features[split.train] * SCALE + OFFSET
    assert float(model.mean_db) == pytest.approx(decibels.mean(), rel=1e-6)
    assert float(model.std_db) == pytest.approx(decibels.std(), rel=1e-6)


def test_silent_features_do_not_divide_by_zero(tmp_path: Path) -> None:
    examples = replace(toy(), features=torch.zeros(75, 16, 24, dtype=torch.uint8))
    assert train(tmp_path / "run", settings(epochs=1), examples).state == COMPLETED


def test_a_loss_that_explodes_ends_the_run_as_diverged(tmp_path: Path) -> None:
    path = tmp_path / "run"
    status = train(path, settings(lr=1e30), toy())
    assert status == replace(RunFolder(path).status(), writer=Writer(), updated=0.0)
    assert status.state == DIVERGED
    assert 1 <= status.epoch < 8
    assert "not finite" in status.reason
    assert f"epoch {status.epoch};" in status.reason
    assert status.metrics
    assert np.isfinite([*status.metrics.values()]).all()
    assert max(scalars_of(path)[events.LR]) == status.epoch
    json.loads((path / "status.json").read_text(), parse_constant=pytest.fail)


def test_features_that_are_not_finite_are_refused_in_training_and_diverge_in_validation(tmp_path: Path) -> None:
    examples = replace(toy(), features=toy().features.half())
    examples.features[int(examples.validation[0]), 3, 3] = torch.nan
    status = train(tmp_path / "run", settings(), examples)
    assert (status.state, status.epoch) == (DIVERGED, 1)
    assert status.reason.startswith("val/loss not finite")
    examples.features[int(examples.train[0]), 3, 3] = torch.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        train(tmp_path / "other", settings(), examples)


@pytest.mark.parametrize(
    ("schedule", "epochs", "averaged"), [("constant", 4, 2), ("plateau", 3, 1), ("onecycle", 4, 1)]
)
def test_the_predictions_are_those_that_the_scalars_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, epochs: int, averaged: int
) -> None:
    answers: list[NDArray[np.integer]] = []
    validate = Learner.validate

    def listening(self: Learner, epoch: int) -> tuple[dict[str, float], predictions.Predictions]:
        result = validate(self, epoch)
        answers.append(result[1].predicted)
        return result

    monkeypatch.setattr(Learner, "validate", listening)
    config = settings(epochs=epochs, schedule=schedule, lr=0.003, seed=1)
    status = train(tmp_path / "run", config, toy())
    stored = predictions.read(tmp_path / "run" / "predictions.npz")
    assert stored is not None
    assert status.metrics is not None
    assert stored.classes.tolist() == CLASSES
    assert stored.excerpts.tolist() == [f"{row:03d}" for row in range(0, 75, 5)]
    assert stored.recordings.tolist() == [f"{row // 3}" for row in range(0, 75, 5)]
    assert stored.targets.tolist() == toy().targets[toy().validation].tolist()
    assert stored.predicted.tolist() == answers[-1].tolist()
    assert stored.confusion.sum() == 15
    assert np.diagonal(stored.confusion).sum() / 15 == status.metrics[events.VAL_ACCURACY]
    shares = np.mean([own == stored.targets for own in answers[-averaged:]], axis=0)
    assert stored.correct.tolist() == shares.tolist()
    assert (0.5 in shares) == (averaged > 1)
    assert stored.correct.mean() == status.metrics[events.RANKED]


@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
def test_the_ranked_accuracy_is_the_mean_over_the_last_epochs(tmp_path: Path, schedule: str) -> None:
    train(tmp_path / "run", settings(schedule=schedule, lr=0.003, seed=1), toy())
    scalars = scalars_of(tmp_path / "run")
    each, ranked = scalars[events.VAL_ACCURACY], scalars[events.RANKED]
    assert len(set(each.values())) > 2
    for epoch, averaged in zip(range(1, 9), (1, 1, 1, 2, 2, 2, 3, 3), strict=True):
        last = [each[epoch - back] for back in range(averaged if schedule == "constant" else 1)]
        assert ranked[epoch] == pytest.approx(np.mean(last), rel=1e-6)


def test_the_event_file_has_the_whole_run(tmp_path: Path) -> None:
    path = tmp_path / "0001-lr=0.01"
    status = train(path, settings(epochs=3), toy())
    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    assert set(tags["scalars"]) == SCALARS
    for tag in SCALARS:
        assert [point.step for point in accumulator.Scalars(tag)] == [1, 2, 3]
    assert {tag: [image.step for image in accumulator.Images(tag)] for tag in tags["images"]} == {
        events.SPECTROGRAMS: [0],
        events.AUGMENTED: [0],
        events.CONFUSION: [3],
    }
    assert accumulator.Images(events.SPECTROGRAMS)[0] != accumulator.Images(events.AUGMENTED)[0]
    plugin = accumulator.summary_metadata
    assert {tag for tag in plugin if tag.startswith("_hparams_")} == {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }
    assert status.metrics is not None
    last = {tag: accumulator.Scalars(tag)[-1].value for tag in SCALARS}
    assert status.metrics == pytest.approx(last, rel=1e-6)
    assert len(list(path.parent.iterdir())) == 1


def test_the_status_has_the_progress_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "STATUS_EVERY_S", 0.0)
    statuses: list[Status] = []
    written = RunFolder.write_status

    def listening(self: RunFolder, status: Status) -> None:
        statuses.append(status)
        written(self, status)

    monkeypatch.setattr(RunFolder, "write_status", listening)
    train(tmp_path / "run", settings(epochs=2), toy())
    epochs = [(0, step) for step in range(5)] + [(1, step) for step in range(5)] + [(2, 0), (2, 0)]
    assert [(status.epoch, status.step) for status in statuses] == epochs
    assert {(status.epochs, status.steps, status.val_excerpts) for status in statuses} == {(2, 4, 15)}
    last = RunFolder(tmp_path / "run").status()
    assert last.state == COMPLETED
    assert last.started == statuses[0].started > 0


def test_every_training_excerpt_is_seen_once_an_epoch_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(settings(batch_size=7), toy(), CPU)
    batches: list[list[int]] = []
    step = Learner._step

    def listening(self: Learner, rows: Tensor) -> tuple[Tensor, Tensor]:
        batches.append(rows.tolist())
        return step(self, rows)

    monkeypatch.setattr(Learner, "_step", listening)
    for epoch in (1, 2):
        learner.train_epoch(epoch, lambda step: None)
    assert {len(batch) for batch in batches} <= {6, 7}
    half = len(batches) // 2
    orders = [[row for batch in epoch for row in batch] for epoch in (batches[:half], batches[half:])]
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(order) == sorted(toy().train.tolist())


def test_one_excerpt_more_than_whole_batches_needs_no_batch_of_its_own(tmp_path: Path) -> None:
    # 2 x 2 bins leave one bin an excerpt and channel, of which batch norm needs two in training.
    examples = Examples(
        torch.rand(20, 2, 2),
        torch.arange(20) % 3,
        CLASSES,
        torch.arange(17),
        torch.arange(17, 20),
        1.0,
        0.0,
        NAMES[:20],
        NAMES[:20],
    )
    assert train(tmp_path / "run", settings(epochs=1, batch_size=8), examples).state == COMPLETED


def test_pool_averages_blocks_of_bins() -> None:
    cache = toy_cache(bands=17, frames=24)
    pooled = load_examples(cache, toy_split(), 2, CPU)
    decibels = cache.features * np.float64(SCALE) + OFFSET
    expected = decibels[:, :16].reshape(75, 8, 2, 12, 2).mean((2, 4))
    rows = torch.tensor([3, 1, 70])
    assert pooled.decibels(rows).shape == (3, 1, 8, 12)
    # Stored in half precision, whose step is 1/16 dB at most from -64 to -128 dB.
    np.testing.assert_allclose(pooled.decibels(rows)[:, 0].numpy(), expected[rows], atol=1 / 32 + 1e-4)


def test_both_storages_give_the_same_decibels() -> None:
    cache = toy_cache()
    exact = cache.features * np.float64(SCALE) + OFFSET
    as_half = replace(cache, features=exact.astype(np.float16), scale=1.0, offset=0.0)
    rows = torch.arange(75)
    for stored, tolerance_db in ((cache, 1e-4), (as_half, 1 / 32 + 1e-4)):
        decibels = load_examples(stored, toy_split(), 1, CPU).decibels(rows)
        assert decibels.dtype is torch.float32
        np.testing.assert_allclose(decibels[:, 0].numpy(), exact, atol=tolerance_db)
    assert cache.features.dtype == np.uint8
    assert Counter(load_examples(cache, toy_split(), 1, CPU).targets.tolist()) == Counter(np.arange(75) % 4 % 3)


def test_activations_are_channels_last_in_training_and_validation() -> None:
    learner = Learner(settings(), toy(), CPU)
    layouts: list[bool] = []

    def look(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        layouts.append(output.is_contiguous(memory_format=torch.channels_last) and not output.is_contiguous())

    for module in learner.model.blocks:
        module.register_forward_hook(look)
    learner.train_epoch(1, lambda step: None)
    in_training = len(layouts)
    learner.validate(1)
    assert len(layouts) > in_training > 0
    assert all(layouts)


@pytest.mark.parametrize("other", [Model(filters=[4, 9], dense=8), Model(filters=[4], dense=8)])
def test_a_checkpoint_of_a_net_that_was_edited_since_is_a_clear_error(tmp_path: Path, other: Model) -> None:
    run, edited = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "edited")
    train(run.path, settings(epochs=1), toy())
    train(edited.path, settings(epochs=1, model=other), toy())
    checkpoint.save(run.checkpoint, state_of(edited.path), settings(epochs=1))
    with pytest.raises(UserError, match=r"checkpoint\.pt: is of another net \(.+\); remove checkpoint\*\.pt"):
        train(run.path, settings(epochs=1), toy())
