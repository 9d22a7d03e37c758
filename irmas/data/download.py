"""The real IRMAS archives (Zenodo record 1290750): fetch, verify and unpack them."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pooch

from irmas.console import SILENT, Progress
from irmas.errors import DataError
from irmas.files import locked

BASE_URL = "https://zenodo.org/records/1290750/files/"
ARCHIVES: dict[str, str] = {
    "IRMAS-TrainingData.zip": "md5:4fd9f5ed5a18d8e2687e6360b5f60afe",
    "IRMAS-TestingData-Part1.zip": "md5:5a2e65520dcedada565dff2050bb2a56",
    "IRMAS-TestingData-Part2.zip": "md5:afb0c8ea92f34ee653693106be95c895",
    "IRMAS-TestingData-Part3.zip": "md5:9b3fb2d0c89cdc98037121c25bd5b556",
}
"""File name -> checksum, in pooch's notation."""
RETRIES = 4
MEGABYTE = 1_000_000


def download(
    folder: Path, base_url: str = BASE_URL, archives: Mapping[str, str] = ARCHIVES, progress: Progress = SILENT
) -> list[Path]:
    """Fetch, verify and unpack each archive; return the unpacked folders, `folder`/<archive's name without .zip>.

    An unpacked folder that exists is complete, since it gets its name last, and is left alone. Verified archives stay
    in `folder`. Proxies come from the environment.
    Raise DataError if the server, the disk, a checksum or an archive's content prevents it.
    """
    folders = [folder / Path(name).stem for name in archives]
    if all(target.is_dir() for target in folders):
        return folders
    staging = folder / ".download"
    with locked(folder / ".download.lock"):
        try:
            for (name, checksum), target in zip(archives.items(), folders, strict=True):
                if not target.is_dir():
                    shutil.rmtree(staging, ignore_errors=True)
                    _fetch(base_url, checksum, folder / name, staging, progress)
                    _unpack(folder / name, target, staging)
        except OSError as error:
            reason = f"{error.filename or folder}: {error.strerror or error}"
            raise DataError(f"{reason}; rerun the command to fetch what is missing") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return folders


def _fetch(base_url: str, checksum: str, archive: Path, staging: Path, progress: Progress) -> None:
    """Leave `archive` complete and verified, without a request if it is so already."""
    if archive.exists() and f"md5:{pooch.file_hash(archive, alg='md5')}" == checksum:
        return
    remote = pooch.Pooch(staging, base_url, {archive.name: checksum}, retry_if_failed=RETRIES)
    downloader = pooch.HTTPDownloader(progressbar=_Megabytes(archive.name, progress), chunk_size=MEGABYTE)
    try:
        Path(remote.fetch(archive.name, downloader=downloader)).replace(archive)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk: those of requests have no number
            raise
        url = remote.get_url(archive.name)
        raise DataError(f"{url}: {error}; rerun the command to fetch what is missing") from None


class _Megabytes:
    """A progress bar as pooch calls it; it counts the file's megabytes on `progress`."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name, self.progress, self.remaining = name, progress, 0

    def _begin(self, size: int) -> None:
        self.remaining = max(1, -(-size // MEGABYTE))
        self.progress.start(self.name, self.remaining, "MB")

    total = property(fset=_begin, doc="Size in bytes, set when an attempt begins; 0 if unknown.")

    def update(self, count: int) -> None:
        done = min(count // MEGABYTE, self.remaining)
        self.remaining -= done
        if done:
            self.progress.advance(done)

    def reset(self) -> None: ...

    def close(self) -> None:
        self.update(self.remaining * MEGABYTE)


def _unpack(archive: Path, target: Path, staging: Path) -> None:
    """Unpack to `target`, which gets its name last; a top folder of the same name is not doubled."""
    unpacked = staging / target.name
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(unpacked)  # members such as ../x.wav and /x.wav land in it, links become files
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{archive}: not a sound zip archive: {error}") from None
    inner = unpacked / target.name  # what lies beside it, such as __MACOSX, stays in the archive
    (inner if inner.is_dir() else unpacked).rename(target)
