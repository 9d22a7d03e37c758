"""Downloads over real HTTP from a server on 127.0.0.1 that can cut, hold and refuse."""

from __future__ import annotations

import hashlib
import io
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import wait_until
from conftest import Recorder

from irmas.data import download as module
from irmas.data.download import ARCHIVES, MEGABYTE, RETRIES, download
from irmas.errors import DataError

NAME = "IRMAS-TrainingData.zip"
FINISHED = {".download.lock", NAME, "IRMAS-TrainingData"}
"""Names in the folder when all is done: nothing temporary."""


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def big_archive() -> bytes:
    """Return 2.5 MB that do not compress."""
    return archive({"IRMAS-TrainingData/cel/a.wav": random.Random(0).randbytes(5 * MEGABYTE // 2)})


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


@dataclass
class Server:
    """The files of a server, its faults, and the requests that it got.

    A request uses up one of `cut_after` (bytes before the connection breaks) or of `statuses` (instead of content).
    """

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    hold_after: int | None = None
    released: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)

    @property
    def checksums(self) -> dict[str, str]:
        return {name: md5(content) for name, content in self.files.items()}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    pause = time.sleep
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: pause(min(seconds, 0.01)))
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            content = state.files.get(self.path.rpartition("/")[2])
            if content is None or state.statuses:
                self.send_error(state.statuses.pop(0) if state.statuses else 404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            end = state.cut_after.pop(0) if state.cut_after else len(content)
            hold = end if state.hold_after is None else state.hold_after
            try:
                self.wfile.write(content[:hold])
                if hold < end:
                    state.released.wait(20)
                self.wfile.write(content[hold:end])
            except ConnectionError:
                pass  # the client was killed

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}/records/1290750/files/"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        state.released.set()
        http.shutdown()
        thread.join()


def child(server: Server, folder: Path, before: str = "", timeout_s: float | None = 30) -> subprocess.Popen[str]:
    """Start a process that downloads what the server offers, after the statements `before`; wait for its end."""
    code = (
        "import os, signal, zipfile, pooch.core\nfrom pathlib import Path\n"
        "from irmas.data.download import download\nfrom irmas.errors import DataError\n"
        f"{before}\n"
        f"try: download(Path({str(folder)!r}), {server.url!r}, {server.checksums!r})\n"
        "except DataError as error: raise SystemExit(f'refused: {error}')\n"
    )
    root = Path(module.__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, text=True)
    if timeout_s is not None:
        process.wait(timeout_s)
    return process


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_four_archives_are_fetched_and_unpacked_once(server: Server, tmp_path: Path) -> None:
    for name in ARCHIVES:
        stem = name.removesuffix(".zip")
        top = stem if "Part2" not in name else "Part2"
        server.files[name] = archive({f"{top}/a.wav": name.encode()})
    folder = tmp_path / "new" / "data"
    expected = [folder / name.removesuffix(".zip") for name in ARCHIVES]
    for _ in range(2):
        assert download(folder, server.url, server.checksums) == expected
        assert server.requests == [f"/records/1290750/files/{name}" for name in ARCHIVES]
    for name, target in zip(ARCHIVES, expected, strict=True):
        inner = target / "Part2" if "Part2" in name else target
        assert (inner / "a.wav").read_bytes() == name.encode()


def test_a_kept_archive_is_unpacked_again_without_a_request(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = archive({"IRMAS-TrainingData/a.wav": b"sound"})
    (target,) = download(tmp_path, server.url, server.checksums)
    (target / "a.wav").unlink()
    target.rmdir()
    download(tmp_path, server.url, server.checksums)
    assert (target / "a.wav").read_bytes() == b"sound"
    assert len(server.requests) == 1
    (target / "a.wav").unlink()
    target.rmdir()
    (tmp_path / NAME).write_bytes(b"damaged")
    download(tmp_path, server.url, server.checksums)
    assert len(server.requests) == 2
    assert names(tmp_path) == FINISHED


def test_files_beside_the_archives_own_folder_do_not_move_it_down(server: Server, tmp_path: Path) -> None:
    server.files["A.zip"] = archive({"A/cel/1.wav": b"cello", "__MACOSX/A/._1.wav": b"nothing"})
    (folder,) = download(tmp_path, server.url, server.checksums)
    assert names(folder) == {"cel"}
    assert (folder / "cel" / "1.wav").read_bytes() == b"cello"


def test_an_unpacked_folder_is_left_alone(server: Server, tmp_path: Path) -> None:
    server.files = {name: archive({"a.wav": name.encode()}) for name in ("one.zip", "two.zip")}
    (tmp_path / "one").mkdir()
    download(tmp_path, server.url, server.checksums)
    assert [path.rpartition("/")[2] for path in server.requests] == ["two.zip"]
    assert names(tmp_path / "one") == set()
    assert (tmp_path / "two" / "a.wav").read_bytes() == b"two.zip"


def test_a_broken_connection_and_a_busy_server_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    server.cut_after = [MEGABYTE + 300_000]
    server.statuses = [503, 429]
    recorder = Recorder()
    download(tmp_path, server.url, server.checksums, recorder)
    assert (tmp_path / NAME).read_bytes() == server.files[NAME]
    assert len(server.requests) == 4
    assert recorder.begun == [(NAME, 3, "MB")] * 2
    assert recorder.advanced == [1, 1, 1]
    assert names(tmp_path) == FINISHED


def test_two_downloads_into_one_folder_fetch_once(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    server.hold_after = MEGABYTE
    first = child(server, tmp_path, timeout_s=None)
    wait_until(lambda: bool(server.requests), "the first download")
    second = child(server, tmp_path, timeout_s=None)
    assert "waiting for another process" in (second.stderr or io.StringIO()).readline()
    server.released.set()
    for process in (first, second):
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert len(server.requests) == 1
    assert names(tmp_path) == FINISHED


KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("before", "requests"),
    [
        (f"pooch.core.hash_matches = lambda *_, **__: {KILLED}", 2),
        (
            "unpack = zipfile.ZipFile._extract_member\n"
            "def until_third(self, member, *rest):\n"
            f"    if '/3.wav' in getattr(member, 'filename', member): {KILLED}\n"
            "    return unpack(self, member, *rest)\n"
            "zipfile.ZipFile._extract_member = until_third",
            1,
        ),
    ],
    ids=["verifying", "unpacking"],
)
def test_a_killed_download_leaves_nothing_that_looks_finished(
    server: Server, tmp_path: Path, before: str, requests: int
) -> None:
    server.files[NAME] = archive({f"IRMAS-TrainingData/{i}.wav": b"sound" for i in range(6)})
    process = child(server, tmp_path, before)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "IRMAS-TrainingData").exists()
    assert (tmp_path / ".download").exists()
    (target,) = download(tmp_path, server.url, server.checksums)
    assert names(target) == {f"{i}.wav" for i in range(6)}
    assert names(tmp_path) == FINISHED
    assert len(server.requests) == requests


def test_a_wrong_checksum_is_refused_with_both_sums_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    known, actual = "md5:" + "0" * 32, md5(server.files[NAME]).removeprefix("md5:")
    with pytest.raises(DataError, match=f"{server.url}{NAME}: .*{known}.*{actual}"):
        download(tmp_path, server.url, {NAME: known})
    assert names(tmp_path) == {".download.lock"}


@pytest.mark.parametrize(
    ("statuses", "reason"), [([], "404 Client Error"), ([503] * (1 + RETRIES), "503 Server Error")]
)
def test_a_refusal_of_the_server_is_named(server: Server, tmp_path: Path, statuses: list[int], reason: str) -> None:
    server.statuses = statuses
    with pytest.raises(DataError, match=rf"^{server.url}{NAME}: {reason}.*; rerun the command"):
        download(tmp_path, server.url, {NAME: "md5:" + "0" * 32})
    assert names(tmp_path) == {".download.lock"}


@pytest.mark.usefixtures("server")
def test_a_server_that_does_not_listen_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^http://127\.0\.0\.1:1/{NAME}: .* Connection refused"):
        download(tmp_path, "http://127.0.0.1:1/", {NAME: "md5:" + "0" * 32})


def test_a_full_disk_is_named_with_its_path(server: Server, tmp_path: Path) -> None:
    """A real write error, without a full disk: the child may write no file larger than 200,000 bytes."""
    server.files[NAME] = big_archive()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    _, stderr = child(server, tmp_path, limit).communicate()
    assert f"refused: {tmp_path}: File too large; rerun the command" in stderr
    assert names(tmp_path) == {".download.lock"}


def test_the_proxy_of_the_environment_is_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server plays the proxy: a proxied request names the whole URL, of a host that does not exist."""
    server.files[NAME] = archive({"IRMAS-TrainingData/a.wav": b"sound"})
    monkeypatch.setenv("http_proxy", server.url)
    server.url = "http://archive.invalid/files/"
    process = child(server, tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert server.requests == [f"http://archive.invalid/files/{NAME}"]


def test_an_archive_writes_nothing_outside_its_folder(server: Server, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("IRMAS-TrainingData/link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("IRMAS-TrainingData/a.wav", b"sound")
        for member in ("../outside.wav", "IRMAS-TrainingData/../../../outside.wav", f"{tmp_path}/outside.wav", link):
            file.writestr(member, b"/etc")
    server.files[NAME] = buffer.getvalue()
    (target,) = download(tmp_path / "data", server.url, server.checksums)
    assert names(tmp_path) == {"data"}
    assert names(tmp_path / "data") == FINISHED
    assert not [path for path in target.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("content", [b"silence", None])
def test_a_damaged_archive_leaves_no_folder_that_looks_finished(
    server: Server, tmp_path: Path, content: bytes | None
) -> None:
    whole = archive({"IRMAS-TrainingData/a.wav": b"sound", "IRMAS-TrainingData/b.wav": b"silence"})
    server.files[NAME] = whole.replace(content, content.upper()) if content else b"no zip"
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / NAME}: not a sound zip archive")):
        download(tmp_path, server.url, server.checksums)
    assert names(tmp_path) == {".download.lock", NAME}
