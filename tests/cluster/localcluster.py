"""A local cluster of the tests' own: its commands as a user runs them, and its processes in /proc."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from commands import wait_until

SCRIPTS = Path(__file__).parents[2] / "slurm" / "localcluster"


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive ports of 127.0.0.1 that are free."""
    for first in range(20000 + os.getpid() % 1000 * 10, 32000, 10):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for port, each in enumerate(sockets, first):
                each.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return first
    raise OSError(f"no {count} consecutive free ports")


class LocalCluster:
    """A cluster that is not started yet, with a folder and ports of its own.

    `settings` are IRMAS_CLUSTER_... variables without that prefix, such as ARRAY="8".
    """

    def __init__(self, **settings: str) -> None:
        # Not pytest's folder: it is closed to other users, and its path may be too long for a socket.
        self.root = Path(tempfile.mkdtemp(prefix="irmas-test-", dir="/var/tmp"))
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH"))}
        self.environment = outside | {
            "SLURM_CONF": str(self.root / "slurm.conf"),
            "IRMAS_CLUSTER": str(self.root),
            "IRMAS_CLUSTER_PORT": str(free_ports(6)),
            **{f"IRMAS_CLUSTER_{key}": value for key, value in settings.items()},
        }

    @contextmanager
    def second(self) -> Iterator[None]:
        """Start a cluster `second` with one node, s1, known to the same database: `squeue --clusters=second`."""
        folder, port = self.root / "second", free_ports(2)
        for name in ("controller", "spool", "log", "run"):
            (folder / name).mkdir(parents=True)
        for config in ("cgroup.conf", "gres.conf"):
            if (self.root / config).exists():
                shutil.copy(self.root / config, folder)
        text = (self.root / "slurm.conf").read_text()
        for name in ("controller", "spool/", "log/", "run/"):
            text = text.replace(f"{self.root}/{name}", f"{folder}/{name}")
        text = text.replace("ClusterName=local", "ClusterName=second").replace("NodeName=n[1-4]", "NodeName=s1")
        text = re.sub(r"SlurmctldPort=\d+", f"SlurmctldPort={port}", text)
        (folder / "slurm.conf").write_text(re.sub(r"Port=\[\S+\]", f"Port={port + 1}", text))
        self.run("sacctmgr", "-iQ", "add", "cluster", "second")
        self.run("sacctmgr", "-iQ", "add", "account", "irmas", "cluster=second", "QOS=normal", "DefaultQOS=normal")
        self.run("sacctmgr", "-iQ", "add", "user", getpass.getuser(), "account=irmas", "cluster=second")
        sbin = {"PATH": f"{self.environment['PATH']}:/usr/sbin:/sbin"}
        daemons = {"slurmctld": [], "slurmd": ["-N", "s1"]}
        for daemon, options in daemons.items():
            command = [daemon, "-f", str(folder / "slurm.conf"), *options]
            subprocess.run(command, env=self.environment | sbin, check=True)
        try:
            idle = ["sinfo", "--clusters=second", "-h", "-N", "-p", "main", "-o", "%t"]
            wait_until(lambda: "idle" in self.call(*idle).stdout, "the second cluster is up", 60)
            yield
        finally:
            self.call("scancel", "--clusters=second", "--partition=main")
            wait_until(lambda: "s1" not in self.call("squeue", "--clusters=second", "-h").stdout, "s1 is free", 60)
            for file in (folder / "run").glob("*.pid"):
                os.kill(int(file.read_text()), signal.SIGTERM)

    def call(self, *command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Return what a command that must succeed prints, without the line end."""
        done = self.call(*command, cwd=cwd)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.call(SCRIPTS / "up", *arguments, cwd=Path("/"))

    def down(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.call(SCRIPTS / "down", *arguments, cwd=Path("/"))

    def sbatch(self, script: str, *options: str) -> str:
        """Return the number of the submitted job; its output is dropped unless an option names a file."""
        return self.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}")

    def accounted(self, job: str) -> list[tuple[str, str]]:
        """Return (job or array task, state) of every start of the job, oldest first, without steps."""
        rows = self.run("sacct", "-nPXD", "-j", job, "-o", "JobID,State").splitlines()
        return [(name, state) for name, _, state in (row.partition("|") for row in rows)]

    @contextmanager
    def configured(self, lines: str) -> Iterator[None]:
        """Run Slurm with these further lines of slurm.conf."""
        settings = self.root / "slurm.conf"
        before = settings.read_text()
        settings.write_text(before + lines)
        self.run("scontrol", "reconfigure")
        try:
            yield
        finally:
            settings.write_text(before)
            self.run("scontrol", "reconfigure")

    def scheduled(self, parameter: str) -> AbstractContextManager[None]:
        """Run Slurm with one more of its SchedulerParameters."""
        lines = (self.root / "slurm.conf").read_text().splitlines()
        before = next(line for line in lines if line.startswith("SchedulerParameters="))
        return self.configured(f"{before},{parameter}\n")

    def break_prolog(self, condition: str = "true") -> Path:
        """Let the check before each job fail on the nodes of this condition, until the returned file is removed.

        Slurm drains such a node, and holds the job; `up` resumes the node.
        """
        prolog = self.root / "prolog.d" / "broken"
        prolog.write_text(f"#!/bin/sh\n! {condition}\n")
        prolog.chmod(0o755)
        return prolog

    def slurmd(self, node: str) -> int:
        """Return the process ID of a node's slurmd."""
        return int((self.root / "run" / f"slurmd.{node}.pid").read_text())

    def processes(self) -> dict[int, str]:
        """Return the name, by process ID, of every live daemon, step and job of this cluster."""
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        names = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    names[int(folder.name)] = (folder / "comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return names
