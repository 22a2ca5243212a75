"""The real program and the real Envoy, as their users run them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "profile-service"
GRPCURL = Path(sys.executable).with_name("grpcurl")
PATIENCE = 20  # seconds


def until(true: Callable[[], object], what: str) -> object:
    """What is true at last."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := true()):
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)  # nobody tells when it comes true
    return answer


class Database:
    """An SQLite database with organizations and their keys."""

    def __init__(self, directory: Path) -> None:
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PROFILE_")}
        self.environment["PROFILE_DATABASE_URL"] = f"sqlite://{directory}/profiles.db?mode=rwc"
        self.keys = 0

    def run(self, *arguments: str) -> str:
        command = [PROGRAM, *arguments]
        done = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{arguments}: {done.stderr}")
        return done.stdout.strip()

    def key(self, organization: str, *scopes: str) -> str:
        self.keys += 1  # a name of its own for each
        name = f"test-{self.keys}"
        return self.run("key", "create", "--organization", organization, "--name", name, "--scope", ",".join(scopes))


class Process:
    """A process whose output is a file."""

    def __init__(self, command: list[object], environment: dict[str, str], log: Path) -> None:
        self.log_file = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def log(self) -> list[dict]:
        """The log's whole lines of JSON."""
        lines = self.log_file.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def alive(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(self.log_file.read_text())

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)


class Service(Process):
    """A replica of the service."""

    def __init__(self, database: Database, log: Path, *options: object) -> None:
        super().__init__([PROGRAM, "serve", "--listen", "127.0.0.1:0", *options], database.environment, log)
        self.address = until(self._listening, "the service does not listen")

    def _listening(self) -> str | None:
        self.alive()
        return next((line["address"] for line in self.log() if line.get("message") == "listening"), None)

    def calls(self) -> int:
        """How many calls it has served."""
        return sum(line.get("message") == "call" for line in self.log())


class Gateway(Process):
    """Envoy before these services, started as its users do."""

    def __init__(self, services: list[str], log: Path, *options: object, listen: str = "127.0.0.1:0") -> None:
        command = [ROOT / "scripts" / "gateway", "--listen", listen, *options]
        for service in services:
            command += ["--service", service]
        super().__init__([*command, "--", "--file-flush-interval-msec", "50"], dict(os.environ), log)
        address, self.admin_address = until(self._listening, "the gateway does not listen")
        self.port = int(address.rpartition(":")[2])
        self.url = f"{'https' if '--tls-cert' in options else 'http'}://{address}"

    def _listening(self) -> tuple[str, str] | None:
        self.alive()
        line = re.search(
            r"^the gateway listens on (\S+), its admin interface on (\S+)\n", self.log_file.read_text(), re.M
        )
        return line and line.groups()

    def admin(self, path: str) -> requests.Response:
        return requests.get(f"http://{self.admin_address}{path}", timeout=PATIENCE)

    def reaches_a_service(self) -> None:
        until(
            lambda: requests.get(f"{self.url}/profile/x", timeout=PATIENCE).status_code != 503, "no service is reached"
        )

    def failed_checks(self) -> int:
        """How often a service was found to be ill."""
        text = self.admin("/stats?filter=health_check.failure").text
        return sum(int(line.rpartition(" ")[2]) for line in text.splitlines())

    def healthy(self) -> int:
        """How many services get calls."""
        statuses = self.admin("/clusters?format=json").json()["cluster_statuses"][0].get("host_statuses", [])
        return sum(
            status["health_status"].get("eds_health_status") == "HEALTHY"
            and "failed_active_health_check" not in status["health_status"]
            for status in statuses
        )


@contextlib.contextmanager
def running(*processes: Process) -> Iterator[None]:
    """Ends what still runs at the end."""
    try:
        yield
    finally:
        for process in processes:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait()


def directory() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="rest.")
