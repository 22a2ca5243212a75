"""What is odd, wrong or hostile: it comes through unharmed, or it is refused in JSON and never echoed."""

from __future__ import annotations

import http.client
import json
import re
import socket

import pytest

from program import until

JSON = {"content-type": "application/json"}
SECRET = "Marylebone"  # a value that no answer may show
MASKS = [
    *(
        ("updateMask", mask)
        for mask in ("", ",", "*", "*,", "city", "city,state", "City", "first_name", "state%2Ccity")
    ),
    ("update_mask", "state"),
]
ODD = [
    '"',
    "\\",
    "\\\\",
    "?",
    "/",
    "a/b?c&d=e#f%20%",
    "é",
    "日本語",
    "😀",
    "👩\u200d🔬",
    "{}",
    '","role":"ADMIN',
    '"dob":"1995-10-01"',
    "</script>",
    "%00",
    "\\u0041",
    "a'b",
    "x" * 100,
]


@pytest.fixture
def raw(world, north):
    """A request whose path, headers and body go out as they are, and its answer: status, headers, JSON."""

    def send(method, path, body=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", world.gateway.port, timeout=20)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in [("cv-api-key", north.headers["cv-api-key"]), *headers]:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "strict")
        connection.close()
        assert answer.headers["content-type"] == "application/json"
        assert SECRET not in text
        return answer.status, answer.headers, json.loads(text) if text else None

    return send


def refused(body):
    """The message of a Status of the gateway's, whose details say the same."""
    assert sorted(body) == ["code", "details", "message"]
    info, *further = body["details"]
    assert info.pop("@type") == "type.googleapis.com/google.rpc.ErrorInfo" and info["domain"] == "profile-service"
    if info["reason"] != "INVALID_FIELDS":
        assert (info["reason"], further) == ("MESSAGE_TOO_LARGE" if body["code"] == 11 else "INVALID_MESSAGE", [])
        return body["message"]
    assert [detail["@type"] for detail in further] == ["type.googleapis.com/google.rpc.BadRequest"]
    violations = further[0]["fieldViolations"]
    assert all(re.fullmatch("[A-Z_]+", violation["reason"]) for violation in violations)
    sentences = [f"{violation['field']} {violation['description']}" for violation in violations]
    assert body["message"] == f"Invalid fields: {'; '.join(sentences)}."
    return body["message"]


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_text_comes_through_both_ways(north, text, ascii_only):
    ada = north.person()
    body = json.dumps({"city": text}, ensure_ascii=ascii_only).encode()
    answer = north.patch(f"/profile/{ada['id']}", data=body, headers=JSON)
    assert (answer.status_code, answer.json()["city"]) == (200, text)
    assert json.loads(answer.content.decode("utf-8", "strict"))["city"] == text
    assert north.get(f"/profile/{ada['id']}").json()["city"] == text


@pytest.mark.parametrize("text", ODD)
def test_text_comes_through_the_second_document(north, email, text):
    north.person(email=email, dob="1990-01-01")
    user = north.update({"email": email, "address": text}).json()["data"]["user"]
    assert (user["address"], user["dob"]) == (text, "1990-01-01T00:00:00.000Z")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b'"x"',
        b"1",
        b"null",
        b"{",
        b'{"firstName"}',
        b'{"firstName":}',
        b'{"firstName":"a",}',
        b"{}{}",
        b"{} x",
        b'{"firstName":"a" "lastName":"b"}',
        b"{'firstName':'a'}",
        b'{"firstName":"a\nb"}',
        b'{"firstName":"\\x"}',
        b'{"firstName":"\\u12"}',
        b'{"firstName":"\\ud800"}',
        b'{"firstName":"\\udc00\\ud800"}',
        b'{"firstName":"\\udc00\\udc00"}',
        b'{"firstName":"\xff"}',
        b'{"firstName":"\xc0\xaf"}',
        b'{"firstName":"\xed\xa0\x80"}',
        b'{"firstName":tru}',
        b'{"firstName":truely}',
        b'{"firstName":[}',
        b'{"firstName":["a",]}',
        b'{"firstName":["a" "b"]}',
        b'{"firstName":-}',
        b'{"firstName":1 2}',
        b"\xef\xbb\xbf{}",
        b'{"firstName":"' + SECRET.encode(),
        b"{" * 10000,
        b'{"firstName":"a","lastName":"b"}\0',
    ],
)
def test_what_is_no_json_object_is_400(raw, body):
    message = "The body is not a JSON object in UTF-8 (near line 1)." if body else "A body is required."
    for method, path in [("POST", "/profile"), ("PUT", "/profile/x"), ("PATCH", "/profile/x")]:
        status, _, answer = raw(method, path, body, JSON.items())
        assert (status, refused(answer)) == (400, message)
    status, _, answer = raw("POST", "/api/v1/users", body, JSON.items())
    assert (status, answer) == (400, {"status": 400, "success": False, "message": message})


