"""examples/service_config.json, as gRPC's own library takes it."""

from __future__ import annotations

import contextlib
import importlib
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import MethodOptions
from profiles.v1.profile_pb2 import Profile
from profiles.v1.profile_service_pb2 import CreateProfileRequest, GetProfileRequest
from profiles.v1.profile_service_pb2_grpc import ProfileServiceStub
from program import Database, Service, running, until

ROOT = Path(__file__).resolve().parents[2]
SERVICE_CONFIG = ROOT / "examples/service_config.json"
DEADLINE = 20  # seconds
CALLS = 20
LIMITED = "ResourceExhausted"
NOT_SERVING = b"\x08\x02"


@contextlib.contextmanager
def client(*addresses: str) -> Iterator[ProfileServiceStub]:
    """A client of these replicas, as if a name in DNS had them; a list of addresses would be no valid authority."""
    options = [("grpc.service_config", SERVICE_CONFIG.read_text()), ("grpc.default_authority", "profiles.example")]
    with grpc.insecure_channel(f"ipv4:{','.join(addresses)}", options) as channel:
        yield ProfileServiceStub(channel)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path)


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Service]:
    service = Service(database, tmp_path / "service.log")
    with running(service):
        database.run("organization", "create", "north")
        yield service


def metadata(key: str) -> list[tuple[str, str]]:
    return [("cv-api-key", key)]


def create(profiles: ProfileServiceStub, key: str) -> Profile:
    request = CreateProfileRequest(profile=Profile(first_name="Ada", last_name="Byron"), request_id=str(uuid.uuid4()))
    return profiles.CreateProfile(request, metadata=metadata(key), timeout=DEADLINE)


def get(profiles: ProfileServiceStub, key: str, profile: Profile) -> Profile:
    return profiles.GetProfile(GetProfileRequest(id=profile.id), metadata=metadata(key), timeout=DEADLINE)


def answers(service: Service, method: str) -> list[str]:
    """The code of each attempt of a method."""
    calls = [line for line in service.log() if line["message"] == "call"]
    return [line["code"] for line in calls if line["span"]["method"].endswith(method)]


def test_every_read_is_repeated_and_no_write():
    contract = (ROOT / "proto/profiles/v1").glob("*_service.proto")
    files = [importlib.import_module(f"profiles.v1.{file.stem}_pb2").DESCRIPTOR for file in contract]
    methods = [method for file in files for service in file.services_by_name.values() for method in service.methods]
    reads = {
        (method.containing_service.full_name, method.name)
        for method in methods
        if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS and not method.server_streaming
    }
    (policy,) = json.loads(SERVICE_CONFIG.read_text())["methodConfig"]
    assert {(name["service"], name["method"]) for name in policy["name"]} == reads


def test_a_read_is_repeated_when_the_service_says_and_a_write_is_not(database, service):
    scopes = ["--scope", "profiles.read,profiles.write"]
    key = database.run("key", "create", "--organization", "north", "--name", "slow", "--rate", "1/s", *scopes)
    with client(service.address) as profiles:
        ada = create(profiles, key)

        def limited() -> bool:
            get(profiles, key, ada)
            return LIMITED in answers(service, "GetProfile")

        until(limited, "the rate does not hold")
        with pytest.raises(grpc.RpcError) as refused:
            for _ in range(CALLS):
                create(profiles, key)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        until(lambda: LIMITED in answers(service, "CreateProfile"), "the call is not in the log")
        assert answers(service, "CreateProfile").count(LIMITED) == 1


def test_calls_are_spread_over_the_replicas(database, service, tmp_path):
    key = database.key("north", "profiles.read", "profiles.write")
    other = Service(database, tmp_path / "other.log")
    with running(other), client(service.address, other.address) as profiles:
        ada = create(profiles, key)

        def both_serve() -> bool:
            get(profiles, key, ada)
            return all(answers(replica, "GetProfile") for replica in (service, other))

        until(both_serve, "one of the replicas gets no calls")


class NotWell(grpc.GenericRpcHandler):
    """A replica that says that it does not serve, and remembers who calls nevertheless."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.asked = threading.Event()
        self.over = threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/grpc.health.v1.Health/Watch":
            self.calls.append(details.method)
            return None
        return grpc.unary_stream_rpc_method_handler(self.watch)

    def watch(self, _request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        self.asked.set()
        yield NOT_SERVING
        self.over.wait(DEADLINE)


def test_a_replica_that_is_not_well_gets_no_calls(database, service):
    key = database.key("north", "profiles.read", "profiles.write")
    replica = NotWell()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[replica])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with client(f"127.0.0.1:{port}", service.address) as profiles:
            ada = create(profiles, key)
            assert replica.asked.wait(DEADLINE)
            for _ in range(CALLS):
                get(profiles, key, ada)
        assert replica.calls == []
    finally:
        replica.over.set()
        server.stop(None)
