"""Fetches the real IRMAS archives (Zenodo record 1290750), resuming what broke off, and unpacks them."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import ssl
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pooch

from irmas import __version__
from irmas.errors import DataError
from irmas.files import atomic_write

BASE_URL = "https://zenodo.org/records/1290750/files/"

ARCHIVES: dict[str, str] = {
    "IRMAS-TrainingData.zip": "md5:4fd9f5ed5a18d8e2687e6360b5f60afe",
    "IRMAS-TestingData-Part1.zip": "md5:5a2e65520dcedada565dff2050bb2a56",
    "IRMAS-TestingData-Part2.zip": "md5:afb0c8ea92f34ee653693106be95c895",
    "IRMAS-TestingData-Part3.zip": "md5:9b3fb2d0c89cdc98037121c25bd5b556",
}
"""File name -> checksum, in pooch's notation."""

ATTEMPTS = 5
PAUSE_S = 1.0
"""Before the second attempt; doubled before each further one."""
TIMEOUT_S = 60.0
BLOCK_BYTES = 1 << 16

OnBytes = Callable[[str, int, int | None], None]
"""Called with the file's name, its bytes here and its size in bytes (None: the server hides it)."""

_WORTH_ANOTHER_ATTEMPT = frozenset({408, 429, 500, 502, 503, 504})
_NETWORK_ERRORS = (URLError, ConnectionError, TimeoutError, ssl.SSLError, HTTPException)


def download(
    folder: Path,
    base_url: str = BASE_URL,
    archives: Mapping[str, str] = ARCHIVES,
    progress: OnBytes | None = None,
) -> list[Path]:
    """Fetch, verify and unpack each archive; the unpacked folders, `folder`/<archive's name without .zip>.

    An unpacked folder that exists is complete (it gets its name last), and nothing is fetched for it. The
    archives stay in `folder`, where they can be verified again. What an interrupted download has fetched
    stays as <archive>.part, and the same call goes on from there. Proxies come from the environment.

    Raises DataError where the server, the disk, a checksum or an archive's content stands in the way, and
    where another download into the same folder is under way.
    """
    folders = [folder / Path(name).stem for name in archives]
    if all(target.is_dir() for target in folders):
        return folders
    if not base_url.startswith(("http://", "https://")):
        raise DataError(f"{base_url}: a URL that starts with http:// or https:// is needed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            for (name, checksum), target in zip(archives.items(), folders, strict=True):
                if not target.is_dir():
                    archive = folder / name
                    _obtain(f"{base_url.rstrip('/')}/{name}", checksum, archive, progress)
                    _unpack(archive, target)
    except OSError as error:
        reason = f"{error.filename or folder}: {error.strerror or error}"
        raise DataError(f"{reason}. What has been fetched stays; the same command goes on") from error
    return folders


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / ".download.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{folder}: another download is at work here; wait for its end") from error
        yield


def _obtain(url: str, checksum: str, archive: Path, progress: OnBytes | None) -> None:
    """Leave `archive` complete and verified, without a request where it is so already."""
    part = archive.with_name(f"{archive.name}.part")

    def fetch(_url: str, output: str, _pooch: object) -> None:
        _fetch(url, part, progress)
        Path(output).unlink()
        try:  # a second name, not a copy: if killed while pooch verifies it, the part is still here
            os.link(part, output)
        except OSError:  # a file system without hard links
            part.replace(output)

    _sweep(archive.parent)
    try:
        pooch.retrieve(url, checksum, archive.name, archive.parent, downloader=fetch)
    except ValueError as error:
        _discard(part)
        raise DataError(f"{url}: {error}") from error
    _discard(part)


def _sweep(folder: Path) -> None:
    """Remove what a killed pooch left: empty files and second names of files, so nothing is lost."""
    for leftover in folder.glob("tmp????????"):
        if leftover.is_file() and (leftover.stat().st_size == 0 or leftover.stat().st_nlink > 1):
            leftover.unlink()


def _fetch(url: str, part: Path, progress: OnBytes | None) -> None:
    """Complete `part`, in several attempts where the connection breaks."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        try:
            _resume(url, part, progress)
            return
        except HTTPError as error:
            error.close()
            if error.code == 416:  # nothing lies behind the part's last byte
                if _extent(error.headers)[1] in (None, part.stat().st_size):
                    return
                _discard(part)
            elif error.code not in _WORTH_ANOTHER_ATTEMPT:
                raise DataError(f"{part.stem}: {url} answered {error.code} {error.reason}") from error
            reason = str(error)
        except _NETWORK_ERRORS as error:
            reason = str(error) or type(error).__name__
    have = part.stat().st_size if part.exists() else 0
    total = _origin(part).get("bytes") or "an unknown number of"
    raise DataError(
        f"{part.stem}: {url} failed {ATTEMPTS} times, at last with: {reason}. "
        f"{have} of {total} bytes are there; the same command goes on from them"
    )


def _resume(url: str, part: Path, progress: OnBytes | None) -> None:
    """Ask once for what `part` lacks and append it; where the whole file comes, it starts anew."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"irmas/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known := _origin(part).get("validator"):  # a strong ETag or a date (RFC 9110, 13.1.5)
            headers["If-Range"] = known
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT_S) as response, part.open("ab") as file:
        done, total = _extent(response.headers)
        file.truncate(done)
        if done == 0:
            etag = response.headers.get("ETag", "W/")
            validator = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
            atomic_write(_origin_path(part), json.dumps({"validator": validator, "bytes": total}))
        while True:
            if progress:
                progress(part.stem, done, total)
            if not (block := response.read(BLOCK_BYTES)):
                break
            file.write(block)
            done += len(block)
    if total is not None and done < total:
        raise ConnectionError("the server closed the connection")


def _extent(headers: Message) -> tuple[int, int | None]:
    """Where in the file the answer's body begins, and the whole file's size, in bytes (RFC 9110, 14.4)."""
    if match := re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", headers.get("Content-Range", "")):
        return int(match[1] or 0), int(match[2]) if match[2] else None
    length = headers.get("Content-Length")
    return 0, int(length) if length else None


def _origin_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _origin(part: Path) -> dict[str, Any]:
    """What the server said of the file when `part` was begun: its validator and size, each perhaps None."""
    path = _origin_path(part)
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin_path(part).unlink(missing_ok=True)


def _unpack(archive: Path, target: Path) -> None:
    """Unpack to `target`, which gets its name last; a top folder of the same name is not doubled."""
    temporary = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                path = PurePosixPath(member.filename)
                if path.is_absolute() or ".." in path.parts or stat.S_ISLNK(member.external_attr >> 16):
                    raise DataError(f"{archive}: refused: {path} would lie outside its folder, or is a link")
            content.extractall(temporary)
        inner = temporary / target.name  # what stands beside it, such as __MACOSX, stays in the archive
        (inner if inner.is_dir() else temporary).rename(target)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{archive}: not a sound zip archive: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
