"""What Envoy does besides: health, balancing, draining, deadlines, retries and limits."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest
import requests

from conftest import Client
from program import ROOT, Database, Gateway, Service, directory, running, until
from upstream import NOT_SERVING, SERVING, Upstream

CREATE = {"firstName": "Ada", "lastName": "Byron"}
UPDATE = {"action": "UPDATE_PROFILE", "data": {"email": "ada@example.com"}}


@pytest.fixture(scope="module")
def before_upstream(tmp_path_factory):
    upstream = Upstream()  # on 127.0.0.1 alone, which is not the only address of the name
    gateway = Gateway(
        [upstream.address.replace("127.0.0.1", "localhost")], tmp_path_factory.mktemp("gateway") / "gateway.log"
    )
    with contextlib.closing(upstream), running(gateway):
        gateway.reaches_a_service()
        yield upstream, Client(gateway.url, None), gateway


@pytest.fixture
def upstream(before_upstream):
    upstream, client, _ = before_upstream
    upstream.calls.clear()
    upstream.failures.clear()
    upstream.trailers.clear()
    return upstream, client


def test_a_call_has_a_deadline_of_the_gateways(upstream):
    service, client = upstream
    client.get("/profile/x", headers={"grpc-timeout": "1H", "x-envoy-upstream-rq-timeout-ms": "1"})
    client.get("/profile/x", headers={"grpc-timeout": "1n", "x-envoy-expected-rq-timeout-ms": "99999"})
    assert [8 < call.seconds <= 9.6 for call in service.calls] == [True, True]


def test_a_request_id_is_passed_and_comes_back(upstream):
    service, client = upstream
    for method, path, body in [
        ("GET", "/profile/x", None),
        ("POST", "/api/v1/users", UPDATE),
        ("GET", "/nothing", None),
        ("POST", "/profile", {"nothing": "1"}),
    ]:
        answer = client.request(method, path, json=body, headers={"x-request-id": "trace-1"})
        assert answer.headers["x-request-id"] == "trace-1"
    assert [call.metadata["x-request-id"] for call in service.calls] == ["trace-1"] * 2
    assert (
        client.get("/profile/x", headers={"x-request-id": "ada@example.com"}).headers.get("x-request-id")
        != "ada@example.com"
    )
    assert client.get("/profile/x").headers["x-request-id"]


def test_the_service_sees_the_key_and_nothing_of_the_routers(upstream):
    service, client = upstream
    client.get(
        "/profile/x",
        headers={"cv-api-key": "ps_k", "authorization": "Bearer ps_k", "x-envoy-anything": "9", "grpc-x": "1"},
    )
    metadata = service.calls[0].metadata
    assert (metadata["cv-api-key"], metadata["authorization"]) == ("ps_k", "Bearer ps_k")
    assert not {"x-envoy-anything", "grpc-x"} & set(metadata)


@pytest.mark.parametrize(
    ("method", "path", "body", "calls"),
    [
        ("GET", "/profile/x", None, 2),
        ("POST", "/profile", CREATE, 1),
        ("POST", "/profile?requestId=", CREATE, 1),
        ("POST", "/profile?requestId=+", CREATE, 1),
        ("POST", "/profile?requestId=%20%C2%A0", CREATE, 1),
        ("POST", "/profile?requestId=r", CREATE, 2),
        ("PUT", "/profile/x", CREATE, 1),
        ("PUT", "/profile/x?request_id=r", CREATE, 2),
        ("PATCH", "/profile/x", CREATE, 1),
        ("PATCH", "/profile/x?requestId=r", CREATE, 2),
        ("POST", "/api/v1/users", UPDATE, 1),
        ("POST", "/api/v1/users", UPDATE | {"requestId": "\u2028"}, 1),
        ("POST", "/api/v1/users", UPDATE | {"requestId": "r"}, 2),
    ],
)
def test_only_what_may_be_repeated_is_tried_again(upstream, method, path, body, calls):
    service, client = upstream
    service.failures.append(grpc.StatusCode.UNAVAILABLE)
    # No header of a caller's makes it otherwise.
    headers = {"x-envoy-retry-on": "5xx", "x-envoy-retry-grpc-on": "unavailable"}
    answer = client.request(method, path, json=body, headers=headers)
    assert (len(service.calls), answer.status_code) == (calls, 200 if calls == 2 else 503)


def test_it_is_tried_three_times_at_the_most(upstream):
    service, client = upstream
    service.failures += [grpc.StatusCode.UNAVAILABLE] * 9
    assert (client.get("/profile/x").status_code, len(service.calls)) == (503, 3)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("RESOURCE_EXHAUSTED", 429),
        ("DEADLINE_EXCEEDED", 504),
        ("OUT_OF_RANGE", 413),
        ("INTERNAL", 500),
        ("UNAVAILABLE", 503),
        ("ABORTED", 409),
        ("ALREADY_EXISTS", 409),
        ("FAILED_PRECONDITION", 400),
    ],
)
def test_codes_are_statuses(upstream, code, status):
    service, client = upstream
    for path, body in [("/profile", CREATE), ("/api/v1/users", UPDATE)]:
        service.failures.append(grpc.StatusCode[code])
        answer = client.post(path, json=body)
        assert (answer.status_code, len(service.calls)) == (status, 1)
        service.calls.clear()
        if path == "/profile":
            assert answer.json() == {"code": grpc.StatusCode[code].value[0], "message": "as told"}
        else:
            assert answer.json() == {"status": status, "success": False, "message": "as told"}


@pytest.mark.parametrize(
    ("milliseconds", "told"), [("0", "1"), ("120", "1"), ("999", "1"), ("1001", "2"), ("4500", "5"), ("-1", None)]
)
def test_what_may_be_tried_again_says_when_in_seconds(upstream, milliseconds, told):
    service, client = upstream
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    service.trailers = [("grpc-retry-pushback-ms", milliseconds)]
    for path, body in [("/profile", CREATE), ("/api/v1/users", UPDATE)]:
        service.failures.append(code)
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.headers.get("retry-after")) == (429, told)
        assert not [name for name in answer.headers if name.startswith("grpc-")]


def test_what_may_not_be_tried_again_says_nothing(upstream):
    service, client = upstream
    service.failures.append(grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "retry-after" not in client.post("/profile", json=CREATE).headers
    assert "retry-after" not in client.post("/profile", json=CREATE).headers


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/profile/x", None),
        ("PUT", "/profile/x", CREATE),
        ("PATCH", "/profile/x", {"city": 1}),
        ("PATCH", "/profile/x", {"city": "Rome"}),
        ("POST", "/profile", CREATE),
        ("POST", "/api/v1/users", UPDATE),
        ("DELETE", "/profile/x", None),
    ],
)
def test_the_access_log_has_the_callers_method(before_upstream, method, path, body):
    _, client, gateway = before_upstream
    request_id = f"{method}{path}-{len(gateway.log())}"
    client.request(method, path, json=body, headers={"x-request-id": request_id, "x-envoy-original-method": "TRACE"})
    line = until(
        lambda: next((line for line in gateway.log() if line.get("request_id") == request_id), None), "there is no line"
    )
    assert line["method"] == method


def test_a_service_that_does_not_answer_is_504(upstream):
    service, client = upstream
    service.hang = True
    started = time.monotonic()
    answer = client.post("/api/v1/users", json=UPDATE)
    service.hang = False
    service.ended.set()
    assert (answer.status_code, answer.json()["status"]) == (504, 504)
    assert 9 < time.monotonic() - started < 12


def test_a_service_that_is_not_healthy_gets_no_calls(before_upstream):
    service, client, gateway = before_upstream
    service.health = NOT_SERVING
    until(lambda: client.get("/profile/x").status_code == 503, "it still gets calls")
    service.calls.clear()
    message = "The service cannot be reached. Try again later."
    answer = client.get("/profile/x")
    assert (answer.status_code, answer.json()) == (503, {"code": 14, "message": message})
    answer = client.post("/api/v1/users", json=UPDATE)
    assert (answer.status_code, answer.json()) == (503, {"status": 503, "success": False, "message": message})
    assert not service.calls
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (503, {"code": 14, "message": message})
    service.health = SERVING
    gateway.reaches_a_service()
    assert client.get("/profile/x").status_code == 200
    assert client.get("/health").status_code == 200


def test_health_asks_for_no_key_and_is_no_line_of_the_access_log(before_upstream):
    _, client, gateway = before_upstream
    for path in ("/health", "/health?from=a-balancer"):
        answer = client.get(path, headers={"x-request-id": "of-health"})
        assert (answer.status_code, answer.json()) == (200, {"status": "SERVING"})
        assert (answer.headers["content-type"], answer.headers["x-request-id"]) == ("application/json", "of-health")
        assert not [name for name in answer.headers if name.startswith("x-envoy")]
    client.get("/nothing", headers={"x-request-id": "after-health"})
    until(lambda: [line for line in gateway.log() if line.get("request_id") == "after-health"], "there is no line")
    assert not [line for line in gateway.log() if line.get("request_id") == "of-health"]


class Load:
    """Clients that create and get until they are told to stop."""

    def __init__(self, url: str, key: str, request_ids: bool) -> None:
        self.url, self.key, self.request_ids = url, key, request_ids
        self.answers: list[int] = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._call, args=[name]) for name in range(4)]

    def _call(self, name: int) -> None:
        client = Client(self.url, self.key)
        created = client.person()
        while not self.stopped.is_set():
            query = {"requestId": f"{name}-{len(self.answers)}"} if self.request_ids else {}
            answer = client.post("/profile", params=query, json=CREATE)
            self.answers.append(answer.status_code)
            self.answers.append(client.get(f"/profile/{created['id']}").status_code)

    def more(self, count: int) -> None:
        goal = len(self.answers) + count
        until(lambda: len(self.answers) >= goal, "there is no progress")

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize(("how", "request_ids"), [(signal.SIGTERM, False), (signal.SIGKILL, True)])
def test_of_two_replicas_one_may_stop_under_load_and_no_call_fails(how, request_ids):
    with directory() as name, contextlib.ExitStack() as stack:
        path = Path(name)
        database = Database(path)
        services = []
        for replica in ("one", "two"):
            services.append(Service(database, path / f"{replica}.log"))
            stack.enter_context(running(services[-1]))
        database.run("organization", "create", "north")
        key = database.key("north", "profiles.read", "profiles.write")
        gateway = Gateway([service.address for service in services], path / "gateway.log")
        stack.enter_context(running(gateway))
        until(lambda: gateway.healthy() == 2, "the services are not healthy")
        with Load(gateway.url, key, request_ids) as load:
            load.more(100)
            calls = [service.calls() for service in services]
            assert min(calls) > 0.3 * sum(calls), "the calls are not balanced"
            code = services[0].stop(how)
            load.more(100)
            until(lambda: gateway.healthy() == 1, "the replica that is gone still gets calls")
            load.more(100)
        failed = [line for line in gateway.log() if line.get("status", 0) >= 500]
        assert not failed
        assert (set(load.answers), code) == ({201, 200}, 0 if how == signal.SIGTERM else -how)


def test_callers_who_cancel_end_nobody_elses_call(new_world):
    key = new_world.database.key("north", "profiles.read", "profiles.write")
    client = new_world.client(key)
    people = [client.person() for _ in range(4)]
    get = f"GET /profile/{people[0]['id']} HTTP/1.1\r\nhost: x\r\ncv-api-key: {key}\r\n\r\n".encode()
    answers, cancelled, stopped = [], [], threading.Event()

    def cancel(number: int) -> None:
        after = random.Random(number)
        while not stopped.wait(0.03):
            with socket.create_connection(("127.0.0.1", new_world.gateway.port)) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
                connection.sendall(get)
                stopped.wait(after.uniform(0, 0.004))
            cancelled.append(number)

    def change(number: int) -> None:  # a write without a request id, which the gateway does not send again
        other = new_world.client(key)
        while not stopped.is_set():
            answer = other.patch(f"/profile/{people[number]['id']}", json={"city": str(len(answers))})
            answers.append((answer.status_code, answer.text if answer.status_code != 200 else ""))

    threads = [threading.Thread(target=cancel, args=[number]) for number in range(12)]
    threads += [threading.Thread(target=change, args=[number]) for number in range(4)]
    try:
        for thread in threads:
            thread.start()
        until(lambda: len(cancelled) >= 2000 and len(answers) >= 20, "there is no progress")
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {(200, "")}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_gateway_ends_with_a_signal(tmp_path, how):
    gateway = Gateway(["127.0.0.1:1"], tmp_path / "gateway.log")
    with running(gateway):
        assert gateway.stop(how) == 0


def test_the_gateway_prints_one_line_when_it_listens(tmp_path):
    gateway = Gateway(["127.0.0.1:1"], tmp_path / "gateway.log")
    with running(gateway):
        said = gateway.log_file.read_text()
        assert said == f"the gateway listens on {gateway.url[7:]}, its admin interface on {gateway.admin_address}\n"
        assert requests.get(f"{gateway.url}/nothing", timeout=20).status_code == 404


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_the_gateway_listens_on_addresses_and_names(tmp_path, host):
    gateway = Gateway(["127.0.0.1:1"], tmp_path / "gateway.log", listen=f"{host}:0")
    with running(gateway):
        assert requests.get(f"http://{host}:{gateway.port}/nothing", timeout=20).status_code == 404


def test_tls_is_ended_in_the_gateway_and_spoken_to_the_service(tmp_path):
    def file(name: str) -> Path:
        return tmp_path / name

    subprocess.run([ROOT / "deploy" / "certificates.sh", tmp_path], check=True)
    database = Database(tmp_path)
    asks = ["--tls-client-ca", file("ca.crt"), "--tls-client-auth", "required"]
    certificate = ["--tls-cert", file("profile-service.crt"), "--tls-key", file("profile-service.key")]
    service = Service(database, file("service.log"), *certificate, *asks)
    ends = ["--tls-cert", file("gateway.crt"), "--tls-key", file("gateway.key")]
    trusts = ["--service-ca", file("ca.crt")]
    presents = ["--service-cert", file("gateway.crt"), "--service-key", file("gateway.key")]
    with running(service):
        database.run("organization", "create", "north")
        key = database.key("north", "profiles.read", "profiles.write")
        gateway = Gateway([service.address], file("gateway.log"), *ends, *trusts, *presents)
        with running(gateway):
            client = Client(gateway.url, key)
            client.verify = str(file("ca.crt"))
            until(lambda: client.get("/profile/x").status_code != 503, "no service is reached")
            client.person()
            with pytest.raises(requests.exceptions.SSLError):
                requests.get(f"{gateway.url}/profile/x", timeout=20)
        calls = [line["span"] for line in service.log() if line.get("message") == "call"]
        assert {call["client"] for call in calls} == {"gateway"}, calls
        for options in ([], trusts, [*trusts, *presents, "--service-name", "another"]):
            gateway = Gateway([service.address], file("other.log"), *options)
            with running(gateway):
                until(lambda: gateway.failed_checks() > 0, "its health is not asked for")
                assert requests.get(f"{gateway.url}/profile/x", timeout=20).status_code == 503, options
