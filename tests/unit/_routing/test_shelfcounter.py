"""Counts of the tasks that are only in the file."""

from __future__ import annotations

from aioscheduler._routing.shelfcounter import ShelfCounter
from aioscheduler.task import State


def test_the_counter_of_all_tasks_is_notified_of_each_change() -> None:
    counter, told = ShelfCounter(), list[int]()
    counter.add(3)  # nobody listens yet
    counter.changed = told.append
    counter.add(5)
    counter.take(2)
    counter.add(-1)
    assert told == [5, -2, -1]
    assert counter.count == 5


def test_the_figures_are_of_those_that_wait_and_those_that_have_ended() -> None:
    counter = ShelfCounter()
    assert not counter.figures()
    counter.add(4)
    counter.ended["cancelled"] += 1
    assert counter.figures() == {"pending": 4, "cancelled": 1}
    assert counter.ended == {"cancelled": 1}  # figures() returned a copy


def test_at_a_close_all_stay_but_those_that_are_not_in_the_file() -> None:
    counter, told = ShelfCounter(), list[int]()
    counter.changed = told.append
    counter.add(10)
    counter.ended["cancelled"] += 1
    counter.close(2, State.CANCELLED)
    assert counter.figures() == {"cancelled": 3, "kept": 8}
    assert told == [10, -10]
    counter.close(0, State.LOST)
    assert counter.figures() == {"cancelled": 3, "kept": 8}
