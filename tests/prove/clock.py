"""Proves that a clock that jumps an hour back and a day ahead under load breaks no promise.

On SQLite, and on the PostgreSQL whose URL it is given, two programs serve a load. libfaketime changes the wall clock of
one of them alone, which so differs from the other's too; it is also killed, and starts with the wrong clock.
"""

from __future__ import annotations

import asyncio
import glob
import sys
import tempfile
from pathlib import Path

import grpc

from checker import CLOCK, Violation
from contract import message
from follower import WATCH
from replica import Replica
from scenario import Scenario, databases, parser, play
from traffic import Mix, now

LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
MIX = Mix({"create": 10, "patch": 40, "update": 20, "report": 10, "get": 20})
OPERATIONS = {True: 200, False: 10_000}  # quick or not
KEY = "KeyService/GetCurrentKey"
EXPIRES = 2 * 3600
INVALID_WITHIN = 5.0  # seconds
RIGHT, HOUR_BACK, DAY_AHEAD = "+0", "-1h", "+1d"


class Clock:
    """The wall clock of a program."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set(RIGHT)
        libraries = glob.glob(LIBRARY)
        if not libraries:
            raise SystemExit("there is no libfaketime here (apt install faketime)")
        # The monotonic clock stays as it is, as on a real machine.
        self.environment = {
            "LD_PRELOAD": libraries[0],
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(offset + "\n")
        new.rename(self.file)


class Key:
    """A key that expires in two hours."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.text = scenario.replicas[0].program.new_key("short", "--expires", f"{EXPIRES}s")

    async def is_valid(self, replica: Replica) -> bool:
        try:
            await (await replica.call(KEY, message("GetCurrentKeyRequest")(), 10, self.text))
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                raise
            return False
        return True

    async def expect(self, *valid: bool) -> None:
        """Whether each replica takes it."""
        for replica, expected in zip(self.scenario.replicas, valid, strict=True):
            if await self.is_valid(replica) != expected:
                text = f"the key {'is refused' if expected else 'is taken'} by {self.scenario.replicas.index(replica)}"
                self.scenario.violations.append(Violation(CLOCK, text))

    async def ended(self, stream) -> None:
        """Waits for the end of a stream under the key, once the key has expired."""
        began = now()
        try:
            async with asyncio.timeout(2 * INVALID_WITHIN):
                while await stream.read() is not grpc.aio.EOF:
                    pass
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            refused = isinstance(error, grpc.aio.AioRpcError) and error.code() == grpc.StatusCode.UNAUTHENTICATED
            if not refused or now() - began > INVALID_WITHIN:
                text = f"a stream under an expired key: {error!r} after {now() - began:.1f} s"
                self.scenario.violations.append(Violation(CLOCK, text))


def jumps(clock: Clock):
    """The clock of the first program jumps. A program that starts forgets old request ids at once."""

    async def happen(scenario: Scenario) -> None:
        wrong, traffic = scenario.replicas[0], scenario.traffic
        key = Key(scenario)
        await traffic.reached(traffic.goal // 5)
        clock.set(HOUR_BACK)
        await key.expect(True, True)
        await traffic.reached(2 * traffic.goal // 5)
        await wrong.kill()
        await wrong.start()
        await traffic.reached(3 * traffic.goal // 5)
        stream = await wrong.call(WATCH, message("WatchProfilesRequest")(skip_existing=True), None, key.text)
        await stream.read()
        clock.set(DAY_AHEAD)
        await key.expect(False, True)
        await key.ended(stream)
        await wrong.kill()
        await wrong.start()
        await scenario.follow("the one with a snapshot", skip_existing=False)
        await traffic.reached(4 * traffic.goal // 5)
        clock.set(RIGHT)
        await key.expect(True, True)

    return happen


async def main() -> None:
    arguments = parser(__doc__).parse_args()
    failed, operations = 0, OPERATIONS[arguments.quick]
    for new in databases(arguments):
        database = new()
        with tempfile.TemporaryDirectory(prefix="prove.") as directory:
            clock = Clock(Path(directory, "clock"))
            try:
                environments = [clock.environment, {}]
                played = await play(arguments.program, database, environments, MIX, operations, 1, jumps(clock))
            finally:
                database.close()
        failed += played.told("an hour back, a day ahead")
    print(f"{len(databases(arguments)) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    asyncio.run(main())
