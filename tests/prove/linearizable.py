"""Proves that what callers of two programs on one database see is linearizable, and that followers skip nothing.

On SQLite, and on the PostgreSQL whose URL it is given, callers write and read through both programs, cancel calls, give
up and repeat. Meanwhile the programs are killed and frozen, and followers begin new streams. Then it proves that a stale
read, a write that is taken back and one that is overwritten are caught.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from checker import CONTENT, LOST, STALE
from sabotage import StaleOnce, overwrite, take_back
from scenario import Scenario, databases, parser, play
from traffic import Mix

MIX = Mix(
    {"create": 5, "patch": 25, "update": 12, "report": 5, "get": 35, "look_up": 8, "batch": 10},
    reads_back=0.3,
    cancels=0.03,
    impatient=0.1,
    timeout=1.0,
)
RUNS, OPERATIONS = 100, 10_000
FEW, FEWEST = 300, 150  # operations of a run that is quick, and of one whose fault is caught
FAULTS = ("kill", "freeze", "interrupt")


def faults(seed: int, quick: bool):
    """What happens in a run, in an order and at moments that the seed tells."""
    chance, times, longest = random.Random(seed), 1 if quick else 2, 0.5 if quick else 1.8

    async def happen(scenario: Scenario) -> None:
        events = [*FAULTS * times, "follow"]
        chance.shuffle(events)
        goal = scenario.traffic.goal
        for event, at in zip(events, sorted(chance.sample(range(goal // 20, goal - goal // 20), len(events)))):
            await scenario.traffic.reached(at)
            replica = chance.choice(scenario.replicas)
            match event:
                case "kill":
                    await replica.kill()
                    await replica.start()
                case "freeze":
                    await replica.freeze(chance.uniform(0.2, longest))
                case "interrupt":
                    for follower in scenario.followers:
                        follower.interrupt()
                case "follow":
                    await scenario.follow("the one with a snapshot", skip_existing=False)

    return happen


async def nothing(_: Scenario) -> None:
    """No fault of the programs."""


async def caught(path: Path, database, seed: int) -> list[str]:
    """Puts each fault in, and answers those that were not caught."""
    missed = []
    for name, kind, play_kind in (
        ("a stale read", STALE, dict(happening=nothing, kind=StaleOnce)),
        ("a write that is taken back", LOST, dict(happening=take_back)),
        ("an update that is overwritten", CONTENT, dict(happening=nothing, afterwards=overwrite)),
    ):
        target = database()
        try:
            played = await play(path, target, [{}, {}], MIX, FEWEST, seed, **play_kind)
        finally:
            target.close()
        print(f"{target.name}: {name} is caught as {', '.join(sorted(played.kinds())) or 'nothing'}")
        if kind not in played.kinds():
            missed.append(f"{name} was not caught")
    return missed


async def main() -> None:
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=RUNS, help="on each database")
    options.add_argument("--seed", type=int, default=int(time.time()), help="of the first run; the next ones count on")
    arguments = options.parse_args()
    runs, operations = (1, FEW) if arguments.quick else (arguments.runs, OPERATIONS)
    kinds = databases(arguments)
    failed = []
    for database in kinds:
        for seed in range(arguments.seed, arguments.seed + runs):
            target = database()
            try:
                played = await play(arguments.program, target, [{}, {}], MIX, operations, seed, faults(seed, arguments.quick))
            finally:
                target.close()
            failed += [f"seed {seed}"] * played.told(f"seed {seed}")
    for database in kinds[:1] if arguments.quick else kinds:
        failed += await caught(arguments.program, database, arguments.seed)
    for failure in failed:
        print(f"FAILED {failure}")
    print(f"{int(not failed)} passed, {int(bool(failed))} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    asyncio.run(main())
