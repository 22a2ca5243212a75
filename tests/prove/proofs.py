"""What hostile peers cannot do. Each proof has a program of its own, and a polite client that it serves meanwhile.

A proof ends by itself. It raises Fault where the program does what it must not, and answers what it has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from peer import (
    CREATE,
    GET,
    HEALTH,
    PATIENCE,
    PREFACE,
    REFLECTION,
    REFUSED_STREAM,
    WATCH,
    Answer,
    Ended,
    Peer,
    block,
    create_request,
    created_id,
    encode,
    get_request,
    head,
    message,
    text_field,
    whole_call,
)
from program import Program

OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL = 0, 4, 8, 13
STREAMS = 100  # at once on one connection
KEYLESS_STREAMS = 4  # open at once on one connection without a key
PREFACE_DEADLINE = 2.0
SLACK = 1.0
KEEPALIVE = 30 + 10


class Fault(Exception):
    """What the program must not do."""


def require(holds: object, fault: str) -> None:
    if not holds:
        raise Fault(fault)


def odd(number: int, first: int = 1) -> list[int]:
    """A client's streams."""
    return list(range(first, first + 2 * number, 2))


FIRST = odd(STREAMS)


def tally(answers: Iterable[Answer]) -> dict[int | None, int]:
    """How often each status came."""
    return dict(Counter(answer.grpc_status for answer in answers))


@dataclasses.dataclass
class World:
    """A program, and how much to ask of it."""

    program: Program
    quick: bool

    def pick(self, quick, full):
        return quick if self.quick else full

    def peer(self, **options) -> Peer:
        return Peer(self.program.port, **options)

    @contextlib.asynccontextmanager
    async def crowd(self, number: int, **options):
        """Many peers at once."""
        async with contextlib.AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.peer(**options)) for _ in range(number)]

    def block(self, path: str = CREATE, **fields: str | None) -> bytes:
        return block(path, self.program.key, **fields)

    async def served(self, who: str) -> None:
        async with self.peer() as peer:
            answer = await peer.call(1, self.block(), create_request())
            require(answer.grpc_status == OK, f"{who} is answered {answer}")


@dataclasses.dataclass
class Proof:
    name: str
    prove: Callable[[World], Awaitable[str]]
    flags: tuple[str, ...]
    quick: bool  # whether it can be quick
    client: str  # the polite client: of what
    longest: int  # milliseconds that an answer of health may take


PROOFS: list[Proof] = []


def proof(*flags: str, quick: bool = True, client: str = "profile", longest: int = 100):
    def register(prove):
        PROOFS.append(Proof(prove.__name__, prove, flags, quick, client, longest))
        return prove

    return register


