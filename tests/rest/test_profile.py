"""The first document: POST /profile, and GET, PUT, PATCH /profile/{id}."""

from __future__ import annotations

import re

import pytest

MASTER = {
    "firstName": "John",
    "lastName": "Doe",
    "dob": "1995-10-01",
    "gender": "MALE",
    "address": "123 ABC street",
    "address2": "Apt 2",
    "city": "NYC",
    "state": "NY",
    "country": "US",
    "postalCode": "01010",
}
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
NOBODY = "00000000-0000-7000-8000-000000000000"


def reason(answer):
    return next(detail["reason"] for detail in answer.json()["details"] if "reason" in detail)


def violations(answer):
    """The field, description and reason of each."""
    details = {detail["@type"].rpartition(".")[2]: detail for detail in answer.json()["details"]}
    found = details["BadRequest"]["fieldViolations"]
    return [(violation["field"], violation["description"], violation.get("reason")) for violation in found]


def test_the_required_fields_alone_create_a_profile(north):
    answer = north.post("/profile", json={"firstName": "string", "lastName": "string"})
    assert answer.status_code == 201
    profile = answer.json()
    assert re.fullmatch(UUID, profile["id"]) and re.fullmatch(UTC, profile["createdDate"])
    assert (profile["firstName"], profile["lastName"], profile["role"]) == ("string", "string", "USER")
    assert answer.headers["etag"] == profile["etag"] == '"1"'
    assert answer.headers["location"] == f"/profile/{profile['id']}"
    assert north.get(answer.headers["location"]).json() == profile
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in answer.headers if name.startswith(("grpc-", "x-envoy", "server"))]


def test_a_created_profile_is_what_is_got(north):
    created = north.person(**MASTER)
    assert created.items() >= MASTER.items()
    answer = north.get(f"/profile/{created['id']}")
    assert (answer.status_code, answer.json(), answer.headers["etag"]) == (200, created, created["etag"])


def test_put_replaces_everything_and_clears_what_is_absent(north):
    ada = north.person(city="London", gender="FEMALE")
    answer = north.put(f"/profile/{ada['id']}", json={"firstName": "Ada", "lastName": "King"})
    assert answer.status_code == 200
    assert answer.headers["etag"] == answer.json()["etag"] == '"2"'
    assert {name: answer.json().get(name) for name in ("lastName", "city", "gender")} == {
        "lastName": "King",
        "city": None,
        "gender": None,
    }


def test_put_takes_back_what_get_answered(north, support):
    ada = north.person(city="London", dob="1990-01-02")
    report = {
        "case_id": ada["id"],
        "profile_id": ada["id"],
        "status": "ASSIGNED",
        "status_time": "2026-01-05T10:00:00Z",
    }
    support("CaseService/ReportCaseStatus", report)
    ada = north.get(f"/profile/{ada['id']}").json()
    assert ada["lockedFields"] == "firstName,lastName,dob,gender"
    answer = north.put(f"/profile/{ada['id']}", json=ada)
    assert (answer.status_code, answer.json()) == (200, ada)


def test_patch_without_a_mask_changes_the_fields_that_are_present(north):
    ada = north.person(city="London", country="GB", gender="FEMALE")
    answer = north.patch(f"/profile/{ada['id']}", json={"city": "Paris"})
    assert answer.status_code == 200
    assert answer.json() == ada | {"city": "Paris", "etag": '"2"', "updatedDate": answer.json()["updatedDate"]}


def test_patch_sets_keeps_and_clears(north):
    ada = north.person(city="London", country="GB", gender="FEMALE")
    body = {"city": "", "gender": "GENDER_UNSPECIFIED", "state": "NY"}
    changed = north.patch(f"/profile/{ada['id']}", json=body).json()
    assert "city" not in changed and "gender" not in changed
    assert (changed["country"], changed["state"]) == ("GB", "NY")


CLEARED = 'must not be null: send "" to clear it, or leave it out to keep it'
KEPT = "must not be null: leave it out to keep it"


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        *(
            (name, CLEARED)
            for name in MASTER | {"email": "", "phoneNumber": ""}
            if name not in ("firstName", "lastName", "gender")
        ),
        *((name, KEPT) for name in ("firstName", "lastName", "id", "etag")),
        ("gender", CLEARED.replace('""', '"GENDER_UNSPECIFIED"')),
        ("phone_number", CLEARED),
        ("first_name", KEPT),
    ],
)
def test_a_null_in_a_patch_is_400_and_says_what_to_send_instead(north, field, problem):
    ada = north.person()
    answer = north.patch(f"/profile/{ada['id']}", json={"state": "NY", field: None})
    assert (answer.status_code, answer.json()["message"]) == (400, f"Invalid fields: {field} {problem}.")
    assert violations(answer) == [(field, problem, "NULL")]
    assert north.get(f"/profile/{ada['id']}").json() == ada


