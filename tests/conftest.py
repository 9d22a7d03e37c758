"""What many tests share: a small stand-in, its log-mels, real IRMAS where it lies beside the project, the commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked_commands import Commands
from hypothesis import settings

from irmas.config import Data, Features
from irmas.console import SILENT, Progress
from irmas.data import cache, dataset
from irmas.data.cache import FeatureCache
from irmas.data.excerpts import scan
from irmas.standin import corpus as standin
from irmas.standin.corpus import render_test_part
from irmas.sweep.settings import CLUSTER_FILE

ROOT = Path(__file__).parent.parent

settings.register_profile("untimed", deadline=None)  # on a busy machine any example may take long
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Keep this machine's cluster settings away; give each of several workers a core of its own.

    Their processes would otherwise take each other's time, spinning.
    """
    os.environ[CLUSTER_FILE] = ""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """132 rendered excerpts in IRMAS's layout."""
    root = tmp_path_factory.mktemp("standin") / "corpus"
    standin.render(root, 132, seed=0)
    return root


@pytest.fixture(scope="session")
def features() -> Features:
    """A front end of 16 bands x 33 frames: little work."""
    return Features(sample_rate=16000, n_fft=1024, hop_length=1500, n_mels=16)


@pytest.fixture(scope="session")
def corpus_cache(corpus: Path, features: Features, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    folder = tmp_path_factory.mktemp("cache") / "corpus"
    cache.build(scan(Data(), corpus), features, folder)
    return cache.open_cache(folder)


@pytest.fixture(scope="session")
def data(corpus: Path, features: Features, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The same excerpts and front end as a data group whose cache is built."""
    group = Data(source="folder", root=str(corpus), cache_dir=str(tmp_path_factory.mktemp("built")))
    dataset.load(group, features, SILENT)
    return group


class Recorder(Progress):
    """Progress that records its tasks (name, total, unit), and the units of the last one."""

    def __init__(self) -> None:
        self.begun = list[tuple[str, int, str]]()
        self.advanced = list[int]()

    def start(self, task: str, total: int, unit: str = "excerpts") -> None:
        self.begun.append((task, total, unit))
        self.advanced.clear()

    def advance(self, count: int) -> None:
        self.advanced.append(count)


@dataclass(frozen=True)
class SmallDisk:
    """A file system of its own with 16 MB."""

    path: Path

    def fill(self, *, free: int) -> None:
        """Leave so many bytes, rounded down to blocks of 4096."""
        filler = self.path / "filler"
        filler.unlink(missing_ok=True)
        have = shutil.disk_usage(self.path).free
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, have - free // 4096 * 4096)

    def free(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """The project's commands, without the power of root."""
    with Commands() as commands:
        yield commands


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, which is not part of the project."""
    folder = Path(os.environ.get("IRMAS_SHARED", ROOT.parent / "shared"))
    if not (folder / "irmas_wav").is_dir():
        pytest.skip(f"no real IRMAS data in {folder}")
    return folder


@pytest.fixture(scope="session")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in's test part, with three songs."""
    return render_test_part(tmp_path_factory.mktemp("songs"), SILENT, songs=3)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads, and several of them are slow on small tensors."""
    import torch  # here: most tests do without

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
