"""What is asked of the service, and how the report says what was measured."""

from __future__ import annotations

from harness import Results
from measure import BY_CLOCK, CALLS, FAR, FAR_MS, FAR_SELECT, GROUPED, GROWTH, SELECT, WITH_REQUEST_ID, Measured, title
from report import Goal, goals, median, ratios, table, values


# What is asked of a revision beside another one, which scripts/bench --against measures.
AGAINST = "see --against"


def lines(measured: Measured) -> list[str]:
    results, sized = measured.results, measured.sized
    asked = [*asked_of_writes(results), *asked_alone(results), *asked_of_reads(results), *asked_of_memory(measured),
             asked_of_sizes(sized)]
    return [*goals(asked), "", *growth_table(results), "", *alone_table(results), "", *table(results), "", *table(sized)]


def asked_of_writes(results: Results) -> list[Goal]:
    asked = [Goal(f"{CALLS[call]}, calls/s, of pgbench's transaction", ratios(
                results, "rate", title("PostgreSQL", call), title("pgbench", call)), goal)
             for call, goal in [("create", ">= 1.3"), ("patch", ">= 1.7"), ("update", ">= 1.6")]]
    most = GROWTH[-1]
    asked += [Goal(f"{CALLS[call]}, {most} in flight, fsync on, calls/s, of pgbench's transaction", ratios(
                results, "rate", title("PostgreSQL", call, most, fsync=True), title("pgbench", call, fsync=True)), goal)
              for call, goal in [("create", ">= 2.0"), ("patch", ">= 2.4")]]
    return asked + [Goal(f"SQLite {CALLS[call]}, calls/s", values(results[title("SQLite", call)], "rate"), AGAINST)
                    for call in ("create", "patch", "update")]


def asked_alone(results: Results) -> list[Goal]:
    far = {call: results[title(FAR, call, 1)] for call in GROUPED}
    return [
        Goal("CreateProfile alone, messages to PostgreSQL", values(far["create"], "messages"), "<= 1"),
        Goal("PatchProfile alone, messages to PostgreSQL", values(far["patch"], "messages"), "<= 2"),
        Goal("PatchProfile alone, with a request id, messages to PostgreSQL",
             values(results[WITH_REQUEST_ID], "messages"), "<= 3"),
        *(Goal(f"{CALLS[call]} alone, p50 in ms", values(results[title("PostgreSQL", call, 1)], "p50_ms"), AGAINST)
          for call in GROUPED),
        Goal(f"CreateProfile alone, PostgreSQL {FAR_MS} ms away, p50 in ms", values(far["create"], "p50_ms"), "<= 2.5"),
        Goal(f"PatchProfile alone, PostgreSQL {FAR_MS} ms away, p50 in ms", values(far["patch"], "p50_ms"), "<= 3.5"),
    ]


def asked_of_reads(results: Results) -> list[Goal]:
    get, floor = title("PostgreSQL", "get"), title("floor", "get")
    return [
        Goal("GetProfile, calls/s", values(results[get], "rate"), AGAINST),
        Goal("GetProfile, calls/s, of pgbench's SELECT", ratios(results, "rate", get, title("pgbench", "get")), ">= 0.55"),
        Goal("GetProfile, calls/s, of one query a call",
             ratios(results, "rate", get, title("one-query-a-call", "get")), ">= 1.8"),
        Goal("LookUpProfile by identifier, calls/s, of GetProfile", ratios(results, "rate", title("PostgreSQL", "look-up"), get),
             ">= 0.8"),
        Goal("GetProfile, CPU of the service, of the floor", ratios(results, "service_us", get, floor), "<= 1.8"),
        Goal("ListProfiles, a page of 50, CPU of the service and PostgreSQL, of GetProfile's",
             ratios(cost(results), "us", title("PostgreSQL", "list"), get), "<= 20"),
        Goal("SQLite GetProfile, calls/s, of the floor", ratios(results, "rate", title("SQLite", "get"), floor), ">= 0.4"),
        Goal("GetProfile by the clock, at half its peak, p99 in ms", values(results[f"PostgreSQL: {BY_CLOCK}"], "p99_ms"),
             f"the floor's: {median(results[f'floor: {BY_CLOCK}'], 'p99_ms', '.2f')}"),
    ]


def asked_of_memory(measured: Measured) -> list[Goal]:
    seen, seconds = measured.resident_mb, f"{measured.mixed_seconds:.0f} s of 90/10 mixed"
    return [
        Goal(f"resident MB at the most, all loads and then {seconds}", [measured.most_resident_mb], "<= 60"),
        Goal(f"resident MB, last tenth of the {seconds} of their first", [seen[-1] / seen[0]], "flat"),
    ]


def asked_of_sizes(sized: Results) -> Goal:
    small, large = sized
    name = f"CPU of {large}, service and PostgreSQL, of {small.split(' ')[2]}"
    return Goal(name, ratios(cost(sized), "us", large, small), "<= 1.2")


def cost(results: Results) -> Results:
    """The processor's time that a call takes in the service and in PostgreSQL."""
    return {name: [{"us": run.get("service_us", 0) + run["postgres_us"]} for run in runs]
            for name, runs in results.items()}


def growth_table(results: Results) -> list[str]:
    lines = ["| changes a second, in flight: | " + " | ".join(map(str, GROWTH)) + " |", "|" + "---|" * (1 + len(GROWTH))]
    for fsync in (False, True):
        for call in GROUPED:
            cells = [median(results[title("PostgreSQL", call, in_flight, fsync=fsync)], "rate") for in_flight in GROWTH]
            lines.append(f"| {CALLS[call]}, fsync {'on' if fsync else 'off'} | " + " | ".join(cells) + " |")
    return lines


def alone_table(results: Results) -> list[str]:
    rows = [(CALLS[call], title("PostgreSQL", call, 1), title(FAR, call, 1)) for call in GROUPED]
    rows += [("PatchProfile with a request id", None, WITH_REQUEST_ID), (SELECT, SELECT, FAR_SELECT)]
    lines = [f"| one call after the other | p50 ms | p50 ms, {FAR} | messages to PostgreSQL |", "|" + "---|" * 4]
    for name, near, far in rows:
        cells = [median(results.get(near, []), "p50_ms", ".2f"), median(results[far], "p50_ms", ".2f"),
                 median(results[far], "messages")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines
