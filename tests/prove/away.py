"""Proves that PostgreSQL may be restarted, stopped and frozen under load, and nothing acknowledged is lost.

It stops the server whose data directory it is given: scripts/prove gives it one of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
from peer import CREATE, GET, create_request, created_id, get_request
from program import Program

AWAY = 3  # seconds
ANSWER, NOT_SERVING, SERVING = 3, 3, 2  # seconds at the most
NOTHING_WRITTEN, UNKNOWN = b"DATABASE_UNAVAILABLE", b"OUTCOME_UNKNOWN"


class Load:
    """Callers that create profiles, and what became of their calls."""

    def __init__(self, program: Program, callers: int = 8) -> None:
        self.metadata = (("cv-api-key", program.key),)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{program.port}")
        self.acknowledged: list[bytes] = []
        self.refused = {NOTHING_WRITTEN: 0, UNKNOWN: 0}
        self.others: list[str] = []
        self.slowest = 0.0
        self.going = True
        self.threads = [threading.Thread(target=self.create) for _ in range(callers)]
        for thread in self.threads:
            thread.start()

    def create(self) -> None:
        call = self.channel.unary_unary(CREATE)
        while self.going:
            started = time.monotonic()
            try:
                self.acknowledged.append(created_id(call(create_request(), metadata=self.metadata)))
            except grpc.RpcError as error:
                details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
                reason = next((reason for reason in self.refused if reason in details), None)
                if error.code() == grpc.StatusCode.UNAVAILABLE and reason:
                    self.refused[reason] += 1
                else:
                    self.others.append(f"{error.code()} {error.details()}")
            self.slowest = max(self.slowest, time.monotonic() - started)

    def progress(self) -> None:
        """Waits for a hundred more creations."""
        goal, deadline = len(self.acknowledged) + 100, time.monotonic() + 30
        while len(self.acknowledged) < goal:
            if time.monotonic() > deadline:
                raise TimeoutError("there is no progress")
            time.sleep(0.01)

    def lost(self) -> int:
        """How many acknowledged profiles are not there."""
        self.going = False
        for thread in self.threads:
            thread.join()
        call = self.channel.unary_unary(GET)
        found = [created_id(call(get_request(each), metadata=self.metadata)) for each in self.acknowledged]
        return len(set(self.acknowledged) - set(found))

    def until_health_is(self, serving: bool) -> float:
        """Waits for health to say so: after how many seconds it did."""
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        started = time.monotonic()
        while (check(b"") == b"\x08\x01") != serving:
            if time.monotonic() - started > 30:
                raise TimeoutError(f"health does not say {serving=}")
            time.sleep(0.02)
        return time.monotonic() - started


class Postgres:
    """The server that things happen to."""

    def __init__(self, programs: Path, data: Path) -> None:
        as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self.command = [*as_postgres, str(programs / "pg_ctl"), "-D", str(data), "-l", f"{data}/log", "-w", "-s"]
        self.pid_file = data / "postmaster.pid"

    def control(self, *arguments: str) -> None:
        subprocess.run([*self.command, *arguments], check=True, stdin=subprocess.DEVNULL)

    def signal(self, number: int) -> None:
        """Signals the server and all its processes."""
        first = int(self.pid_file.read_text().splitlines()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for pid in [first, *map(int, children)]:
            os.kill(pid, number)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("program", "postgres", "data", "url"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    postgres = Postgres(Path(arguments.postgres), Path(arguments.data))
    faults = []
    async with Program(Path(arguments.program), database=arguments.url) as program:
        load = Load(program)
        try:
            for mode in ("fast", "immediate"):
                load.progress()
                postgres.control("restart", "-m", mode)
                back = load.until_health_is(True)
                print(f"restarted ({mode}): SERVING after {back:.2f} s")
                faults += [f"{mode}: SERVING too late"] * (back > SERVING)
            for what, leave, come in (
                ("stopped", lambda: postgres.control("stop", "-m", "fast"), lambda: postgres.control("start")),
                ("frozen", lambda: postgres.signal(signal.SIGSTOP), lambda: postgres.signal(signal.SIGCONT)),
            ):
                load.progress()
                leave()
                away = load.until_health_is(False)
                time.sleep(AWAY)
                come()
                back = load.until_health_is(True)
                print(f"{what}: NOT_SERVING after {away:.2f} s, SERVING after {back:.2f} s")
                faults += [f"{what}: told too late"] * (away > NOT_SERVING or back > SERVING)
            load.progress()
        finally:
            lost = load.lost()
    refused = ", ".join(f"{number} {reason.decode()}" for reason, number in load.refused.items())
    print(f"{len(load.acknowledged)} acknowledged, {lost} lost, {refused}, slowest answer {load.slowest:.2f} s")
    faults += [f"{lost} lost"] * bool(lost) + load.others[:3] + ["an answer too late"] * (load.slowest > ANSWER)
    for fault in faults:
        print(f"FAILED {fault}")
    print(f"{int(not faults)} passed, {int(bool(faults))} failed")
    sys.exit(bool(faults))


if __name__ == "__main__":
    asyncio.run(main())
