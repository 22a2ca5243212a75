"""A service that answers what it is told, and remembers how it was called."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
PROFILE = b"\x0a\x01x"  # a profile of which only the id is known: x


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
                context.abort(self.failures.pop(0), "as told")
            return PROFILE

        return answer

    def close(self) -> None:
        self.ended.set()
        self.server.stop(0).wait()
