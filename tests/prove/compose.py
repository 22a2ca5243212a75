"""Proves deploy/compose.yaml without a container engine: its processes run by hand, with their own commands, environments,
files and health checks, in its order. Addresses are this machine's, on free ports; PostgreSQL is the one that it is given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests
import yaml
from program import ROOT

PATIENCE = 30  # seconds
DEPLOY = ROOT / "deploy"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Image:
    """What the Dockerfile's last stage says of a container."""

    def __init__(self) -> None:
        text = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
        line = {name: rest for name, rest in re.findall(r"^(ENV|HEALTHCHECK|ENTRYPOINT) (.*)$", text, re.M)}
        self.environment = dict(word.split("=", 1) for word in line["ENV"].split())
        self.health: list[str] = json.loads(line["HEALTHCHECK"].partition("CMD ")[2])
        self.entrypoint: list[str] = json.loads(line["ENTRYPOINT"])


class Composition:
    """The file, and where on this machine its names, ports and files are."""

    def __init__(self, directory: Path, postgres: str, program: Path) -> None:
        self.text = (DEPLOY / "compose.yaml").read_text()
        self.services = yaml.safe_load(self.text)["services"]
        self.directory = directory
        self.program = program
        self.ports = {port: free_port() for port in (50051, 9090, 8443, 9901)}
        self.words = [("postgres:5432", postgres)]
        for host in ("profile-service", "0.0.0.0", "127.0.0.1"):
            self.words += [(f"{host}:{port}", f"127.0.0.1:{free}") for port, free in self.ports.items()]
        self.words += [(f"127.0.0.1/{port}", f"127.0.0.1/{free}") for port, free in self.ports.items()]

    def files(self, service: str) -> list[tuple[str, str]]:
        """Paths of the container, and those of this machine."""
        paths = [("/usr/local/bin/profile-service", str(self.program))] if service == "profile-service" else []
        for volume in self.services[service].get("volumes", []):
            source, target = volume.split(":")[:2]
            here = (DEPLOY / source).resolve() if source.startswith(".") else self.directory / source
            if not source.startswith("."):
                here.mkdir(exist_ok=True)
            paths.append((target, str(here)))
        return paths

    def here(self, service: str, text: str) -> str:
        """What it is on this machine."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        if exact := dict(self.words).get(text):
            return exact
        for there, here in self.words + self.files(service):
            text = re.sub(rf"(?<![\w.]){re.escape(there)}(?![\w.])", lambda _: here, text)
        return text

    def command(self, service: str, words: list[str]) -> list[str]:
        return [self.here(service, word) for word in words]

    def environment(self, service: str, image: dict[str, str]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("PROFILE_")}
        return own | {
            name: self.here(service, value)
            for name, value in (image | self.services[service].get("environment", {})).items()
        }


def until_healthy(what: str, command: list[str], environment: dict[str, str], process: subprocess.Popen) -> float:
    started = time.monotonic()
    while subprocess.run(command, env=environment, capture_output=True).returncode:
        if process.poll() is not None or time.monotonic() > started + PATIENCE:
            raise SystemExit(f"FAILED {what} is not healthy by {command}")
        time.sleep(0.1)
    return time.monotonic() - started


def prove(arguments: argparse.Namespace, directory: Path, stack: contextlib.ExitStack) -> None:
    image = Image()
    host = re.search(r"@([^/]+)/", arguments.url).group(1)
    composition = Composition(directory, host, Path(arguments.program).resolve())
    services = composition.services
    database = services["postgres"]["environment"]
    psql = [arguments.psql, "-q", arguments.url, "-c"]
    subprocess.run([*psql, f"CREATE ROLE {database['POSTGRES_USER']} LOGIN"], check=True)
    subprocess.run([*psql, f"CREATE DATABASE {database['POSTGRES_DB']} OWNER {database['POSTGRES_USER']}"], check=True)

    def start(service: str, command: list[str], environment: dict[str, str]) -> subprocess.Popen:
        """Where nothing is written, as on a root that is read-only."""
        root = directory / f"root.{service}"
        root.mkdir()
        log = stack.enter_context((directory / f"{service}.log").open("wb"))
        process = subprocess.Popen(command, env=environment, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(process.kill)
        return process

    for _ in range(2):  # the second time it is all there
        certificates = composition.command("certificates", services["certificates"]["entrypoint"])
        subprocess.run(certificates, check=True, cwd=directory)

    environment = composition.environment("profile-service", image.environment)
    entrypoint = composition.command("profile-service", image.entrypoint)
    service = start("profile-service", entrypoint, environment)
    health = composition.command("profile-service", image.health)
    took = until_healthy("the service", health, environment, service)
    print(f"profile-service is healthy after {took:.1f} s, by {' '.join(image.health)}")

    gateway = services["gateway"]
    check = composition.command("gateway", gateway["healthcheck"]["test"][1:])
    process = start("gateway", composition.command("gateway", gateway["entrypoint"]), dict(os.environ))
    took = until_healthy("the gateway", check, dict(os.environ), process)
    print(f"gateway is healthy after {took:.1f} s, by its own check")

    def command(*words: str) -> str:
        done = subprocess.run([*entrypoint, *words], env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    shown = re.search(r"exec profile-service profile-service (.*)", composition.text).group(1)
    command(*shown.split())
    key = command("key", "create", "--organization", "demo", "--name", "first", "--scope", "profiles.read,profiles.write")
    caller = requests.Session()
    caller.trust_env, caller.verify = False, str(directory / "tls" / "ca.crt")
    caller.headers["cv-api-key"] = key
    url = f"https://localhost:{composition.ports[8443]}/profile"
    deadline = time.monotonic() + PATIENCE
    while (answer := caller.post(url, json={"firstName": "Ada", "lastName": "Byron"})).status_code == 503:
        if time.monotonic() > deadline:
            raise SystemExit("FAILED the gateway does not reach the service")
    person = answer.json()
    if answer.status_code != 201 or caller.get(f"{url}/{person['id']}").json() != person:
        raise SystemExit(f"FAILED {answer.status_code} {answer.text}")
    print("a profile was made and read over TLS, which Envoy ends, and speaks to the service")

    metrics = caller.get(f"http://127.0.0.1:{composition.ports[9090]}/metrics").text
    if 'grpc_method="CreateProfile",grpc_code="OK"} 1' not in metrics:
        raise SystemExit("FAILED the metrics do not tell of the call")
    service.send_signal(signal.SIGTERM)
    grace = float(services["profile-service"]["stop_grace_period"].removesuffix("s"))
    if service.wait(grace) != 0:
        raise SystemExit("FAILED the service did not drain")
    written = [path.name for path in directory.glob("root.*/*")]
    if written:
        raise SystemExit(f"FAILED {written} would not be writable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("program", "psql", "url"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compose.") as directory, contextlib.ExitStack() as stack:
        try:
            prove(arguments, Path(directory), stack)
        except BaseException:
            for log in Path(directory).glob("*.log"):
                print(log.name, log.read_text()[-2000:], sep="\n", file=sys.stderr)
            raise
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
