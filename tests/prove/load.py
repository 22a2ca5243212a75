"""A load of calls on a few connections: load.py PORT CONNECTIONS SECONDS CALLERS RATE PATH=BODY_HEX... The key
is in KEY. Of several calls each is made in its turn.

With a RATE it is an open loop: calls start by the clock, whatever becomes of those before. With RATE 0 it is a closed
loop: each of CALLERS starts its next call when its last one is answered, and the second after it was refused, as
RetryInfo says. It reads frames by hand and decodes only
trailers that it has not seen before, so that a call costs it far less than it costs the server.
"""

from __future__ import annotations

import itertools
import json
import os
import selectors
import socket
import sys
import time
from collections import Counter, deque

from hpack import Encoder
from hyperframe.frame import PingFrame, SettingsFrame, WindowUpdateFrame

from peer import PREFACE, block, message

STREAMS = 100
RETRY_DELAY = 1.0
REFUSED = 8
LARGEST_WINDOW = 2**31 - 1
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
ACK = END_STREAM = 1
STATUS_NAME = Encoder().encode([("grpc-status", "")], huffman=True)[1:-1]
STATUSES = {Encoder().encode([("x", str(code))], huffman=True)[3:]: code for code in range(17)}


def grpc_status(header_block: bytes) -> int | None:
    """The status in a header block, found without decoding it: the server, told so, uses no dynamic table."""
    at = header_block.find(STATUS_NAME)
    if at < 0:
        return None
    value = header_block[at + len(STATUS_NAME) :]
    return STATUSES.get(value[: 1 + (value[0] & 0x7F)], -1)


class Connection:
    def __init__(self, port: int, load: Load) -> None:
        self.load = load
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = {SettingsFrame.HEADER_TABLE_SIZE: 0, SettingsFrame.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}
        window = WindowUpdateFrame(0, window_increment=LARGEST_WINDOW - 65535)
        self.socket.sendall(PREFACE + SettingsFrame(settings=settings).serialize() + window.serialize())
        self.next = 1
        self.started: set[int] = set()
        self.buffer = b""

    def start(self, count: int) -> None:
        """Starts calls."""
        parts = []
        for head, block, data, body in itertools.islice(self.load.calls, count):
            stream = self.next.to_bytes(4)
            parts += (head, stream, block, data, stream, body)
            self.started.add(self.next)
            self.next += 2
        self.socket.sendall(b"".join(parts))

    def read(self) -> tuple[int, int]:
        """Reads what has come: how many calls have ended, and how many of them were refused."""
        data = self.buffer + self.socket.recv(1 << 18)
        if len(data) == len(self.buffer):
            raise ConnectionError("the server has ended a connection of the load")
        at, before = 0, self.load.outcomes.copy()
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3])
            if len(data) < end:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == HEADERS:
                if flags & END_STREAM:
                    self.end(data[at + 5 : at + 9], grpc_status(data[at + 9 : end]))
            elif kind == RESET:
                self.end(data[at + 5 : at + 9], -2)
            elif kind == SETTINGS and not flags & ACK:
                self.socket.sendall(SettingsFrame(flags=["ACK"]).serialize())
            elif kind == PING and not flags & ACK:
                self.socket.sendall(PingFrame(opaque_data=data[at + 9 : end], flags=["ACK"]).serialize())
            elif kind == GOAWAY:
                raise ConnectionError(f"GOAWAY: {data[at + 9 : end]!r}")
            at = end
        self.buffer = data[at:]
        ended = self.load.outcomes - before
        return ended.total() - ended[REFUSED], ended[REFUSED]

    def end(self, stream: bytes, status: int | None) -> None:
        if (number := int.from_bytes(stream)) in self.started:  # an answered call's stream may be reset
            self.started.remove(number)
            self.load.outcomes[-1 if status is None else status] += 1


class Load:
    def __init__(self, calls: list[str]) -> None:
        self.calls = itertools.cycle([self.parts(*call.split("=")) for call in calls])
        self.outcomes: Counter = Counter()

    @staticmethod
    def parts(path: str, body: str) -> tuple[bytes, bytes, bytes, bytes]:
        """What a call consists of, but for the number of its stream, which is before the second and the last."""
        headers, framed = block(path, os.environ["KEY"]), message(bytes.fromhex(body))
        return len(headers).to_bytes(3) + b"\x01\x04", headers, len(framed).to_bytes(3) + b"\x00\x01", framed


def main() -> None:
    port, count, seconds, callers, rate, *calls = sys.argv[1:]
    seconds, callers, rate = float(seconds), int(callers), float(rate)
    load = Load(calls)
    connections = [Connection(int(port), load) for _ in range(int(count))]
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    print("ready", flush=True)
    sys.stdin.readline()  # several start at once
    begun, offered, held_back = time.monotonic(), 0, 0
    waiting = deque((begun, connections[index % len(connections)]) for index in range(callers))  # the earliest first
    while (now := time.monotonic()) - begun < seconds:
        while waiting and waiting[0][0] <= now:
            waiting.popleft()[1].start(1)
            offered += 1
        due = int((now - begun) * rate) - offered if rate else 0
        for index, connection in enumerate(connections):
            share = due // len(connections) + (index < due % len(connections))
            able = min(share, STREAMS - len(connection.started))
            held_back += share - able
            connection.start(able)
        offered += due
        for key, _ in selector.select(0.001 if rate else 0.01):
            answered, refused = key.data.read()
            if not rate:
                key.data.start(answered)
                offered += answered
                waiting.extend([(time.monotonic() + RETRY_DELAY, key.data)] * refused)
    outcomes = {str(status): count for status, count in load.outcomes.items()}
    print(json.dumps({"offered": offered, "held back": held_back, "seconds": seconds, "outcomes": outcomes}))


if __name__ == "__main__":
    main()