async def closed_after(port: int, sent: bytes, patience: float = PATIENCE) -> float:
    """The seconds after which the server closes a connection on which these bytes are all that is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.monotonic()
    try:
        writer.write(sent)
        async with asyncio.timeout(patience):
            while await reader.read(4096):
                pass
    except TimeoutError:
        raise Fault(f"a connection on which {sent[-12:]!r} came last is open after {patience} s") from None
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return time.monotonic() - started


def ended(outcomes: Counter[str]) -> bool:
    return outcomes.total() > 0 and not outcomes["open"] and not outcomes["stuck"]


async def outcome(peer: Peer, *frames: Frame | bytes, ask: bool = True) -> str:
    """What becomes of a connection on which these frames are sent, and then, to see whether it lives, a ping."""
    try:
        await peer.send(*frames)
        await (peer.ping() if ask else peer.until(lambda: False))
        return "open"
    except Ended:
        return "closed" if peer.goaway is None else f"GOAWAY {peer.goaway}"
    except TimeoutError:
        return "stuck"


@proof()
async def silent(world: World) -> str:
    """Who has not sent the preface in 2 s is closed: silence, half a preface, another protocol. Others get in."""
    begins = [b"", PREFACE[:12], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    rounds = world.pick([begins * 300], [[begin] * 1000 for begin in begins])
    longest = 0.0
    for sent in rounds:
        async with asyncio.TaskGroup() as group:
            closings = [group.create_task(closed_after(world.program.port, begin)) for begin in sent]
            await asyncio.sleep(PREFACE_DEADLINE / 2)  # they are all there, and none has been closed yet
            await world.served("a new connection beside silent ones")
        longest = max(longest, *(closing.result() for closing in closings))
    require(longest <= PREFACE_DEADLINE + SLACK, f"a silent connection was closed after {longest:.1f} s")
    return f"{sum(map(len, rounds))} closed, the last after {longest:.1f} s"


@proof("--max-connections", "50")
async def connections(world: World) -> str:
    """A connection too many is closed at once, those that are there stay, and a place is free when one goes."""
    async with world.crowd(49) as peers:  # the polite client has one, too
        for peer in peers:
            await peer.ping()
        longest = max([await closed_after(world.program.port, PREFACE) for _ in range(20)])
        require(longest < SLACK, f"a connection too many was closed after {longest:.1f} s")
        for peer in peers:
            await peer.ping()
        await peers[0].close()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await world.served("a connection in a free place")
                    break
                except Ended:
                    await asyncio.sleep(0.01)  # nothing tells when the server has seen that one is gone
    return f"20 too many closed, the last after {longest * 1000:.0f} ms"


@proof()
async def streams(world: World) -> str:
    """The settings allow 100 streams; of 20,000 that four peers open at once, 400 are taken on and served."""
    opened = odd(world.pick(1000, 5000))
    async with world.crowd(world.pick(1, 4)) as peers:
        for peer in peers:
            await peer.send(*(head(stream, world.block()) for stream in opened))
            await peer.ping()
            allowed = peer.server_settings.get(SettingsFrame.MAX_CONCURRENT_STREAMS)
            require(allowed == STREAMS, f"MAX_CONCURRENT_STREAMS is {allowed}")
            resets = Counter(answer.reset for answer in peer.answers.values() if answer.done)
            require(resets == {REFUSED_STREAM: len(opened) - STREAMS}, f"resets: {dict(resets)}")
        for peer in peers:
            body = message(create_request())
            taken_on = [stream for stream in opened if stream not in peer.answers]
            await peer.send(*(DataFrame(stream, body, flags=["END_STREAM"]) for stream in taken_on))
            statuses = tally(await peer.answered(*taken_on))
            require(statuses == {OK: STREAMS}, f"statuses of those taken on: {statuses}")
    return f"{len(peers) * (len(opened) - STREAMS)} of {len(peers) * len(opened)} refused"


@proof("--max-in-flight", "300")
async def half_sent(world: World) -> str:
    """Half a message takes no place: 400 of them, with 300 places, are told after their deadline, others at once."""
    deadline = world.pick(2, 10)
    header_block = world.block(grpc_timeout=f"{deadline}S" if world.quick else None)
    again = odd(STREAMS, FIRST[-1] + 2)
    body = message(create_request())
    async with world.crowd(4) as peers:
        started = time.monotonic()
        for peer in peers:
            for stream in FIRST:
                await peer.send(head(stream, header_block), DataFrame(stream, body[:9]))
            await peer.ping()
        for peer in peers:
            statuses = tally(await peer.answered(*FIRST, seconds=deadline + PATIENCE))
            require(statuses == {DEADLINE_EXCEEDED: STREAMS}, f"half a message: {statuses}")
        took = time.monotonic() - started
        require(deadline - SLACK < took < deadline + SLACK, f"the deadline came after {took:.1f} s")
        for peer in peers:
            for stream in again:
                await peer.send(head(stream, world.block()), DataFrame(stream, body[:9]))
            await peer.ping()
        for peer in peers:  # what is sent whole after all is served
            await peer.send(*(DataFrame(stream, body[9:], flags=["END_STREAM"]) for stream in again))
            statuses = tally(await peer.answered(*again))
            require(statuses == {OK: STREAMS}, f"the calls afterwards: {statuses}")
    return f"{len(peers) * STREAMS} answered DEADLINE_EXCEEDED after {took:.1f} s"


@proof()
async def half_health(world: World) -> str:
    """Half a message to health, which takes no key and no place, keeps no memory either: megabytes are not taken in."""
    claim = b"\0" + (4 * 2**20).to_bytes(4)
    taken = 0
    async with world.crowd(world.pick(1, 8)) as peers:
        for peer in peers:
            for stream in FIRST:
                with contextlib.suppress(Ended):
                    await peer.send(head(stream, block(HEALTH)))
                    await peer.send_data(stream, claim + bytes(world.pick(2, 1) * 2**20))
                taken += peer.sent[stream]
        await world.served("a new connection beside half messages")
    return f"{taken >> 20} MB taken in"


@proof()
async def only_headers(world: World) -> str:
    """Calls of which nothing comes but their headers are counted: health needs no key and no place."""
    heads = b"".join(head(stream, block(HEALTH)).serialize() for stream in FIRST)
    async with world.crowd(world.pick(100, 900)) as peers:
        for peer in peers:
            with contextlib.suppress(Ended):
                await peer.send(heads)
                await peer.ping()
        await world.served("a new connection beside calls without messages")
        ended = sum(peer.ended for peer in peers)
    require(ended, "nobody was cut")
    return f"{STREAMS} calls on each of {len(peers)} connections, {ended} of which the server ended"


@proof()
async def slow_reader(world: World) -> str:
    """Who asks and takes no answer, with a window of 0, costs little: 100 answers wait on each connection.

    Two of three have no key: health is for everyone.
    """
    async with world.peer() as peer:
        created = await peer.call(1, world.block(), create_request())
    profile_id = created_id(created.data[5:])
    kinds = [(world.block(GET), get_request(profile_id)), (block(HEALTH), b""), (block(WATCH), b"")]
    calls = [b"".join(whole_call(stream, *kind) for stream in FIRST) for kind in kinds]
    asked = ended = 0
    async with world.crowd(world.pick(9, 900), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as peers:
        for peer, wanted in zip(peers, itertools.cycle(calls)):  # in turn: they must not take the polite client's place
            try:
                await peer.send(wanted)
                await peer.until(lambda: len(peer.answers) == STREAMS)
                asked += STREAMS
            except Ended:
                ended += 1
            require(not any(answer.data for answer in peer.answers.values()), "data came without a window")
        await world.served("a new connection beside slow readers")
    return f"{asked} answers on {len(peers)} connections, {ended} of which the server ended"


@proof()
async def watchers(world: World) -> str:
    """Open watches of health, and answers about it that nobody reads, cost nobody else an answer: none has a key."""
    async with world.peer() as peer:
        created = await peer.call(1, world.block(), create_request())
    get = get_request(created_id(created.data[5:]))
    deaf = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
    watch = b"".join(whole_call(stream, block(WATCH), b"") for stream in odd(KEYLESS_STREAMS))
    ask = b"".join(whole_call(stream, block(HEALTH), b"") for stream in FIRST)
    ended = 0
    async with (
        world.crowd(world.pick(100, 530)) as open_watches,
        world.crowd(world.pick(10, 300), settings=deaf) as unread,
    ):
        for peer in open_watches:
            await peer.send(watch)
            await peer.until(lambda: len(peer.answers) == KEYLESS_STREAMS)
        for number, peer in enumerate(unread):
            await peer.send(ask)
            if number % 30 == 29:
                await answers(world, get)
        await answers(world, get)
        for peer in open_watches:
            await peer.ping()
        ended = sum(peer.ended for peer in unread)
    return f"{len(open_watches)} peers watch, {ended} of {len(unread)} that read nothing were cut"


async def answers(world: World, get: bytes) -> None:
    """20 calls at once, 20 times, on a connection whose answers all come."""
    async with world.peer() as peer:
        for number in range(20):
            streams = odd(20, 1 + 40 * number)
            await peer.send(*(whole_call(stream, world.block(GET), get) for stream in streams))
            statuses = tally(await peer.answered(*streams))
            require(statuses == {OK: 20}, f"answers beside watchers: {statuses}")


@proof()
async def reflected(world: World) -> str:
    """23 bytes ask reflection for 16 KB: what a peer draws at once, whether it reads or not, is bounded."""
    question = message(text_field(4, b"profiles.v1.ProfileService"))
    call = [head(stream, block(REFLECTION)).serialize() + DataFrame(stream, question * 10).serialize() for stream in FIRST]
    refused = 0
    async with world.crowd(world.pick(100, 900), settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as peers:
        for peer in peers:
            with contextlib.suppress(Ended):
                await peer.send(*call)
                await peer.until(lambda: len(peer.answers) == STREAMS)
            refused += sum(answer.grpc_status == RESOURCE_EXHAUSTED for answer in peer.answers.values())
        await world.served("a new connection beside unread reflection")
    require(refused >= (STREAMS - KEYLESS_STREAMS) * len(peers) * 0.9, f"{refused} streams were refused")
    return f"{refused} of {len(peers) * STREAMS} streams refused"


@proof()
async def rapid_reset(world: World) -> str:
    """HEADERS and RST_STREAM in a loop (CVE-2023-44487), again and again, are taken in by turns with others' calls."""
    pair_count, ends, table = world.pick(5_000, 20_000), Counter(), Encoder()
    fields = [(":method", "POST"), (":scheme", "http"), (":path", CREATE), (":authority", "localhost")]
    fields += [("content-type", "application/grpc"), ("te", "trailers"), ("cv-api-key", world.program.key)]
    blocks = itertools.chain([table.encode(fields)], itertools.repeat(table.encode(fields)))  # then a byte a header
    pairs = b"".join(
        head(stream, header_block).serialize() + RstStreamFrame(stream, error_code=8).serialize()
        for stream, header_block in zip(odd(pair_count), blocks)
    )
    until = time.monotonic() + world.pick(3, 20)
    while time.monotonic() < until:
        async with world.crowd(4) as peers:
            for peer in peers:
                ends[await outcome(peer, pairs)] += 1
    require(not ends["stuck"], f"connections: {dict(ends)}")
    return f"connections: {dict(ends)}"