@pytest.mark.parametrize("deeper", [b'{"a":', b'{"a":[', b'{"a":{"a":[['])
def test_depth_is_refused_and_not_followed(raw, deeper):
    status, _, answer = raw("POST", "/profile", deeper * 5000, JSON.items())
    assert (status, refused(answer)) == (400, "The body is nested too deeply.")


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({"firstNam": SECRET}, "firstNam is not known"),
        ({"profile": {"city": SECRET}}, "profile is not known"),
        ({f"{SECRET} is a value": 1}, "a field is not known"),
        ({f"{SECRET} is a value": SECRET, "x-y": {}}, "a field is not known; a field is not known"),
        ({"city": 1}, "city must be a string"),
        ({"city": -1.5e-7}, "city must be a string"),
        ({"city": [SECRET]}, "city must be a string"),
        ({"city": []}, "city must be a string"),
        ({"city": [[{"a": [1, None, True, SECRET]}, {}]]}, "city must be a string"),
        ({"city": True}, "city must be a string"),
        ({"city": {"x": SECRET}}, "city must be a string"),
        ({"postal_code": 1010}, "postal_code must be a string"),
        ({"role": 1, "id": 2, "dob": 1995}, "role must be a string; id must be a string; dob must be a string"),
        ({"gender": 1}, "gender must be GENDER_UNSPECIFIED or MALE or FEMALE or OTHER"),
        ({"gender": SECRET}, "gender must be GENDER_UNSPECIFIED or MALE or FEMALE or OTHER"),
        ({"firstName": "a", "first_name": SECRET}, "first_name is there twice"),
        (
            {"lastName": 1, "shoeSize": SECRET, "city": {}, "state": "NY", "gender": "male", "phone_number": [1]},
            "lastName must be a string; shoeSize is not known; city must be a string; "
            "gender must be GENDER_UNSPECIFIED or MALE or FEMALE or OTHER; phone_number must be a string",
        ),
    ],
)
def test_all_fields_that_are_wrong_are_named_and_their_values_are_not(raw, body, problems):
    status, _, answer = raw("POST", "/profile", json.dumps(body).encode(), JSON.items())
    assert (status, refused(answer)) == (400, f"Invalid fields: {problems}.")


@pytest.mark.parametrize(
    ("query", "headers", "body", "problems"),
    [
        (
            "nothing=1&validateOnly=x",
            [],
            {"city": 1},
            "nothing is not a known parameter; validateOnly must be true or false; city must be a string",
        ),
        (
            "",
            [("if-match", '"1", "2"')],
            {"id": "y", "city": 1},
            "city must be a string; id is not the path's; If-Match must be one etag",
        ),
        (
            "requestId=%ff",
            [("if-none-match", '"1"')],
            {"etag": 1},
            "requestId is not well formed; etag must be a string; If-None-Match must be *",
        ),
    ],
)
def test_query_headers_and_body_are_judged_together(raw, query, headers, body, problems):
    body = json.dumps(body).encode()
    status, _, answer = raw("PATCH", f"/profile/x?{query}", body, [*JSON.items(), *headers])
    assert (status, refused(answer)) == (400, f"Invalid fields: {problems}.")


def test_every_violation_has_a_reason(raw):
    body = {"city": 1, "id": "y", "gender": "male", "x": 1, "postalCode": "1", "postal_code": "2", "state": None}
    headers = [*JSON.items(), ("if-match", ""), ("if-none-match", "x")]
    status, _, answer = raw("PATCH", "/profile/x?validateOnly=1", json.dumps(body).encode(), headers)
    assert status == 400
    violations = answer["details"][1]["fieldViolations"]
    assert [(violation["field"], violation["reason"]) for violation in violations] == [
        ("validateOnly", "INVALID_TYPE"),
        ("city", "INVALID_TYPE"),
        ("gender", "INVALID_GENDER"),
        ("x", "UNKNOWN"),
        ("postal_code", "DUPLICATE"),
        ("state", "NULL"),
        ("id", "MISMATCH"),
        ("If-Match", "INVALID_CONDITION"),
        ("If-None-Match", "INVALID_CONDITION"),
    ]


