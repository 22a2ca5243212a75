"""What more calls than there are places do to those that have one, and to health.

Capacity is the places: four times as many callers come, and wait a second when they are refused, as RetryInfo says.

Callers who never wait come by the clock, at four times the peak. Their load costs more than the calls do, so the program has
a part of the machine to itself, by a cgroup, of which the load can take nothing.
"""

from __future__ import annotations

import base64
import contextlib
from collections import Counter
from pathlib import Path

from peer import CREATE, GET, create_request, created_id, get_request, whole_call
from program import Client
from proofs import FIRST, OK, RESOURCE_EXHAUSTED, Fault, World, proof, require

PLACES = 32
TIMES = 4
KEPT = 0.8
PROCESSES = 2
FEW = 8  # calls, which a connection reads at once: more of them would wait for places
MANY = 64  # connections
CORES = 0.4  # of the program, where callers come by the clock
PERIOD = 10_000  # microseconds in which it may use its part of them
ATTEMPTS = 3  # other work on the machine can spoil a comparison, and cannot make one succeed

Call = tuple[str, bytes]


async def load(
    world: World, calls: list[Call], seconds: float, callers: int = 0, rate: float = 0, connections: int = 8
) -> Counter:
    """What becomes of the calls of a load, per second."""
    async with contextlib.AsyncExitStack() as stack:
        made = [f"{path}={body.hex()}" for path, body in calls]
        shares = [connections // PROCESSES, seconds, callers // PROCESSES, rate / PROCESSES]
        arguments = [world.program.port, *shares, *made]
        clients = [Client("load.py", *arguments, key=world.program.key) for _ in range(PROCESSES)]
        for client in clients:
            await stack.enter_async_context(client)
        for client in clients:
            client.go()
        total: Counter = Counter()
        for client in clients:
            figures = await client.figures(seconds + 20)
            total += Counter({int(status): number for status, number in figures["outcomes"].items()})
            for name in ("offered", "held back"):
                total[name] += figures[name]
    require(set(total) <= {"offered", "held back", OK, RESOURCE_EXHAUSTED}, f"calls ended with {dict(total)}")
    return Counter({name: round(number / seconds) for name, number in total.items()})


async def calls(world: World) -> tuple[Call, Call]:
    """A read and a write."""
    async with world.peer() as peer:
        created = await peer.call(1, world.block(), create_request())
    return (GET, get_request(created_id(created.data[5:]))), (CREATE, create_request())


async def refusal(world: World) -> None:
    """A call too many is told why, and when to come again."""
    few = FIRST[:FEW]
    async with world.crowd(TIMES * PLACES // FEW) as peers:
        for peer in peers:
            await peer.send(*(whole_call(stream, world.block(), create_request()) for stream in few))
        answers = [answer for peer in peers for answer in await peer.answered(*few)]
    refused = [answer for answer in answers if answer.grpc_status != OK]
    require(refused, f"{len(answers)} calls at once found {PLACES} places")
    for answer in refused:
        details = base64.b64decode(answer.headers["grpc-status-details-bin"] + "==")
        require(answer.grpc_status == RESOURCE_EXHAUSTED, f"a call too many: {answer}")
        require(b"google.rpc.RetryInfo" in details and b"OVERLOADED" in details, f"without details: {details}")


@proof("--max-in-flight", str(PLACES), client="health")
async def overload(world: World) -> str:
    """At four times the capacity 80% of the peak is served, the rest is refused with a reason, and health answers."""
    await refusal(world)
    seconds = world.pick(5, 20)
    read, write = await calls(world)
    # Reads are answered sooner than this load can ask: they need not be refused. Writes wait for the disk.
    return f"{await kept(world, read, seconds)}; {await kept(world, write, seconds, refused=True)}"


@proof(quick=False, client="health", longest=200)  # of a part of a core
async def by_the_clock(world: World) -> str:
    """Callers who never wait, nine of ten to read, at four times the peak: 80% of it is served, the rest is refused.

    It is refused, or held back by HTTP/2: a connection has 100 streams, and the program reads no more than it can serve.
    """
    read, write = await calls(world)
    mix = [read] * 9 + [write]
    with confined(world.program.process.pid) as alone:
        if not alone:
            return "not shown: it needs a cgroup, which root may make"
        tries = []
        for _ in range(ATTEMPTS):
            peak = max([(await load(world, mix, 5, callers=callers))[OK] for callers in (32, 128, 400)])
            over = await load(world, mix, 20, rate=TIMES * peak, connections=MANY)
            seen = f"{over[OK]} of {peak} a second, {over['offered']} offered, {over[RESOURCE_EXHAUSTED]} of them refused, "
            tries.append(seen + f"{over['held back']} held back")
            require(over["offered"] >= 0.9 * TIMES * peak, f"this is no such load: {tries}")
            if over[OK] >= KEPT * peak:
                return tries[-1]
    raise Fault(f"goodput: {tries}")


@contextlib.contextmanager
def confined(process: int):
    """Lets a process use a part of a core, of which others take nothing. Yields whether that can be done."""
    quota = int(PERIOD * CORES)
    first = {"cpu.cfs_period_us": PERIOD, "cpu.cfs_quota_us": quota}
    for root, limits in (("/sys/fs/cgroup/cpu", first), ("/sys/fs/cgroup", {"cpu.max": f"{quota} {PERIOD}"})):
        group = Path(root, f"profile-service-{process}")
        try:
            group.mkdir()
            for name, limit in limits.items():
                (group / name).write_text(str(limit))
            (group / "cgroup.procs").write_text(str(process))
        except OSError:
            continue
        try:
            yield True
        finally:
            Path(root, "cgroup.procs").write_text(str(process))
            group.rmdir()
        return
    yield False


async def kept(world: World, call: Call, seconds: float, *, refused: bool = False) -> str:
    """Compares the goodput of as many callers as there are places with that of four times as many."""
    tries = []
    for _ in range(ATTEMPTS):
        peak = (await load(world, [call], seconds / 4, callers=PLACES))[OK]
        over = await load(world, [call], seconds, callers=TIMES * PLACES)
        require(over[RESOURCE_EXHAUSTED] or not refused, f"no overload: {dict(over)}")
        tries.append(f"{over[OK]} of {peak} a second, {over[RESOURCE_EXHAUSTED]} refused")
        if over[OK] >= KEPT * peak:
            return f"goodput of {name(call)}: {tries[-1]}"
    raise Fault(f"goodput of {name(call)}: {tries}")


def name(call: Call) -> str:
    return call[0].rpartition("/")[2]
