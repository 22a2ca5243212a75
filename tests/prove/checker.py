"""Judges a journal by the tables that are left: pure functions, which answer what is wrong.

A profile's revisions are its order. So that a history is linearizable needs no search: each acknowledged write is one
row of history, a later operation is at a later revision, and a read shows the profile as it was at a revision that is
neither older than what was known when the read began nor newer than its own end.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections import Counter, defaultdict

from journal import ACKNOWLEDGED, LOCKS, REFUSED, REPORT, UNKNOWN, UNLOCKS, Journal, State, Watcher, Write, case_key

LOST, DOUBLED, UNWANTED = "lost", "doubled", "unwanted"  # acknowledged and not there; there twice; there and refused
HISTORY = "history"  # rows that do not agree with each other
ORDER, STALE, FUTURE, CONTENT, ETAG = "order", "stale", "future", "content", "etag"
CLOCK = "clock"  # a profile's updated_date goes back
WATCH = "watch"
UNEXPECTED = "unexpected"
BEGIN, END = 0, 1  # of operations at the same time the beginning comes first: they overlap


@dataclasses.dataclass(frozen=True)
class Violation:
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of history."""

    profile: str
    revision: int
    changed: datetime.datetime
    key: str


@dataclasses.dataclass
class Tables:
    """What the database has at the end."""

    profiles: dict[str, State]
    history: list[Row]
    claims: dict[str, str]  # request ids that are remembered, with the profile of each
    cases: dict[str, tuple[str, str]]  # the profile and the status of each
    feed: list[tuple[str, int]]  # profile and revision, in the order of positions, then what has none yet


