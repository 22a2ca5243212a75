"""Faults that a correct program does not have, put in on purpose, to see that the checker catches them.

They are put in around the program, which so needs no switch for them: what the checker judges is what callers were
answered and what the tables have, and a program with the fault would have left the same there.
"""

from __future__ import annotations

import asyncio
import json

from journal import ACKNOWLEDGED, Read, State, Write
from scenario import Scenario
from traffic import PATCH, PATIENCE, UPDATE, Person, Traffic, now


class StaleOnce(Traffic):
    """One read is answered from a cache that nobody has told of a later revision."""

    stale = False

    def note_read(self, name: str, person: Person, begun: float, answer) -> None:
        if answer and not self.stale and (old := self._cached(person.id, begun)):
            self.stale = True
            self.journal.reads.append(Read(name, person.id, begun, now(), old))
        else:
            super().note_read(name, person, begun, answer)

    def _cached(self, profile: str, begun: float) -> State | None:
        """The first answer about a profile, where a later one had been seen when a read began."""
        seen = [read for read in self.journal.reads if read.profile == profile and read.ended < begun]
        return seen[0].answer if seen and seen[-1].answer.revision > seen[0].answer.revision else None


def newest(scenario: Scenario) -> list[Write]:
    """Acknowledged writes that are the last ones of their profiles, as far as their callers know."""
    people = {person.id: person for person in scenario.traffic.people}
    return [
        write
        for write in reversed(scenario.traffic.journal.writes)
        if write.outcome == ACKNOWLEDGED and write.rpc in (PATCH, UPDATE) and write.attempts == 1
        if (person := people.get(write.profile)) and person.revision == write.answer.revision
    ]


def values_before(scenario: Scenario, write: Write) -> str:
    """Assignments of what a write has replaced."""
    database = scenario.database
    rows = database.query(
        f"SELECT old_values FROM profile_change WHERE profile_id = {database.id(write.profile)} "
        f"AND revision = {write.answer.revision}"
    )
    old = json.loads(rows[0][0] or "{}")
    return ", ".join(f"{field} = " + (f"'{old[field]}'" if field in old else "NULL") for field in write.values)


async def take_back(scenario: Scenario) -> None:
    """An acknowledged write is taken back, as by a commit that is not on the disk: its row, history and claim."""
    database, traffic = scenario.database, scenario.traffic
    await traffic.reached(traffic.goal // 2)
    async with asyncio.timeout(PATIENCE):
        while True:
            for write in newest(scenario):  # one that nobody knew of may have followed the first
                profile, revision = database.id(write.profile), write.answer.revision
                row = f"profile_id = {profile} AND revision = {revision} AND request_id = '{write.key}'"
                before = f"(SELECT 1 FROM profile WHERE id = {profile} AND revision = {revision - 1})"
                await asyncio.to_thread(
                    database.execute,
                    f"UPDATE profile SET revision = {revision - 1}, {values_before(scenario, write)} "
                    f"WHERE id = {profile} AND revision = {revision}",
                    f"DELETE FROM profile_change WHERE {row} AND EXISTS {before}",
                    f"DELETE FROM write_request WHERE request_id = '{write.key}' AND EXISTS {before}",
                )
                if not database.query(f"SELECT 1 AS found FROM profile_change WHERE {row}"):
                    return
            await asyncio.sleep(0.01)


async def overwrite(scenario: Scenario) -> None:
    """An acknowledged write is overwritten with what was there before it, as by one that had read an older row."""
    database, write = scenario.database, newest(scenario)[0]
    statement = f"UPDATE profile SET {values_before(scenario, write)} WHERE id = {database.id(write.profile)}"
    await asyncio.to_thread(database.execute, statement)
