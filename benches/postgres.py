"""The PostgreSQL that scripts/bench has started, and pgbench on it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import time
from pathlib import Path

# As many as the service has connections.
CLIENTS = 16
RELOAD_SECONDS = 20


class Postgres:
    def __init__(self, url: str, binaries: Path, data: Path) -> None:
        self.server = url.rpartition("/")[0]
        self.address = self.server.rpartition("@")[2]
        self.binaries = binaries
        self.runs = itertools.count()
        self.postmaster = int((data / "postmaster.pid").read_text().split()[0])

    def url(self, database: str) -> str:
        return f"{self.server}/{database}"

    def sql(self, database: str, text: str) -> str:
        command = [self.binaries / "psql", "-qXAt", "-v", "ON_ERROR_STOP=1", self.url(database)]
        return subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.PIPE).stdout.strip()

    def fsync(self, on: str) -> None:
        """Whether a commit is on the disk before it is acknowledged: `on` or `off`."""
        self.sql("postgres", f"ALTER SYSTEM SET fsync = {on}; SELECT pg_reload_conf();")
        deadline = time.monotonic() + RELOAD_SECONDS
        while self.sql("postgres", "SHOW fsync") != on:  # it reads its settings when it gets to it
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL has not turned fsync {on}")
            time.sleep(0.05)
        # What was written without it is no part of what comes now.
        self.sql("postgres", "CHECKPOINT")
        os.sync()

    def cpu_seconds(self) -> float:
        """Of all processes, those that have ended too."""
        children = Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children")
        while True:
            before = children.read_text()
            # A process that ends meanwhile is counted by its parent from then on: neither twice nor never.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total = sum(ticks(int(child), children=False) for child in before.split())
                total += ticks(self.postmaster, children=True)
                if children.read_text() == before:
                    return total

    def pgbench(self, url: str, script: str, people: int, seconds: float, directory: Path, clients: int = CLIENTS) -> dict:
        """Runs a script in a loop, with prepared statements."""
        for old in directory.glob("pgbench_log*"):
            old.unlink()
        path = directory / "script.sql"
        path.write_text(script)
        command = [self.binaries / "pgbench", "-n", "-M", "prepared", "-c", clients, "-j", min(2, clients),
                   "-T", max(1, round(seconds)), "-D", f"people={people}", "-D", "created=0", "-D", f"run={next(self.runs)}",
                   "-f", path, "--log", "--log-prefix=pgbench_log", "--sampling-rate=0.1", url]
        before = self.cpu_seconds()
        done = subprocess.run([str(part) for part in command], cwd=directory, text=True, capture_output=True)
        if done.returncode or "number of failed transactions: 0" not in done.stdout:
            raise RuntimeError(done.stdout + done.stderr)
        cpu = self.cpu_seconds() - before
        calls = int(re.search(r"actually processed: (\d+)", done.stdout)[1])
        times = sorted(int(line.split()[2]) / 1e3 for log in directory.glob("pgbench_log*") for line in log.open())
        return {"rate": float(re.search(r"tps = ([\d.]+)", done.stdout)[1]),
                "p50_ms": times[len(times) // 2], "p99_ms": times[len(times) * 99 // 100], "postgres_us": cpu / calls * 1e6}


def ticks(pid: int, *, children: bool) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15] if children else fields[11:13])) / os.sysconf("SC_CLK_TCK")