def test_a_null_is_absent_everywhere_else(north, email):
    body = MASTER | {"city": None, "gender": None, "etag": None, "id": None, "lockedFields": None, "email": email}
    created = north.post("/profile", json=body)
    assert created.status_code == 201 and "city" not in created.json() and "gender" not in created.json()
    path = f"/profile/{created.json()['id']}"
    replaced = north.put(path, json={"firstName": "A", "lastName": "B", "email": email, "state": None, "etag": None})
    assert replaced.status_code == 200 and "state" not in replaced.json()
    patched = north.patch(path, json={"role": None, "createdDate": None, "updatedDate": None, "lockedFields": None})
    assert (patched.status_code, patched.json()) == (200, replaced.json())
    updated = north.update({"email": email, "firstName": None, "city": "Rome"}, requestId=None, validateOnly=None)
    assert (updated.status_code, updated.json()["data"]["user"]["firstName"]) == (200, "A")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_body_may_carry_the_paths_id_and_no_other(north, method):
    ada, eve = north.person(), north.person()
    body = {"firstName": "Ada", "lastName": "Byron", "city": "Rome"}
    answer = north.request(method, f"/profile/{ada['id']}", json=body | {"id": ada["id"].upper()})
    assert (answer.status_code, answer.json()["id"], answer.json()["city"]) == (200, ada["id"], "Rome")
    answer = north.request(method, f"/profile/{ada['id']}", json=body | {"id": eve["id"], "city": "Oslo"})
    assert (answer.status_code, answer.json()["message"]) == (400, "Invalid fields: id is not the path's.")
    assert north.get(f"/profile/{eve['id']}").json() == eve
    assert north.get(f"/profile/{ada['id']}").json()["city"] == "Rome"


def test_only_a_current_if_match_writes(north):
    ada = north.person()
    path = f"/profile/{ada['id']}"
    assert north.patch(path, json={"city": "Rome"}, headers={"if-match": '"1"'}).headers["etag"] == '"2"'
    stale = north.patch(path, json={"city": "Oslo"}, headers={"if-match": '"1"'})
    assert (stale.status_code, reason(stale)) == (412, "ETAG_MISMATCH")
    stale = north.put(path, json={"firstName": "A", "lastName": "B", "etag": '"1"'})
    assert (stale.status_code, reason(stale)) == (412, "ETAG_MISMATCH")
    assert north.get(path).json()["city"] == "Rome"
    assert north.patch(path, json={"city": "Oslo"}, headers={"if-match": "*"}).headers["etag"] == '"3"'
    assert north.patch(path, json={"city": "Bonn", "etag": '"3"'}, headers={"if-match": '"3"'}).headers["etag"] == '"4"'


@pytest.mark.parametrize(
    ("header", "body", "problem"),
    [
        ('"1", "2"', {}, "must be one etag"),
        ("", {}, "must be one etag"),
        ('"1"', {"etag": '"2"'}, "is not the etag of the body"),
    ],
)
def test_if_match_is_one_etag_and_the_bodys_if_that_has_one(north, header, body, problem):
    ada = north.person()
    answer = north.patch(f"/profile/{ada['id']}", json=body | {"city": "Rome"}, headers={"if-match": header})
    assert (answer.status_code, answer.json()["message"]) == (400, f"Invalid fields: If-Match {problem}.")


@pytest.mark.parametrize("more", [{}, {"if-match": '"1"'}, {"if-match": "*"}])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_if_none_match_writes_nothing_over_what_exists(north, method, more):
    ada = north.person()
    body = {"firstName": "Eve", "lastName": "King", "etag": ada["etag"]}
    answer = north.request(method, f"/profile/{ada['id']}", json=body, headers=more | {"if-none-match": "*"})
    assert (answer.status_code, reason(answer)) == (412, "ETAG_MISMATCH")
    assert north.get(f"/profile/{ada['id']}").json() == ada
    answer = north.request(method, f"/profile/{NOBODY}", json=body, headers={"if-none-match": "*"})
    assert (answer.status_code, reason(answer)) == (404, "PROFILE_NOT_FOUND")


