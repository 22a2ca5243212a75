"""What a browser's page needs: CORS, gRPC-Web and Connect. All of it is off unless it is asked for."""

from __future__ import annotations

import base64

import pytest

from conftest import Client
from program import Gateway, running
from upstream import message

ORIGIN = "https://app.example.com"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "PUT", "access-control-request-headers": "cv-api-key"}
GET = "/profiles.v1.ProfileService/GetProfile"
WATCH = "/profiles.v1.ProfileQueryService/WatchProfiles"
CONNECT = {"content-type": "application/proto", "connect-protocol-version": "1"}
GRPC_WEB = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
TEXT = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"}


@pytest.fixture(scope="module")
def page(world):
    """A client of a gateway for pages, with a key that may do all that a page may."""
    options = ["--grpc-web", "--cors-origin", ORIGIN, "--cors-origin", "http://localhost:3000"]
    gateway = Gateway([world.service.address], world.directory / "pages.log", *options)
    with running(gateway):
        gateway.reaches_a_service()
        yield Client(gateway.url, world.database.key("north", "profiles.read", "profiles.write", "profiles.list"))


def frame(payload: bytes) -> bytes:
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def frames(body: bytes) -> list[tuple[int, bytes]]:
    """The flags and the payload of each."""
    found = []
    while body:
        end = 5 + int.from_bytes(body[1:5], "big")
        found.append((body[0], body[5:end]))
        body = body[end:]
    return found


def cors(answer):
    return {name for name in answer.headers if name.startswith("access-control-")}


def test_no_page_of_another_origin_may_call_unless_it_is_said_to(north):
    ada = north.person()
    preflight = north.options(f"/profile/{ada['id']}", headers=PREFLIGHT)
    assert (preflight.status_code, cors(preflight)) == (405, set())
    answer = north.get(f"/profile/{ada['id']}", headers={"origin": ORIGIN})
    assert (answer.status_code, cors(answer)) == (200, set())


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
def test_pages_of_the_origins_that_were_named_may_call(page, origin):
    ada = page.person()
    for path in (f"/profile/{ada['id']}", "/profile", "/api/v1/users", GET):
        preflight = page.options(path, headers=PREFLIGHT | {"origin": origin})
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, origin)
        assert "cv-api-key" in preflight.headers["access-control-allow-headers"]
        assert "PUT" in preflight.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in preflight.headers
    for answer in [
        page.get(f"/profile/{ada['id']}", headers={"origin": origin}),
        page.get("/profile/x", headers={"origin": origin}),
        page.post("/profile", json={"city": 1}, headers={"origin": origin}),
    ]:
        assert answer.headers["access-control-allow-origin"] == origin
        assert "etag" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", ["https://app.example.com.evil.example", "https://appxexample.com", "http://app.example.com", "$.", "null", ""])
def test_pages_of_no_other_origin_may_call(page, origin):
    preflight = page.options("/profile", headers=PREFLIGHT | {"origin": origin})
    assert (preflight.status_code, cors(preflight)) == (405, set())
    assert not cors(page.get("/profile/x", headers={"origin": origin}))


@pytest.mark.parametrize("headers", [CONNECT, GRPC_WEB])
def test_connect_and_grpc_web_are_refused_unless_they_are_asked_for(north, headers):
    ada = message(north.person()["id"].encode())
    answer = north.post(GET, data=ada if headers is CONNECT else frame(ada), headers=headers)
    assert (answer.status_code, answer.json()) == (404, {"code": 5, "message": "There is no such path."})


def test_a_call_of_grpc_web(page):
    ada = page.person(firstName="Augusta")
    answer = page.post(GET, data=frame(message(ada["id"].encode())), headers=GRPC_WEB)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/grpc-web+proto")
    (data, profile), (trailers, status) = frames(answer.content)
    assert (data, trailers) == (0, 0x80) and b"Augusta" in profile and b"grpc-status:0" in status
    text = base64.b64encode(frame(message(ada["id"].encode())))
    answer = page.post(GET, data=text, headers=TEXT)
    assert b"Augusta" in base64.b64decode(answer.content)


def test_a_failure_of_grpc_web(page):
    answer = page.post(GET, data=frame(message(b"x")), headers=GRPC_WEB)
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "3")
    assert "grpc-status-details-bin" in answer.headers


def test_a_stream_of_grpc_web(page):
    ada = page.person()
    watch = {"data": frame(b""), "headers": GRPC_WEB | {"grpc-timeout": "15S"}, "stream": True}
    with page.post(WATCH, **watch) as answer:
        seen = b""
        for chunk in answer.iter_content(None):
            seen += chunk
            if ada["id"].encode() in seen:
                break
    assert answer.status_code == 200 and ada["id"].encode() in seen


def test_a_call_of_connect(page):
    ada = page.person(firstName="Augusta")
    request = message(ada["id"].encode())
    answer = page.post(GET, data=request, headers=CONNECT)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/proto")
    assert b"Augusta" in answer.content


def test_a_failure_of_connect(page):
    answer = page.post(GET, data=message(b"x"), headers=CONNECT)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    assert "type.googleapis.com/google.rpc.BadRequest" in [detail["type"] for detail in answer.json()["details"]]


def test_connect_is_spoken_in_binary_messages_alone(page):
    answer = page.post(GET, json={"id": page.person()["id"]}, headers={"connect-protocol-version": "1"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")


def test_a_switch_changes_nothing_of_rest(page, nobody):
    ada = page.person()
    assert page.get(f"/profile/{ada['id']}").json() == ada
    answer = page.patch(f"/profile/{ada['id']}", json={"city": "Rome"}, headers={"connect-protocol-version": "1"})
    assert (answer.status_code, answer.json()["city"]) == (200, "Rome")
    for path in ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
        assert page.post(path, data=frame(b""), headers=GRPC_WEB).status_code == 404
