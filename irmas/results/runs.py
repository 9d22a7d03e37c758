"""Event files and predictions of a sweep -> one record for each run, grouped into points."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from irmas.config import FOLD, REPETITIONS, anneals, averaged_epochs, shown
from irmas.errors import DataError, in_words
from irmas.files import reread
from irmas.run.events import RANKED, VAL_ACCURACY, VAL_LOSS, RunScalars, read_all
from irmas.run.folder import COMPLETED, PROVENANCE, PRUNED
from irmas.sweep.run_states import RunState, SweepState
from irmas.sweep.sweep import Sweep

if TYPE_CHECKING:  # a table needs no numpy
    import numpy as np
    from numpy.typing import NDArray

    from irmas.run.predictions import Predictions

NAMES = ("excerpts", "recordings")


@dataclass(frozen=True)
class Answers:
    """Answers of a run to its validation excerpts, each array (excerpts,), in any order."""

    correct: NDArray[np.floating]
    """Share of correct answers over the ranked epochs, 0 to 1."""
    excerpts: NDArray[np.str_]
    """Unique names."""
    recordings: NDArray[np.str_]


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of a run, or of one on each fold, in the last epoch."""

    counts: NDArray[np.integer]
    """(classes, classes): rows true, columns predicted."""
    classes: list[str]
    runs: tuple[int, ...]
    """IDs of the runs."""


@dataclass(frozen=True)
class Run:
    """A run and its result as its files record it. A field whose value is unknown keeps its default."""

    id: int
    values: dict[str, Any]
    """Values of the swept keys."""
    state: str = COMPLETED
    epoch: int = 0
    """Epoch of the accuracies and the loss, from 1."""
    accuracy: float | None = None
    """Ranked validation accuracy, 0 to 1; None also where that of other runs cannot be compared with it."""
    loss: float | None = None
    """Validation loss; None where it is not finite."""
    last_accuracy: float | None = None
    """Validation accuracy of the last epoch by itself."""
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    """Every scalar by tag and epoch, ascending."""
    schedule: str = "constant"
    """Schedule of the learning rate."""
    val_excerpts: int = 0
    message: str = ""
    """Reason for the state, one line."""
    source: str = ""
    """Digests of the package's source that trained the run, in this order, separated by spaces."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python and libraries that trained the run."""
    train_excerpts: int = 0
    """Number of excerpts that trained it; 0 for a run of an earlier version."""
    answers: Answers | None = None
    """Answers to the validation excerpts; None until they are read, or where the predictions are missing."""
    rank: int | None = None
    """Rank of the run's point; of a PRUNED run, its own."""
    point_accuracy: float | None = None
    """Mean accuracy of the point's finished runs, which is ranked."""

    @property
    def fold(self) -> int | None:
        """Fold that validates; None where folds are not swept."""
        return self.values.get(FOLD)

    @property
    def is_finished(self) -> bool:
        """True for a COMPLETED run whose accuracy is known."""
        return self.state == COMPLETED and self.accuracy is not None

    @property
    def is_old(self) -> bool:
        """True for a run that an earlier version validated, under the running statistics of batch norm."""
        return VAL_ACCURACY in self.curves and RANKED not in self.curves

    @property
    def anneals(self) -> bool:
        """True where the learning rate ends near zero, so that an epoch's neighbors are alike and still rise."""
        return anneals(self.schedule)

    @property
    def averaged_epochs(self) -> int:
        """Number of epochs over which the ranked accuracy is a mean."""
        return 1 if self.is_old else averaged_epochs(self.schedule, self.epoch)

    @property
    def curve(self) -> tuple[float, ...]:
        """Validation accuracy of each epoch."""
        return tuple(self.curves.get(VAL_ACCURACY, {}).values())


def read(sweep: Sweep, state: SweepState) -> tuple[list[Run], list[str]]:
    """Return all runs of a sweep by ID, and the problems with their files."""
    scalars = read_all([sweep.run_folder(run.planned).path for run in state.runs])
    read = [_run(sweep, run_state, own) for run_state, own in zip(state.runs, scalars, strict=True)]
    problems = [f"run {run.id}: {problem}" for run, run_problems in read for problem in run_problems]
    return [run for run, _ in read], problems


