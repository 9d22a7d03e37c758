"""The recorded training step: on the CPU by stand-ins for a CUDA graph, on a GPU where there is one."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

sys.path += [str(ROOT / "benchmarks")]
import cuda_graph
import gpu_steps
from cuda_graph import CapturableAdam, CapturableMuon, CudaRecorder, FilledLearner, GraphLearner, Recorder
from tape import CallRecorder, Tape, TapeRecorder

from irmas.config import Augment, Config, Model
from irmas.learning.device import set_up
from irmas.learning.learner import Examples, Learner
from irmas.learning.optim import Muon, Schedule
from irmas.run import events

CPU = torch.device("cpu")
REPORT = Config(model=Model(filters=[4, 8], dense=8), batch_size=8, l2=0.01, epochs=3)
STRONG = Config(
    model=Model(filters=[4, 8], convs_per_block=2, dense=8, rolls=2),
    batch_size=8,
    l2=0.01,
    epochs=3,
    optimizer="muon",
    schedule="onecycle",
    label_smoothing=0.1,
    augment=Augment(roll=True),
)
CONFIGS = pytest.mark.parametrize("config", [REPORT, STRONG], ids=["report", "strong"])
needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


pytestmark = pytest.mark.usefixtures("one_thread")


def examples(device: torch.device = CPU) -> Examples:
    """Return 60 excerpts to train on, in batches of 8 and 7, and 15 others."""
    features = torch.randint(256, (75, 16, 17), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows, names = torch.arange(75, device=device), np.full(75, "name")
    parts = rows[:60], rows[60:]
    return Examples(features.to(device), rows % 3, ["a", "b", "c"], *parts, 80 / 255, -80.0, names, names)


def graph_learner(config: Config, recorder: Recorder | None = None) -> GraphLearner:
    return GraphLearner(config, examples(), CPU, recorder or TapeRecorder())


def train(learner: Learner, *epochs: int) -> list[dict[str, float]]:
    """Return the scalars of these epochs, without times."""
    scalars = [learner.train_and_validate(epoch, lambda step: None)[0] for epoch in epochs]
    return [
        {tag: value for tag, value in each.items() if tag not in (events.EPOCH_S, events.EXCERPTS_PER_S)}
        for each in scalars
    ]


def saved(learner: Learner) -> dict[str, Any]:
    """Return the state as it comes out of a checkpoint."""
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def leaves(state: Any) -> list[Any]:
    """Return keys and values of nested dictionaries and lists, in order."""
    if isinstance(state, dict):
        return [leaf for key, value in state.items() for leaf in (key, *leaves(value))]
    if isinstance(state, list | tuple):
        return [leaf for value in state for leaf in leaves(value)]
    return [state]


def assert_same(one: Learner, other: Learner) -> None:
    """Assert that two states are equal to the last bit."""
    for left, right in zip(leaves(saved(one)), leaves(saved(other)), strict=True):
        assert type(left) is type(right)
        assert torch.equal(left, right) if isinstance(left, Tensor) else left == right


def with_state(optimizer: Optimizer) -> Optimizer:
    """Give an optimizer, as the learner has it, the state that it would make in its first step."""
    zeros = ["momentum"] if isinstance(optimizer, Muon) else ["exp_avg", "exp_avg_sq"]
    for weight in (weight for group in optimizer.param_groups for weight in group["params"]):
        count = {} if isinstance(optimizer, Muon) else {"step": torch.tensor(0.0)}
        optimizer.state[weight] = count | {name: torch.zeros_like(weight) for name in zeros}
    return optimizer


@CONFIGS
def test_a_step_that_is_done_again_is_the_learners_own_to_the_last_bit(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its optimizers too, which this stand-in can repeat as they are."""
    monkeypatch.setattr(cuda_graph, "capturable", with_state)
    eager, graph = Learner(config, examples(), CPU), graph_learner(config, CallRecorder())
    assert train(graph, 1, 2, 3) == train(eager, 1, 2, 3)
    assert graph.replays.keys() == {8, 7}
    assert_same(graph, eager)


@CONFIGS
@pytest.mark.parametrize("schedule", ["constant", "plateau", "onecycle"])
def test_a_tape_does_the_step_of_the_same_optimizers_to_the_last_bit(config: Config, schedule: str) -> None:
    config = Config(**{**vars(config), "schedule": schedule})
    eager, graph = FilledLearner(config, examples(), CPU), graph_learner(config)
    assert train(graph, 1, 2, 3) == train(eager, 1, 2, 3)
    assert graph.replays.keys() == {8, 7}
    assert_same(graph, eager)


