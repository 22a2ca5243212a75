"""One service with one gateway for all tests that need no other."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from program import GRPCURL, Database, Gateway, Service, directory, running


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", type=int, default=200, help="how many requests schemathesis makes up")


class Client(requests.Session):
    """A client of the REST APIs with a key."""

    def __init__(self, url: str, key: str | None) -> None:
        super().__init__()
        self.url = url
        self.trust_env = False
        if key:
            self.headers["cv-api-key"] = key

    def request(self, method: str, path: str, **options) -> requests.Response:
        return super().request(method, self.url + path, timeout=20, **options)

    def person(self, **fields: str) -> dict:
        """A new profile."""
        answer = self.post("/profile", json={"firstName": "Ada", "lastName": "Byron"} | fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def update(self, data: dict, **more: object) -> requests.Response:
        """The second document's request."""
        return self.post("/api/v1/users", json={"action": "UPDATE_PROFILE", "data": data} | more)


@dataclasses.dataclass
class World:
    database: Database
    service: Service
    gateway: Gateway
    directory: Path

    def client(self, key: str | None) -> Client:
        return Client(self.gateway.url, key)


@contextlib.contextmanager
def started() -> Iterator[World]:
    """A service with a gateway."""
    with directory() as name:
        path = Path(name)
        database = Database(path)
        service = Service(database, path / "service.log")
        with running(service):
            for organization in ("north", "south"):
                database.run("organization", "create", organization)
            gateway = Gateway([service.address], path / "gateway.log")
            with running(gateway):
                gateway.reaches_a_service()
                yield World(database, service, gateway, path)


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with started() as world:
        yield world


@pytest.fixture
def new_world() -> Iterator[World]:
    """One that no other test has seen."""
    with started() as world:
        yield world


@pytest.fixture(scope="session")
def north(world: World) -> Client:
    return world.client(world.database.key("north", "profiles.read", "profiles.write"))


@pytest.fixture(scope="session")
def south(world: World) -> Client:
    return world.client(world.database.key("south", "profiles.read", "profiles.write"))


@pytest.fixture(scope="session")
def nobody(world: World) -> Client:
    return world.client(None)


@pytest.fixture(scope="session")
def support(world: World):
    """A gRPC call with a key for support and for cases: support("SupportService/SetProfileRole", {...})."""
    key = world.database.key("north", "support", "cases.report")

    def call(method: str, request: dict) -> None:
        command = [GRPCURL, "-plaintext", "-H", f"cv-api-key: {key}", "-d", json.dumps(request)]
        subprocess.run([*command, world.service.address, f"profiles.v1.{method}"], check=True, capture_output=True)

    return call


@pytest.fixture
def email(counter=itertools.count()) -> str:
    """An address that nobody has."""
    return f"person{next(counter)}@example.com"


@pytest.fixture
def phone(counter=itertools.count(15550000000)) -> str:
    """A phone number that nobody has."""
    return f"+{next(counter)}"
