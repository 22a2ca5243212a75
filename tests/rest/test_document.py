"""docs/openapi.yaml says what is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from openapi_spec_validator import validate

from program import ROOT

DOCUMENT = ROOT / "docs" / "openapi.yaml"
OPERATIONS = 5  # of the contract; the gateway has /health besides


def test_the_document_is_openapi_with_every_path():
    document = yaml.safe_load(DOCUMENT.read_text())
    validate(document)
    rules = re.findall(
        r'\b(get|put|post|patch): "([^"]+)"', (ROOT / "proto/profiles/v1/profile_service.proto").read_text()
    )
    paths = {(method, path.replace("profile.id", "id")) for method, path in rules}
    assert len(paths) == OPERATIONS
    assert paths | {("get", "/health")} == {
        (method, path) for path, item in document["paths"].items() for method in item if method != "parameters"
    }


def test_the_document_has_every_field():
    document = yaml.safe_load(DOCUMENT.read_text())["components"]["schemas"]
    names = (ROOT / "deploy/envoy/names.lua").read_text()
    fields = set(
        re.findall(r"^ +(\w+) = ", names.partition("Profile = {")[2].partition("UpdateProfileRequest")[0], re.MULTILINE)
    ) - {"GENDER_UNSPECIFIED"}
    assert set(document["Input"]["properties"]) == fields
    answered = [document[name]["properties"] for name in ("Values", "Stored", "Date")]
    assert {name for properties in answered for name in properties} == fields


def test_no_request_gets_an_answer_outside_the_document(new_world, pytestconfig, tmp_path):
    cases = pytestconfig.getoption("cases")
    key = new_world.database.key("north", "profiles.read", "profiles.write")
    new_world.client(key).person(email="john.doe@example.com")
    command = [
        Path(sys.executable).with_name("schemathesis"),
        "run",
        DOCUMENT,
        "--url",
        new_world.gateway.url,
        "--seed",
        "1",
        "--max-examples",
        str(cases // OPERATIONS),
        "--continue-on-failure",
        "--no-color",
        "--request-timeout",
        "20",
        "-H",
        f"cv-api-key: {key}",
        "--exclude-operation-id",
        "Health",  # QUERY without a content type is 400, before any path is looked at
        "--exclude-checks",
        "positive_data_acceptance",
    ]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "*"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    made = re.search(r"(\d+) generated", done.stdout)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert made and int(made[1]) >= cases
