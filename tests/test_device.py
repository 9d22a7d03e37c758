"""The device that trains, requests that are refused, and the switches that are set."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import write_plan

from irmas.config import Config, Data, Features
from irmas.errors import UserError
from irmas.learning import device
from irmas.learning.device import choose_device
from irmas.run.folder import FAILED, RunFolder
from irmas.sweep import train_run
from irmas.sweep.plan import PlannedRun, freeze
from irmas.sweep.sweep import Sweep


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_auto_takes_a_gpu_where_torch_sees_one_and_the_cpu_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_no_allocated_gpu_is_no_missing_gpu(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("setting", "visible"), [("auto", "0"), ("auto", "GPU-4c5d"), ("cuda", ""), ("cuda", "1")])
def test_a_gpu_that_torch_does_not_see_ends_the_run(
    setting: str, visible: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1\nGCC version: 13\n")
    monkeypatch.setattr(device, "NVIDIA_DRIVER", driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError) as caught:
        choose_device(setting)
    message = str(caught.value)
    assert message.startswith("device=cuda: " if setting == "cuda" else f"CUDA_VISIBLE_DEVICES={visible}: ")
    build = f"torch {torch.__version__} built for CUDA {torch.version.cuda}"
    for part in (platform.node(), "Kernel Module  570.1", build, "device=cpu"):
        assert part in message
    assert "\n" not in message
    assert choose_device("cpu") == torch.device("cpu")


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "NVIDIA_DRIVER", tmp_path / "version")
    with pytest.raises(UserError, match="no NVIDIA driver is loaded"):
        choose_device("cuda")


SET_UP = """
import os, resource, torch
from torch.utils import deterministic
from irmas.learning import device

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16_000_000)  # 64 MB: up to 32 MB, glibc learns by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

cpu = torch.device("cpu")
unset = page_faults()
device.set_up(cpu, 3)
page_faults()  # the heap grows until the tensors fit
page_faults()
again = page_faults()
assert again * 2 < unset, (unset, again)
assert torch.get_num_threads() == 3
assert device.describe(cpu) == "cpu (3 threads)"
assert torch.are_deterministic_algorithms_enabled()
assert torch.is_deterministic_algorithms_warn_only_enabled()
assert not deterministic.fill_uninitialized_memory
assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
with device.autocast(cpu):
    assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype is torch.float32
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator setting is glibc's")
def test_set_up_keeps_freed_memory_and_makes_runs_repeatable() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run([sys.executable, "-c", SET_UP], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr


def test_too_little_memory_is_explained_with_the_settings_that_need_less() -> None:
    config = Config(batch_size=64)
    with pytest.raises(UserError, match="too little memory on node") as raised, device.explain_out_of_memory(config):
        torch.empty(1 << 50)
    message = str(raised.value)
    assert message.startswith("the process has")
    assert "tried to allocate" in message
    assert "lower batch_size=64, raise data.pool=1 or take features=small" in message
    assert "hydra.launcher.mem" in message
    with pytest.raises(UserError, match="the process has too little memory"), device.explain_out_of_memory(config):
        np.empty(1 << 50)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory\nCompile with ...")]
)
@pytest.mark.parametrize(("at_once", "per_gpu", "named"), [(4, 2, True), (4, 1, False), (1, 1, False)])
def test_runs_that_share_a_gpu_may_be_fewer(error: Exception, at_once: int, per_gpu: int, *, named: bool) -> None:
    with pytest.raises(UserError) as raised, device.explain_out_of_memory(Config(), at_once, per_gpu):
        raise error
    assert str(raised.value).startswith("the GPU has too little memory on node")
    assert (": lower hydra.launcher.runs_at_once=4 or batch_size=32, raise" in str(raised.value)) == named
    with pytest.raises(UserError) as raised, device.explain_out_of_memory(Config(), at_once, per_gpu):
        raise MemoryError
    assert ("hydra.launcher.runs_at_once=4 or" in str(raised.value)) == (at_once > 1)
    assert "\n" not in str(raised.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), device.explain_out_of_memory(Config()):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_a_gpu_without_enough_memory_is_one_message_in_the_runs_status(
    data: Data, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is here: the error that torch raises on one stands in for it."""

    def out_of_memory(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity")

    monkeypatch.setattr(train_run, "load_examples", out_of_memory)
    monkeypatch.setattr(train_run, "set_up", lambda *_: None)
    write_plan(tmp_path, freeze(Config(data=data, features=features), [PlannedRun(1, {}, {})], "one"))
    with pytest.raises(UserError):
        train_run.train(Sweep.open(tmp_path), threads=1)
    status = RunFolder(tmp_path / "runs" / "001").status()
    assert status.state == FAILED
    assert status.message.startswith("the GPU has too little memory on node")
    assert "(tried to allocate 2.00 GiB)" in status.message
    assert "hydra.launcher.gpus=<type>:1" in status.message
    assert len(status.message.splitlines()) == 1
