"""Proves on PostgreSQL that followers of WatchProfiles are told in time, whatever they cost, and that none skips anything.

It starts two programs on the database that it is given: scripts/prove gives it one of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
from peer import CREATE, create_request, created_id, text_field
from program import Program

WATCH = "/profiles.v1.ProfileQueryService/WatchProfiles"
PATCH = "/profiles.v1.ProfileService/PatchProfile"
HEARTBEAT, CREATED, CHANGED, ERASED, SNAPSHOT_END = 1, 2, 3, 4, 5
SKIP_EXISTING = b"\x10\x01"
LAG_HERE, LAG_THERE, FROZEN = 0.25, 1.0, 6.0  # seconds at the most
RATE = 50  # changes a second whose lag is measured
WATCHERS = 500
WATCHERS_OF_A_CHANNEL = 50  # below the streams of a connection
AGE = "10s"


@dataclasses.dataclass
class Message:
    """What is read of a message."""

    token: bytes = b""
    kind: int = 0
    profile: bytes = b""
    revision: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Message:
        message, at = cls(), 0
        while at < len(data):
            tag, at = varint(data, at)
            value, at = varint(data, at)
            if tag & 7 == 2:
                value, at = data[at : at + value], at + value
            name = {1: "token", 2: "kind", 3: "profile", 4: "revision"}.get(tag >> 3)
            if name:
                setattr(message, name, value)
        return message


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def resume(token: bytes) -> bytes:
    return text_field(1, token) if token else b""


def patch_request(profile: bytes, city: bytes) -> bytes:
    fields = text_field(1, profile) + text_field(13, city)
    return text_field(1, fields)


class Caller:
    """A client of one program, with a key."""

    def __init__(self, program: Program, key: str | None = None) -> None:
        # A channel of its own: channels with the same options share their connections.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{program.port}", options=options)
        self.metadata = (("cv-api-key", key or program.key),)

    async def call(self, path: str, request: bytes) -> bytes:
        """Calls until it is answered: a connection may have reached its age."""
        while True:
            try:
                return await self.channel.unary_unary(path)(request, metadata=self.metadata, timeout=10)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise

    async def create(self) -> bytes:
        return created_id(await self.call(CREATE, create_request()))

    async def follow(self, request: bytes):
        """The messages, over any number of connections."""
        token = b""
        while True:
            try:
                stream = self.channel.unary_stream(WATCH)(resume(token) or request, metadata=self.metadata)
                async for data in stream:
                    message = Message.parse(data)
                    token = message.token
                    yield message
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise


class Arrivals:
    """When a follower was told of each revision of a profile."""

    def __init__(self, caller: Caller, profile: bytes) -> None:
        self.at: dict[int, float] = {}
        self.revisions: list[int] = []
        self.ready = asyncio.Event()
        self.changed = asyncio.Condition()
        self.task = asyncio.create_task(self.run(caller, profile))

    async def run(self, caller: Caller, profile: bytes) -> None:
        async for message in caller.follow(SKIP_EXISTING):
            self.ready.set()
            if message.profile == profile:
                self.revisions.append(message.revision)
                async with self.changed:
                    self.at.setdefault(message.revision, time.monotonic())
                    self.changed.notify_all()

    async def of(self, revision: int) -> float:
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: revision in self.at)
        return self.at[revision]


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


async def lag(first: Program, second: Program, changes: int) -> list[str]:
    """How long after its answer a change is told, by the program that made it and by another."""
    writer = Caller(first)
    profile = await writer.create()
    followers = [Arrivals(Caller(program), profile) for program in (first, second)]
    for follower in followers:
        await follower.ready.wait()
    answered = {}
    for number in range(changes):
        started = time.monotonic()
        await writer.call(PATCH, patch_request(profile, b"City %d" % number))
        answered[number + 2] = time.monotonic()
        await asyncio.sleep(max(0, 1 / RATE - (time.monotonic() - started)))
    lags = [[max(0, await each.of(revision) - at) for revision, at in answered.items()] for each in followers]
    for follower in followers:
        follower.task.cancel()
    here, there = map(p99, lags)
    print(f"{changes} changes, {RATE} a second: p99 {1000 * here:.0f} ms in one program, {1000 * there:.0f} ms in two")
    faults = ["a follower was told too late"] * (here > LAG_HERE or there > LAG_THERE)
    return faults + ["revisions out of order"] * any(each.revisions != sorted(each.revisions) for each in followers)


async def many(first: Program, psql, changes: int) -> list[str]:
    """What a change costs the database with one follower and with many, under four keys."""
    writer = Caller(first)
    profile = await writer.create()
    keys = [first.new_key(f"watcher-{number}") for number in range(4)]
    costs, followers = [], []
    for count in (1, WATCHERS):
        while len(followers) < count:
            caller = Caller(first, keys[len(followers) // WATCHERS_OF_A_CHANNEL % len(keys)])
            batch = min(WATCHERS_OF_A_CHANNEL, count - len(followers))
            followers += [Arrivals(caller, profile) for _ in range(batch)]
        for follower in followers:
            await follower.ready.wait()
        idle = Meter(psql)
        await asyncio.sleep(2)
        idle.stop()
        busy = Meter(psql)
        for number in range(changes):
            revision = 2 + number + changes * len(costs)
            await writer.call(PATCH, patch_request(profile, b"City %d" % revision))
            for follower in followers:
                await follower.of(revision)
        busy.stop()
        costs.append((busy.transactions - idle.transactions / idle.seconds * busy.seconds) / changes)
    for follower in followers:
        follower.task.cancel()
    one, all_of_them = costs
    print(f"a change costs {one:.1f} transactions with one watcher, {all_of_them:.1f} with {WATCHERS} under 4 keys")
    return ["many watchers cost many queries"] * (all_of_them > one + WATCHERS / 20)


class Meter:
    """Counts the transactions of the database, among them those that give a connection back to its pool."""

    def __init__(self, psql) -> None:
        self.psql = psql
        self.begun, self.since = self.read()

    def read(self) -> tuple[int, float]:
        time.sleep(1.2)  # sessions tell what they did within a second
        query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        return int(self.psql(query)), time.monotonic()

    def stop(self) -> None:
        count, now = self.read()
        self.transactions, self.seconds = count - self.begun, now - self.since


async def snapshot(first: Program, psql, people: int) -> list[str]:
    """A snapshot that is longer than its connection lives sends little twice."""
    organization = psql("SELECT id FROM organization WHERE name = 'north'")
    psql(
        "INSERT INTO profile (id, organization_id, revision, locked, role, first_name, last_name, created_at, updated_at) "
        f"SELECT gen_random_uuid(), '{organization}', 1, false, 'USER', 'Ada', 'Byron', now(), now() "
        f"FROM generate_series(1, {people})"
    )
    there = int(psql(f"SELECT COUNT(*) FROM profile WHERE organization_id = '{organization}'"))
    seen, sent, started, tokens = set(), 0, time.monotonic(), []
    async for message in Caller(first).follow(b""):
        if message.kind == SNAPSHOT_END:
            break
        if message.kind == CREATED:
            sent += 1
            seen.add(message.profile)
            if sent % 2000 == 0:
                await asyncio.sleep(0.15)  # takes longer than a connection lives
    seconds = time.monotonic() - started
    print(f"a snapshot of {there} in {seconds:.0f} s, connections of {AGE}: {sent - len(seen)} sent twice")
    faults = [f"{there - len(seen)} were not shown"] * (len(seen) < there)
    return faults + ["much was sent twice"] * (sent - len(seen) > there / 100)


async def quiet(first: Program, psql, changes: int) -> list[str]:
    """To go on in a quiet organization costs the same after many changes elsewhere."""
    caller, token = Caller(first), b""
    async for message in caller.follow(SKIP_EXISTING):
        token = message.token
        break

    async def reconnects() -> float:
        times = []
        for _ in range(50):
            started = time.monotonic()
            stream = caller.channel.unary_stream(WATCH)(resume(token), metadata=caller.metadata)
            await stream.read()
            times.append(time.monotonic() - started)
            stream.cancel()
        return statistics.median(times)

    before = await reconnects()
    psql(
        "INSERT INTO profile_change (profile_id, revision, organization_id, changed_at, rpc, key_id, key_name, "
        "lock_overridden, fields) SELECT gen_random_uuid(), n, '00000000-0000-7000-8000-000000000001', now(), 'x', 'x', "
        f"'x', false, 'city' FROM generate_series(1, {changes}) n"
    )
    psql(
        "INSERT INTO feed (organization_id, position, profile_id, revision) SELECT organization_id, revision, profile_id, "
        "revision FROM profile_change WHERE rpc = 'x'"
    )
    psql("ANALYZE feed, profile_change")  # autovacuum does so within a minute: plans of before are for small tables
    after = await reconnects()
    print(f"to go on in a quiet organization: {1000 * before:.1f} ms, and {1000 * after:.1f} after {changes} changes elsewhere")
    return ["it costs more"] * (after > 2 * before + 0.01)


async def frozen(first: Program, second: Program, rounds: int) -> list[str]:
    """A program that freezes under load holds the followers of another up for a few seconds at the most."""
    writer = Caller(second)
    profile = await writer.create()
    follower = Arrivals(Caller(second), profile)
    await follower.ready.wait()
    going, other = True, Caller(first)

    async def load() -> None:
        while going:
            try:
                await other.channel.unary_unary(CREATE)(create_request(), metadata=other.metadata, timeout=1)
            except grpc.aio.AioRpcError:
                pass

    loads = [asyncio.create_task(load()) for _ in range(8)]
    longest, revision = 0.0, 1
    for _ in range(rounds):
        await asyncio.sleep(0.5)
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            for _ in range(5):
                revision += 1
                started = time.monotonic()
                await writer.call(PATCH, patch_request(profile, b"City %d" % revision))
                longest = max(longest, await follower.of(revision) - started)
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
    going = False
    await asyncio.gather(*loads)
    follower.task.cancel()
    print(f"{rounds} times the other program froze under load: a change was told after {longest:.2f} s at the most")
    return ["it was told too late"] * (longest > FROZEN)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("program", "postgres", "url"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()

    def psql(statement: str) -> str:
        command = [f"{arguments.postgres}/psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, arguments.url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    path, flags, faults = Path(arguments.program), ("--max-connection-age", AGE), []
    scale = 10 if arguments.quick else 1
    async with Program(path, *flags, database=arguments.url) as first:
        async with Program(path, *flags, database=arguments.url, key=first.key) as second:
            for proof in (
                lag(first, second, 500 // scale),
                many(first, psql, 50 // scale),
                snapshot(first, psql, 200_000 // scale),
                quiet(first, psql, 1_000_000 // scale),
                frozen(first, second, 10 // scale),
            ):
                faults += await proof
    for fault in faults:
        print(f"FAILED {fault}")
    print(f"{int(not faults)} passed, {int(bool(faults))} failed")
    sys.exit(bool(faults))


if __name__ == "__main__":
    asyncio.run(main())
