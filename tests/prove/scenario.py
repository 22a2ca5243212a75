"""Traffic on replicas of one database, with followers, while something happens to them; then everything is judged."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import tables
from checker import UNEXPECTED, WATCH, Violation, judge
from follower import Follower
from journal import ACKNOWLEDGED, REFUSED, UNKNOWN
from replica import Replica, together
from tables import Database, Postgres, Sqlite
from traffic import Mix, Traffic

CALLERS = 48
EXAMPLES = 3


def parser(about: str | None) -> argparse.ArgumentParser:
    """What every proof by scenarios is told."""
    options = argparse.ArgumentParser(description=about)
    options.add_argument("--program", type=Path, required=True)
    options.add_argument("--postgres", help="the directory of PostgreSQL's programs")
    options.add_argument("--url", help="a PostgreSQL")
    options.add_argument("--quick", action="store_true")
    return options


def databases(arguments: argparse.Namespace) -> list[Callable[[], Database]]:
    """What makes a new database of each kind that there is."""
    return [Sqlite] + ([lambda: Postgres(arguments.postgres, arguments.url)] if arguments.url else [])


@dataclasses.dataclass
class Scenario:
    """What happens to what."""

    database: Database
    replicas: list[Replica]
    traffic: Traffic
    followers: list[Follower]
    violations: list[Violation] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    async def join(self, path: Path, environment: dict[str, str]) -> Replica:
        """One more replica, of a program that may be another one."""
        key = self.replicas[0].key if self.replicas else None
        replica = Replica(path, self.database.url, key, environment)
        self.replicas.append(replica)
        await replica.start()
        return replica

    async def follow(self, name: str, *, skip_existing: bool) -> None:
        """One more follower."""
        seed = len(self.followers)
        self.followers.append(Follower(self.replicas, name, seed, skip_existing=skip_existing))
        self.traffic.journal.watchers.append(self.followers[-1].watcher)

    def figures(self) -> str:
        """What was done, and how many at once went to the database."""
        journal, traffic = self.traffic.journal, self.traffic
        done = f"{traffic.goal} operations in {self.seconds:.1f} s, {journal.count(ACKNOWLEDGED)} writes acknowledged, "
        done += f"{journal.count(REFUSED)} refused, {journal.count(UNKNOWN)} unknown, {traffic.repeats} calls repeated, "
        done += f"{traffic.cancelled} cancelled, {len(journal.reads)} profiles read, "
        told = [len(each.changes) + len(each.snapshot or []) for each in journal.watchers]
        streams = [each.streams for each in journal.watchers]
        done += f"watchers told {told} over {streams} streams, "
        writes, reads = (together(self.replicas, queue) for queue in ("writes", "reads"))
        done += f"{writes:.1f} writes a group, {reads:.1f} reads a query; {len(self.violations)} violations"
        return ", ".join([done, *(f"{times} {kind}" for kind, times in self.kinds().items())])

    def told(self, what: str) -> bool:
        """Prints what was done and what is wrong, and answers whether anything is."""
        print(f"{self.database.name}, {what}: {self.figures()}", flush=True)
        for violation in self.examples():
            print(f"FAILED {violation}", flush=True)
        return bool(self.violations)

    def kinds(self) -> Counter[str]:
        """How many violations there are of each kind."""
        return Counter(violation.kind for violation in self.violations)

    def examples(self) -> list[str]:
        """The first violations of each kind."""
        kinds = {kind: [each for each in self.violations if each.kind == kind] for kind in self.kinds()}
        return [str(violation) for violations in kinds.values() for violation in violations[:EXAMPLES]]


Happening = Callable[[Scenario], Awaitable[None]]


async def play(
    path: Path,
    database: Database,
    environments: Sequence[dict[str, str]],
    mix: Mix,
    operations: int,
    seed: int,
    happening: Happening,
    kind: type[Traffic] = Traffic,
    afterwards: Happening | None = None,
) -> Scenario:
    """Plays a scenario to its end, with a replica in each of the environments, and answers it with what is wrong."""
    replicas: list[Replica] = []
    scenario = Scenario(database, replicas, kind(replicas, mix, seed), [])
    try:
        for environment in environments:
            await scenario.join(path, environment)
        traffic = scenario.traffic
        await scenario.follow("the first", skip_existing=True)
        await scenario.followers[0].began.wait()
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.run(operations, CALLERS))
            group.create_task(happening(scenario))
        scenario.seconds = time.monotonic() - started
        if afterwards:
            await afterwards(scenario)
        await traffic.read_all()
        await settle(scenario)
        found = tables.read(database)
    finally:
        for follower in scenario.followers:
            await follower.end()
        for replica in scenario.replicas:
            await replica.close()
    scenario.violations += judge(traffic.journal, found)
    return scenario


async def settle(scenario: Scenario) -> None:
    """Has every follower be told of a last profile, and every replica end."""
    traffic = scenario.traffic
    await traffic.create()
    for follower in scenario.followers:
        if not await follower.until(traffic.people[-1].id):
            scenario.violations.append(Violation(WATCH, f"{follower.watcher.name} is not told any more"))
    for replica in scenario.replicas:
        await replica.stop()
        scenario.violations += [Violation(UNEXPECTED, error) for error in replica.errors]
