"""Provenance of a result: source, commit, versions."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import platform
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from irmas import __version__
from irmas.errors import ConfigError, first_line

PACKAGE = Path(__file__).parent
INSTALLED = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
REPORTED = ("torch", "torchaudio", "numpy", "hydra-core", "omegaconf", "submitit", "tensorboard", "soundfile")


NOT_TRAINING = (
    *("__main__.py", "train.py", "prepare.py", "rank.py", "refine.py", "status.py", "compare.py", "clean.py"),
    *("evaluate.py", "predict.py", "export.py"),
    *("cli/", "evaluation/", "inference/", "results/", "plot_style.py", "data/download.py"),
    *("sweep/cost.py", "sweep/executor.py", "sweep/run_states.py", "sweep/sbatch.py", "sweep/submit.py"),
)
"""Files and folders that no process imports which trains a run or makes its data; a new file counts as training."""


@cache
def package_source() -> Mapping[str, bytes]:
    """Return the package's source by path in the package.

    It is read once, so that the digest that a command plans with is that of the copy that it keeps. Hidden files and
    folders are no source: editors and file managers keep their own in them, such as dangling links.
    """
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: path.read_bytes() for name, path in paths.items() if "/." not in f"/{name}"}


def training_source() -> Mapping[str, bytes]:
    """Return the part of it that trains runs and makes their data."""
    return {name: content for name, content in package_source().items() if not name.startswith(NOT_TRAINING)}


def built_source(builders: Iterable[str]) -> Mapping[str, bytes]:
    """Return the source of nets of users' own, by path in the folder of PYTHONPATH that has it.

    It is the file of each builder, `module:function`, all that this imports from the same folder, and the packages
    above, the only ones that are imported here. There is none of an installed module. Raise ConfigError where there is
    no such file.
    """
    files: dict[str, Path] = {}
    for builder in builders:
        name = builder.partition(":")[0]
        try:
            spec = importlib.util.find_spec(name)
        except Exception as error:
            raise ConfigError("model.builder", builder, f"cannot be imported ({first_line(error)})") from error
        if spec is None or not (spec.origin or "").endswith(".py"):
            raise ConfigError("model.builder", builder, f"PYTHONPATH leads to no file of {name}")
        file = Path(str(spec.origin))
        if any(file.is_relative_to(path) for path in INSTALLED):
            continue
        root = file.parents[name.count(".") + (file.name == "__init__.py")]
        waiting = [file, *(root / above / "__init__.py" for above in file.relative_to(root).parents if above.name)]
        while waiting:
            path = waiting.pop()
            key = path.relative_to(root).as_posix()
            if key not in files and path.is_file():
                files[key] = path
                waiting += [other for other in _imported_files(path, root) if other.is_relative_to(file.parent)]
    return {key: path.read_bytes() for key, path in sorted(files.items())}


def _imported_files(path: Path, root: Path) -> Iterator[Path]:
    """Yield the files that a source file may import, anywhere in it, as modules below `root`."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # reported where it is imported
        return
    for node in ast.walk(tree):
        names = list[Path]()
        if isinstance(node, ast.Import):
            names = [root.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else root
            base = base.joinpath(*(node.module or "").split("."))
            names = [base, *(base / alias.name for alias in node.names)]
        for name in names:
            yield from (name.with_name(f"{name.name}.py"), name / "__init__.py")


def source_digest(builders: Iterable[str] = ()) -> str:
    """Return the digest, 12 hexadecimal digits, of `training_source` and of nets of users' own."""
    digest = hashlib.sha256()
    for name, content in [*training_source().items(), *built_source(builders).items()]:
        digest.update(name.encode() + content)
    return digest.hexdigest()[:12]


def source_digests(builders: Iterable[str] = ()) -> dict[str, str]:
    """Return the digest, 12 hexadecimal digits, of each of these files, by path."""
    source = {f"{PACKAGE.name}/{name}": content for name, content in training_source().items()}
    source.update(built_source(builders))
    return {name: hashlib.sha256(content).hexdigest()[:12] for name, content in source.items()}


def git_commit() -> str:
    """Return the commit of a checkout, with `+` if files differ from it; empty for an installed package."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    if not (PACKAGE.parent / ".git").exists():
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of the libraries that results depend on."""
    return {"irmas": __version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in REPORTED
    }