def test_what_is_told_at_once_is_bounded(raw):
    body = json.dumps({f"a{number}": number for number in range(3000)}).encode()
    status, _, answer = raw("POST", "/profile", body, JSON.items())
    assert (status, refused(answer).count("is not known")) == (400, 50)


@pytest.mark.parametrize(
    "body", [b'{"city":"a","city":"b"}', b'{"city":"a","c\\u0069ty":"b"}', b'{"city":"b","city":null}']
)
def test_a_field_is_there_once(north, raw, body):
    ada = north.person()
    status, _, answer = raw("PATCH", f"/profile/{ada['id']}", body, JSON.items())
    assert (status, refused(answer)) == (400, "Invalid fields: city is there twice.")
    assert north.get(f"/profile/{ada['id']}").json() == ada


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("nothing=1", "nothing is not a known parameter"),
        ("city=" + SECRET, "city is not a known parameter"),
        ("profile.city=" + SECRET, "profile.city is not a known parameter"),
        ("profile.firstName=" + SECRET, "profile.firstName is not a known parameter"),
        ("%63ity=" + SECRET, "a parameter is not a known parameter"),
        ("profile%2Ecity=" + SECRET, "a parameter is not a known parameter"),
        (SECRET + "%20x", "a parameter is not a known parameter"),
        ("updateMask.paths=city", "updateMask.paths is not a known parameter"),
        *((f"{name}={mask}", f"{name} is not a known parameter") for name, mask in MASKS),
        ("requestId=a&request_id=b", "request_id is there twice"),
        ("requestId=%ff", "requestId is not well formed"),
        ("requestId=%4", "requestId is not well formed"),
        ("validateOnly=" + SECRET, "validateOnly must be true or false"),
        ("validateOnly=", "validateOnly must be true or false"),
    ],
)
def test_no_field_travels_in_the_query(north, raw, query, message):
    ada = north.person()
    status, _, answer = raw("PATCH", f"/profile/{ada['id']}?{query}", b'{"state":"NY"}', JSON.items())
    assert (status, refused(answer)) == (400, f"Invalid fields: {message}.")
    assert north.get(f"/profile/{ada['id']}").json() == ada


def test_a_get_takes_no_query_and_no_body(north, raw):
    ada = north.person()
    assert raw("GET", f"/profile/{ada['id']}?requestId=1")[0] == 400
    status, _, answer = raw("GET", f"/profile/{ada['id']}", b"{}", JSON.items())
    assert (status, refused(answer)) == (400, "This request has no body.")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/profile/",
        "/profiles",
        "/profile/x/y",
        "/api/v1/users/",
        "/api/v1",
        "//profile",
        "/PROFILE",
        "/admin",
        "/profiles.v1.ProfileService/GetProfile",
        "/profiles.v1.SupportService/FindProfile",
        "/stats",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ],
)
def test_an_unknown_path_is_404_and_grpc_is_not_spoken(raw, path):
    for method in ("GET", "POST"):
        status, _, answer = raw(method, path, b"{}", JSON.items())
        assert (status, answer) == (404, {"code": 5, "message": "There is no such path."})
        status, _, answer = raw(method, path, b"\0\0\0\0\0", [("content-type", "application/grpc"), ("te", "trailers")])
        assert (status, refused(answer)) == (415, "The body must be application/json in UTF-8 without an encoding.")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/profile", "POST"),
        ("DELETE", "/profile", "POST"),
        ("POST", "/profile/x", "GET, PUT, PATCH"),
        ("DELETE", "/profile/x", "GET, PUT, PATCH"),
        ("OPTIONS", "/profile/x", "GET, PUT, PATCH"),
        ("TRACE", "/profile/x", "GET, PUT, PATCH"),
        ("HEAD", "/profile/x", "GET, PUT, PATCH"),
        ("PUT", "/api/v1/users", "POST"),
        ("POST", "/health", "GET"),
        ("HEAD", "/health", "GET"),
        ("HEAD", "/api/v1/users", "POST"),
    ],
)
def test_a_wrong_method_is_405(raw, method, path, allow):
    status, headers, _ = raw(method, path)
    assert (status, headers["allow"]) == (405, allow)


