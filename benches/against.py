"""Two revisions of the service beside each other."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import people
from harness import IN_FLIGHT, Bench
from report import median, ratios, spread


@dataclasses.dataclass(frozen=True)
class Measure:
    call: str
    on: str = "PostgreSQL"
    in_flight: int = IN_FLIGHT

    def what(self) -> tuple[str, str, str]:
        """What counts, its unit, and how it is written: many callers want their calls answered, one wants to wait less."""
        return ("p50_ms", "p50 ms", ",.2f") if self.in_flight == 1 else ("rate", "calls/s", ",.0f")


MEASURES = {
    **{call: Measure(call) for call in ("get", "look-up", "create", "patch", "update")},
    **{f"lone-{call}": Measure(call, in_flight=1) for call in ("create", "patch")},
    **{f"sqlite-{call}": Measure(call, on="SQLite") for call in ("get", "create", "patch", "update")},
}


def compare(bench: Bench, programs: dict[str, Path], names: list[str], size: int, *, operated: bool = False,
            encrypted: bool = False) -> list[str]:
    """The lines of the report: the first program, whose metrics and traces are on where it is operated, and its ratio to
    the second, each with databases of its own."""
    environments = [(bench.operated() if operated else {}) | (bench.encrypted() if encrypted else {}), {}]
    for number, (side, program) in enumerate(programs.items()):
        used = {MEASURES[name].on for name in names}
        if "PostgreSQL" in used:
            database = people.fill(bench.postgres, program, f"against{number}", size, bench.directory)
            bench.serve(f"{side}, PostgreSQL", program, database, **environments[number])
        if "SQLite" in used:
            database = people.fill_sqlite(program, f"against{number}", size, bench.directory)
            bench.serve(f"{side}, SQLite", program, database, **environments[number])

    def run(side: str, measure: Measure):
        return lambda _: bench.load(f"{side}, {measure.on}", measure.call, in_flight=measure.in_flight)

    results = bench.rounds({f"{name}, {side}": run(side, MEASURES[name]) for name in names for side in programs})
    ours, theirs = programs
    lines = [f"| | | {ours} | {theirs} | ratio | spread |", "|" + "---|" * 6]
    for run in [run for runs in results.values() for run in runs]:
        run["cpu_us"] = run["service_us"] + run["postgres_us"]
    for name in names:
        one, other = f"{name}, {ours}", f"{name}, {theirs}"
        for what, unit, form in MEASURES[name].what(), ("cpu_us", "CPU, us a call", ",.1f"):
            ratio = ratios(results, what, one, other)
            lines.append(f"| {name} | {unit} | {median(results[one], what, form)} | {median(results[other], what, form)}"
                         f" | {statistics.median(ratio):.2f} | {spread(ratio):.0%} |")
    return lines
