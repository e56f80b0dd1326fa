"""Changes of a book, and the aliases of its tasks."""

from __future__ import annotations

from aioscheduler._routing.changes import Aliases, Change, by_scheduler, first_refused
from aioscheduler._transport.ledger import Ledger
from aioscheduler.task import State


def test_a_change_has_ended_nothing_unless_it_says_so() -> None:
    assert Change(3) == (3, 0, (), State.CANCELLED, None)


def test_a_task_is_known_by_its_alias_until_that_is_forgotten() -> None:
    aliases = Aliases()
    aliases.forget([1, 2])  # they have no aliases
    aliases.add(1 << 48, 7)
    assert (aliases.number_of(1 << 48), aliases.alias_of(7)) == (7, 1 << 48)
    assert (aliases.number_of(9), aliases.alias_of(9)) == (9, 9)
    aliases.forget([9, 7])
    assert (aliases.number_of(1 << 48), aliases.alias_of(7)) == (1 << 48, 7)


def test_the_first_that_could_not_be_taken_is_named() -> None:
    assert first_refused([4, 5, 6], 1) == 5
    assert first_refused([4, 5, 6], 3) is None


def test_tasks_that_have_ended_are_of_no_scheduler() -> None:
    ledger = Ledger(2)
    ledger.record(0, 3, [1, 0, 1], b"")
    ledger.move([2], State.CANCELLED)
    assert by_scheduler(ledger, [0, 1, 2, 9]) == {1: [0], 0: [1]}
