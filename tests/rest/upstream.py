"""A service that answers what it is told, and remembers how it was called."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
PROFILE = b"\x0a\x01x"  # a profile of which only the id is known: x


def varint(value: int) -> bytes:
    """A number as protobuf has it."""
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def message(*fields: bytes | int) -> bytes:
    """A protobuf message whose fields have the numbers from 1 on."""
    parts = []
    for number, field in enumerate(fields, 1):
        number_only = isinstance(field, int)
        parts.append(varint(number << 3 | (0 if number_only else 2)))
        parts.append(varint(field) if number_only else varint(len(field)) + field)
    return b"".join(parts)


@dataclasses.dataclass
class Call:
    method: str
    metadata: dict[str, str]
    seconds: float  # until its deadline
    request: bytes


class Upstream(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self.health = SERVING
        self.calls: list[Call] = []
        self.failures: list[grpc.StatusCode] = []  # what the next calls are answered with
        self.trailers: list[tuple[str, str | bytes]] = []  # what goes with a failure
        self.hang = False
        self.ended = threading.Event()
        self.server = grpc.server(ThreadPoolExecutor(8), handlers=[self])
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: self.health)
        return grpc.unary_unary_rpc_method_handler(self._handler(details.method))

    def _handler(self, method: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            metadata = dict(context.invocation_metadata())
            self.calls.append(Call(method, metadata, context.time_remaining(), request))
            if self.hang:
                self.ended.wait(30)
            if self.failures:
                context.set_trailing_metadata(self.trailers)
                context.abort(self.failures.pop(0), "as told")
            return PROFILE

        return answer

    def close(self) -> None:
        self.ended.set()
        self.server.stop(0).wait()