@proof()
async def continuation(world: World) -> str:
    """Endless CONTINUATION frames, empty, small or full, end the connection."""
    ends = Counter()
    for size in (0, 1, 16384):
        # Bytes of a header whose length is said to be 2^28: HPACK cannot be decoded until all of them are there.
        frames = [HeadersFrame(1, b"\x00\x01x\x7f\x81\xff\xff\x7f")] + [ContinuationFrame(1, b"a" * size)] * 1000
        for _ in range(world.pick(3, 50)):
            async with world.peer() as peer:
                        ends[await outcome(peer, *frames, ask=False)] += 1
    require(ended(ends), f"connections: {dict(ends)}")
    return f"connections: {dict(ends)}"


@proof()
async def headers(world: World) -> str:
    """A header list of 1 MB, 10,000 headers, and 64 MB out of HPACK's table are refused on stream or connection."""
    table, bomb = Encoder(), [("x-bomb", "a" * 4000)]
    lists = {
        "1 MB": encode([("x-large", "a" * 2**20)]),
        "10,000 headers": encode([(f"x-{index}", "a") for index in range(10_000)]),
        "20 KB": encode([(f"x-{index}", "a" * 2000) for index in range(10)]),
        "HPACK": table.encode(bomb, huffman=False) + table.encode(bomb) * 16_000,  # then one byte each
    }
    seen = {}
    for name, fields in lists.items():
        for _ in range(world.pick(3, 50)):
            async with world.peer() as peer:
                parts = [world.block()] + [fields[at : at + 16384] for at in range(0, len(fields), 16384)]
                frames = [HeadersFrame(1, parts[0])] + [ContinuationFrame(1, part) for part in parts[1:]]
                frames[-1].flags.add("END_HEADERS")
                try:
                    await peer.send(*frames)
                    answer = (await peer.answered(1))[0]
                    require(answer.reset or answer.headers.get(":status") == "431", f"{name}: {answer}")
                    seen[name] = str(answer)
                except Ended:
                    seen[name] = f"ended, GOAWAY {peer.goaway}"
    return f"{seen}"


