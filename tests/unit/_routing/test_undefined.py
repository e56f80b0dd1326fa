"""Tasks that wait for their functions."""

from __future__ import annotations

from typing import Any

import pytest
import reminders

from aioscheduler import registry
from aioscheduler._durable.group import Group, Kept
from aioscheduler._durable.records import Function, Row
from aioscheduler._routing.functions import Functions
from aioscheduler._routing.undefined import MAIN_PATIENCE, Undefined
from aioscheduler._routing.whereabouts import Whereabouts
from aioscheduler._scheduling.clock import SECOND

NOW = 10**18
LATER = Function(1, "test.later", "__main__:later", once=False)
OTHER = Function(2, "test.other", "__main__:other", once=False)


class Waiting:
    def __init__(self, *functions: Function) -> None:
        self.group = Group(100)
        self.where = Whereabouts(1)
        table = Functions(self.group)
        table.read(functions or (LATER, OTHER))
        self.admitted: list[tuple[int, int]] = []  # rows, and their due times
        self.given_up: list[int] = []
        self.undefined = Undefined(table, self.group, self.where, NOW, self.admit, self.give_up)

    def admit(self, row: Row, kept: Kept, function: registry.Durable) -> None:
        assert kept.row == row.row
        self.admitted.append((row.row, row.due))

    def give_up(self, row: Row, kept: Kept, function: Function) -> None:
        assert kept.row == row.row
        assert function in (LATER, OTHER)
        self.given_up.append(row.row)

    def add(self, row: int, due: int = NOW, function: Function = LATER, **more: Any) -> Kept:
        made = Row(row, due, function.number, b"", **more)
        kept = Kept.of(made)
        self.undefined.add(made, kept, function)
        return kept


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def define(monkeypatch: pytest.MonkeyPatch, function: Function) -> None:
    note = registry.of_function(reminders.note)
    assert note is not None
    monkeypatch.setitem(registry._names, function.name, note)


def test_what_is_defined_in_time_is_admitted_in_order(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in (3, 4, 5):
        waiting.add(row, NOW + row)
    waiting.add(6, function=OTHER)
    assert len(waiting.undefined) == 4
    assert waiting.where.horizon.ahead == {3, 4, 5, 6}  # in memory, whenever they are due
    assert not waiting.undefined.resolve(NOW)
    define(monkeypatch, LATER)
    assert waiting.undefined.resolve(NOW)
    assert waiting.admitted == [(3, NOW + 3), (4, NOW + 4), (5, NOW + 5)]
    assert 6 in waiting.undefined
    assert 5 not in waiting.undefined
    assert waiting.where.horizon.ahead == {6}
    assert not waiting.undefined.resolve(NOW)


def test_what_is_due_is_given_up_after_a_minute(waiting: Waiting) -> None:
    waiting.add(1, NOW - 1)
    waiting.add(2, NOW + MAIN_PATIENCE + 1)
    assert not waiting.undefined.resolve(NOW + MAIN_PATIENCE - 1)
    assert waiting.undefined.resolve(NOW + MAIN_PATIENCE)
    assert waiting.given_up == [1]
    assert waiting.undefined.resolve(NOW + MAIN_PATIENCE + 1)
    assert waiting.given_up == [1, 2]
    assert len(waiting.undefined) == 0


def test_an_id_is_freed_when_it_is_needed(waiting: Waiting) -> None:
    for row in (1, 2):
        waiting.add(row, id=f"n{row}")
    waiting.undefined.claim("n2")
    waiting.undefined.claim("n2")
    waiting.undefined.claim("other")
    assert waiting.given_up == [2]
    assert 1 in waiting.undefined
    waiting.undefined.take(1)
    waiting.undefined.claim("n1")
    assert waiting.given_up == [2]


def test_what_was_taken_is_passed_over(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [waiting.add(row) for row in range(3)]
    row, own, function = waiting.undefined.take(1)
    assert (row.row, own, function) == (1, kept[1], LATER)
    define(monkeypatch, LATER)
    waiting.undefined.resolve(NOW)
    assert [row for row, _ in waiting.admitted] == [0, 2]


def test_what_is_moved_waits_for_its_new_time(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = waiting.add(1, NOW, given=5)
    before = waiting.undefined.move(1, NOW + 2 * MAIN_PATIENCE)
    assert (before.due, before.given) == (NOW, 5)
    assert (kept.due, kept.given) == (NOW + 2 * MAIN_PATIENCE, None)
    taken = waiting.group.take()
    assert taken is not None
    assert [(each.row, each.due) for each in taken[0].updates] == [(1, kept.due)]
    assert not waiting.undefined.resolve(NOW + MAIN_PATIENCE)
    define(monkeypatch, LATER)
    waiting.undefined.resolve(NOW + MAIN_PATIENCE)
    assert waiting.admitted == [(1, kept.due)]


def test_which_tasks_leave_suspects(waiting: Waiting) -> None:
    waiting.add(1)
    waiting.add(2, losses=1).suspect = True  # its row shows that
    assert not waiting.undefined.leaves_suspects
    waiting.add(3).suspect = True
    assert waiting.undefined.leaves_suspects
    waiting.undefined.take(3)
    assert not waiting.undefined.leaves_suspects


def test_a_task_that_comes_into_memory_later_is_listed_all_the_same(
    waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    waiting.undefined.resolve(NOW + SECOND)
    waiting.add(1, NOW + 3 * SECOND)
    waiting.add(2, NOW + 3 * SECOND, OTHER)
    waiting.undefined.take(2)
    for _ in range(2):
        waiting.undefined.resolve(NOW + 2 * SECOND)
    (message,) = caplog.messages
    assert "has not defined: 'test.later' (1). They are" in message
