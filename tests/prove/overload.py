"""What more calls than there are places do to those that have one, and to health.

Capacity is the places: four times as many callers come, and wait a second when they are refused, as RetryInfo says.

What callers do who never wait is a figure and no claim: the load shares two cores with the server, and to refuse a call
costs about a fifth of what it costs to serve one. Four times the rate then takes the processor from the calls that are
served, and more of it from the load itself.
"""

from __future__ import annotations

import base64
import contextlib
from collections import Counter

from peer import CREATE, GET, create_request, created_id, get_request, whole_call
from program import Client
from proofs import FIRST, OK, RESOURCE_EXHAUSTED, Fault, World, proof, require

PLACES = 32
TIMES = 4
KEPT = 0.8
PROCESSES = 2
ATTEMPTS = 3  # other work on the machine can spoil a comparison, and cannot make one succeed


async def load(world: World, path: str, body: bytes, seconds: float, callers: int = 0, rate: float = 0) -> Counter:
    """What becomes of the calls of a load, per second."""
    async with contextlib.AsyncExitStack() as stack:
        arguments = [world.program.port, path, body.hex(), seconds, callers // PROCESSES, rate / PROCESSES]
        clients = [Client("load.py", *arguments, key=world.program.key) for _ in range(PROCESSES)]
        for client in clients:
            await stack.enter_async_context(client)
        for client in clients:
            client.go()
        total: Counter = Counter()
        for client in clients:
            figures = await client.figures(seconds + 20)
            total += Counter({int(status): number for status, number in figures["outcomes"].items()})
            total["offered"] += figures["offered"]
    require(set(total) <= {"offered", OK, RESOURCE_EXHAUSTED}, f"calls ended with {dict(total)}")
    return Counter({name: round(number / seconds) for name, number in total.items()})


async def refusal(world: World) -> None:
    """A call too many is told why, and when to come again."""
    async with world.peer() as peer:
        await peer.send(*(whole_call(stream, world.block(), create_request()) for stream in FIRST))
        refused = [answer for answer in await peer.answered(*FIRST) if answer.grpc_status != OK]
    require(refused, "100 calls at once found 32 places")
    for answer in refused:
        details = base64.b64decode(answer.headers["grpc-status-details-bin"] + "==")
        require(answer.grpc_status == RESOURCE_EXHAUSTED, f"a call too many: {answer}")
        require(b"google.rpc.RetryInfo" in details and b"OVERLOADED" in details, f"without details: {details}")


@proof("--max-in-flight", str(PLACES), client="health")
async def overload(world: World) -> str:
    """At four times the capacity 80% of the peak is served, the rest is refused with a reason, and health answers."""
    await refusal(world)
    seconds = world.pick(5, 20)
    async with world.peer() as peer:
        created = await peer.call(1, world.block(), create_request())
    read = (GET, get_request(created_id(created.data[5:])))
    write = (CREATE, create_request())
    # Reads are answered sooner than this load can ask: they need not be refused. Writes wait for the disk.
    seen = [await kept(world, read, seconds), await kept(world, write, seconds, refused=True)]
    if not world.quick:
        seen.append(await by_the_clock(world, write, seconds))
    return "; ".join(seen)


async def kept(world: World, call: tuple[str, bytes], seconds: float, *, refused: bool = False) -> str:
    """Compares the goodput of as many callers as there are places with that of four times as many."""
    tries = []
    for _ in range(ATTEMPTS):
        peak = (await load(world, *call, seconds / 4, callers=PLACES))[OK]
        over = await load(world, *call, seconds, callers=TIMES * PLACES)
        require(over[RESOURCE_EXHAUSTED] or not refused, f"no overload: {dict(over)}")
        tries.append(f"{over[OK]} of {peak} a second, {over[RESOURCE_EXHAUSTED]} refused")
        if over[OK] >= KEPT * peak:
            return f"goodput of {name(call)}: {tries[-1]}"
    raise Fault(f"goodput of {name(call)}: {tries}")


async def by_the_clock(world: World, call: tuple[str, bytes], seconds: float) -> str:
    """Says what is left of the peak where calls come at four times its rate and nobody waits."""
    peak = (await load(world, *call, seconds / 4, callers=PLACES))[OK]
    over = await load(world, *call, seconds, rate=TIMES * peak)
    require(over[OK], f"nothing is served: {dict(over)}")
    return f"without back-off {over[OK]} of {peak} a second, {over[RESOURCE_EXHAUSTED]} refused"


def name(call: tuple[str, bytes]) -> str:
    return call[0].rpartition("/")[2]
