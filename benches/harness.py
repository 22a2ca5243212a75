"""Programs that are measured, a load on them, and everything in turns."""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from people import Database
from postgres import Postgres, ticks

CERTIFICATES = Path(__file__).parent.parent / "deploy/certificates.sh"
START_SECONDS = 20
SAMPLE_SECONDS = 0.25
CONNECTIONS = 4
IN_FLIGHT = 64

# By what was measured, of each round.
Results = dict[str, list[dict]]


class Process:
    """A program that listens, with its log in a file: what a call costs includes its line in the log."""

    def __init__(self, name: str, command: list[object], directory: Path, **environment: str) -> None:
        self.authority = environment.get("PROFILE_TLS_CERT") and directory / "ca.crt"
        self.log = directory / f"{name}.log"
        self.log.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([str(part) for part in command], cwd=directory, stderr=log,
                                            env=os.environ | environment)
        self.address = self._listening()

    def _listening(self) -> str:
        """Where it listens, as a line of its log tells, whatever else stands there: revisions differ."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if "listening" in line and (address := re.search(r"127\.0\.0\.1:\d+", line)):
                    return address[0]
            time.sleep(0.01)  # a file tells nobody that it has grown
        raise RuntimeError(f"no server: {self.log.read_text()}")

    def cpu_seconds(self) -> float:
        return ticks(self.process.pid, children=False)

    def resident_mb(self, what: str = "VmRSS") -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{what}:\s+(\d+)", status, re.M)
        if not found:  # a process that has ended has no memory
            raise RuntimeError(f"the server has ended: {self.end_of_log()}")
        return int(found[1]) / 1024

    def end_of_log(self) -> str:
        return self.log.read_text()[-2000:]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(START_SECONDS)


class Bench:
    """What is running, and how long each of it is measured."""

    def __init__(self, tools: Path, postgres: Postgres, directory: Path, *, seconds: float, rounds: int,
                 warm_up: int) -> None:
        self.tools = tools
        self.postgres = postgres
        self.directory = directory
        self.seconds = seconds
        self.round_numbers = range(-warm_up, rounds)
        self.processes: dict[str, Process] = {}
        self.databases: dict[str, Database] = {}

    def serve(self, name: str, program: Path, database: Database, **environment: str) -> None:
        self._start(name, database, program, "serve", "--listen", "127.0.0.1:0", "--database-url", database.url,
                    **environment)

    def operated(self) -> dict[str, str]:
        """The settings of a service whose metrics and traces are on, the latter of 1% of its calls."""
        self.processes["collector"] = Process("collector", [self.tools, "collector"], self.directory)
        endpoint = f"http://{self.processes['collector'].address}"
        return {"PROFILE_METRICS_LISTEN": "127.0.0.1:0", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_TRACES_SAMPLER_ARG": "0.01", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}

    def encrypted(self) -> dict[str, str]:
        """The settings of a service that speaks TLS, whose client asks for nothing else."""
        subprocess.run([CERTIFICATES, self.directory], check=True)
        certificate = self.directory / "profile-service"
        return {"PROFILE_TLS_CERT": f"{certificate}.crt", "PROFILE_TLS_KEY": f"{certificate}.key"}

    def compare(self, name: str, database: Database) -> None:
        """Serves something to compare the service with."""
        self._start(name, database, self.tools, "serve", "--server", name, "--database-url", database.url)

    def proxy(self, delay_ms: float, messages: Path) -> str:
        """The address of a PostgreSQL that is further away; the file grows by a byte for each message to it."""
        command = [self.tools, "proxy", "--target", self.postgres.address, "--delay-ms", delay_ms, "--messages", messages]
        self.processes["proxy"] = Process("proxy", command, self.directory)
        return self.processes["proxy"].address

    def _start(self, name: str, database: Database, *command: object, **environment: str) -> None:
        self.processes[name] = Process(name, list(command), self.directory, **environment)
        self.databases[name] = database

    def stop(self) -> None:
        while self.processes:  # those that were started later use those before
            _, process = self.processes.popitem()
            process.stop()

    def load(self, server: str, call: str, *, in_flight: int = IN_FLIGHT, rate: float | None = None,
             request_ids: bool = False, messages: Path | None = None, seconds: float | None = None) -> dict:
        """Calls the server: as fast as it answers, or so many times a second."""
        process, database = self.processes[server], self.databases[server]
        os.truncate(process.log, 0)
        command = [self.tools, "load", "--target", process.address, "--keys", database.keys, "--ids", database.ids,
                   "--call", call, "--seconds", seconds or self.seconds, "--in-flight", in_flight,
                   "--connections", min(CONNECTIONS, in_flight)]
        if process.authority:
            command += ["--ca", process.authority]
        if rate:
            command += ["--rate", rate]
        if request_ids:
            command += ["--request-ids"]
        if messages:
            command += ["--messages", messages]
        before = process.cpu_seconds(), self.postgres.cpu_seconds()
        resident = []
        with subprocess.Popen([str(part) for part in command], text=True, stdout=subprocess.PIPE) as loading:
            while loading.poll() is None:
                resident.append(process.resident_mb())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    loading.wait(SAMPLE_SECONDS)
            answer = loading.stdout.read()
        if loading.returncode:
            raise RuntimeError(f"the load failed; of the server: {process.end_of_log()}")
        seen = json.loads(answer)
        after = process.cpu_seconds(), self.postgres.cpu_seconds()
        if seen["failed"]:
            raise RuntimeError(f"{seen['failed']} of {seen['calls']} calls failed: {process.end_of_log()}")
        counted = {"messages": seen["messages"]} if messages else {}
        return {"rate": seen["calls"] / seen["seconds"], "p50_ms": seen["p50_ms"], "p99_ms": seen["p99_ms"],
                "service_us": (after[0] - before[0]) / seen["calls"] * 1e6,
                "postgres_us": (after[1] - before[1]) / seen["calls"] * 1e6, "resident_mb": statistics.median(resident),
                **counted}

    def rounds(self, runs: dict[str, Callable[[Results], dict]]) -> Results:
        """Everything in turns, so that what the machine does besides hits all of it alike. A run may look at those before.

        Rounds below 0 do not count: PostgreSQL's processes have not seen all of their memory before them.
        """
        results: Results = {name: [] for name in runs}
        for number in self.round_numbers:
            self.postgres.sql("postgres", "CHECKPOINT")  # so that none comes within the round
            for name, run in runs.items():
                results[name].append(run(results))
                print(f"round {number}: {name}: {results[name][-1]['rate']:,.0f}/s", flush=True)
        counted = sum(number >= 0 for number in self.round_numbers)
        return {name: seen[-counted:] for name, seen in results.items()}
