"""Counts of the tasks that are only in the file."""

from __future__ import annotations

from aioscheduler._routing.shelftally import ShelfTally
from aioscheduler.task import State


def test_the_counter_of_all_tasks_is_notified_of_each_change() -> None:
    tally, told = ShelfTally(), list[int]()
    tally.add(3)  # nobody listens yet
    tally.told = told.append
    tally.add(5)
    tally.take(2)
    tally.add(-1)
    assert told == [5, -2, -1]
    assert tally.count == 5


def test_the_figures_are_of_those_that_wait_and_those_that_have_ended() -> None:
    tally = ShelfTally()
    assert not tally.figures()
    tally.add(4)
    tally.ended["cancelled"] += 1
    assert tally.figures() == {"pending": 4, "cancelled": 1}
    assert tally.ended == {"cancelled": 1}  # figures() returned a copy


def test_at_a_close_all_stay_but_those_that_are_not_in_the_file() -> None:
    tally, told = ShelfTally(), list[int]()
    tally.told = told.append
    tally.add(10)
    tally.ended["cancelled"] += 1
    tally.close(2, State.CANCELLED)
    assert tally.figures() == {"cancelled": 3, "kept": 8}
    assert told == [10, -10]
    tally.close(0, State.LOST)
    assert tally.figures() == {"cancelled": 3, "kept": 8}
