"""Tasks that begin on record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import stores
from stores import GONE

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Begun, Function, Row
from aioscheduler._routing.confirmedstarts import ConfirmedStarts, is_confirmed
from aioscheduler._routing.marks import Marks
from aioscheduler._routing.suspects import Suspects


class Place(stores.Place):
    """The starts at one link, and what is kept of its tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.marks = Marks(self.group)
        self.suspects = Suspects()
        self.unknown: list[Callable[[], object]] = []  # callbacks for when ids are known
        self.starts = ConfirmedStarts(
            *(self.group, self.commits, self.marks, self.suspects, lambda: 1000),
            self.unknown.append,
        )
        self.kept: dict[int, Kept] = {}
        self.begun: list[list[int]] = []
        self.start()

    def add(self, number: int, once: bool = False, suspect: bool = False, **fields: Any) -> Kept:
        row = Row(self.group.new_row(), 500, 1, b"", **fields)
        kept = self.kept[number] = Kept.of(row)
        kept.once, kept.suspect = once, suspect
        self.group.define(Function(1, "f", "m:f", once))
        self.group.put(kept, row)
        self.commits.soon()
        return kept

    def announce(self, *numbers: int) -> None:
        kept = {number: self.kept[number] for number in numbers if number in self.kept}
        self.starts.proposed(numbers, kept, self.begun.append)

    def write(self) -> None:
        for _ in range(3):
            self.turn()


@pytest.fixture
def place() -> Place:
    return Place()


def test_which_tasks_begin_on_record() -> None:
    kept = Kept.of(Row(1, 5, 1, b""))
    assert not is_confirmed(kept)
    assert is_confirmed(Kept.of(Row(1, 5, 1, b"", id="a")))
    kept.once = True
    assert is_confirmed(kept)
    kept.once, kept.suspect = False, True
    assert is_confirmed(kept)


def test_what_is_not_durable_begins_at_once(place: Place) -> None:
    place.announce(7, 8)
    assert place.begun == [[]]
    assert 7 not in place.starts
    assert not place.starts.forget(7)


@pytest.mark.parametrize(
    ("fields", "begun"),
    [({"id": "a"}, Begun.NO), ({"once": True}, Begun.ONCE), ({"suspect": True}, Begun.YES)],
)
def test_it_is_on_record_before_it_begins(place: Place, fields: Any, begun: Begun) -> None:
    place.add(1, **fields)
    place.announce(1, 9)
    place.loop.turn()
    assert 1 in place.starts
    assert place.begun == []
    place.writer.work()
    assert place.begun == [[1]]
    assert 1 not in place.starts
    assert len(place.marks) == 1  # it has begun, and may outlast a commit
    assert [row.begun for row in place.store.rows()] == [begun]


def test_what_is_forgotten_meanwhile_does_not_begin(place: Place) -> None:
    for number in range(3):
        place.add(number, once=True)
    place.announce(0, 1, 2)
    assert place.starts.forget(1)
    assert not place.starts.forget(1)
    place.write()
    assert place.begun == [[0, 2]]
    assert not place.starts.forget(0)


def test_the_word_for_an_announcement_is_not_that_for_the_next(place: Place) -> None:
    place.add(1, once=True)
    place.announce(1)
    place.loop.turn()  # it is being written
    place.starts.forget(1)
    place.announce(1)
    place.writer.work(1)
    assert place.begun == [[]]
    assert 1 in place.starts
    place.write()
    assert place.begun == [[], [1]]


def test_the_holders_of_ids_are_known_first(place: Place) -> None:
    kept = place.kept[1] = Kept.of(Row(-1, 500, 0, b"", id="a"))
    place.announce(1)
    place.write()
    assert place.begun == []
    row = Row(place.group.new_row(), 500, 1, b"", id="a")
    kept.row = row.row
    place.group.define(Function(1, "f", "m:f", False))
    place.group.put(kept, row)
    (known,) = place.unknown
    known()
    assert place.begun == []  # it is not on disk
    place.commits.soon()
    place.write()
    assert place.begun == [[1]]


def test_one_that_turns_out_to_be_another_one_does_not_begin(place: Place) -> None:
    place.kept[1] = Kept.of(Row(-1, 500, 0, b"", id="a"))
    place.announce(1)
    place.starts.forget(1)
    place.unknown[0]()
    place.write()
    assert place.begun == [[]]
    assert place.store.batches == []


def test_suspects_have_their_turn(place: Place) -> None:
    first, second = (place.add(n, suspect=True, losses=2) for n in (1, 2))
    place.announce(1)
    place.announce(2)
    place.write()
    assert place.begun == [[1]]
    assert {row.row: row.begun for row in place.store.rows()} == {
        first.row: Begun.YES,
        second.row: Begun.NO,
    }
    place.suspects.clear(first, 1000)
    place.write()
    assert place.begun == [[1], [2]]


def test_what_is_struck_and_was_announced_begins_when_the_strike_is_on_disk(place: Place) -> None:
    kept = place.add(1, once=True)
    place.add(2, id="a")
    place.write()
    for number in (1, 3):
        place.group.strike(kept if number == 1 else place.add(3, once=True))
        place.starts.struck(number)
        del place.kept[number]
    place.commits.soon()
    place.announce(1)
    place.announce(2, 3)  # on disk already
    assert place.begun == []
    place.write()
    assert place.begun == [[], [2]]


def test_what_was_struck_and_has_ended_holds_nobody_up(place: Place) -> None:
    place.group.strike(place.add(1, once=True))
    place.starts.struck(1)
    del place.kept[1]
    place.starts.ended([1, 2])
    place.announce(1)
    assert place.begun == [[]]


def test_nothing_begins_that_will_not_be_on_record(place: Place) -> None:
    place.add(1, once=True)
    place.group.strike(place.add(2, once=True))
    place.starts.struck(2)
    del place.kept[2]
    place.announce(1)
    place.announce(2)
    place.store.fails = GONE
    place.write()
    assert place.failures
    assert place.begun == []
