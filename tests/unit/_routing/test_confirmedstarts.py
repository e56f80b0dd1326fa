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


class Rig(stores.Rig):
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
def rig() -> Rig:
    return Rig()


def test_which_tasks_begin_on_record() -> None:
    kept = Kept.of(Row(1, 5, 1, b""))
    assert not is_confirmed(kept)
    assert is_confirmed(Kept.of(Row(1, 5, 1, b"", id="a")))
    kept.once = True
    assert is_confirmed(kept)
    kept.once, kept.suspect = False, True
    assert is_confirmed(kept)


def test_what_is_not_durable_begins_at_once(rig: Rig) -> None:
    rig.announce(7, 8)
    assert rig.begun == [[]]
    assert 7 not in rig.starts
    assert not rig.starts.forget(7)


@pytest.mark.parametrize(
    ("fields", "begun"),
    [({"id": "a"}, Begun.NO), ({"once": True}, Begun.ONCE), ({"suspect": True}, Begun.YES)],
)
def test_it_is_on_record_before_it_begins(rig: Rig, fields: Any, begun: Begun) -> None:
    rig.add(1, **fields)
    rig.announce(1, 9)
    rig.loop.turn()
    assert 1 in rig.starts
    assert rig.begun == []
    rig.writer.work()
    assert rig.begun == [[1]]
    assert 1 not in rig.starts
    assert len(rig.marks) == 1  # it has begun, and may outlast a commit
    assert [row.begun for row in rig.store.rows()] == [begun]


def test_what_is_forgotten_meanwhile_does_not_begin(rig: Rig) -> None:
    for number in range(3):
        rig.add(number, once=True)
    rig.announce(0, 1, 2)
    assert rig.starts.forget(1)
    assert not rig.starts.forget(1)
    rig.write()
    assert rig.begun == [[0, 2]]
    assert not rig.starts.forget(0)


def test_the_word_for_an_announcement_is_not_that_for_the_next(rig: Rig) -> None:
    rig.add(1, once=True)
    rig.announce(1)
    rig.loop.turn()  # it is being written
    rig.starts.forget(1)
    rig.announce(1)
    rig.writer.work(1)
    assert rig.begun == [[]]
    assert 1 in rig.starts
    rig.write()
    assert rig.begun == [[], [1]]


def test_the_holders_of_ids_are_known_first(rig: Rig) -> None:
    kept = rig.kept[1] = Kept.of(Row(-1, 500, 0, b"", id="a"))
    rig.announce(1)
    rig.write()
    assert rig.begun == []
    row = Row(rig.group.new_row(), 500, 1, b"", id="a")
    kept.row = row.row
    rig.group.define(Function(1, "f", "m:f", False))
    rig.group.put(kept, row)
    (known,) = rig.unknown
    known()
    assert rig.begun == []  # it is not on disk
    rig.commits.soon()
    rig.write()
    assert rig.begun == [[1]]


def test_one_that_turns_out_to_be_another_one_does_not_begin(rig: Rig) -> None:
    rig.kept[1] = Kept.of(Row(-1, 500, 0, b"", id="a"))
    rig.announce(1)
    rig.starts.forget(1)
    rig.unknown[0]()
    rig.write()
    assert rig.begun == [[]]
    assert rig.store.batches == []


def test_suspects_have_their_turn(rig: Rig) -> None:
    first, second = (rig.add(n, suspect=True, losses=2) for n in (1, 2))
    rig.announce(1)
    rig.announce(2)
    rig.write()
    assert rig.begun == [[1]]
    assert {row.row: row.begun for row in rig.store.rows()} == {
        first.row: Begun.YES,
        second.row: Begun.NO,
    }
    rig.suspects.clear(first, 1000)
    rig.write()
    assert rig.begun == [[1], [2]]


def test_what_is_struck_and_was_announced_begins_when_the_strike_is_on_disk(rig: Rig) -> None:
    kept = rig.add(1, once=True)
    rig.add(2, id="a")
    rig.write()
    for number in (1, 3):
        rig.group.strike(kept if number == 1 else rig.add(3, once=True))
        rig.starts.struck(number)
        del rig.kept[number]
    rig.commits.soon()
    rig.announce(1)
    rig.announce(2, 3)  # on disk already
    assert rig.begun == []
    rig.write()
    assert rig.begun == [[], [2]]


def test_what_was_struck_and_has_ended_holds_nobody_up(rig: Rig) -> None:
    rig.group.strike(rig.add(1, once=True))
    rig.starts.struck(1)
    del rig.kept[1]
    rig.starts.ended([1, 2])
    rig.announce(1)
    assert rig.begun == [[]]


def test_nothing_begins_that_will_not_be_on_record(rig: Rig) -> None:
    rig.add(1, once=True)
    rig.group.strike(rig.add(2, once=True))
    rig.starts.struck(2)
    del rig.kept[2]
    rig.announce(1)
    rig.announce(2)
    rig.store.fails = GONE
    rig.write()
    assert rig.failures
    assert rig.begun == []
