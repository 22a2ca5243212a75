"""What hostile peers cannot do with WatchProfiles, whose streams have no deadline of the server's."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter

from hyperframe.frame import DataFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from load import LARGEST_WINDOW
from peer import PATIENCE, create_request, head, message, whole_call
from proofs import (
    DEADLINE_EXCEEDED,
    FIRST,
    OK,
    RESOURCE_EXHAUSTED,
    SLACK,
    STREAMS,
    World,
    odd,
    outcome,
    proof,
    require,
    tally,
)

WATCH_PROFILES = "/profiles.v1.ProfileQueryService/WatchProfiles"
FROM_NOW = bytes([2 << 3, 1])  # skip_existing
OPEN = 1024 // 4  # streams at once of one key, with the default of --max-streams
BEGIN = 10.0  # seconds in which a request must be there
UNREAD = 10.0  # seconds after which a stream that has not been read at all is reset
CANCEL = 8  # RFC 9113, section 7
CHANGES = 3000


async def begins(world: World) -> None:
    """The key has a place for one more stream, at the latest in some seconds: nothing tells when others have gone."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with world.peer() as peer:
                await peer.send(whole_call(1, world.block(WATCH_PROFILES), FROM_NOW))
                await peer.until(lambda: 1 in peer.answers)
                if not peer.answers[1].done:
                    return
                await asyncio.sleep(0.01)


@proof()
async def watch_flood(world: World) -> str:
    """Of 20,000 streams of one key 256 are open, the others are told RESOURCE_EXHAUSTED at once; they come free again."""
    call = b"".join(whole_call(stream, world.block(WATCH_PROFILES), FROM_NOW) for stream in FIRST)
    async with world.crowd(world.pick(10, 200)) as peers:
        for peer in peers:
            await peer.send(call)
            await peer.until(lambda: len(peer.answers) == STREAMS)
        await world.served("a new connection beside streams")
        answers = [answer for peer in peers for answer in peer.answers.values()]
        seen = Counter("open" if not answer.done else answer.grpc_status for answer in answers)
        wanted = {"open": OPEN, RESOURCE_EXHAUSTED: len(peers) * STREAMS - OPEN}
        require(seen == wanted, f"streams: {dict(seen)}")
    await begins(world)
    return f"{seen[RESOURCE_EXHAUSTED]} of {len(answers)} refused"


@proof(quick=False)
async def watch_reset(world: World) -> str:
    """Streams that are reset as soon as they are asked for, for some seconds, keep no place."""
    ends: Counter[str] = Counter()
    request = world.block(WATCH_PROFILES)
    pairs = b"".join(
        whole_call(stream, request, FROM_NOW) + RstStreamFrame(stream, error_code=CANCEL).serialize()
        for stream in odd(10_000)
    )
    until = time.monotonic() + 20
    while time.monotonic() < until:
        async with world.crowd(4) as peers:
            ends.update(await asyncio.gather(*(outcome(peer, pairs) for peer in peers)))
    require(not ends["stuck"], f"connections: {dict(ends)}")
    await begins(world)
    return f"connections: {dict(ends)}"


@proof(quick=False)
async def watch_unread(world: World) -> str:
    """A snapshot that nobody reads is made 8 KiB ahead, and reset after 10 s; its connection goes on."""
    for _ in range(20):
        await creates(world)
    call = b"".join(whole_call(stream, world.block(WATCH_PROFILES), b"") for stream in FIRST)
    async with world.crowd(3, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as peers:
        started = time.monotonic()
        for peer in peers:
            await peer.send(call)
        for peer in peers:
            await peer.answered(*FIRST, seconds=UNREAD + PATIENCE)
        took = time.monotonic() - started
        require(took < UNREAD + 2 * SLACK, f"the last was reset after {took:.1f} s")
        answers = [answer for peer in peers for answer in peer.answers.values()]
        reset = sum(answer.reset is not None for answer in answers)
        require(reset == OPEN, f"{reset} streams were reset")
        for peer in peers:
            await peer.ping()
    await begins(world)
    return f"{reset} reset after {took:.1f} s, {len(answers) - reset} refused"


@proof(quick=False)
async def watch_half_sent(world: World) -> str:
    """Half a request is told DEADLINE_EXCEEDED after 10 s, and takes no place before."""
    async with world.crowd(4) as peers:
        started = time.monotonic()
        for peer in peers:
            for stream in FIRST:
                await peer.send(head(stream, world.block(WATCH_PROFILES)), DataFrame(stream, message(FROM_NOW)[:6]))
            await peer.ping()
        await begins(world)
        for peer in peers:
            statuses = tally(await peer.answered(*FIRST, seconds=BEGIN + PATIENCE))
            require(statuses == {DEADLINE_EXCEEDED: STREAMS}, f"half a request: {statuses}")
        took = time.monotonic() - started
        require(BEGIN - SLACK < took < BEGIN + SLACK, f"the deadline came after {took:.1f} s")
    return f"{len(peers) * STREAMS} answered DEADLINE_EXCEEDED after {took:.1f} s"


@proof(quick=False)
async def watch_deaf(world: World) -> str:
    """Streams of peers that read nothing from their sockets keep no change from another follower."""
    call = b"".join(whole_call(stream, world.block(WATCH_PROFILES), FROM_NOW) for stream in FIRST)
    async with world.crowd(2, reads=False) as deaf, follower(world) as reader:
        for peer in deaf:
            await peer.send(call)
        for _ in range(CHANGES // STREAMS):
            await creates(world)
        await reader.until(lambda: reader.answers[1].data.count(b"Byron") >= CHANGES)
    return f"{CHANGES} changes told beside {len(deaf) * STREAMS} streams that nobody reads"


@contextlib.asynccontextmanager
async def follower(world: World):
    """A peer that follows on its first stream, with windows for all there is."""
    async with world.peer(settings={SettingsFrame.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}) as peer:
        await peer.send(WindowUpdateFrame(0, window_increment=LARGEST_WINDOW - 65535))
        await peer.send(whole_call(1, world.block(WATCH_PROFILES), FROM_NOW))
        await peer.until(lambda: 1 in peer.answers)
        yield peer


async def creates(world: World) -> None:
    """Creates 100 profiles."""
    async with world.peer() as peer:
        await peer.send(*(whole_call(stream, world.block(), create_request()) for stream in FIRST))
        statuses = tally(await peer.answered(*FIRST))
        require(statuses == {OK: STREAMS}, f"creates: {statuses}")