def test_if_none_match_in_the_other_requests(north, email):
    absent = {"if-none-match": "*"}
    ada = north.post("/profile", json={"firstName": "Ada", "lastName": "Byron", "email": email}, headers=absent)
    assert ada.status_code == 201
    path = f"/profile/{ada.json()['id']}"
    update = {"action": "UPDATE_PROFILE", "data": {"email": email, "city": "Rome"}}
    assert north.post("/api/v1/users", json=update, headers=absent).json()["status"] == 412
    answer = north.put(path, json={"firstName": "Eve", "lastName": "King"}, headers={"if-none-match": '"1"'})
    assert (answer.status_code, answer.json()["message"]) == (400, "Invalid fields: If-None-Match must be *.")
    for condition in ("*", '"1"'):
        answer = north.get(path, headers={"if-none-match": condition})
        assert (answer.status_code, answer.json()) == (200, ada.json())


@pytest.mark.parametrize(
    ("header", "status", "told"), [('W/"1"', 412, "ETAG_MISMATCH"), ("1", 400, "INVALID_FIELDS")]
)
def test_a_weak_etag_is_never_current_and_one_without_quotes_is_none(north, header, status, told):
    answer = north.patch(f"/profile/{north.person()['id']}", json={"city": "Rome"}, headers={"if-match": header})
    assert (answer.status_code, reason(answer)) == (status, told)


def test_a_repeat_with_its_request_id_creates_one_profile(north, email):
    body = {"firstName": "Ada", "lastName": "Byron", "email": email}
    first, second = (north.post("/profile", params={"requestId": f"r {email}"}, json=body) for _ in range(2))
    assert (first.status_code, second.status_code, second.json()) == (201, 201, first.json())
    assert second.headers["location"] == first.headers["location"]
    other = north.post("/profile", params={"request_id": f"r {email}"}, json=body | {"city": "Rome"})
    assert (other.status_code, reason(other)) == (400, "REQUEST_ID_REUSED")


def test_validate_only_creates_nothing_and_so_is_200(north, email):
    body = {"firstName": "Ada", "lastName": "Byron", "email": email}
    answer = north.post("/profile?validateOnly=true", json=body)
    assert (answer.status_code, answer.json()) == (200, body | {"role": "USER"})
    assert not {"etag", "location"} & set(answer.headers)
    assert north.post("/profile?validateOnly=false", json=body).status_code == 201


def test_errors_are_statuses_with_readable_details(north, south, nobody, world, email):
    ada = north.person(email=email)
    path = f"/profile/{ada['id']}"
    reader = world.client(world.database.key("north", "profiles.read"))
    wrong = world.client("ps_0000000000000000_wrong")
    for answer, status, code, said in [
        (north.post("/profile", json={"firstName": "Ada", "dob": "1815-12-10"}), 400, 3, "INVALID_FIELDS"),
        (north.get("/profile/12345"), 400, 3, "INVALID_FIELDS"),
        (nobody.get(path), 401, 16, "API_KEY_MISSING"),
        (wrong.get(path), 401, 16, "API_KEY_INVALID"),
        (reader.patch(path, json={"city": "Rome"}), 403, 7, "SCOPE_MISSING"),
        (south.get(path), 404, 5, "PROFILE_NOT_FOUND"),
        (south.patch(path, json={"city": "Rome"}), 404, 5, "PROFILE_NOT_FOUND"),
        (north.get(f"/profile/{NOBODY}"), 404, 5, "PROFILE_NOT_FOUND"),
        (north.post("/profile", json={"firstName": "E", "lastName": "K", "email": email}), 409, 6, "EMAIL_IN_USE"),
    ]:
        assert answer.headers["content-type"] == "application/json"
        assert (answer.status_code, answer.json()["code"], reason(answer)) == (status, code, said)
        assert answer.json()["details"][0]["domain"] == "profile-service"
    assert north.get(path).json() == ada


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_every_violation_is_told_in_the_names_of_the_body(north, method):
    ada = north.person()
    bad = {
        "firstName": "",
        "lastName": "x" * 101,
        "email": "ada",
        "dob": "1815-12-10",
        "phoneNumber": "1",
        "address2": "x" * 201,
        "state": "New York",
        "country": "XX",
        "postalCode": "12a",
    }
    path = "/profile" if method == "POST" else f"/profile/{ada['id']}"
    answer = north.request(method, f"{path}?requestId={'x' * 101}", json=bad)
    assert (answer.status_code, reason(answer)) == (400, "INVALID_FIELDS")
    assert {field for field, _, _ in violations(answer)} == {*bad, "requestId"}
    sentences = [f"{field} {description}" for field, description, _ in violations(answer)]
    assert answer.json()["message"] == f"Invalid fields: {'; '.join(sentences)}."


def test_locked_fields_are_told_in_the_names_of_the_body(north, support):
    ada = north.person()
    report = {"case_id": ada["id"], "profile_id": ada["id"], "status": "OPEN", "status_time": "2026-01-05T10:00:00Z"}
    support("CaseService/ReportCaseStatus", report | {"status": "ASSIGNED"})
    answer = north.patch(f"/profile/{ada['id']}", json={"firstName": "Eve", "lastName": "King", "city": "Rome"})
    assert (answer.status_code, reason(answer)) == (400, "DEMOGRAPHICS_LOCKED")
    locked = answer.json()["details"][1]["violations"]
    assert [violation["subject"] for violation in locked] == ["firstName", "lastName"]


