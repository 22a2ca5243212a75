"""A program that is killed, frozen and started again on one database, as its callers reach it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import urllib.request
from collections import Counter
from pathlib import Path

import grpc
import grpc.aio

from contract import method
from program import Ended, Program

METRICS = ("--metrics-listen", "127.0.0.1:0")
STARTS = 5
BATCHES = "profile_service_queue_batch_size"


class Replica:
    def __init__(self, path: Path, database: str, key: str | None, environment: dict[str, str]) -> None:
        self.path, self.database, self.key, self.environment = path, database, key, environment
        self.batches: Counter[str] = Counter()  # what went to the database together, over all its lives
        self.errors: list[str] = []  # lines of the logs
        self._up = asyncio.Event()

    async def start(self) -> None:
        for attempt in range(STARTS):
            options = dict(database=self.database, key=self.key, environment=self.environment)
            self.program = Program(self.path, *METRICS, **options)
            try:
                await self.program.__aenter__()
                break
            except Ended:  # such as where PostgreSQL has not answered for 5 s; who keeps it starts it again
                if attempt == STARTS - 1:
                    raise
        self.key, self._metrics = self.program.key, await self.program.port_of("metrics")
        # Its own connections: channels with the same options would share them.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.program.port}", options=options)
        self._methods: dict = {}
        self._up.set()

    async def call(self, name: str, request, timeout: float | None, key: str | None = None):
        """Begins a call of a method, once the program is there, under another key if need be."""
        await self._up.wait()
        if name not in self._methods:
            self._methods[name] = method(self._channel, name)
        return self._methods[name](request, metadata=(("cv-api-key", key or self.key),), timeout=timeout)

    @property
    def up(self) -> bool:
        return self._up.is_set()

    async def kill(self) -> None:
        """Kills it. Calls in flight learn of it from their connections."""
        await self._count()
        self._up.clear()
        self.program.process.kill()
        await self._end()

    async def stop(self) -> None:
        """Has it end in good order."""
        await self._count()
        self._up.clear()
        self.program.process.terminate()
        async with asyncio.timeout(30):
            while (code := self.program.process.poll()) is None:
                await asyncio.sleep(0.01)
        await self._end()
        if code:
            raise RuntimeError(f"the program has ended with {code}")

    async def freeze(self, seconds: float) -> None:
        """Stops it for a while with all its connections open, as a paused machine is."""
        os.kill(self.program.process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self.program.process.pid, signal.SIGCONT)

    async def close(self) -> None:
        """Ends what is left of it."""
        if self.up:
            self._up.clear()
            self.program.process.kill()
            await self._end()

    async def _end(self) -> None:
        await self._channel.close(1)
        self.errors += [str(line) for line in self.program.log() if line["level"] == "ERROR"]
        await self.program.__aexit__()

    async def _count(self) -> None:
        with contextlib.suppress(OSError):
            text = await asyncio.to_thread(scrape, self._metrics)
            for line in text.splitlines():
                if line.startswith((f"{BATCHES}_sum", f"{BATCHES}_count")):
                    name, value = line.split()
                    self.batches[name.removeprefix(f"{BATCHES}_")] += float(value)

    def together(self, queue: str) -> tuple[float, float]:
        """How much a queue has taken in all, and in how many batches."""
        return tuple(self.batches[f'{part}{{queue="{queue}"}}'] for part in ("sum", "count"))


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
        return answer.read().decode()


def together(replicas: list[Replica], queue: str) -> float:
    """How much the replicas' queues have taken at once, on average."""
    taken, batches = map(sum, zip(*(replica.together(queue) for replica in replicas)))
    return taken / max(batches, 1)
