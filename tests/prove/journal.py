"""What callers have seen: every operation with its times, by one monotonic clock, and what it was answered."""

from __future__ import annotations

import dataclasses
import datetime
import math

FIELDS = ("address", "address2", "city")  # which the writes change
REPORT = "CaseService/ReportCaseStatus"
LOCKS, UNLOCKS = "ASSIGNED", "CANCELLED"  # the statuses of a case, one after the other
ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"


@dataclasses.dataclass(frozen=True)
class State:
    """A profile at a revision."""

    revision: int
    updated: datetime.datetime
    values: dict[str, str]
    locked: bool = False


@dataclasses.dataclass
class Write:
    """A write. It is unknown whether it was carried out until its caller is told."""

    rpc: str
    key: str  # its request id; of a report `case_key`
    begun: float
    profile: str | None = None  # not known of a create before its answer
    values: dict[str, str] = dataclasses.field(default_factory=dict)  # those that it sets
    etag: int | None = None  # the revision that it requires
    attempts: int = 0
    last_begun: float = math.inf  # when its last attempt began
    ended: float = math.inf
    outcome: str = UNKNOWN
    mismatch: bool = False  # refused, because its revision is not the current one
    answer: State | None = None

    @property
    def case(self) -> tuple[str, str]:
        """The case and the status of a report."""
        case_id, _, status = self.key.partition(" ")
        return case_id, status


def case_key(case_id: str, status: str) -> str:
    """The key of a report. Each case has one report with each of the two statuses."""
    return f"{case_id} {status}"


@dataclasses.dataclass(frozen=True)
class Read:
    """A read of one profile that was answered; None where it was said not to be there."""

    rpc: str
    profile: str
    begun: float
    ended: float
    answer: State | None


@dataclasses.dataclass(frozen=True)
class Told:
    """A change that a watcher was told, with the profile as it then was."""

    profile: str
    revision: int
    at: float
    state: State


@dataclasses.dataclass
class Watcher:
    """What a follower of WatchProfiles was told over any number of streams, each with the last one's token."""

    name: str
    ready: float = math.inf  # when its first stream had begun; that of a watcher without a snapshot begins with what comes after it
    snapshot: list[Told] | None = None  # None where it skips what exists
    changes: list[Told] = dataclasses.field(default_factory=list)
    streams: int = 0
    refused: str | None = None  # why it could not go on


@dataclasses.dataclass
class Journal:
    writes: list[Write] = dataclasses.field(default_factory=list)
    reads: list[Read] = dataclasses.field(default_factory=list)
    watchers: list[Watcher] = dataclasses.field(default_factory=list)
    unexpected: list[str] = dataclasses.field(default_factory=list)  # answers that no caller may be given

    def count(self, outcome: str) -> int:
        return sum(write.outcome == outcome for write in self.writes)