@pytest.mark.parametrize("key", [None, "", "x", "ps_0000000000000000_wrong"])
def test_401_says_how_to_authenticate(world, key):
    client = world.client(key)
    challenge = 'Bearer realm="profile-service"'
    for answer in [
        client.get(f"/profile/{NOBODY}"),
        client.post("/profile", json={"firstName": "A", "lastName": "B"}),
        client.update({"email": "ada@example.com"}),
    ]:
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, challenge)


def test_only_401_says_how_to_authenticate(north):
    for answer in [
        north.get(f"/profile/{NOBODY}"),
        north.get("/profile/x"),
        north.get("/nothing"),
        north.put("/profile"),
    ]:
        assert answer.status_code in (400, 404, 405) and "www-authenticate" not in answer.headers


def test_a_bearer_token_is_a_key_too(north, nobody):
    ada = north.person()
    key = north.headers["cv-api-key"]
    assert nobody.get(f"/profile/{ada['id']}", headers={"authorization": f"Bearer {key}"}).json() == ada


PAIRS = [{"system": "crm", "value": "9"}, {"system": "mrn", "value": "A-7"}]


def test_post_takes_identifiers_and_answers_have_them_if_there_are_any(north, email):
    body = {"firstName": "A", "lastName": "B", "email": email, "identifiers": PAIRS[::-1]}
    created = north.post("/profile", json=body)
    assert (created.status_code, created.json()["identifiers"]) == (201, PAIRS)
    path = f"/profile/{created.json()['id']}"
    assert north.get(path).json() == created.json()
    again = north.post("/profile", json=body | {"email": ""})
    assert (again.status_code, reason(again)) == (409, "IDENTIFIER_IN_USE")
    updated = north.update({"email": email, "city": "Rome", "identifiers": []})
    assert updated.json()["data"]["user"]["identifiers"] == PAIRS
    for none in (None, [], "absent"):
        body = {"firstName": "A", "lastName": "B"} | ({} if none == "absent" else {"identifiers": none})
        assert "identifiers" not in north.post("/profile", json=body).json()


def test_put_and_patch_ignore_identifiers(north):
    created = north.person(identifiers=[{"system": "crm", "value": "10"}])
    path = f"/profile/{created['id']}"
    for identifiers in ([], None, PAIRS, [{"system": "NONE"}], [{}] * 21, created["identifiers"]):
        put = north.put(path, json={"firstName": "A", "lastName": "B", "identifiers": identifiers})
        patched = north.patch(path, json={"state": "NY", "identifiers": identifiers})
        for answer in (put, patched):
            assert (answer.status_code, answer.json()["identifiers"]) == (200, created["identifiers"])


def test_what_is_wrong_with_identifiers_is_named_by_its_place(north):
    body = {"firstName": "A", "lastName": "B", "identifiers": [PAIRS[0], {"system": "MRN", "value": "a|b"}]}
    answer = north.post("/profile", json=body)
    assert [(field, reason) for field, _, reason in violations(answer)] == [
        ("identifiers[1].system", "INVALID_SYSTEM"),
        ("identifiers[1].value", "VERTICAL_LINE"),
    ]
    for wrong, places in (
        ("crm", ["identifiers"]),
        ({}, ["identifiers"]),
        ([None, 1, [], "crm"], [f"identifiers[{n}]" for n in range(4)]),
        ([{"system": 1}, {"System": "crm", "value": []}], ["identifiers[0].system", "identifiers[1].System", "identifiers[1].value"]),
    ):
        for answer in (
            north.post("/profile", json={"firstName": "A", "lastName": "B", "identifiers": wrong}),
            north.put(f"/profile/{NOBODY}", json={"firstName": "A", "lastName": "B", "identifiers": wrong}),
            north.patch(f"/profile/{NOBODY}", json={"identifiers": wrong}),
        ):
            assert (answer.status_code, [field for field, _, _ in violations(answer)]) == (400, places)


def test_who_of_the_callers_people_acts_is_refused_where_it_is_no_actor(north):
    body = {"firstName": "A", "dob": "x"}
    answer = north.post("/profile", json=body, headers={"x-actor": "ada@example.com"})
    assert [field for field, _, _ in violations(answer)] == ["x-actor", "lastName", "dob"]
    assert north.post("/profile", json={"firstName": "A", "lastName": "B"}, headers={"x-actor": "ada"}).ok
