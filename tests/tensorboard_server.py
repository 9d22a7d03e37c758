"""A running TensorBoard, asked as its pages ask it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

from commands import wait_until

Fetch = Callable[..., bytes]


@contextmanager
def tensorboard(logdir: Path, *options: str) -> Iterator[Fetch]:
    """`fetch(route, body, **query)`: what it answers under /data/plugin/, to a POST where there is a body."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
    command += ["--port", "0", "--reload_interval", "1", *options]
    with TemporaryDirectory() as scratch, (Path(scratch) / "log").open("w+") as log:
        environment = os.environ | {"TMPDIR": scratch}
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

        def printed() -> str:
            return Path(log.name).read_text()

        def is_up() -> bool:
            assert server.poll() is None, printed()
            return "http://127.0.0.1:" in printed()

        def fetch(route: str, body: object = None, **query: str | int) -> bytes:
            (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/", printed())
            data = json.dumps(body).encode() if body is not None else None
            url = f"http://127.0.0.1:{port}/data/plugin/{route}?{urlencode(query)}"
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
            with urllib.request.urlopen(request, timeout=20) as reply:
                content: bytes = reply.read()
            return content

        try:
            wait_until(is_up, "TensorBoard answers", timeout_s=60)
            yield fetch
        finally:
            server.terminate()
            server.wait(timeout=20)