@pytest.mark.parametrize(
    "name",
    [
        "12345",
        "a%2Fb",
        "a%3Fb",
        "%22",
        "%5C",
        "%FF",
        "%C3%A9",
        "a:b",
        "%20",
        "a%00",
        "..%2f..%2fprofile",
        "a;b",
        "*",
        "{id}",
    ],
)
def test_an_id_that_is_none_is_400(raw, name):
    for method, body in [("GET", None), ("PATCH", b'{"city":"Rome"}')]:
        status, _, answer = raw(method, f"/profile/{name}", body, JSON.items() if body else ())
        assert (status, answer["code"]) == (400, 3)


@pytest.mark.parametrize("path", ["/profile/../api/v1/users", "/profile/%2e%2e/profile", "/profile/./../nothing"])
def test_dots_lead_to_no_other_api_than_the_path_they_mean(raw, path):
    assert raw("GET", path)[0] in (404, 405)


def test_an_escaped_id_is_the_same_id(north, raw):
    ada = north.person()
    status, _, answer = raw("GET", f"/profile/{ada['id'].replace('-', '%2D')}")
    assert (status, answer) == (200, ada)
    escaped = f"/profile/%{ord(ada['id'][0]):x}{ada['id'][1:]}"
    status, _, answer = raw("PATCH", escaped, json.dumps(ada | {"city": "Rome"}).encode(), JSON.items())
    assert (status, answer["city"]) == (200, "Rome")


@pytest.mark.parametrize(
    ("size", "status"), [(64 * 1024, 400), (64 * 1024 + 1, 413), (100_000, 413), (1024 * 1024, 413)]
)
def test_a_body_over_64_kib_is_413(world, north, size, status):
    body = b'{"city":"' + b"x" * (size - 11) + b'"}'
    assert len(body) == size
    for path in ("/profile", "/api/v1/users"):
        for sent in (body, iter([body[:30000], body[30000:]])):  # also in chunks, of no known length
            answer = north.post(path, data=sent, headers=JSON)
            assert answer.status_code == status and "xxx" not in answer.text and answer.json()["message"]
            if (path, status) == ("/profile", 413):
                assert refused(answer.json()) == "The body is larger than 64 KiB."


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/grpc",
        "application/grpc+json",
        "application/grpc-web",
        "application/jsonp",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/json; charset=latin1",
        "application/json; charset=utf",
        "application/json; charset=utf-16",
        "application/json; charset=utf8x",
        "application/json; charset=",
        "multipart/form-data",
        "",
    ],
)
def test_a_body_that_is_said_to_be_no_json_is_415(raw, kind):
    status, _, answer = raw("POST", "/profile", b'{"firstName":"a","lastName":"b"}', [("content-type", kind)])
    assert (status, answer["code"]) == (415, 3)


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json; charset=utf8",
        "application/json;charset=UTF8",
        'application/json; charset = "Utf8"; profile=x',
        None,
    ],
)
def test_a_body_may_be_said_to_be_json_in_every_way(raw, kind):
    headers = [("content-type", kind)] if kind else []
    assert raw("POST", "/profile", b'{"firstName":"a","lastName":"b"}', headers)[0] == 201


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "identityx", "*"])
def test_a_compressed_body_is_415(raw, encoding):
    assert raw("POST", "/profile", b"{}", [*JSON.items(), ("content-encoding", encoding)])[0] == 415


@pytest.mark.parametrize("encoding", ["identity", "Identity", "IDENTITY"])
def test_a_body_without_an_encoding_may_be_said_to_be_so(raw, encoding):
    headers = [*JSON.items(), ("content-encoding", encoding)]
    assert raw("POST", "/profile", b'{"firstName":"a","lastName":"b"}', headers)[0] == 201


def test_a_get_that_says_it_is_grpc_is_a_get(north, raw):
    ada = north.person()
    assert raw("GET", f"/profile/{ada['id']}", None, [("content-type", "application/grpc")])[::2] == (200, ada)