@proof()
async def content_type(world: World) -> str:
    """What is not gRPC is answered 415, and what is not a call is no crash either."""
    wrong = [None, "text/plain", "application/json", "application/x-protobuf"]
    right = ["application/grpc", "application/grpc+proto"]
    async with world.peer() as peer:
        stream = itertools.count(1, 2)
        for value in wrong:
            answer = await peer.call(next(stream), world.block(content_type=value), create_request())
            require(answer.headers.get(":status") == "415", f"content-type {value}: {answer}")
        for value in right:
            answer = await peer.call(next(stream), world.block(content_type=value), create_request())
            require(answer.grpc_status == OK, f"content-type {value}: {answer}")
        seen = {}
        odd_calls = {"GET": {"__method": "GET"}, "PUT": {"__method": "PUT"}, "path": {"__path": "*"}}
        for name, fields in odd_calls.items():
            answer = await peer.call(next(stream), world.block(**fields), create_request())
            require(answer.grpc_status not in (OK, INTERNAL), f"{name}: {answer}")
            seen[name] = str(answer)
    return f"{len(wrong)} answered 415, {seen}"


@proof()
async def messages(world: World) -> str:
    """Two messages on a unary call, none, endless ones, garbage and lies about lengths are never INTERNAL."""
    good = message(create_request())
    bodies = {
        "two": good * 2,
        "none": b"",
        "half": good[:7],
        "garbage": message(b"\xff" * 20),
        "says 4 GB": b"\0\xff\xff\xff\xff" + b"a" * 10,
        "flag 7": b"\7" + good[1:],
        "64 KB": message(b"\x0a" + b"a" * 65535),
    }
    seen = {}
    for name, body in bodies.items():
        async with world.peer() as peer:
            await peer.send(head(1, world.block()))
            await peer.send_data(1, body, end=True)
            answer = (await peer.answered(1))[0]
            require(answer.grpc_status not in (None, INTERNAL), f"{name}: {answer}")
            seen[name] = answer.grpc_status
    seen["endless"] = await endless(world, good)
    return f"grpc-status: {seen}"