class Checker:
    """A journal beside the tables. `violations` has what is wrong."""

    def __init__(self, journal: Journal, tables: Tables) -> None:
        self.journal = journal
        self.tables = tables
        self.writes = {write.key: write for write in journal.writes}
        self.rows: dict[str, list[Row]] = defaultdict(list)  # by key
        for row in tables.history:
            self.rows[row.key].append(row)
        self.states: dict[tuple[str, int], State] = {}
        self.violations = [Violation(UNEXPECTED, text) for text in journal.unexpected]
        self.every_write_has_its_row()
        self.every_profile_is_what_its_history_says()
        self.cases_are_what_was_reported()
        self.revisions_respect_time()
        self.answers_are_of_their_revision()
        self.etags_are_judged()
        self.the_feed_is_the_history()
        for watcher in journal.watchers:
            self.watcher_skips_and_repeats_nothing(watcher)

    def fault(self, kind: str, text: str) -> None:
        self.violations.append(Violation(kind, text))

    def begun(self, profile: str, revision: int) -> float:
        """When the write of a revision began."""
        return self.begins.get((profile, revision), float("-inf"))

    def every_write_has_its_row(self) -> None:
        """Each acknowledged write is one row, a refused one none, and one whose outcome is unknown is one where it is
        remembered. A report is a row only where it locks or unlocks."""
        self.begins: dict[tuple[str, int], float] = {}
        for row in self.tables.history:
            if row.key in self.writes:
                self.begins[row.profile, row.revision] = self.writes[row.key].begun
            else:
                self.fault(HISTORY, f"{row} is nobody's")
        for write in self.writes.values():
            rows, claim = self.rows.get(write.key, []), self.tables.claims.get(write.key)
            if len(rows) > 1:
                self.fault(DOUBLED, f"{write} has {len(rows)} rows")
            elif rows and write.profile not in (None, rows[0].profile):
                self.fault(HISTORY, f"{write} is about another profile in {rows[0]}")
            if write.outcome == REFUSED and (rows or claim):
                self.fault(UNWANTED, f"{write} is there")
            if write.rpc == REPORT:
                continue
            if write.outcome == ACKNOWLEDGED and not rows:
                self.fault(LOST, f"{write} has no row")
            if write.outcome == ACKNOWLEDGED and not claim:
                self.fault(LOST, f"{write} is not remembered")
            if rows and claim != rows[0].profile:
                self.fault(HISTORY, f"{rows[0]} is remembered for {claim}")
            if claim and not rows and write.outcome == UNKNOWN:
                self.fault(LOST, f"{write} is remembered and has no row")

    def every_profile_is_what_its_history_says(self) -> None:
        """Each profile has a row for each revision from 1 on, each of a time that is not before the last one's, and the
        values that its writes set one after the other."""
        by_profile: dict[str, list[Row]] = {profile: [] for profile in self.tables.profiles}
        for row in self.tables.history:
            by_profile.setdefault(row.profile, []).append(row)
        for profile, rows in by_profile.items():
            rows.sort(key=lambda row: row.revision)
            values, locked = {}, False
            for expected, row in enumerate(rows, 1):
                if row.revision != expected:
                    self.fault(HISTORY, f"{profile} has {row.revision} where {expected} should be")
                    break
                if expected > 1 and row.changed < rows[expected - 2].changed:
                    self.fault(CLOCK, f"{row} comes after {rows[expected - 2]}")
                write = self.writes.get(row.key)
                if write and write.rpc == REPORT:
                    if locked == (write.case[1] == LOCKS):
                        self.fault(HISTORY, f"{row} changes nothing")
                    locked = write.case[1] == LOCKS
                elif write:
                    values = values | write.values
                self.states[profile, row.revision] = State(row.revision, row.changed, values, locked)
            stored = self.tables.profiles.get(profile)
            last = self.states.get((profile, len(rows)))
            if stored is None or last is None or stored.revision != last.revision:
                self.fault(HISTORY, f"{profile} is {stored}, and its history ends with {last}")
            elif stored != last:
                self.fault(CONTENT, f"{profile} is {stored}, and by its history {last}")

    def cases_are_what_was_reported(self) -> None:
        """Each case has the last status that was acknowledged, and a profile is locked by the cases that lock it."""
        locked = {profile for profile, status in self.tables.cases.values() if status == LOCKS}
        for profile, state in self.tables.profiles.items():
            if state.locked != (profile in locked):
                self.fault(HISTORY, f"{profile} is {state}, and its cases lock it: {profile in locked}")
        for write in self.writes.values():
            if write.rpc == REPORT and write.outcome == ACKNOWLEDGED:
                case_id, status = write.case
                stored = self.tables.cases.get(case_id)
                later = self.writes.get(case_key(case_id, UNLOCKS))
                allowed = {status} | ({UNLOCKS} if later and later.outcome != REFUSED else set())
                if stored is None or stored[0] != write.profile or stored[1] not in allowed:
                    self.fault(LOST, f"{write} is stored as {stored}")

    def seen(self):
        """Each answer: what it was given to, its profile, when that began and ended, and the state."""
        for read in self.journal.reads:
            if read.answer is None:
                self.fault(STALE, f"{read} did not find what was known")
            else:
                yield read, read.profile, read.begun, read.ended, read.answer
        for write in self.writes.values():
            if write.answer is not None:
                yield write, write.profile, write.last_begun, write.ended, write.answer

    def revisions_respect_time(self) -> None:
        """A write that began after a revision was known is above it; a read that did is at it, or above."""
        events = defaultdict(list)
        for key, rows in self.rows.items():
            for row in rows:
                if write := self.writes.get(key):
                    # Above what was known, as it is new.
                    events[row.profile].append((write.begun, BEGIN, row.revision - 1, ORDER, write))
                    if write.outcome == ACKNOWLEDGED:
                        events[row.profile].append((write.ended, END, row.revision, ORDER, write))
        for what, profile, begun, ended, state in self.seen():
            events[profile].append((begun, BEGIN, state.revision, STALE, what))
            events[profile].append((ended, END, state.revision, STALE, what))
            if isinstance(what, Write) and (rows := self.rows.get(what.key)):
                own = rows[0].revision
                if state.revision < own or (what.attempts == 1 and state.revision != own):
                    self.fault(ORDER, f"{what} is revision {own}")
        for profile, happened in events.items():
            known = 0
            for _, kind, revision, violated, what in sorted(happened, key=lambda event: event[:2]):
                if kind == END:
                    known = max(known, revision)
                elif revision < known:
                    self.fault(violated, f"{what} of {profile}, and {known} was known before it began")

    def answers_are_of_their_revision(self) -> None:
        """Each answer has what its profile had at its revision, which had begun by then."""
        for what, profile, _, ended, state in self.seen():
            self.answer_is_of_its_revision(what, profile, ended, state)

    def answer_is_of_its_revision(self, what: object, profile: str, ended: float, state: State) -> None:
        then = self.states.get((profile, state.revision))
        if then is None:
            self.fault(CONTENT, f"{what} is of a revision that is not in the history")
        elif then != state:
            self.fault(CONTENT, f"{what}, and by the history {then}")
        if self.begun(profile, state.revision) > ended:
            self.fault(FUTURE, f"{what} came before its revision was begun")

    def etags_are_judged(self) -> None:
        """A write that requires a revision is the next one, or that one was no longer current."""
        for write in self.writes.values():
            if write.etag is None:
                continue
            for row in self.rows.get(write.key, []):
                if row.revision != write.etag + 1:
                    self.fault(ETAG, f"{write} is {row}")
            if write.mismatch and self.begins.get((write.profile, write.etag + 1), math.inf) > write.ended:
                self.fault(ETAG, f"{write} was refused")

    def the_feed_is_the_history(self) -> None:
        """The feed has each row of the history once, and a profile's revisions in their order."""
        feed, history = Counter(self.tables.feed), Counter((row.profile, row.revision) for row in self.tables.history)
        if feed != history:
            self.fault(WATCH, f"only in the feed: {list(feed - history)}, only in the history: {list(history - feed)}")
        newest: dict[str, int] = {}
        for profile, revision in self.tables.feed:
            if revision != newest.get(profile, 0) + 1:
                self.fault(WATCH, f"the feed has {revision} of {profile} after {newest.get(profile, 0)}")
            newest[profile] = revision

    def watcher_skips_and_repeats_nothing(self, watcher: Watcher) -> None:
        """What a watcher was told is a run of the feed without a gap, which begins where its snapshot, or it, did."""
        if watcher.refused:
            self.fault(WATCH, f"{watcher.name} could not go on: {watcher.refused}")
        told = [(each.profile, each.revision) for each in watcher.changes]
        places = {change: place for place, change in enumerate(self.tables.feed)}
        if not told or told[0] not in places:
            self.fault(WATCH, f"{watcher.name} was first told {told[:1]}")
            return
        start = places[told[0]]
        for each, expected in zip(told, self.tables.feed[start : start + len(told)] + [None] * len(told)):
            if each != expected:
                self.fault(WATCH, f"{watcher.name} was told {each}, place {places.get(each)}, where {expected} is next")
                break
        self.watcher_begins_early_enough(watcher, start, places)
        for each in [*(watcher.snapshot or []), *watcher.changes]:
            if each.state.revision < each.revision:
                self.fault(WATCH, f"{watcher.name} was told {each} with an older profile")
            self.answer_is_of_its_revision(each, each.profile, each.at, each.state)

    def watcher_begins_early_enough(self, watcher: Watcher, start: int, places: dict[tuple[str, int], int]) -> None:
        if watcher.snapshot is None:
            late = [change for change, place in places.items() if place < start and self.begun(*change) > watcher.ready]
        else:
            shown = Counter(told.profile for told in watcher.snapshot)
            if twice := [profile for profile, times in shown.items() if times > 1]:
                self.fault(WATCH, f"the snapshot of {watcher.name} has {twice} twice")
            revisions = {told.profile: told.revision for told in watcher.snapshot}
            late = [(who, revision) for who, revision in self.tables.feed[:start] if revisions.get(who, 0) < revision]
        if late:
            self.fault(WATCH, f"{watcher.name} was never told {late[:3]}")


def judge(journal: Journal, tables: Tables) -> list[Violation]:
    """Everything that is wrong."""
    return Checker(journal, tables).violations
