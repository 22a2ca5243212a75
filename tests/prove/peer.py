"""A peer that speaks HTTP/2 frame by frame, so that it can break the rules."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections import Counter

from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CREATE = "/profiles.v1.ProfileService/CreateProfile"
GET = "/profiles.v1.ProfileService/GetProfile"
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
REFUSED_STREAM = 7
LARGEST_FRAME = 16384
DEADLINE = 10.0  # of every call
PATIENCE = 10.0  # for what should come at once, on a busy machine


class Ended(Exception):
    """The server has ended the connection."""


def text_field(number: int, text: bytes) -> bytes:
    """A field of a protobuf message with a length below 128."""
    return bytes([number << 3 | 2, len(text)]) + text


def create_request() -> bytes:
    """CreateProfile of a person without an address, so that it can be repeated."""
    return text_field(1, text_field(5, b"Ada") + text_field(6, b"Byron"))


def get_request(profile_id: bytes) -> bytes:
    return text_field(1, profile_id)


def created_id(profile: bytes) -> bytes:
    """The id in an answer of CreateProfile: its first field."""
    return profile[2 : 2 + profile[1]]


def message(body: bytes, compressed: int = 0) -> bytes:
    """A message as gRPC frames it."""
    return bytes([compressed]) + len(body).to_bytes(4) + body


def block(path: str, key: str | None = None, **fields: str | None) -> bytes:
    """The header block of a call. It uses no dynamic table, so that any connection may send it at any time."""
    headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
    headers |= {"content-type": "application/grpc", "te": "trailers", "cv-api-key": key}
    headers |= {name.replace("__", ":").replace("_", "-"): value for name, value in fields.items()}
    return encode([(name, value) for name, value in headers.items() if value is not None])


def encode(headers: list[tuple[str, str]]) -> bytes:
    # Without Huffman's code, which this encoder is slow at.
    return Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in headers], huffman=False)


def head(stream: int, header_block: bytes, *flags: str) -> HeadersFrame:
    return HeadersFrame(stream, header_block, flags=["END_HEADERS", *flags])


def whole_call(stream: int, header_block: bytes, body: bytes) -> bytes:
    return head(stream, header_block).serialize() + DataFrame(stream, message(body), flags=["END_STREAM"]).serialize()


@dataclasses.dataclass
class Answer:
    """What has come on a stream."""

    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def done(self) -> bool:
        return self.ended or self.reset is not None

    @property
    def grpc_status(self) -> int | None:
        status = self.headers.get("grpc-status")
        return None if status is None else int(status)

    def __str__(self) -> str:
        if self.reset is not None:
            return f"RST_STREAM {self.reset}"
        return f"HTTP {self.headers.get(':status')}, grpc-status {self.grpc_status}"


class Peer:
    """A connection. `async with Peer(port)` sends the preface and the settings, and answers settings and pings."""

    def __init__(self, port: int, settings: dict[int, int] | None = None, *, reads: bool = True) -> None:
        self.port = port
        self.settings = settings or {}
        self.reads = reads
        self.answers: dict[int, Answer] = {}
        self.server_settings: dict[int, int] = {}
        self.credit: Counter[int] = Counter()
        self.sent: Counter[int] = Counter()
        self.pongs = 0
        self.goaway: int | None = None
        self.ended = False
        self._news = asyncio.Event()
        self._decoder = Decoder()

    async def __aenter__(self) -> Peer:
        raw = socket.socket()
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.reads:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self.port))
        self.reader, self.writer = await asyncio.open_connection(sock=raw)
        if self.reads:
            self._reading = asyncio.create_task(self._read())
        else:
            self.writer.transport.pause_reading()
        self.writer.write(PREFACE + SettingsFrame(settings=self.settings).serialize())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self.reads:
            self._reading.cancel()
        self.writer.transport.abort()

    async def send(self, *frames: Frame | bytes, seconds: float = PATIENCE) -> None:
        """Sends frames, or raises Ended where the server has ended the connection."""
        for frame in frames:
            if isinstance(frame, DataFrame):
                self.sent.update({0: len(frame.data), frame.stream_id: len(frame.data)})
        data = b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        if self.ended:
            raise Ended
        try:
            self.writer.write(data)
            async with asyncio.timeout(seconds):
                await self.writer.drain()
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise Ended from error

    async def until(self, reached, seconds: float = PATIENCE) -> None:
        """Waits for what the server sends. Raises Ended if it ends the connection before, and TimeoutError."""
        async with asyncio.timeout(seconds):
            while not reached():
                if self.ended:
                    raise Ended
                self._news.clear()
                await self._news.wait()

    async def until_ended(self, seconds: float = PATIENCE) -> None:
        with contextlib.suppress(Ended):
            await self.until(lambda: self.ended, seconds)

    async def answered(self, *streams: int, seconds: float = PATIENCE) -> list[Answer]:
        """The whole answers of these streams."""
        await self.until(lambda: all(map(self._done, streams)), seconds)
        return [self.answers[stream] for stream in streams]

    async def call(self, stream: int, header_block: bytes, body: bytes) -> Answer:
        await self.send(whole_call(stream, header_block, body))
        return (await self.answered(stream))[0]

    async def send_data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Sends data as far as the server's windows allow, until it has answered."""
        for at in range(0, len(data), LARGEST_FRAME):
            part = data[at : at + LARGEST_FRAME]
            await self.until(lambda: self._window(stream) >= len(part) or self._done(stream), DEADLINE + PATIENCE)
            if self._done(stream):
                return
            await self.send(DataFrame(stream, part))
        if end:
            await self.send(DataFrame(stream, flags=["END_STREAM"]))

    def _done(self, stream: int) -> bool:
        return stream in self.answers and self.answers[stream].done

    def _window(self, stream: int) -> int:
        initial = self.server_settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, 0)
        return min(65535 + self.credit[0] - self.sent[0], initial + self.credit[stream] - self.sent[stream])

    async def ping(self) -> None:
        """Makes sure that the server has read everything until now."""
        pongs = self.pongs
        await self.send(PingFrame())
        await self.until(lambda: self.pongs > pongs)

    async def _read(self) -> None:
        try:
            while True:
                frame, length = Frame.parse_frame_header(memoryview(await self.reader.readexactly(9)))
                frame.parse_body(memoryview(await self.reader.readexactly(length)))
                self._take(frame)
                self._news.set()
        except (OSError, asyncio.IncompleteReadError):
            self.ended = True
            self._news.set()

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, WindowUpdateFrame):
            self.credit[frame.stream_id] += frame.window_increment
            return
        answer = self.answers.setdefault(frame.stream_id, Answer()) if frame.stream_id else None
        match frame:
            case SettingsFrame() if "ACK" not in frame.flags:
                self.server_settings |= frame.settings
                self.writer.write(SettingsFrame(flags=["ACK"]).serialize())
            case PingFrame() if "ACK" in frame.flags:
                self.pongs += 1
            case PingFrame():
                self.writer.write(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]).serialize())
            case GoAwayFrame():
                self.goaway = frame.error_code
            case RstStreamFrame():
                answer.reset = frame.error_code
            case HeadersFrame():
                answer.headers |= dict(self._decoder.decode(frame.data))
                answer.ended |= "END_STREAM" in frame.flags
            case DataFrame():
                answer.data += frame.data
                answer.ended |= "END_STREAM" in frame.flags
