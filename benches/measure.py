"""The service beside what PostgreSQL and an empty server of the same stack do, and what is asked of it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import people
import peer
from harness import IN_FLIGHT, Bench
from people import Database
from report import Goal, Results, goals, median, ratios, table, values

CALLS = {"get": "GetProfile", "create": "CreateProfile", "patch": "PatchProfile", "update": "UpdateProfile",
         "mixed": "90/10 mixed"}
# Of these it is told how their groups grow, at so many in flight.
GROUPED = ["create", "patch"]
GROWTH = [1, 16, 64, 256]
FAR_MS = 1
FAR = f"PostgreSQL {FAR_MS} ms away"
WITH_REQUEST_ID = f"{FAR}: PatchProfile with a request id, alone"
SELECT = "pgbench: a SELECT, alone"
BY_CLOCK = "GetProfile by the clock, at half the round's rate on PostgreSQL"


def title(server: str, call: str, in_flight: int = IN_FLIGHT, *, fsync: bool = False) -> str:
    load = {1: ", alone", IN_FLIGHT: ""}.get(in_flight, f", {in_flight} in flight")
    return f"{server}: {CALLS[call]}{load}{', fsync' if fsync else ''}"


def measure(bench: Bench, program: Path, size: int, memory_seconds: float) -> list[str]:
    """The lines of the report."""
    database = people.fill(bench.postgres, program, "bench", size, bench.directory)
    bench.serve("PostgreSQL", program, database)
    bench.serve("SQLite", program, people.fill_sqlite(program, "bench", size, bench.directory))
    bench.compare("floor", database)
    bench.compare("one-query-a-call", database)
    far = Far(bench, program, database)
    results = bench.rounds({**calls(bench, database), **growth(bench, fsync=False), **alone(bench, database, far)})
    bench.postgres.fsync("on")
    results |= bench.rounds({**growth(bench, fsync=True), **{
        title("pgbench", call, fsync=True): pgbench(bench, database, call) for call in GROUPED}})
    bench.postgres.fsync("off")
    memory = resident(bench, memory_seconds)
    bench.stop()
    sized = sizes(bench, program, size)
    asked = [*asked_of_writes(results), *asked_alone(results), *asked_of_reads(results), *memory, asked_of_sizes(sized)]
    return [*goals(asked), "", *growth_table(results), "", *alone_table(results), "", *table(results), "", *table(sized)]


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


def pgbench(bench: Bench, database: Database, call: str, **options: int):
    script = peer.scripts()[call]
    return lambda _: bench.postgres.pgbench(
        database.url, script, database.people, bench.seconds, bench.directory, **options)


def calls(bench: Bench, database: Database) -> dict:
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


def growth(bench: Bench, *, fsync: bool) -> dict:
    """Writes with more and fewer in flight. What `calls` has is not measured again."""
    return {title("PostgreSQL", call, in_flight, fsync=fsync): lambda _, call=call, in_flight=in_flight: bench.load(
                "PostgreSQL", call, in_flight=in_flight)
            for call in GROUPED for in_flight in GROWTH if fsync or in_flight != IN_FLIGHT}


def alone(bench: Bench, database: Database, far: Far) -> dict:
    """One call after the other on a PostgreSQL that is further away, and how far that is."""
    runs = {title(FAR, call, 1): lambda _, call=call: far.load(call) for call in GROUPED}
    runs[WITH_REQUEST_ID] = lambda _: far.load("patch", request_ids=True)
    runs[SELECT] = pgbench(bench, database, "get", clients=1)
    runs[f"{SELECT}, {FAR_MS} ms away"] = pgbench(bench, far.database, "get", clients=1)
    return runs


def resident(bench: Bench, seconds: float) -> list[Goal]:
    """How much memory the service has after all of this, and whether it still grows."""
    seen = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        seen.append(bench.load("PostgreSQL", "mixed", seconds=seconds / 10)["resident_mb"])
    most = bench.processes["PostgreSQL"].resident_mb("VmHWM")
    return [Goal(f"resident MB at the most, all loads and then {seconds:.0f} s of 90/10 mixed", [most], "<= 60"),
            Goal("of these seconds, resident MB of the last tenth, of the first", [seen[-1] / seen[0]], "flat")]


def sizes(bench: Bench, program: Path, size: int) -> Results:
    """Reads of fewer and of more profiles."""
    runs = {}
    for people_in_it in (size // 10, size * 10):
        name = f"bench{people_in_it}"
        bench.serve(name, program, people.fill(bench.postgres, program, name, people_in_it, bench.directory))
        bench.load(name, "get", seconds=bench.seconds * 15)  # each of PostgreSQL's processes maps its pages anew
        runs[f"GetProfile of {people_in_it:,} profiles"] = lambda _, name=name: bench.load(name, "get")
    return bench.rounds(runs)


def asked_of_writes(results: Results) -> list[Goal]:
    asked = [Goal(f"{CALLS[call]}, calls/s, of pgbench's transaction", ratios(
                results, "rate", title("PostgreSQL", call), title("pgbench", call)), goal)
             for call, goal in [("create", ">= 1.3"), ("patch", ">= 1.7"), ("update", ">= 1.6")]]
    most = GROWTH[-1]
    return asked + [Goal(f"{CALLS[call]}, {most} in flight, fsync on, calls/s, of pgbench's transaction", ratios(
                results, "rate", title("PostgreSQL", call, most, fsync=True), title("pgbench", call, fsync=True)), goal)
            for call, goal in [("create", ">= 2.0"), ("patch", ">= 2.4")]]


def asked_alone(results: Results) -> list[Goal]:
    far = {call: results[title(FAR, call, 1)] for call in GROUPED}
    return [
        Goal("CreateProfile alone, messages to PostgreSQL", values(far["create"], "messages"), "<= 1"),
        Goal("PatchProfile alone, messages to PostgreSQL", values(far["patch"], "messages"), "<= 2"),
        Goal("PatchProfile alone, with a request id, messages to PostgreSQL",
             values(results[WITH_REQUEST_ID], "messages"), "<= 3"),
        Goal(f"CreateProfile alone, PostgreSQL {FAR_MS} ms away, p50 in ms", values(far["create"], "p50_ms"), "<= 2.5"),
        Goal(f"PatchProfile alone, PostgreSQL {FAR_MS} ms away, p50 in ms", values(far["patch"], "p50_ms"), "<= 3.5"),
    ]


def asked_of_reads(results: Results) -> list[Goal]:
    get, floor = title("PostgreSQL", "get"), title("floor", "get")
    return [
        Goal("GetProfile, calls/s, of pgbench's SELECT", ratios(results, "rate", get, title("pgbench", "get")), ">= 0.55"),
        Goal("GetProfile, calls/s, of one query a call",
             ratios(results, "rate", get, title("one-query-a-call", "get")), ">= 1.8"),
        Goal("GetProfile, CPU of the service, of the floor", ratios(results, "service_us", get, floor), "<= 1.8"),
        Goal("SQLite GetProfile, calls/s, of the floor", ratios(results, "rate", title("SQLite", "get"), floor), ">= 0.4"),
        Goal("GetProfile by the clock, at half its peak, p99 in ms", values(results[f"PostgreSQL: {BY_CLOCK}"], "p99_ms"),
             f"the floor's: {median(results[f'floor: {BY_CLOCK}'], 'p99_ms', '.2f')}"),
    ]


def asked_of_sizes(sized: Results) -> Goal:
    cost = {name: [{"us": run["service_us"] + run["postgres_us"]} for run in runs] for name, runs in sized.items()}
    small, large = sized
    return Goal(f"CPU of {large}, service and PostgreSQL, of {small.split(' ')[2]}", ratios(cost, "us", large, small), "<= 1.2")


def growth_table(results: Results) -> list[str]:
    lines = ["| changes a second, in flight: | " + " | ".join(map(str, GROWTH)) + " |", "|" + "---|" * (1 + len(GROWTH))]
    for fsync in (False, True):
        for call in GROUPED:
            cells = [median(results[title("PostgreSQL", call, in_flight, fsync=fsync)], "rate") for in_flight in GROWTH]
            lines.append(f"| {CALLS[call]}, fsync {'on' if fsync else 'off'} | " + " | ".join(cells) + " |")
    return lines


def alone_table(results: Results) -> list[str]:
    rows = [(CALLS[call], title("PostgreSQL", call, 1), title(FAR, call, 1)) for call in GROUPED]
    rows += [("PatchProfile with a request id", None, WITH_REQUEST_ID), (SELECT, SELECT, f"{SELECT}, {FAR_MS} ms away")]
    lines = [f"| one call after the other | p50 ms | p50 ms, PostgreSQL {FAR_MS} ms away | messages to PostgreSQL |", "|" + "---|" * 4]
    for name, near, far in rows:
        cells = [median(results.get(near, []), "p50_ms", ".2f"), median(results[far], "p50_ms", ".2f"),
                 median(results[far], "messages")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines
