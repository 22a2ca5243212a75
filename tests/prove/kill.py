"""Proves that a program that is killed again and again loses no acknowledged write, and makes none twice.

On SQLite, and on the PostgreSQL whose URL it is given, callers create, patch, update and report through one program, and
repeat each call until it is answered. Meanwhile the program is killed by kill -9 and started again.
"""

from __future__ import annotations

import asyncio
import sys

from checker import Violation
from scenario import Scenario, databases, parser, play
from traffic import Mix

MIX = Mix({"create": 30, "patch": 35, "update": 20, "report": 15})
OPERATIONS, KILLS = {True: 200, False: 20_000}, {True: 3, False: 50}  # quick or not


async def main() -> None:
    arguments = parser(__doc__).parse_args()
    operations, kills = OPERATIONS[arguments.quick], KILLS[arguments.quick]

    async def killing(scenario: Scenario) -> None:
        (program,) = scenario.replicas
        for number in range(1, kills + 1):
            await scenario.traffic.reached(operations * number // (kills + 1))
            await program.kill()
            damage = await asyncio.to_thread(scenario.database.damage)
            scenario.violations += [Violation("damage", each) for each in damage]
            if number == kills // 2:
                await scenario.follow("the one with a snapshot", skip_existing=False)
            await program.start()

    failed = 0
    for new in databases(arguments):
        database = new()
        try:
            played = await play(arguments.program, database, [{}], MIX, operations, 1, killing)
        finally:
            database.close()
        failed += played.told(f"{kills} kills")
    print(f"{len(databases(arguments)) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    asyncio.run(main())
