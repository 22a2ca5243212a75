"""The checker finds what is wrong: a small right history, and each of its defects."""

from __future__ import annotations

import copy
import dataclasses
import datetime

import pytest

from checker import Row, Tables, judge
from journal import ACKNOWLEDGED, LOCKS, REFUSED, REPORT, UNKNOWN, UNLOCKS, Journal, Read, State, Told, Watcher, Write

CREATE, PATCH, GET = "ProfileService/CreateProfile", "ProfileService/PatchProfile", "ProfileService/GetProfile"


def state(revision: int, locked: bool = False, **values: str) -> State:
    return State(revision, at(revision), values, locked)


def at(second: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(second, datetime.UTC)


def row(revision: int, key: str) -> Row:
    return Row("p", revision, at(revision), key)


def write(rpc: str, key: str, begun: float, answer: State | None = None, *, profile="p", ended=None, **more) -> Write:
    outcome = {"outcome": ACKNOWLEDGED, "ended": begun + 1 if ended is None else ended, "attempts": 1, "last_begun": begun}
    return Write(rpc, key, begun, profile, answer=answer, **(outcome | more))


class World:
    """Create, patch, an unknown patch that was made, one that was not, a lock; reads and two watchers meanwhile."""

    def __init__(self) -> None:
        one, two = state(1, city="a"), state(2, city="b")
        three, four = state(3, city="c"), state(4, city="c", locked=True)
        unknown = {"outcome": UNKNOWN, "ended": float("inf")}
        self.journal = Journal(
            writes=[
                write(CREATE, "w1", 0, one, values={"city": "a"}),
                write(PATCH, "w2", 2, two, values={"city": "b"}, etag=1),
                write(PATCH, "w3", 4, values={"city": "c"}, **unknown),
                write(PATCH, "w4", 4, values={"city": "d"}, **unknown),
                write(PATCH, "w5", 5, values={"city": "e"}, etag=1, outcome=REFUSED, mismatch=True),
                write(REPORT, f"k {LOCKS}", 8),
            ],
            reads=[
                Read(GET, "p", 1.5, 1.8, one),
                Read(GET, "p", 2.1, 2.5, two),
                Read(GET, "p", 6, 7, three),
                Read(GET, "p", 10, 11, four),
            ],
            watchers=[
                Watcher("early", -1, None, [Told("p", each.revision, 12, each) for each in (one, two, three, four)]),
                Watcher("late", 6, [Told("p", 2, 6, three)], [Told("p", each.revision, 12, each) for each in (three, four)]),
            ],
        )
        self.tables = Tables(
            profiles={"p": four},
            history=[row(1, "w1"), row(2, "w2"), row(3, "w3"), row(4, f"k {LOCKS}")],
            claims={"w1": "p", "w2": "p", "w3": "p"},
            cases={"k": ("p", LOCKS)},
            feed=[("p", 1), ("p", 2), ("p", 3), ("p", 4)],
        )

    def kinds(self) -> set[str]:
        return {violation.kind for violation in judge(self.journal, self.tables)}

    def read(self, begun: float, ended: float, answer: State | None) -> None:
        self.journal.reads.append(Read(GET, "p", begun, ended, answer))


@pytest.fixture
def world() -> World:
    return World()


def test_a_right_history_is_right(world: World) -> None:
    assert judge(world.journal, world.tables) == []


def test_an_acknowledged_write_without_a_row_is_lost(world: World) -> None:
    world.journal.writes.append(write(PATCH, "w6", 12, values={"city": "f"}))
    assert world.kinds() == {"lost"}


def test_an_acknowledged_write_that_is_not_remembered_is_lost(world: World) -> None:
    del world.tables.claims["w2"]
    assert "lost" in world.kinds()


def test_a_write_that_is_taken_back_with_its_row_and_its_claim_is_lost(world: World) -> None:
    world.tables.history = [row(1, "w1"), row(2, "w3"), row(3, f"k {LOCKS}")]
    del world.tables.claims["w2"]
    world.tables.profiles["p"] = state(3, city="c", locked=True)
    assert {"lost", "content"} <= world.kinds()


def test_a_remembered_write_without_a_row_is_lost(world: World) -> None:
    world.tables.claims["w4"] = "p"
    assert world.kinds() == {"lost"}


def test_a_write_with_two_rows_is_doubled(world: World) -> None:
    world.tables.history.append(row(5, "w2"))
    assert "doubled" in world.kinds()


def test_a_refused_write_with_a_row_is_unwanted(world: World) -> None:
    world.tables.history.append(row(5, "w5"))
    assert "unwanted" in world.kinds()


@pytest.mark.parametrize("key", ["w9", "none"])
def test_a_row_that_nobody_wrote_is_found(world: World, key: str) -> None:
    world.tables.history.append(row(5, key))
    assert "history" in world.kinds()


def test_a_revision_without_its_row_is_found(world: World) -> None:
    world.tables.profiles["p"] = state(5, city="c", locked=True)
    assert world.kinds() == {"history"}
    del world.tables.history[1]
    assert "history" in world.kinds()


def test_a_row_without_its_profile_is_found(world: World) -> None:
    world.tables.profiles.clear()
    assert world.kinds() == {"history"}


def test_a_lost_update_is_found(world: World) -> None:
    """A row that was saved over another: the revision is right, and a value is that of before."""
    world.tables.profiles["p"] = state(4, city="b", locked=True)
    assert world.kinds() == {"content"}


def test_a_time_that_goes_back_is_found(world: World) -> None:
    world.tables.history[3] = dataclasses.replace(world.tables.history[3], changed=at(2))
    assert "clock" in world.kinds()


def test_a_later_write_has_a_later_revision(world: World) -> None:
    world.journal.writes[2].begun = 0.5
    world.journal.writes[1], early = write(PATCH, "w2", 20, values={"city": "b"}), world.journal.writes[1]
    assert early.answer and "order" in world.kinds()


def test_an_answer_is_of_its_own_revision_unless_it_was_repeated(world: World) -> None:
    world.journal.writes[1].answer = state(3, city="c")
    world.journal.writes[1].ended = 4.5
    assert world.kinds() == {"order"}
    world.journal.writes[1].attempts = 2
    assert world.kinds() == set()


def test_a_read_that_is_older_than_an_acknowledged_write_is_stale(world: World) -> None:
    world.read(3.5, 3.6, state(1, city="a"))
    assert world.kinds() == {"stale"}


def test_a_read_that_is_older_than_another_is_stale(world: World) -> None:
    world.read(7.5, 7.6, state(2, city="b"))  # revision 3 was never acknowledged, and read before
    assert world.kinds() == {"stale"}


def test_a_read_of_what_overlaps_it_may_be_either(world: World) -> None:
    world.read(2.5, 3.5, state(1, city="a"))  # another read had seen revision 2 at 2.5
    assert world.kinds() == set()
    world.read(5.5, 5.9, state(2, city="b"))
    world.read(5.5, 5.9, state(3, city="c"))
    assert world.kinds() == set()


def test_a_read_that_does_not_find_what_is_known_is_stale(world: World) -> None:
    world.read(3.5, 3.6, None)
    assert world.kinds() == {"stale"}


def test_a_read_of_what_nobody_had_begun_to_write_is_found(world: World) -> None:
    world.journal.reads[0] = Read(GET, "p", 1.5, 1.8, state(2, city="b"))
    assert "future" in world.kinds()


def test_a_read_of_other_values_is_found(world: World) -> None:
    world.read(12, 13, state(4, city="b", locked=True))
    assert world.kinds() == {"content"}
    world.read(12, 13, state(7, city="c", locked=True))
    assert world.kinds() == {"content"}


def test_an_etag_that_was_not_current_must_be_refused(world: World) -> None:
    world.journal.writes[2].etag = 1
    assert world.kinds() == {"etag"}


def test_an_etag_that_was_current_must_not_be_refused(world: World) -> None:
    world.journal.writes[4].etag = 4
    assert world.kinds() == {"etag"}


def test_a_report_that_is_lost_is_found(world: World) -> None:
    world.tables.cases.clear()
    assert {"lost", "history"} == world.kinds()


def test_a_case_may_have_gone_on_and_not_back(world: World) -> None:
    later = write(REPORT, f"k {UNLOCKS}", 12)
    world.journal.writes.append(later)
    assert world.kinds() == {"lost"}
    later.outcome = UNKNOWN
    assert world.kinds() == set()


def test_a_feed_without_a_change_is_found(world: World) -> None:
    del world.tables.feed[1]
    assert world.kinds() == {"watch"}


def test_a_feed_in_another_order_is_found(world: World) -> None:
    world.tables.feed[1], world.tables.feed[2] = world.tables.feed[2], world.tables.feed[1]
    assert world.kinds() == {"watch"}


@pytest.mark.parametrize("told", [[0, 2, 3], [0, 1, 1, 2, 3], [0, 2, 1, 3], [1, 2, 3], []])
def test_a_watcher_that_skips_or_repeats_is_found(world: World, told: list[int]) -> None:
    watcher = world.journal.watchers[0]
    watcher.changes = [copy.copy(watcher.changes[place]) for place in told]
    assert world.kinds() == {"watch"}


def test_a_watcher_that_could_not_go_on_is_found(world: World) -> None:
    world.journal.watchers[0].refused = "OUT_OF_RANGE"
    assert world.kinds() == {"watch"}


def test_a_snapshot_that_is_older_than_what_follows_it_is_found(world: World) -> None:
    world.journal.watchers[1].snapshot = [Told("p", 1, 6, state(3, city="c"))]
    assert world.kinds() == {"watch"}
    world.journal.watchers[1].snapshot = [Told("p", 2, 6, state(3, city="c"))] * 2
    assert world.kinds() == {"watch"}


def test_a_watcher_is_told_with_the_profile_as_it_was(world: World) -> None:
    world.journal.watchers[0].changes[3] = Told("p", 4, 12, state(3, city="c"))
    assert world.kinds() == {"watch"}
    world.journal.watchers[0].changes[3] = Told("p", 4, 12, state(4, city="b", locked=True))
    assert world.kinds() == {"content"}


def test_an_unexpected_answer_is_told(world: World) -> None:
    world.journal.unexpected.append("INTERNAL")
    assert world.kinds() == {"unexpected"}
