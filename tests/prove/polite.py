"""A polite client on one connection, one call at a time: polite.py PORT (profile|health). The key is in KEY.

It makes calls until its standard input is closed and then tells how they went. It is grpcio's, so that a server that
serves only clients of its own kind does not pass.
"""

from __future__ import annotations

import json
import math
import os
import select
import sys
import time

import grpc

from peer import CREATE, GET, HEALTH, create_request, created_id, get_request

LIMIT = 2.0  # seconds that a call may take
PAUSE = 0.02  # seconds between calls: it is polite
LONGEST = 600.0  # seconds until it ends by itself


def main() -> None:
    port, what = sys.argv[1:]
    metadata = [("cv-api-key", os.environ["KEY"])]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    milliseconds: list[float] = []
    failures: list[str] = []

    def call(path: str, request: bytes) -> bytes | None:
        started = time.monotonic()
        try:
            return channel.unary_unary(path)(request, timeout=LIMIT, metadata=metadata)
        except grpc.RpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")
            return None
        finally:
            milliseconds.append((time.monotonic() - started) * 1000)

    def visit() -> None:
        if what == "health":
            call(HEALTH, b"")
        elif profile := call(CREATE, create_request()):
            call(GET, get_request(created_id(profile)))

    end = time.monotonic() + LONGEST
    visit()
    print("ready", flush=True)
    while time.monotonic() < end and not select.select([sys.stdin], [], [], PAUSE)[0]:
        visit()
    milliseconds.sort()
    figures = {"calls": len(milliseconds), "failures": len(failures), "first": failures[:3]}
    figures |= {"p99": milliseconds[math.ceil(len(milliseconds) * 0.99) - 1], "longest": milliseconds[-1]}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
