"""Downloads over real HTTP from a server on 127.0.0.1 that can cut, hold, hide ranges and change its mind."""

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

from irmas.data import download as module
from irmas.data.download import ARCHIVES, download
from irmas.errors import DataError

NAME = "IRMAS-TrainingData.zip"
BLOCK = module.BLOCK_BYTES


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def big_archive(seed: int = 0) -> bytes:
    """About 1 MB that does not compress, so that it takes many blocks."""
    return archive({"IRMAS-TrainingData/cel/a.wav": random.Random(seed).randbytes(1_000_000)})


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


@dataclass
class Server:
    """What the server offers and how it misbehaves; what it was asked and how many body bytes it sent."""

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    ranges: bool = True
    weak_etag: bool = False
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    hold_after: int | None = None
    released: threading.Event = field(default_factory=threading.Event)
    requests: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0

    @property
    def checksums(self) -> dict[str, str]:
        return {name: md5(content) for name, content in self.files.items()}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A request uses up one of `cut_after` (bytes before the cut) or of `statuses` (instead of content)."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append({"path": self.path, **dict(self.headers)})
            content = state.files.get(self.path.rpartition("/")[2])
            if content is None or state.statuses:
                self.send_error(state.statuses.pop(0) if state.statuses else 404)
                return
            etag = f'"{hashlib.md5(content).hexdigest()}"'
            begin = self.first_byte(etag)
            if begin >= len(content) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if begin else 200)
            self.send_header("ETag", f"W/{etag}" if state.weak_etag else etag)
            self.send_header("Content-Length", str(len(content) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self.send_body(content[begin:])

        def first_byte(self, etag: str) -> int:
            match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", etag) == etag
            return int(match[1]) if match and same and state.ranges else 0

        def send_body(self, body: bytes) -> None:
            end = state.cut_after.pop(0) if state.cut_after else len(body)
            hold = end if state.hold_after is None else state.hold_after
            try:
                self.wfile.write(body[:hold])
                state.sent += len(body[:hold])
                if hold < end:
                    state.released.wait(20)
                self.wfile.write(body[hold:end])
                state.sent += len(body[hold:end])
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


def child(server: Server, folder: Path, before: str = "") -> subprocess.Popen[bytes]:
    """A process of its own that downloads what the server offers, after the statements `before`."""
    code = (
        "import os, signal, zipfile, pooch.core\nfrom pathlib import Path\n"
        "from irmas.data.download import download\n"
        f"{before}\n"
        f"download(Path({str(folder)!r}), {server.url!r}, {server.checksums!r})\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(module.__file__).parents[2])


def killed(server: Server, folder: Path, before: str) -> None:
    assert child(server, folder, before).wait(30) == -signal.SIGKILL


def wait_for_size(path: Path, size: int) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, f"{path} did not grow to {size} bytes"
        time.sleep(0.01)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


FINISHED = {".download.lock", NAME, "IRMAS-TrainingData"}
"""What lies in the folder when all is done: nothing temporary."""


def test_four_archives_are_fetched_and_unpacked_and_a_second_call_asks_nothing(server: Server, tmp_path: Path) -> None:
    for name in ARCHIVES:
        stem = name.removesuffix(".zip")
        top = stem if "Part2" not in name else "Part2"
        server.files[name] = archive({f"{top}/a.wav": name.encode()})
    folder = tmp_path / "new" / "data"
    expected = [folder / name.removesuffix(".zip") for name in ARCHIVES]

    assert download(folder, server.url, server.checksums) == expected
    assert [request["path"] for request in server.requests] == [f"/records/1290750/files/{name}" for name in ARCHIVES]
    for name, target in zip(ARCHIVES, expected, strict=True):
        inner = target / "Part2" if "Part2" in name else target
        assert (inner / "a.wav").read_bytes() == name.encode()

    assert download(folder, server.url, server.checksums) == expected
    assert len(server.requests) == len(ARCHIVES)


def test_kept_archive_is_unpacked_again_without_a_request(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = archive({"IRMAS-TrainingData/a.wav": b"sound"})
    (target,) = download(tmp_path, server.url, server.checksums)
    (target / "a.wav").unlink()
    target.rmdir()

    download(tmp_path, server.url, server.checksums)

    assert (target / "a.wav").read_bytes() == b"sound"
    assert len(server.requests) == 1


def test_what_stands_beside_the_archives_own_folder_does_not_move_it_down(server: Server, tmp_path: Path) -> None:
    server.files["A.zip"] = archive({"A/cel/1.wav": b"cello", "__MACOSX/A/._1.wav": b"nothing"})
    (folder,) = download(tmp_path, server.url, server.checksums)
    assert names(folder) == {"cel"}
    assert (folder / "cel" / "1.wav").read_bytes() == b"cello"


def test_only_what_is_not_unpacked_is_fetched(server: Server, tmp_path: Path) -> None:
    server.files = {name: archive({"a.wav": name.encode()}) for name in ("one.zip", "two.zip")}
    (tmp_path / "one").mkdir()

    download(tmp_path, server.url, server.checksums)

    assert [request["path"].rpartition("/")[2] for request in server.requests] == ["two.zip"]
    assert (tmp_path / "two" / "a.wav").read_bytes() == b"two.zip"


def test_cut_connections_are_resumed_and_no_byte_is_fetched_twice(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    server.cut_after = [300_000, 200_000, 100_000]
    seen: list[tuple[str, int, int | None]] = []

    download(tmp_path, server.url, server.checksums, lambda *call: seen.append(call))

    size = len(server.files[NAME])
    assert (tmp_path / NAME).read_bytes() == server.files[NAME]
    assert server.sent == size
    assert [request.get("Range") for request in server.requests] == [
        None,
        "bytes=300000-",
        "bytes=500000-",
        "bytes=600000-",
    ]
    assert seen[0] == (NAME, 0, size)
    assert seen[-1] == (NAME, size, size)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert names(tmp_path) == FINISHED


def test_download_that_keeps_breaking_says_how_far_it_came_and_goes_on_later(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    size = len(server.files[NAME])
    server.cut_after = [1000] * module.ATTEMPTS
    have = 1000 * module.ATTEMPTS

    with pytest.raises(DataError, match=rf"{NAME}: {server.url}{NAME} .*{have} of {size} bytes.*same command"):
        download(tmp_path, server.url, server.checksums)
    assert (tmp_path / f"{NAME}.part").stat().st_size == have
    assert not (tmp_path / NAME).exists()

    download(tmp_path, server.url, server.checksums)
    assert server.sent == size
    assert names(tmp_path) == FINISHED


def test_killed_download_holds_the_lock_while_it_lives_and_is_resumed_after(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    server.hold_after = 8 * BLOCK
    process = child(server, tmp_path)
    wait_for_size(tmp_path / f"{NAME}.part", 8 * BLOCK)

    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: another download")):
        download(tmp_path, server.url, server.checksums)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    server.hold_after = None
    assert not (tmp_path / "IRMAS-TrainingData").exists()

    assert child(server, tmp_path).wait(30) == 0
    assert server.requests[-1]["Range"] == f"bytes={8 * BLOCK}-"
    assert server.sent == len(server.files[NAME])
    assert (tmp_path / NAME).read_bytes() == server.files[NAME]
    assert names(tmp_path) == FINISHED


def test_download_killed_while_its_checksum_is_computed_fetches_nothing_again(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    killed(server, tmp_path, "pooch.core.hash_matches = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)")
    assert not (tmp_path / NAME).exists()

    download(tmp_path, server.url, server.checksums)

    assert server.sent == len(server.files[NAME])
    assert names(tmp_path) == FINISHED


def test_file_that_changed_between_two_requests_is_not_spliced(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive(seed=1)
    server.cut_after = [300_000] + [0] * (module.ATTEMPTS - 1)
    with pytest.raises(DataError):
        download(tmp_path, server.url, server.checksums)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 300_000

    server.files[NAME] = big_archive(seed=2)
    download(tmp_path, server.url, server.checksums)

    assert (tmp_path / NAME).read_bytes() == server.files[NAME]


def test_weak_etag_is_not_sent_back(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    server.weak_etag = True
    server.cut_after = [300_000]

    download(tmp_path, server.url, server.checksums)

    assert "If-Range" not in server.requests[1]
    assert server.sent == len(server.files[NAME])


def test_server_without_ranges_sends_the_file_anew(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    server.ranges = False
    server.cut_after = [300_000]

    download(tmp_path, server.url, server.checksums)

    assert (tmp_path / NAME).read_bytes() == server.files[NAME]
    assert server.sent == 300_000 + len(server.files[NAME])


def test_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    (tmp_path / f"{NAME}.part").write_bytes(bytes(2_000_000))

    download(tmp_path, server.url, server.checksums)

    assert (tmp_path / NAME).read_bytes() == server.files[NAME]


def test_wrong_checksum_is_refused_with_both_sums_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    known, found = "md5:" + "0" * 32, md5(server.files[NAME]).removeprefix("md5:")

    with pytest.raises(DataError, match=f"{server.url}{NAME}: .*{known}.*{found}"):
        download(tmp_path, server.url, {NAME: known})

    assert names(tmp_path) == {".download.lock"}


def test_missing_file_is_reported_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{NAME}: {server.url}{NAME} answered 404 Not Found"):
        download(tmp_path, server.url, {NAME: "md5:" + "0" * 32})
    assert len(server.requests) == 1


def test_server_that_is_busy_for_a_while_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    server.statuses = [503, 429]
    download(tmp_path, server.url, server.checksums)
    assert len(server.requests) == 3


def test_server_that_stays_busy_is_named_with_its_answer(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = big_archive()
    server.statuses = [503] * module.ATTEMPTS
    with pytest.raises(DataError, match=r"503: Service Unavailable\. 0 of an unknown number of bytes"):
        download(tmp_path, server.url, server.checksums)


def test_server_that_does_not_listen_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/.* Connection refused"):
        download(tmp_path, "http://127.0.0.1:1/", {NAME: "md5:" + "0" * 32})


def test_url_of_another_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="http:// or https:// is needed"):
        download(tmp_path, "zenodo.org/records", {NAME: "md5:" + "0" * 32})


def test_full_disk_is_named_with_its_path_and_the_part_stays(server: Server, tmp_path: Path) -> None:
    """A real write error, without a full disk: the child may write no file larger than 200,000 bytes."""
    server.files[NAME] = big_archive()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    guarded = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{limit}\nfrom pathlib import Path\nfrom irmas.data.download import download\n"
            "from irmas.errors import DataError\n"
            f"try: download(Path({str(tmp_path)!r}), {server.url!r}, {server.checksums!r})\n"
            "except DataError as error: raise SystemExit(f'refused: {error}')\n",
        ],
        cwd=Path(module.__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"refused: {tmp_path}: File too large" in guarded.stderr
    assert (tmp_path / f"{NAME}.part").stat().st_size <= 200_000

    download(tmp_path, server.url, server.checksums)
    assert (tmp_path / NAME).read_bytes() == server.files[NAME]


def test_proxy_of_the_environment_is_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server plays the proxy: a proxied request names the whole URL, of a host that does not exist."""
    server.files[NAME] = archive({"IRMAS-TrainingData/a.wav": b"sound"})
    monkeypatch.setenv("http_proxy", server.url)
    server.url = "http://archive.invalid/files/"
    assert child(server, tmp_path).wait(30) == 0
    assert [request["path"] for request in server.requests] == [f"http://archive.invalid/files/{NAME}"]


def link_member() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("IRMAS-TrainingData/link")
    member.create_system = 3
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "member",
    ["../outside.wav", "IRMAS-TrainingData/../../outside.wav", "/outside.wav", link_member()],
    ids=str,
)
def test_archive_with_a_member_outside_its_folder_is_refused_whole(
    server: Server, tmp_path: Path, member: str | zipfile.ZipInfo
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("IRMAS-TrainingData/a.wav", b"sound")
        file.writestr(member, b"/etc")
    server.files[NAME] = buffer.getvalue()
    name = member if isinstance(member, str) else member.filename

    with pytest.raises(DataError, match=re.escape(f"{NAME}: refused: {name}")):
        download(tmp_path / "data", server.url, server.checksums)

    assert names(tmp_path) == {"data"}
    assert names(tmp_path / "data") == {".download.lock", NAME}


def test_damaged_member_leaves_no_folder_that_looks_finished(server: Server, tmp_path: Path) -> None:
    content = archive({"IRMAS-TrainingData/a.wav": b"sound", "IRMAS-TrainingData/b.wav": b"silence"})
    server.files[NAME] = content.replace(b"silence", b"SILENCE")

    with pytest.raises(DataError, match=re.escape(f"{tmp_path / NAME}: not a sound zip archive")):
        download(tmp_path, server.url, server.checksums)

    assert names(tmp_path) == {".download.lock", NAME}


def test_unpacking_killed_halfway_is_done_anew_without_a_request(server: Server, tmp_path: Path) -> None:
    server.files[NAME] = archive({f"IRMAS-TrainingData/{i}.wav": b"sound" for i in range(6)})
    killed(
        server,
        tmp_path,
        "unpack = zipfile.ZipFile._extract_member\n"
        "def until_third(self, member, *rest):\n"
        "    if '/3.wav' in getattr(member, 'filename', member): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return unpack(self, member, *rest)\n"
        "zipfile.ZipFile._extract_member = until_third",
    )
    assert not (tmp_path / "IRMAS-TrainingData").exists()
    half = tmp_path / ".IRMAS-TrainingData.unpacking" / "IRMAS-TrainingData"
    (half / "2.wav").rename(half / "of-an-older-archive.wav")

    (target,) = download(tmp_path, server.url, server.checksums)

    assert names(target) == {f"{i}.wav" for i in range(6)}
    assert names(tmp_path) == FINISHED
    assert len(server.requests) == 1
