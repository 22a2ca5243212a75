"""Callers of replicas, who create, change, report and read, repeat what failed, and keep a journal of it all."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import random
import time
import uuid

import grpc

from contract import message
from journal import (
    ACKNOWLEDGED,
    FIELDS,
    LOCKS,
    REFUSED,
    REPORT,
    UNLOCKS,
    Journal,
    Read,
    State,
    Write,
    case_key,
)
from replica import Replica

CREATE, PATCH, UPDATE = (f"ProfileService/{name}Profile" for name in ("Create", "Patch", "Update"))
GET, BATCH, LOOK_UP = "ProfileService/GetProfile", "ProfileQueryService/BatchGetProfiles", "ProfileQueryService/LookUpProfile"
LIST = "ProfileQueryService/ListProfiles"
HOT = 4  # profiles that most operations are about
BATCH_SIZE = 5
REPORTED = 1_767_607_200  # when the first status of each case was reported; the second is a second younger
PATIENCE = 120  # seconds that a caller tries for
PAUSE = 0.05  # seconds between two attempts at the most
BROKEN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL")  # without details: the connection broke


@dataclasses.dataclass
class Person:
    """What callers know of a profile."""

    id: str
    email: str
    revision: int
    reports: list[tuple[str, str]]  # those to come
    reporting: bool = False


@dataclasses.dataclass(frozen=True)
class Mix:
    """How often each operation comes, and how often a caller gives up."""

    weights: dict[str, int]
    reads_back: float = 0.0  # of the changes whose caller reads at once
    cancels: float = 0.0  # of the calls that are cancelled in flight
    impatient: float = 0.0  # of the operations that are not repeated, whatever became of them
    timeout: float = 3.0  # seconds of an attempt


class Failed(Exception):
    """An attempt that was not answered."""

    def __init__(self, executed: bool, mismatch: bool = False) -> None:
        self.executed = executed  # whether it may have been carried out
        self.mismatch = mismatch


class Traffic:
    def __init__(self, replicas: list[Replica], mix: Mix, seed: int) -> None:
        self.replicas, self.mix = replicas, mix
        self.random = random.Random(seed)
        self.journal = Journal()
        self.people: list[Person] = []
        self.begun = self.done = self.repeats = self.cancelled = 0
        self._emails = self._cases = 0

    async def run(self, operations: int, callers: int) -> None:
        """Carries out so many operations, by so many callers at once."""
        self.goal = operations
        await self.create()
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self._caller())

    async def reached(self, done: int) -> None:
        """Waits until so many operations are done."""
        while self.done < done:
            await asyncio.sleep(0.005)

    async def _caller(self) -> None:
        names, weights = list(self.mix.weights), list(self.mix.weights.values())
        while self.begun < self.goal:
            (name,) = self.random.choices(names, weights)
            await getattr(self, name)()

    def person(self) -> Person:
        hot = self.random.random() < 0.8
        return self.random.choice(self.people[:HOT] if hot else self.people)

    def unique(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def new_values(self) -> dict[str, str]:
        return {field: self.unique() for field in self.random.sample(FIELDS, self.random.choice([1, 1, 1, 2]))}

    # Operations.

    async def create(self) -> None:
        self._emails += 1
        email, values = f"p{self._emails}@example.com", self.new_values()
        profile = message("Profile")(first_name="Ada", last_name="Byron", email=email, **values)
        answer = await self._write(CREATE, dict(profile=profile), Write(CREATE, self.unique(), now(), values=values))
        if answer:
            self.people.append(Person(answer.id, email, revision_of(answer), []))

    async def patch(self) -> None:
        person, values = self.person(), self.new_values()
        etag = person.revision if self.random.random() < 0.2 else None
        profile = message("Profile")(id=person.id, **values)
        if etag is not None:
            profile.etag = f'"{etag}"'
        write = Write(PATCH, self.unique(), now(), person.id, values, etag)
        await self._change(person, dict(profile=profile), write)

    async def update(self) -> None:
        person, values = self.person(), self.new_values()
        data = message("Profile")(email=person.email, **values)
        write = Write(UPDATE, self.unique(), now(), person.id, values)
        await self._change(person, dict(data=data), write)

    async def _change(self, person: Person, fields: dict, write: Write) -> None:
        self._know(person, await self._write(write.rpc, fields, write))
        if self.random.random() < self.mix.reads_back:
            await self._read_one(GET, person, id=person.id)

    async def report(self) -> None:
        """Reports the first or the second status of a case. Reports about one person come one after the other."""
        person = self.person()
        if person.reporting:
            return
        if not person.reports:
            self._cases += 1
            person.reports = [(f"case-{self._cases}", status) for status in (LOCKS, UNLOCKS)]
        person.reporting = True
        case_id, status = person.reports.pop(0)
        request = dict(
            case_id=case_id,
            profile_id=person.id,
            status=getattr(message("Case"), status),
            status_time={"seconds": REPORTED + (status == UNLOCKS)},
        )
        await self._write(REPORT, request, Write(REPORT, case_key(case_id, status), now(), person.id))
        person.reporting = False

    async def get(self) -> None:
        person = self.person()
        await self._read_one(GET, person, id=person.id)

    async def look_up(self) -> None:
        person = self.person()
        await self._read_one(LOOK_UP, person, email=person.email)

    async def batch(self) -> None:
        people = {person.id: person for person in (self.person() for _ in range(BATCH_SIZE))}
        begun, answer = await self._read(BATCH, dict(ids=list(people)))
        if answer:
            found = {profile.id: profile for profile in answer.profiles}
            for id, person in people.items():
                self.note_read(BATCH, person, begun, found.get(id))

    async def pages(self) -> None:
        """Two pages of a list by name, each from any replica. One who is not known yet is just being created."""
        people, token = {person.id: person for person in self.people}, ""
        for _ in range(2):
            request = dict(name_prefix="byron", page_size=BATCH_SIZE, page_token=token)
            begun, answer = await self._read(LIST, request)
            for profile in answer.profiles if answer else ():
                if profile.id in people:
                    self.note_read(LIST, people[profile.id], begun, profile)
            if not answer or not answer.next_page_token:
                return
            token = answer.next_page_token

    async def _read_one(self, name: str, person: Person, **fields: str) -> None:
        begun, answer = await self._read(name, fields)
        if answer:
            self.note_read(name, person, begun, answer)

    async def read_all(self) -> None:
        """Everybody is read through every replica, by calls that nobody gives up."""
        self.mix = dataclasses.replace(self.mix, cancels=0, impatient=0, timeout=10)
        for replica in self.replicas:
            for at in range(0, len(self.people), 100):
                people = self.people[at : at + 100]
                begun, answer = await self._read(BATCH, dict(ids=[person.id for person in people]), replica)
                found = {profile.id: profile for profile in answer.profiles}
                for person in people:
                    self.note_read(BATCH, person, begun, found.get(person.id))

    def note_read(self, name: str, person: Person, begun: float, answer) -> None:
        self.journal.reads.append(Read(name, person.id, begun, now(), state_of(answer) if answer else None))
        self._know(person, answer)

    def _know(self, person: Person, answer) -> None:
        if answer:
            person.revision = max(person.revision, revision_of(answer))

    # Attempts.

    async def _write(self, name: str, fields: dict, write: Write):
        """Tries until it is answered or gives up, and answers what it was answered."""
        self.begun += 1
        if write.rpc != REPORT:
            fields["request_id"] = write.key
        request = message(f"{name.partition('/')[2]}Request")(**fields)
        self.journal.writes.append(write)
        gives_up, executed = self.random.random() < self.mix.impatient, False
        write.begun = now()
        answer = None
        while now() - write.begun < PATIENCE:
            write.attempts, write.last_begun = write.attempts + 1, now()
            try:
                answer = await self._attempt(name, request)
                write.outcome, write.ended = ACKNOWLEDGED, now()
                break
            except Failed as failed:
                executed |= failed.executed
                if failed.mismatch or gives_up:
                    write.ended, write.mismatch = now(), failed.mismatch
                    if failed.mismatch or not executed:
                        write.outcome = REFUSED
                    break
            self.repeats += 1
            await asyncio.sleep(self.random.random() * PAUSE)
        if answer and write.rpc != REPORT:
            write.answer = state_of(answer)
            write.profile = write.profile or answer.id
        self.done += 1
        return answer

    async def _read(self, name: str, fields: dict, replica: Replica | None = None):
        """When the attempt that was answered began, and the answer; none where it was cancelled."""
        self.begun += 1
        request, first = message(f"{name.partition('/')[2]}Request")(**fields), now()
        answer = None
        while now() - first < PATIENCE:
            begun = now()
            try:
                answer = await self._attempt(name, request, replica)
                break
            except Failed:
                if self.random.random() < self.mix.impatient:
                    break
            await asyncio.sleep(self.random.random() * PAUSE)
        self.done += 1
        return begun, answer

    async def _attempt(self, name: str, request, replica: Replica | None = None):
        up = [each for each in self.replicas if each.up] or self.replicas
        call = await (replica or self.random.choice(up)).call(name, request, self.mix.timeout)
        if self.random.random() < self.mix.cancels:
            asyncio.get_running_loop().call_later(self.random.random() * 0.02, call.cancel)
        try:
            return await call
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():
                raise
            self.cancelled += 1
            raise Failed(executed=True) from None
        except grpc.aio.AioRpcError as error:
            raise self._failed(name, error) from None

    def _failed(self, name: str, error: grpc.aio.AioRpcError) -> Failed:
        """What an error says: what has RetryInfo was not carried out, and what has no details is a broken connection."""
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        if b"ETAG_MISMATCH" in details:
            return Failed(executed=False, mismatch=True)
        if b"google.rpc.RetryInfo" in details:
            return Failed(executed=False)
        known = b"OUTCOME_UNKNOWN" in details or b"DEADLINE_EXCEEDED" in details
        if not known and (details or error.code().name not in BROKEN):
            self.journal.unexpected.append(f"{name}: {error.code().name} {error.details()} {details!r}")
        return Failed(executed=True)


def now() -> float:
    return time.monotonic()


def revision_of(profile) -> int:
    return int(profile.etag.strip('"'))


def state_of(profile) -> State:
    values = {field: value for field in FIELDS if (value := getattr(profile, field))}
    updated = profile.updated_date.ToDatetime(datetime.UTC)
    return State(revision_of(profile), updated, values, profile.HasField("locked_fields"))
