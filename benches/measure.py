"""What is measured: the service beside what PostgreSQL and an empty server of the same stack do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import peer
import people
from harness import IN_FLIGHT, Bench, Results
from people import Database

CALLS = {"get": "GetProfile", "create": "CreateProfile", "patch": "PatchProfile", "update": "UpdateProfile",
         "list": "ListProfiles, a page of 50", "look-up": "LookUpProfile by identifier",
         "mixed": "90/10 mixed"}
# Of these it is told how their groups grow, at so many in flight.
GROUPED = ["create", "patch"]
GROWTH = [1, 16, 64, 256]
FAR_MS = 1
FAR = f"PostgreSQL {FAR_MS} ms away"
WITH_REQUEST_ID = f"{FAR}: PatchProfile with a request id, alone"
SELECT = "pgbench: a SELECT, alone"
FAR_SELECT = f"{SELECT}, {FAR_MS} ms away"
BY_CLOCK = "GetProfile by the clock, at half the round's rate on PostgreSQL"


@dataclasses.dataclass(frozen=True)
class Measured:
    results: Results
    # Reads of fewer and of more profiles.
    sized: Results
    mixed_seconds: float
    # While the mixed calls ran, and the most before and during these.
    resident_mb: list[float]
    most_resident_mb: float


def title(server: str, call: str, in_flight: int = IN_FLIGHT, *, fsync: bool = False) -> str:
    load = {1: ", alone", IN_FLIGHT: ""}.get(in_flight, f", {in_flight} in flight")
    return f"{server}: {CALLS[call]}{load}{', fsync' if fsync else ''}"


def measure(bench: Bench, program: Path, size: int, mixed_seconds: float) -> Measured:
    database = people.fill(bench.postgres, program, "bench", size, bench.directory)
    bench.serve("PostgreSQL", program, database)
    bench.serve("SQLite", program, people.fill_sqlite(program, "bench", size, bench.directory))
    bench.compare("floor", database)
    bench.compare("one-query-a-call", database)
    far = Far(bench, program, database)
    results = bench.rounds(calls(bench, database) | growth(bench, database, fsync=False) | alone(bench, database, far))
    bench.postgres.fsync("on")
    results |= bench.rounds(growth(bench, database, fsync=True))
    bench.postgres.fsync("off")
    resident_mb = mixed(bench, mixed_seconds)
    most = bench.processes["PostgreSQL"].resident_mb("VmHWM")
    bench.stop()
    return Measured(results, sizes(bench, program, size), mixed_seconds, resident_mb, most)


class Far:
    """The service on a PostgreSQL whose answers take longer."""

    def __init__(self, bench: Bench, program: Path, database: Database) -> None:
        self.bench = bench
        self.messages = bench.directory / "messages"
        address = bench.proxy(FAR_MS, self.messages)
        self.database = dataclasses.replace(database, url=database.url.replace(bench.postgres.address, address))
        bench.serve(FAR, program, self.database)
        # Statements are prepared once on each connection, which is no part of a call.
        for call in GROUPED:
            for request_ids in (False, True):
                self.load(call, request_ids=request_ids)

    def load(self, call: str, *, request_ids: bool = False) -> dict:
        return self.bench.load(FAR, call, in_flight=1, request_ids=request_ids, messages=self.messages)


def pgbench(bench: Bench, database: Database, call: str, **options: int) -> Callable:
    script = peer.scripts()[call]
    return lambda _: bench.postgres.pgbench(
        database.url, script, database.people, bench.seconds, bench.directory, **options)


def calls(bench: Bench, database: Database) -> dict[str, Callable]:
    """Every call beside its peers."""
    runs = {}
    get = title("PostgreSQL", "get")
    for call in CALLS:
        runs[title("PostgreSQL", call)] = lambda _, call=call: bench.load("PostgreSQL", call)
        if call in peer.scripts():
            runs[title("pgbench", call)] = pgbench(bench, database, call)
        if call == "get":
            for server in ("PostgreSQL", "floor"):
                runs[f"{server}: {BY_CLOCK}"] = lambda results, server=server: bench.load(
                    server, "get", rate=results[get][-1]["rate"] / 2)
            for server in ("one-query-a-call", "floor"):
                runs[title(server, call)] = lambda _, server=server: bench.load(server, "get")
        runs[title("SQLite", call)] = lambda _, call=call: bench.load("SQLite", call)
    return runs


def growth(bench: Bench, database: Database, *, fsync: bool) -> dict[str, Callable]:
    """Writes with more and fewer in flight. What `calls` has is not measured again."""
    runs = {}
    for call in GROUPED:
        for in_flight in (number for number in GROWTH if fsync or number != IN_FLIGHT):
            runs[title("PostgreSQL", call, in_flight, fsync=fsync)] = lambda _, call=call, in_flight=in_flight: bench.load(
                "PostgreSQL", call, in_flight=in_flight)
        if fsync:
            runs[title("pgbench", call, fsync=True)] = pgbench(bench, database, call)
    return runs


def alone(bench: Bench, database: Database, far: Far) -> dict[str, Callable]:
    """One call after the other on a PostgreSQL that is further away, and how far that is."""
    runs = {title(FAR, call, 1): lambda _, call=call: far.load(call) for call in GROUPED}
    runs[WITH_REQUEST_ID] = lambda _: far.load("patch", request_ids=True)
    runs[SELECT] = pgbench(bench, database, "get", clients=1)
    runs[FAR_SELECT] = pgbench(bench, far.database, "get", clients=1)
    return runs


def mixed(bench: Bench, seconds: float) -> list[float]:
    """How much memory the service has, by tenths of the time."""
    seen = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        seen.append(bench.load("PostgreSQL", "mixed", seconds=seconds / 10)["resident_mb"])
    return seen


def sizes(bench: Bench, program: Path, size: int) -> Results:
    """Reads of fewer and of more profiles."""
    runs = {}
    for people_in_it in (size // 10, size * 10):
        name = f"bench{people_in_it}"
        bench.serve(name, program, people.fill(bench.postgres, program, name, people_in_it, bench.directory))
        bench.load(name, "get", seconds=bench.seconds * 15)  # each of PostgreSQL's processes maps its pages anew
        runs[f"GetProfile of {people_in_it:,} profiles"] = lambda _, name=name: bench.load(name, "get")
    return bench.rounds(runs)