def _run(sweep: Sweep, state: RunState, scalars: RunScalars) -> tuple[Run, list[str]]:
    planned, status, plan, folder = state.planned, state.status, sweep.plan, sweep.run_folder(state.planned).path
    accuracies = scalars.values.get(VAL_ACCURACY, {})
    epoch = max(accuracies, default=0)
    problems, origin = list(scalars.problems), dict[str, Any]()
    try:
        provenance = json.loads(reread((folder / PROVENANCE).read_text))
        origin["source"] = " ".join([*provenance.get("earlier_sources", []), provenance["source"]])
        origin["versions"] = {name: str(version) for name, version in provenance.get("versions", {}).items()}
        origin["train_excerpts"] = int(provenance.get("train_excerpts", 0))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{PROVENANCE} ({error})")
    if status.state in (COMPLETED, PRUNED) and epoch != status.epoch:
        missing = f"the event files lack epoch {status.epoch}, the run's last"
        problems.append(f"{missing}; remove {folder} to train it again")
    return Run(
        id=planned.id,
        values={key: plan.value(planned, key) for key in plan.swept},
        state=status.state,
        epoch=epoch,
        accuracy=_finite(scalars.values.get(RANKED, accuracies).get(epoch)),
        loss=_finite(scalars.values.get(VAL_LOSS, {}).get(epoch)),
        last_accuracy=_finite(accuracies.get(epoch)),
        curves=scalars.values,
        # A swept group, such as recipe, may set it.
        schedule=planned.changes.get("schedule", plan.config.schedule),
        val_excerpts=status.val_excerpts,
        message=status.reason,
        **origin,
    ), problems


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def with_answers(sweep: Sweep, runs: Sequence[Run]) -> tuple[list[Run], Confusion | None, list[str]]:
    """Return finished runs with their answers, the confusion matrix of the leader, and the problems.

    The matrix is that of the leader's run with the lowest ID, on each fold.

    A run without predictions, or with damaged ones, is returned without answers.
    """
    from irmas.run import predictions

    answered, problems = list[Run](), list[str]()
    leading = sorted((run for run in runs if run.rank == 1), key=lambda run: -run.id)
    first = {run.fold: run.id for run in leading}.values()
    confusion: Confusion | None = None
    previous = None
    for run in runs:
        try:
            own = predictions.read(sweep.run_folder(sweep.plan.runs[run.id - 1]).predictions)
        except (DataError, OSError) as error:
            problems.append(f"run {run.id}: {in_words(error)}; it keeps its rank, and loses its interval")
            own = None
        if own and run.id in first:
            counts, earlier = (own.confusion + confusion.counts, confusion.runs) if confusion else (own.confusion, ())
            confusion = Confusion(counts, own.classes.tolist(), (*earlier, run.id))
        answers = _answers(own, previous) if own else None
        answered.append(replace(run, answers=answers))
        previous = answers or previous
    return answered, confusion, problems


def _answers(predictions: Predictions, previous: Answers | None) -> Answers:
    """Return the answers of a run, which share equal names with the run before: for 10,000 runs they take 1.5 GB."""
    import numpy as np

    answers = Answers(predictions.correct, predictions.excerpts, predictions.recordings)
    if previous and all(np.array_equal(getattr(answers, key), getattr(previous, key)) for key in NAMES):
        return replace(previous, correct=answers.correct)
    return answers


def combination(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings that the runs of a point have in common, as text."""
    return tuple(shown(value) for key, value in values.items() if key not in REPETITIONS)


def mean(runs: Iterable[Run], value: Callable[[Run], float | None]) -> float | None:
    """Return the mean over folds of the mean over the runs of a fold; None where no value is known.

    A fold of which a seed is missing counts like the others, since it may be harder than they are.
    """
    by_fold: dict[int | None, list[float]] = defaultdict(list)
    for run in runs:
        if (known := value(run)) is not None:
            by_fold[run.fold].append(known)
    # With fsum, runs with the same accuracies in another order have the same mean.
    return math.fsum(math.fsum(own) / len(own) for own in by_fold.values()) / len(by_fold) if by_fold else None


def by_accuracy(runs: Sequence[Run], planned: Iterable[Mapping[str, Any]] = ()) -> list[tuple[float, list[Run]]]:
    """Return points as mean accuracy and runs, these by ID; the best first, ties by mean loss, then by the lowest ID.

    Points that lack a fold come last: theirs may be the easy ones. `planned` are the settings of all runs of the sweep,
    finished or not. Points with more planned runs than others, which `irmas.refine` has trained again, come before
    these: of a point that was not, luck has chosen the seed.
    """
    repetitions = Counter(map(combination, planned))
    fewest = min(repetitions.values(), default=0)
    points: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.id):
        points[combination(run.values)].append(run)
    folds = {settings: frozenset(run.fold for run in members) for settings, members in points.items()}
    shared = Counter(folds.values())
    compared = max(shared, key=lambda folds: (len(folds), shared[folds]), default=frozenset())
    keyed = []
    for settings, members in points.items():
        accuracy = mean(members, lambda run: run.accuracy) or 0.0
        loss = mean(members, lambda run: math.inf if run.loss is None else run.loss)
        behind = (len(compared - folds[settings]), repetitions[settings] <= fewest)
        keyed.append(((*behind, -accuracy, loss), accuracy, members))
    return [(accuracy, members) for _, accuracy, members in sorted(keyed, key=lambda point: point[0])]
