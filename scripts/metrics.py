#!/usr/bin/env python3
"""Checks what watches the service, by promtool: scripts/metrics.py [PROGRAM]

- The alert rules and their unit tests.
- Each query of the dashboard, and that it is valid JSON.
- What a running program tells: promtool reads the older text form, and may miss the help of counters alone.
- Each metric that a rule or the dashboard names is one that the program has.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
ALERT_TESTS = ROOT / "deploy/prometheus/alerts.test.yaml"
DASHBOARD = ROOT / "deploy/grafana/profile-service.json"
CERTIFICATES = ROOT / "deploy/certificates.sh"
PROGRAM = ROOT / "target/debug/profile-service"

# What Grafana puts into a query.
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*"}
# promtool looks for the help of a counter under its name with the suffix; OpenMetrics has it under the name without.
COUNTER_WITHOUT_HELP = re.compile(r"^\w+_total no help text$")
METRIC = re.compile(r"\b(?:profile_service|grpc_server|process)_\w+")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, check=False)


def checked(*arguments: str) -> None:
    done = promtool(*arguments)
    if done.returncode:
        sys.exit(f"promtool {' '.join(arguments)}:\n{done.stdout}{done.stderr}")


def queries(dashboard: dict) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for variable, value in VARIABLES.items():
                query = query.replace(variable, value)
            yield query


def check_queries(found: list[str]) -> None:
    """A rule for each query: promtool parses no bare ones."""
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(found)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)  # JSON is YAML
        file.flush()
        checked("check", "rules", file.name)


def scrape(program: Path) -> str:
    with tempfile.TemporaryDirectory() as directory:
        command = [program, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
        command += ["--database-url", f"sqlite://{directory}/profiles.db?mode=rwc"]
        subprocess.run([CERTIFICATES, directory], check=True)
        own = f"{directory}/profile-service"
        command += ["--tls-cert", f"{own}.crt", "--tls-key", f"{own}.key"]
        command += ["--tls-client-ca", f"{directory}/ca.crt", "--tls-client-auth", "optional"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
            try:
                lines = (json.loads(line) for line in running.stderr or ())
                address = next(line["address"] for line in lines if line["message"] == "metrics")
                # Once it is ready it has all metrics.
                next(line for line in lines if line["message"] == "health changed" and line["serving"])
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                    return answer.read().decode()
            finally:
                running.kill()


def main() -> None:
    program = Path(sys.argv[1]) if len(sys.argv) > 1 else PROGRAM
    checked("check", "rules", str(ALERTS))
    checked("test", "rules", str(ALERT_TESTS))
    found = list(queries(json.loads(DASHBOARD.read_text())))
    check_queries(found)
    told = scrape(program)
    linted = promtool("check", "metrics", text=told)
    complaints = [line for line in (linted.stdout + linted.stderr).splitlines() if line]
    complaints = [line for line in complaints if not COUNTER_WITHOUT_HELP.match(line)]
    if complaints or linted.returncode not in {0, 3}:  # 3: it complains
        sys.exit("promtool check metrics:\n" + "\n".join(complaints))
    there = {SUFFIX.sub("", name) for name in re.findall(r"^\w+", told, re.MULTILINE)}
    named = {SUFFIX.sub("", name) for name in METRIC.findall(ALERTS.read_text() + "\n".join(found))}
    if missing := sorted(named - there):
        sys.exit(f"the program has no {', '.join(missing)}")
    print(f"{len(found)} queries, {len(named)} metrics named of {len(there)}")


if __name__ == "__main__":
    main()