def test_what_envoy_passes_is_not_too_much_for_the_service(raw, north):
    ada = north.person()
    headers = [(f"x-{number}", "x" * 200) for number in range(50)]
    assert raw("GET", f"/profile/{ada['id']}", None, headers)[::2] == (200, ada)


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "Upgrade, HTTP2-Settings"])
@pytest.mark.parametrize(
    "upgrade",
    ["TLS/1.2", "tls/1.2", "TLS/1.3, TLS/1.2", "TLS/1.0", "h2c", "HTTP/2.0", "h2c, TLS/1.2", "websocket", "x/1"],
)
def test_an_upgrade_is_ignored_and_no_address_comes_back(raw, north, connection, upgrade):
    ada = north.person()
    offer = [("connection", connection), ("upgrade", upgrade), ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA")]
    status, headers, answer = raw("GET", f"/profile/{ada['id']}", None, [*offer, ("x-request-id", "ada@example.com")])
    assert (status, answer) == (200, ada)
    assert "example.com" not in str(headers) and "upgrade" not in headers
    status, _, answer = raw("PATCH", f"/profile/{ada['id']}", b'{"city":"Rome"}', [*offer, *JSON.items()])
    assert (status, answer["city"]) == (200, "Rome")


def test_no_header_is_a_way_around(north, south, nobody, raw):
    ada = south.person()
    for headers in [
        {"x-forwarded-for": "127.0.0.1"},
        {"x-envoy-original-path": "/profile"},
        {"x-envoy-internal": "true"},
        {"x-http-method-override": "GET"},
        {"grpc-timeout": "1n"},
        {"x-envoy-upstream-rq-timeout-ms": "1"},
        {"x-envoy-expected-rq-timeout-ms": "1"},
        {"te": "trailers"},
        {"x-organization": "south"},
    ]:
        assert nobody.get(f"/profile/{ada['id']}", headers=headers).status_code == 401
        assert north.get(f"/profile/{ada['id']}", headers=headers).status_code == 404
        assert south.get(f"/profile/{ada['id']}", headers=headers).status_code == 200


def test_a_foreign_key_and_a_key_without_the_scope_change_nothing(north, south, world, email):
    ada = north.person(email=email)
    foreign = {"firstName": "Eve", "lastName": "King"}
    assert south.put(f"/profile/{ada['id']}", json=foreign).status_code == 404
    assert south.put(f"/profile/{ada['id']}", json=foreign, headers={"if-match": '"1"'}).status_code == 404
    assert south.update({"email": email, "city": "Rome"}).status_code == 400
    supporter = world.client(world.database.key("north", "support", "cases.report"))
    for answer in [
        supporter.get(f"/profile/{ada['id']}"),
        supporter.post("/profile", json=foreign),
        supporter.put(f"/profile/{ada['id']}", json=foreign),
        supporter.update({"email": email, "city": "Rome"}),
    ]:
        assert answer.status_code == 403
    assert north.get(f"/profile/{ada['id']}").json() == ada
    both = {"authorization": f"Bearer {south.headers['cv-api-key']}"}
    assert north.get(f"/profile/{ada['id']}", headers=both).status_code == 401


def test_headers_are_bounded(raw):
    for headers in [
        [("x-padding", "x" * 20000)],
        [("x-padding", "x" * 13000)],
        [(f"x-{number}", "1") for number in range(100)],
    ]:
        status, _, answer = raw("GET", "/profile/x", None, headers)
        assert (status, answer) == (431, {"code": 3, "message": "The headers are too large."})


@pytest.mark.parametrize(
    "bytes_",
    [
        b"GET\r\n\r\n",
        b"\x16\x03\x01",
        b"GET /profile/x HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /profile HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_closed_without_an_echo(world, bytes_):
    with socket.create_connection(("127.0.0.1", world.gateway.port), 20) as connection:
        connection.sendall(bytes_)
        answer = b""
        while more := connection.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert not body or list(json.loads(body)) == ["code", "message"]
    assert head.startswith(b"HTTP/1.1 400") or not head


def test_the_log_has_nothing_of_a_person(world, north, email):
    north.post(
        f"/profile?requestId={SECRET}",
        json={"firstName": SECRET, "lastName": "B", "email": email},
        headers={"x-request-id": email},
    )
    north.get(f"/nothing/{SECRET}", headers={"x-request-id": "trace-1"})
    north.get(f"/profile/{SECRET}?city={SECRET}")
    until(lambda: [line for line in world.gateway.log() if line.get("request_id") == "trace-1"], "there is no line")
    log = world.gateway.log_file.read_text()
    for word in (SECRET, email, north.headers["cv-api-key"].rpartition("_")[2]):
        assert word not in log


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [("/nothing", "application/json", 404), ("/profile/x", "application/json", 405), ("/profile", "text/plain", 415)],
)
def test_an_answer_waits_for_the_end_of_its_request(world, path, kind, status):
    with socket.create_connection(("127.0.0.1", world.gateway.port), 20) as connection:
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: 2\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        connection.sendall(b"}")
        assert connection.recv(65536).startswith(f"HTTP/1.1 {status} ".encode())