@CONFIGS
def test_the_losses_are_those_of_the_learner(config: Config) -> None:
    for ours, theirs in zip(
        train(graph_learner(config), 1, 2, 3), train(Learner(config, examples(), CPU), 1, 2, 3), strict=True
    ):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_recording_changes_neither_weights_nor_statistics_nor_optimizers_nor_the_generator() -> None:
    learner = graph_learner(STRONG)
    train(learner, 1)
    learner.replays.clear()
    before, drawn = saved(learner), torch.get_rng_state()
    learner.model.train()
    learner._recorded(learner.examples.train[:8].clone())
    for left, right in zip(leaves(before), leaves(saved(learner)), strict=True):
        assert torch.equal(left, right) if isinstance(left, Tensor) else left == right
    assert torch.equal(torch.get_rng_state(), drawn)


def test_the_warm_up_leaves_no_gradients_to_the_recording() -> None:
    found = []

    class Recorder(TapeRecorder):
        def record(self, work: cuda_graph.Work) -> cuda_graph.Work:
            found.append([weight.grad for weight in learner.model.parameters()])
            return super().record(work)

    learner = graph_learner(REPORT, Recorder())
    train(learner, 1)
    assert len(found) == 2
    assert all(gradient is None for gradients in found for gradient in gradients)


def test_a_tape_refuses_what_reads_a_number_back_and_keeps_the_numbers_that_it_recorded() -> None:
    kept = torch.zeros(())
    factor = 2.0
    with Tape() as tape:
        kept.add_(factor)
        doubled = kept * factor
        with pytest.raises(RuntimeError, match="reads a number back"):
            doubled.item()
    factor = 5.0
    tape.play()
    assert (float(kept), float(doubled)) == (4, 8)


def test_an_optimizer_whose_factors_are_no_tensors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "capturable", lambda optimizer: optimizer)
    with pytest.raises(RuntimeError, match="reads a number back"):
        train(graph_learner(REPORT), 1)


@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
def test_adam_with_tensors_is_torchs_adam(schedule: str) -> None:
    torch.manual_seed(0)
    ours, theirs = (
        [nn.Parameter(weight.clone()) for weight in (torch.ones(3, 4).double(), torch.ones(4).double())] for _ in "ab"
    )

    def groups(weights: list[nn.Parameter]) -> list[dict[str, Any]]:
        return [{"params": weights[:1], "weight_decay": 0.3}, {"params": weights[1:]}]

    adam, reference = CapturableAdam(groups(ours), lr=0.1), Adam(groups(theirs), lr=0.1)
    config = Config(schedule=schedule, epochs=1)
    schedules = [Schedule(optimizer, config, 20) for optimizer in (adam, reference)]
    betas = set()
    for _ in range(20):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, dtype=mine.dtype)
            other.grad = mine.grad.clone()
        betas.add(adam.param_groups[0]["betas"][0])
        adam.fill()
        adam.step()
        reference.step()
        for each in schedules:
            each.after_step()
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)
    assert (len(betas) > 10) == (schedule == "onecycle")


def test_muon_with_a_tensor_is_muon() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(6, 2, 3, 3).double()) for _ in "ab")
    muon, reference = CapturableMuon([ours], lr=0.05), Muon([theirs], lr=0.05)
    for step in range(1, 5):
        for optimizer in (muon, reference):
            optimizer.param_groups[0]["lr"] = 0.05 / step
        ours.grad = torch.randn(ours.shape, dtype=ours.dtype)
        theirs.grad = ours.grad.clone()
        muon.fill()
        muon.step()
        reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@CONFIGS
def test_a_resumed_run_is_the_undisturbed_one_to_the_last_bit(config: Config) -> None:
    whole, first, second = (graph_learner(config) for _ in range(3))
    scalars = train(whole, 1, 2, 3)
    begun = train(first, 1)
    train(second, 3)  # its graphs are of other tensors than those that it loads
    second.load_state_dict(saved(first))
    assert begun + train(second, 2, 3) == scalars
    assert_same(second, whole)


@CONFIGS
def test_a_checkpoint_of_either_learner_resumes_in_the_other(config: Config) -> None:
    graph, eager = graph_learner(config), Learner(config, examples(), CPU)
    train(graph, 1)
    train(eager, 1)
    ours, theirs = saved(graph), saved(eager)
    for left, right in zip(leaves(ours), leaves(theirs), strict=True):
        assert type(left) is type(right)
        if isinstance(left, Tensor):
            assert (left.dtype, left.shape) == (right.dtype, right.shape)
    graph.load_state_dict(theirs)
    eager.load_state_dict(ours)
    for left, right in zip(train(graph, 2, 3), train(eager, 2, 3), strict=True):
        assert left == pytest.approx(right, rel=1e-3)