async def endless(world: World, good: bytes) -> str:
    """What becomes of a unary call whose messages do not end."""
    async with world.peer() as peer:
        await peer.send(head(1, world.block(grpc_timeout="2S" if world.quick else None)))
        async with asyncio.timeout(world.pick(2, 10) + PATIENCE):
            while 1 not in peer.answers or not peer.answers[1].done:
                await peer.send_data(1, good * 500)
        answer = peer.answers[1]
        require(answer.grpc_status not in (None, OK, INTERNAL), f"endless messages: {answer}")
        return f"{answer.grpc_status} after {peer.sent[1] >> 20} MB"


@proof()
async def compressed(world: World) -> str:
    """A bomb, 60 MB of zeros in 60 KB, is refused unopened, whatever its encoding is called."""
    bomb = gzip.compress(bytes(60 * 2**20))
    body = message(bomb, compressed=1)
    seen: dict[str, int | None] = {}
    for _ in range(world.pick(5, 100)):
        for encoding in ("gzip", "deflate", "zstd", "identity", None):
            async with world.peer() as peer:
                await peer.send(head(1, world.block(grpc_encoding=encoding)))
                await peer.send_data(1, body, end=True)
                answer = (await peer.answered(1))[0]
                require(answer.grpc_status not in (None, OK, INTERNAL), f"grpc-encoding {encoding}: {answer}")
                seen[str(encoding)] = answer.grpc_status
    return f"{len(bomb) // 1024} KB, grpc-status: {seen}"


@proof()
async def floods(world: World) -> str:
    """Frames that cost their sender nothing, in a flood, from peers that read what comes back and peers that do not."""
    kinds = {
        "SETTINGS": SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1000}),
        "PING": PingFrame(),
        "WINDOW_UPDATE": WindowUpdateFrame(0, window_increment=1),
        "PRIORITY": PriorityFrame(1, depends_on=3, stream_weight=1),
        "unknown": ExtensionFrame(type=0xBB, stream_id=0, body=b"a"),
        "empty DATA": DataFrame(1),
        "1-byte DATA": DataFrame(1, b"a"),
        "health": None,
    }
    ends = {}
    for name, frame in kinds.items():
        async with contextlib.AsyncExitStack() as stack:
            flooding = []
            for reads in (True, True, False, False):
                peer = await stack.enter_async_context(world.peer(reads=reads))
                flooding.append(flood(peer, world, frame))
            ends[name] = dict(Counter(await asyncio.gather(*flooding)))
    return f"{ends}"


async def flood(peer: Peer, world: World, frame: Frame | None) -> str:
    """Floods the server for some time, or until it ends the connection or has stopped reading."""
    until = time.monotonic() + world.pick(0.5, 5)
    stream = itertools.count(3, 2)
    await peer.send(head(1, world.block()))
    try:
        while time.monotonic() < until:
            if frame is None:  # without a key, at no cost but the answers
                await peer.send(*(whole_call(next(stream), block(HEALTH), b"") for _ in range(50)), seconds=1)
            else:
                await peer.send(frame.serialize() * 5000, seconds=1)
        return "open"
    except Ended:
        return "closed" if peer.goaway is None else f"GOAWAY {peer.goaway}"
    except TimeoutError:
        return "not read any more"


@proof(quick=False)
async def keepalive(world: World) -> str:
    """Who does not answer a ping in 10 s, asked after 30 s of silence, is closed; who does stays."""
    settings = SettingsFrame().serialize()
    call = whole_call(1, world.block(), create_request())
    begins = {
        "preface": PREFACE,
        "settings": PREFACE + settings,
        "half a frame": PREFACE + settings + call[:5],
        "half a call": PREFACE + settings + call[:-5],
        "a call": PREFACE + settings + call,
    }
    async with world.peer() as good, asyncio.TaskGroup() as group:
        patience = KEEPALIVE + PATIENCE
        closings = [group.create_task(closed_after(world.program.port, sent, patience)) for sent in begins.values()]
        async with world.peer(reads=False) as deaf:
            await deaf.send(*(whole_call(stream, world.block(), create_request()) for stream in FIRST))
            await asyncio.wait(closings)
            try:
                for _ in range(100):
                    await deaf.send(PingFrame())
                    await asyncio.sleep(0.05)  # until the answer, a reset, is here
                raise Fault("a peer that reads nothing stays connected")
            except Ended:
                pass
        await good.ping()
    after = {name: round(closing.result(), 1) for name, closing in zip(begins, closings)}
    require(max(after.values()) < KEEPALIVE + 2 * SLACK, f"closed after {after} s")
    return f"closed after {after} s"
