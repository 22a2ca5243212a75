"""Followers of WatchProfiles, who go on with their last token over any number of streams and replicas."""

from __future__ import annotations

import asyncio
import random

import grpc

from contract import message
from journal import Told, Watcher
from replica import Replica
from traffic import now, state_of

WATCH = "ProfileQueryService/WatchProfiles"
PAUSE = 0.05


class Follower:
    """Follows until it is ended."""

    def __init__(self, replicas: list[Replica], name: str, seed: int, *, skip_existing: bool) -> None:
        self.watcher = Watcher(name, snapshot=None if skip_existing else [])
        self._replicas, self._random = replicas, random.Random(seed)
        self._request = message("WatchProfilesRequest")
        self._kinds = message("WatchProfilesResponse")
        self._token, self._snapshot, self._stream = "", not skip_existing, None
        self.began = asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    def interrupt(self) -> None:
        """Ends its stream, so that it begins another."""
        if self._stream:
            self._stream.cancel()

    async def until(self, profile: str, seconds: float = 30) -> bool:
        """Waits until it was told of a profile, as long as it is told anything within so many seconds: whether it was."""
        begun, changes = now(), self.watcher.changes
        while not any(told.profile == profile for told in reversed(changes)):
            if now() > max([begun, *(told.at for told in changes[-1:])]) + seconds or self._task.done():
                return False
            await asyncio.sleep(0.02)
        return True

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def _follow(self) -> None:
        while True:
            up = [each for each in self._replicas if each.up] or self._replicas
            fields = {"resume_token": self._token} if self._token else {"skip_existing": not self._snapshot}
            try:
                self._stream = await self._random.choice(up).call(WATCH, self._request(**fields), None)
                self.watcher.streams += 1
                async for response in self._stream:
                    self._take(response)
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():
                    raise
            except grpc.aio.AioRpcError as error:
                broken = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
                details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
                if not broken and b"google.rpc.RetryInfo" not in details:
                    self.watcher.refused = f"{error.code().name} {error.details()}"
                    return
            await asyncio.sleep(PAUSE * self._random.random())

    def _take(self, response) -> None:
        if not self.began.is_set():
            self.watcher.ready = now()
            self.began.set()
        self._token = response.resume_token
        if response.kind == self._kinds.KIND_SNAPSHOT_END:
            self._snapshot = False
        elif response.kind in (self._kinds.KIND_CREATED, self._kinds.KIND_CHANGED):
            told = Told(response.profile_id, response.revision, now(), state_of(response.profile))
            (self.watcher.snapshot if self._snapshot else self.watcher.changes).append(told)