@pytest.fixture
def compiler() -> Iterator[Callable[..., Any]]:
    torch.compiler.reset()
    yield partial(torch.compile, dynamic=False, fullgraph=True, backend="aot_eager")
    torch.compiler.reset()


def test_a_compiled_net_trains_and_is_validated_as_it_is(
    compiler: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(forward: Callable[..., Any]) -> Callable[..., Any]:
        compiled = compiler(forward)

        def call(*args: Any) -> Any:
            calls.append(learner.model.training)
            return compiled(*args)

        return call

    learner = GraphLearner(REPORT, examples(), CPU, CallRecorder(), counted)
    expected = train(FilledLearner(REPORT, examples(), CPU), 1, 2)
    for ours, theirs in zip(train(learner, 1, 2), expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert len(calls) == 2 * cuda_graph.WARM_UP + 2 * learner.steps
    assert all(calls)


def test_the_benchmark_runs_without_a_gpu_but_for_what_needs_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_steps, "CASES", [gpu_steps.CASES[0], gpu_steps.CASES[-1]])
    monkeypatch.setattr(gpu_steps, "set_up", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["gpu_steps.py", "--dry", "--rounds", "1"])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    gpu_steps.main()
    printed = capsys.readouterr().out
    for part in ("recipe=strong | graph of a compiled net / eager, speed", "18 runs, 15 epochs", "validation by 1024"):
        assert part in printed
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_steps.py"])
    with pytest.raises(SystemExit, match="--dry"):
        gpu_steps.main()


def test_the_benchmark_stops_compiling_and_measuring_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = gpu_steps.Bench(dry=True, rounds=1, minutes=0)
    rows = bench.measure(bench.cases[0])
    assert not any(gpu_steps.COMPILED in row.of for row in rows)
    assert "too little time is left to compile" in capsys.readouterr().err


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    device = torch.device("cuda")
    set_up(device, 1)
    yield device
    torch.set_deterministic_debug_mode("default")


@needs_a_gpu
@CONFIGS
def test_on_a_gpu_graph_and_eager_steps_give_the_same_losses(config: Config, cuda: torch.device) -> None:
    graph = GraphLearner(config, examples(cuda), cuda, CudaRecorder())
    scalars = train(graph, 1, 2)
    assert graph.replays.keys() == {8, 7}
    for learner in (FilledLearner(config, examples(cuda), cuda), Learner(config, examples(cuda), cuda)):
        for ours, theirs in zip(scalars, train(learner, 1, 2), strict=True):
            assert ours[events.TRAIN_LOSS] == pytest.approx(theirs[events.TRAIN_LOSS], rel=1e-3)
            assert ours[events.VAL_LOSS] == pytest.approx(theirs[events.VAL_LOSS], rel=1e-2)


@needs_a_gpu
@CONFIGS
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_a_resumed_run_is_the_undisturbed_one_to_the_last_bit(
    config: Config, cuda: torch.device, *, compiled: bool
) -> None:
    torch.compiler.reset()
    compiler = partial(torch.compile, dynamic=False, fullgraph=True) if compiled else None
    whole, first, second = (GraphLearner(config, examples(cuda), cuda, CudaRecorder(), compiler) for _ in range(3))
    scalars = train(whole, 1, 2, 3)
    begun = train(first, 1)
    second.load_state_dict(saved(first))
    assert begun + train(second, 2, 3) == scalars
    assert_same(second, whole)


@needs_a_gpu
@CONFIGS
def test_a_checkpoint_of_a_gpus_graph_resumes_on_a_cpu_and_the_other_way_round(
    config: Config, cuda: torch.device
) -> None:
    graph, eager = GraphLearner(config, examples(cuda), cuda, CudaRecorder()), Learner(config, examples(), CPU)
    train(graph, 1)
    train(eager, 1)
    ours, theirs = saved(graph), saved(eager)
    eager.load_state_dict(ours)
    graph.load_state_dict(theirs)
    for learner in (graph, eager):
        assert all(np.isfinite(each[events.TRAIN_LOSS]) for each in train(learner, 2, 3))
        steps = [state["step"] for state in learner.optimizers[0].state.values()]
        assert {(step.device.type, float(step)) for step in steps} == {("cpu", 3 * learner.steps)}
