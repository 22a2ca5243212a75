"""The second document: POST /api/v1/users with its envelope."""

from __future__ import annotations

import json

import pytest

# The document's own text, with the comma that it misses.
EXAMPLE = """{
"action": "UPDATE_PROFILE",
"data": {
"email": "john.doe@example.com",
"firstName": "John",
"lastName": "Doe",
"dob": "1995-10-01",
"phoneNumber": "+11111111111",
"gender": "MALE",
"address": "123 ABC street",
"address2": "Apt 2",
"city": "NYC",
"state": "NY",
"country": "US",
"postalCode": "01010"
}
}"""


def failure(answer):
    """A failure in the document's envelope."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["status", "success", "message"]
    assert (body["status"], body["success"]) == (answer.status_code, False)
    return body["status"], body["message"]


def test_the_documents_example(north):
    john = north.person(email="john.doe@example.com")
    answer = north.post("/api/v1/users", data=EXAMPLE, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    assert list(body) == ["status", "success", "message", "data"] and list(body["data"]) == ["user"]
    assert (body["status"], body["success"], body["message"]) == (200, True, "Profile updated successfully")
    user = json.loads(EXAMPLE)["data"] | {"dob": "1995-10-01T00:00:00.000Z"}
    assert body["data"]["user"].items() >= user.items()
    assert north.get(f"/profile/{john['id']}").json() == body["data"]["user"] | {"dob": "1995-10-01"}
    # The example as it was printed misses a comma, and is no JSON.
    broken = EXAMPLE.replace('1111",', '1111"')
    answer = north.post("/api/v1/users", data=broken, headers={"content-type": "application/json"})
    assert failure(answer) == (400, "The body is not a JSON object in UTF-8 (near line 9).")


@pytest.mark.parametrize("dob", ["1995-10-02T00:00:00.000Z", "1995-10-02T00:00:00Z", "1995-10-02"])
def test_a_midnight_is_a_date_of_birth(north, email, dob):
    north.person(email=email)
    assert north.update({"email": email, "dob": dob}).json()["data"]["user"]["dob"] == "1995-10-02T00:00:00.000Z"


@pytest.mark.parametrize(
    "dob", ["1995-10-02T01:00:00.000Z", "1995-10-02T00:00:00.001Z", "1995-02-31T00:00:00.000Z", "1995-10-02T00:00:00.Z"]
)
def test_no_other_time_is_a_date_of_birth(north, email, dob):
    north.person(email=email)
    status, message = failure(north.update({"email": email, "dob": dob}))
    assert status == 400 and "data.dob" in message


def test_a_midnight_is_no_date_of_birth_in_the_first_document(north):
    assert (
        north.post("/profile", json={"firstName": "A", "lastName": "B", "dob": "1995-10-02T00:00:00.000Z"}).status_code
        == 400
    )


def test_what_was_answered_can_be_sent_back(north, email):
    north.person(email=email, dob="1995-10-01", city="Rome")
    user = north.update({"email": email}).json()["data"]["user"]
    assert north.update(user).json()["data"]["user"] == user


@pytest.mark.parametrize(
    "nobody", ["Nobody@example.com", "first_name@example.com", "profile.first_name.x_y@example.com"]
)
def test_a_user_that_does_not_exist(north, nobody):
    answer = north.update({"email": nobody, "city": "Rome"})
    assert failure(answer) == (400, f"User {nobody} does not exist")


def test_a_user_of_another_organization(north, south, email):
    south.person(email=email)
    answer = north.update({"email": email, "city": "Rome"})
    assert failure(answer) == (400, f"User {email} does not exist in the organization")


def test_a_user_with_another_role(north, support, email):
    ada = north.person(email=email)
    support("SupportService/SetProfileRole", {"id": ada["id"], "role": "PROVIDER", "reason": "a new post"})
    assert failure(north.update({"email": email, "city": "Rome"})) == (400, "Not allowed to update the profile")


def test_demographics_of_a_user_with_cases(north, support, email):
    ada = north.person(email=email)
    report = {"case_id": email, "profile_id": ada["id"], "status": "APPROVED", "status_time": "2026-01-05T10:00:00Z"}
    support("CaseService/ReportCaseStatus", report)
    message = "Cannot update user profile fields (firstName, lastName, dob, gender) for user with cases"
    assert failure(north.update({"email": email, "firstName": "Eve"})) == (400, message)
    assert north.update({"email": email, "city": "Rome"}).status_code == 200


def test_a_phone_number_that_is_in_use(north, south, email, phone):
    south.person(phoneNumber=phone)
    north.person(email=email)
    message = "Unable to use this phone number. Please use a different one"
    assert failure(north.update({"email": email, "phoneNumber": phone})) == (400, message)


def test_invalid_fields_are_named(north, email):
    north.person(email=email)
    status, message = failure(north.update({"email": email, "country": "XX", "postalCode": "12a"}))
    assert status == 400 and "data.country must" in message and "data.postalCode must" in message
    assert failure(north.update({"city": "Rome"}))[1].startswith("Invalid fields: data.email")
    assert failure(north.update({"email": email, "shoeSize": "9"})) == (
        400,
        "Invalid fields: data.shoeSize is not known.",
    )
    assert failure(north.update({"email": email, "city": 9})) == (400, "Invalid fields: data.city must be a string.")
    message = "Invalid fields: data.gender must be GENDER_UNSPECIFIED or MALE or FEMALE or OTHER."
    assert failure(north.update({"email": email, "gender": "male"})) == (400, message)


@pytest.mark.parametrize("action", ["DELETE_PROFILE", "ACTION_UNSPECIFIED", "", None])
def test_another_action_is_400(north, email, action):
    north.person(email=email)
    answer = north.post("/api/v1/users", json={"action": action, "data": {"email": email}})
    assert failure(answer) == (400, "Invalid fields: action must be UPDATE_PROFILE.")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Invalid fields: action must be UPDATE_PROFILE; data is required."),
        ({"data": {}}, "Invalid fields: action must be UPDATE_PROFILE."),
        ({"action": 1, "data": 1}, "Invalid fields: action must be UPDATE_PROFILE; data must be an object."),
        (
            {"action": "UPDATE_PROFILE", "data": {"city": 1, "shoeSize": 9}, "x": 1},
            "Invalid fields: data.city must be a string; data.shoeSize is not known; x is not known.",
        ),
        ({"action": "UPDATE_PROFILE"}, "Invalid fields: data is required."),
        ({"action": "UPDATE_PROFILE", "data": None}, "Invalid fields: data is required."),
        ({"action": "UPDATE_PROFILE", "data": "x"}, "Invalid fields: data must be an object."),
        ({"action": "UPDATE_PROFILE", "data": {"city": {}}}, "Invalid fields: data.city must be a string."),
        (
            {"action": "UPDATE_PROFILE", "data": {}, "validateOnly": "true"},
            "Invalid fields: validateOnly must be true or false.",
        ),
        ({"action": "UPDATE_PROFILE", "data": {}, "email": "x"}, "Invalid fields: email is not known."),
    ],
)
def test_another_shape_is_400(north, body, message):
    assert failure(north.post("/api/v1/users", json=body)) == (400, message)


def test_a_missing_or_wrong_key_is_401(nobody, world):
    missing = "An API key is required: send it as cv-api-key, or as a bearer token in authorization."
    assert failure(nobody.update({"email": "ada@example.com"})) == (401, missing)
    wrong = world.client("ps_0000000000000000_wrong")
    assert failure(wrong.update({"email": "ada@example.com"})) == (401, "The API key is unknown, expired or revoked.")


def test_every_other_failure_keeps_its_status_in_the_envelope(north, world, email):
    north.person(email=email)
    reader = world.client(world.database.key("north", "profiles.read"))
    assert failure(reader.update({"email": email})) == (403, "The API key lacks the scope profiles.write.")
    assert failure(north.update({"email": email, "city": "Rome", "etag": '"9"'}))[0] == 412
    assert (
        failure(north.post("/api/v1/users", data="x" * 70000, headers={"content-type": "application/json"}))[0] == 413
    )
    assert failure(north.post("/api/v1/users", data="{}", headers={"content-type": "text/plain"}))[0] == 415
    assert failure(north.get("/api/v1/users")) == (405, "The path does not have this method.")


def test_a_repeat_with_its_request_id_is_one_update(north, email):
    ada = north.person(email=email)
    for city in ("Rome", "Rome"):
        assert north.update({"email": email, "city": city}, requestId=email).status_code == 200
    assert north.get(f"/profile/{ada['id']}").headers["etag"] == '"2"'
    tried = north.update({"email": email, "city": "Oslo"}, validateOnly=True)
    assert tried.json()["data"]["user"]["city"] == "Oslo"
    assert north.get(f"/profile/{ada['id']}").json()["city"] == "Rome"
