"""What the manifests say to each other, and to the program."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "profile-service"
KUBERNETES = ROOT / "deploy" / "kubernetes"


def manifest(name: str) -> dict:
    return yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text())


@pytest.fixture(scope="module")
def container() -> dict:
    return manifest("deployment")["spec"]["template"]["spec"]["containers"][0]


@pytest.fixture(scope="module")
def ports(container: dict) -> set[str]:
    return {port["name"] for port in container["ports"]}


def variables(node: object) -> set[str]:
    """The program's variables that are named anywhere in a text."""
    return set(re.findall(r"PROFILE_(?!COMMIT)[A-Z_]+", str(node)))


def test_every_file_is_in_its_kustomization():
    for folder in (KUBERNETES, KUBERNETES / "monitored"):
        resources = set(yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]) - {".."}
        assert resources == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}


def test_every_variable_is_one_of_the_program():
    help_text = subprocess.run([PROGRAM, "serve", "--help"], check=True, capture_output=True, text=True).stdout
    known = variables(help_text)
    for path in (KUBERNETES / "deployment.yaml", ROOT / "deploy" / "compose.yaml", ROOT / "Dockerfile"):
        named = variables(path.read_text())
        assert named and named <= known, path


def test_every_port_has_the_name_of_one_of_the_container(container, ports):
    for port in manifest("service")["spec"]["ports"]:
        assert port["name"] == port["targetPort"] in ports
    probes = [container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")]
    ingress = [port["port"] for rule in manifest("networkpolicy")["spec"]["ingress"] for port in rule["ports"]]
    endpoints = [endpoint["port"] for endpoint in manifest("monitored/servicemonitor")["spec"]["endpoints"]]
    assert {*probes, *ingress, *endpoints} == ports


def test_everything_is_about_the_same_pods():
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("service")["spec"]["selector"] == labels
    assert manifest("service")["metadata"]["labels"] == labels
    assert manifest("networkpolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("monitored/servicemonitor")["spec"]["selector"]["matchLabels"] == labels
    target = manifest("monitored/horizontalpodautoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == manifest("deployment")["metadata"]["name"]


def test_the_files_of_tls_are_where_the_secret_is_mounted(container):
    pod = manifest("deployment")["spec"]["template"]["spec"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "tls")
    assert {"tls"} == {volume["name"] for volume in pod["volumes"]}
    for variable, key in (("PROFILE_TLS_CERT", "tls.crt"), ("PROFILE_TLS_KEY", "tls.key")):
        assert environment[variable] == f"{mount['mountPath']}/{key}"  # the keys of a secret of the type kubernetes.io/tls
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
