from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from homes import Home

from aioscheduler._routing.listeners import FORGET_AT, Listeners
from aioscheduler._transport.ledger import PAGE
from aioscheduler.outcomes import Outcomes, Part
from aioscheduler.task import State


@pytest.fixture
def listeners() -> Listeners:
    return Listeners(Home())


def add_batch(listeners: Listeners, first: int, count: int) -> Outcomes:
    outcomes = Outcomes(count)
    listeners.add(Part(outcomes, 0, Home(), 0, first, count, 0))
    return outcomes


def decode(value: Any) -> Any:
    return value * 10


def test_a_handle_hears_of_its_end_and_is_forgotten(listeners: Listeners) -> None:
    task = listeners.hand_out(0, 5, 0, "")
    assert listeners.find(5) is task
    assert listeners.settle(5, State.FINISHED, 1, decode)
    assert task.result() == 10
    assert listeners.find(5) is None
    assert not listeners.settle(5, State.FINISHED, 1, decode)


def test_a_dropped_handle_is_not_kept(listeners: Listeners) -> None:
    listeners.hand_out(0, 5, 0, "")
    gc.collect()
    assert listeners.find(5) is None
    listeners.forget_dropped()
    assert not listeners._handles
    assert not listeners.settle(5, State.FAILED, 1, decode)


def test_a_handle_that_another_thread_drops_changes_nothing_there(listeners: Listeners) -> None:
    tasks = [listeners.hand_out(0, number, 0, "") for number in range(FORGET_AT + 1)]
    thread = threading.Thread(target=tasks.clear)
    thread.start()
    thread.join()
    assert len(listeners._handles) == FORGET_AT + 1
    kept = listeners.hand_out(0, FORGET_AT + 1, 0, "")
    assert list(listeners._handles) == [FORGET_AT + 1]
    assert listeners.find(FORGET_AT + 1) is kept


def test_a_handle_with_callbacks_is_kept_until_the_end(listeners: Listeners) -> None:
    listeners.hold(listeners.hand_out(0, 5, 0, ""))
    gc.collect()
    assert listeners.find(5) is not None
    assert listeners.settle(5, State.FINISHED, 1, decode)
    gc.collect()
    assert not listeners._held


def test_a_handle_that_comes_in_the_place_of_a_dying_one_is_kept(listeners: Listeners) -> None:
    """Weak references are cleared before their callbacks run: one of ours may be late."""
    task = listeners.hand_out(0, 5, 0, "")
    found: list[Any] = []
    reference = weakref.ref(task, lambda _: found.append(listeners.hand_out(0, 5, 0, "")))
    del task
    assert not reference()
    listeners.forget_dropped()
    assert found == [listeners.find(5)]
    assert listeners.settle(5, State.FINISHED, 1, decode)
    assert found[0].result() == 10


def test_a_batch_hears_of_its_tasks_and_is_forgotten_after_the_last(listeners: Listeners) -> None:
    assert not listeners.has_batches
    outcomes = add_batch(listeners, PAGE + 3, 3)
    assert listeners.has_batches
    assert not listeners.settle(PAGE + 2, State.FINISHED, 1, decode)  # it has no listener
    for number in (PAGE + 4, PAGE + 3, PAGE + 5):
        assert listeners.settle(number, State.FINISHED, number, decode)
    ends = [((PAGE + 3 + n) * 10, False) for n in range(3)]
    assert [outcomes.read(index) for index in range(3)] == ends
    assert not listeners.has_batches


def test_a_row_is_settled_whole_or_not_at_all(listeners: Listeners) -> None:
    outcomes = add_batch(listeners, 10, 4)
    assert not listeners.settle_row(8, [0, 0, 0], State.FINISHED, decode)  # some have no listener
    assert not listeners.settle_row(12, [0, 0, 0], State.FINISHED, decode)
    task = listeners.find(11)
    assert task is not None
    assert not listeners.settle_row(10, [1, 2], State.FINISHED, decode)  # one of them has a handle
    assert outcomes.left == 4
    assert listeners.settle(11, State.FINISHED, 2, decode)
    assert task.result() == 20
    assert listeners.settle_row(12, [3, 4], State.FINISHED, decode)
    listeners.hold(listeners.hand_out(0, 99, 0, ""))
    assert not listeners.settle_row(10, [1], State.FINISHED, decode)
    assert listeners.settle(10, State.FINISHED, 1, decode)
    ends = [(value, False) for value in (10, 20, 30, 40)]
    assert [outcomes.read(index) for index in range(4)] == ends
    assert not listeners.has_batches


def test_all_that_is_left_ends_alike(listeners: Listeners) -> None:
    outcomes = add_batch(listeners, 10, 4)
    held = listeners.hand_out(0, 20, 0, "")
    listeners.settle_alike(range(10, 13), State.CANCELLED, None)
    assert outcomes.left == 1
    assert outcomes.first_bad == 0
    listeners.settle_alike(range(13, 21), State.CANCELLED, None)  # batch, none, handle
    assert outcomes.states == [State.CANCELLED] * 4
    assert held.cancelled()
    assert not listeners.has_batches


# ---- tasks from elsewhere


def test_a_handle_is_taken_and_put_elsewhere(listeners: Listeners) -> None:
    task, other = listeners.hand_out(0, 5, 0, ""), Listeners(Home())
    task._callbacks = []
    listeners.hold(task)
    assert listeners.take(5) is task
    assert listeners.take(5) is None
    assert not listeners._held
    assert listeners.numbers() == []
    other.put(task, 3, 50)
    assert (task._home, task._scheduler, task._number) == (other._home, 3, 50)
    assert other.find(50) is task
    assert other.settle(50, State.FINISHED, 1, decode)
    assert task.result() == 10


def test_one_that_somebody_waits_for_is_kept_there_too(listeners: Listeners) -> None:
    task, other = listeners.hand_out(0, 5, 0, ""), Listeners(Home())
    task.add_done_callback(print)
    assert listeners.take(5) is task
    other.put(task, 0, 50)
    assert other._held == {task}


def test_a_single_task_of_a_batch_is_notified_and_forgotten(listeners: Listeners) -> None:
    outcomes = Outcomes(2)
    part = Part(outcomes, 0, Home(), 0, 70, 2, 0)
    for number in (70, 71):
        listeners.add_single(part.move(number, Home(), 0, number - 65))
    assert listeners.has_batches
    assert (5 in listeners, 6 in listeners, 7 in listeners) == (True, True, False)
    assert listeners.settle(5, State.FINISHED, 1, decode)
    assert 5 not in listeners
    assert listeners.settle_row(6, [2], State.FINISHED, decode)
    assert not listeners.has_batches
    assert outcomes.values == [1, 2]
    assert outcomes.left == 0


def test_a_batch_and_a_single_one_stand_side_by_side(listeners: Listeners) -> None:
    outcomes = add_batch(listeners, 5, 2)
    alone = Outcomes(1)
    listeners.add_single(Part(alone, 0, Home(), 0, 70, 1, 0).move(70, Home(), 0, 7))
    assert not listeners.settle_row(5, [1, 2, 3], State.FINISHED, decode)  # of two batches
    listeners.settle_alike([5, 6, 7], State.LOST, OSError())
    assert outcomes.states == [State.LOST] * 2
    assert alone.states == [State.LOST]
    assert not listeners.has_batches
