"""The tasks that are only in the file, and requests to them."""

from __future__ import annotations

import gc
from datetime import timedelta
from typing import Any

import pytest
from shelves import HOUR, NOW, PLACE, Rig, row_of
from stores import FULL

from aioscheduler import UnknownTask
from aioscheduler._durable.records import Reason, Row, Unwritable
from aioscheduler._scheduling.clock import to_datetime
from aioscheduler._transport import wire
from aioscheduler.errors import ManagerClosed, RemoteError
from aioscheduler.inspection import Wanted
from aioscheduler.task import State

FAR, FARTHER = NOW + 9 * HOUR, NOW + 20 * HOUR
DAY = timedelta(days=1)


@pytest.fixture
async def rig(no_tasks_left: None) -> Rig:
    return Rig()


def values(rig: Rig) -> list[Any]:
    return [wire.unpack(row.payload)[0] for row in rig.store.rows()]


# ---- new tasks


async def test_what_is_scheduled_is_in_the_file_and_nowhere_else(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.schedule(FARTHER, value="new")
    assert (task.name, task.due, task.state) == (PLACE, to_datetime(FARTHER), State.PENDING)
    assert rig.admitted.shelved == 2
    await rig.turn()
    assert values(rig) == [1, "new"]
    assert rig.dues()[task._number] == FARTHER
    assert rig.admitted.rows == {}
    assert rig.shelf.counter.figures() == {"pending": 2}


async def test_a_tasks_successor_is_found_by_its_alias(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FAR))
    rig.shelf.adopt(FARTHER, rig.draft("new"), 1 << 40, False, False)
    (row,) = rig.shelf.held.aliases.values()
    await rig.turn()
    assert rig.dues()[row] == FARTHER
    assert rig.shelf.cancel(0, row)
    await rig.turn()
    assert rig.shelf.held.aliases == {}


async def test_a_whole_batch_is_scheduled_and_notified_of_its_ends(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    batch = rig.map([FAR, FARTHER, FAR], "a", "b", "c")
    assert rig.admitted.shelved == 4
    await rig.turn()
    assert values(rig) == [1, "a", "c", "b"]
    assert batch[1].due == to_datetime(FARTHER)
    assert batch[1].cancel()
    await rig.turn()
    assert values(rig) == [1, "a", "c"]
    assert batch._outcomes.states == [None, State.CANCELLED, None]
    assert batch.cancel()
    await rig.turn()
    assert batch.done()
    assert values(rig) == [1]
    assert rig.shelf.counter.figures() == {"pending": 1, "cancelled": 3}
    assert not batch.cancel()


async def test_only_tasks_with_listeners_or_requests_are_returned(rig: Rig) -> None:
    rig.start(*(row_of(row, FAR) for row in range(1, 5)))
    assert list(rig.shelf.held_among(range(9))) == []
    handle = rig.shelf.held.hand_out(2)
    rig.shelf.held.lead(1 << 40, 3)
    batch = rig.map([FAR, FAR], "a", "b")
    first = batch._outcomes.parts[0].first
    assert set(rig.shelf.held_among([1, 2, 3, first, first + 1])) == {2, 3, first, first + 1}
    rig.shelf.cancel(0, 4)
    assert 4 in rig.shelf.held_among(range(9))
    with rig.shelf.listing(Wanted()):
        assert set(rig.shelf.held_among([1, 2])) == {1, 2}  # a listing is notified of all
    del handle
    await rig.turn()


@pytest.mark.parametrize("dropped", [True, False])
async def test_a_task_of_a_batch_that_was_moved_to_another_bucket_can_be_cancelled(
    rig: Rig, dropped: bool
) -> None:
    """What is kept of it is one object for all, and its holders are notified of its end."""
    rig.start(row_of(1, FAR))
    batch = rig.map([FAR, FAR], "a", "b")
    await rig.turn()
    task = batch[0]
    if dropped:
        del batch
        gc.collect()
    assert task.reschedule(timedelta(hours=20))
    await rig.turn()
    assert rig.dues()[task._number] > FAR
    gc.collect()
    assert task.cancel()
    await rig.turn()
    assert values(rig) == [1, "b"]
    assert task.cancelled()


async def test_a_handle_from_a_dropped_batch_is_notified(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.map([FAR, FAR], "a", "b")[0]
    await rig.turn()
    assert task.reschedule(timedelta(hours=9))
    await rig.turn()
    gc.collect()
    rig.shelf.settle(task._number, State.CANCELLED, None)
    assert task.cancelled()


async def test_a_batch_that_is_not_written_yet_can_be_cancelled(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    batch = rig.map(FAR, "a", "b")
    assert batch.cancel()
    assert batch.done()
    await rig.turn()
    assert values(rig) == [1]


# ---- ids


async def test_the_task_of_an_id_is_found_in_the_file(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    found = rig.loop.create_task(rig.shelf.find_id("a"))
    none = rig.loop.create_task(rig.shelf.find_id("b"))
    await rig.turn()
    task = await found
    assert task is not None
    assert (task._number, task.id, task.name, task.due) == (1, "a", PLACE, to_datetime(FAR))
    assert await none is None
    again = rig.loop.create_task(rig.shelf.find_id("a"))
    await rig.turn()
    assert await again is task


async def test_a_task_that_comes_into_memory_meanwhile_is_not_found_here(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    found = rig.loop.create_task(rig.shelf.find_id("a"))
    await rig.turn(1)
    rig.come(FAR)
    await rig.turn()
    assert await found is None


async def test_a_task_that_was_asked_to_end_is_not_found(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    task = rig.handle(1)
    await rig.turn()
    task.cancel()
    assert rig.known("a") is None
    found = rig.loop.create_task(rig.shelf.find_id("a"))
    await rig.turn()
    assert await found is None


# ---- cancellation


async def test_what_is_not_written_yet_is_cancelled_at_once_and_never_written(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FAR))
    task = rig.schedule(FARTHER)
    assert task.cancel()
    assert task.cancelled()
    await rig.turn()
    assert list(rig.file()) == [1]
    assert rig.shelf.counter.figures() == {"pending": 1, "cancelled": 1}


async def test_what_is_in_the_file_is_cancelled_at_once_if_a_handle_knows_it(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FAR), row_of(2, FARTHER))
    task = rig.handle(2)
    await rig.turn()
    assert task.cancel()
    assert task.cancelled()
    assert not task.cancel()
    assert not task.reschedule(DAY)
    await rig.turn()
    assert list(rig.file()) == [1]
    assert rig.shelf.counter.figures() == {"pending": 1, "cancelled": 1}


async def test_what_is_in_the_file_is_cancelled_when_that_has_answered(rig: Rig) -> None:
    rig.start(row_of(1, FAR), row_of(2, FARTHER))
    task = rig.handle(2)
    assert task.cancel()
    assert task.cancel()
    assert not task.reschedule(DAY)
    assert not task.done()
    await rig.turn()
    assert task.cancelled()
    assert list(rig.file()) == [1]
    assert rig.shelf.counter.figures() == {"pending": 1, "cancelled": 1}
    assert rig.shelf.requests == {}


async def test_what_has_just_been_written_can_be_cancelled(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.schedule(FARTHER)
    await rig.turn()
    assert task.cancel()
    await rig.turn()
    assert task.cancelled()
    assert list(rig.file()) == [1]


async def test_nothing_is_asked_of_a_task_that_certainly_is_not_there(rig: Rig) -> None:
    rig.start()
    assert not rig.shelf.cancel(0, 99)
    assert not rig.shelf.reschedule(0, 99, FAR)


async def test_an_unreadable_file_does_not_mean_that_a_task_is_missing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aioscheduler._routing.lookups.RETRY", 0)
    rig.start(row_of(1, FAR), row_of(2, FAR))
    task = rig.handle(1)
    assert task.reschedule(DAY)
    assert rig.shelf.cancel(0, 2)

    def refuse(ids: Any, rows: Any) -> Any:
        raise FULL

    rig.store.find = refuse  # type: ignore[method-assign]
    await rig.turn(12)
    assert task.state is State.LOST
    assert task.exception() is FULL
    assert caplog.messages == [f"{FULL}; the request to its task 2 is not carried out"]
    assert (rig.shelf.requests, rig.shelf.counter.figures()) == ({}, {"pending": 2})


async def test_a_task_that_is_not_there_is_cancelled_and_rescheduled_in_vain(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FAR))
    task = rig.handle(99)
    assert rig.shelf.cancel(0, 98)
    assert task.reschedule(DAY)
    await rig.turn()
    with pytest.raises(UnknownTask):
        await task
    assert rig.dues() == {1: FAR}


# ---- rescheduling


async def test_a_task_of_the_file_is_moved_when_that_has_answered(rig: Rig) -> None:
    rig.start(row_of(1, FAR), row_of(2, FARTHER))
    task = rig.handle(1)
    assert rig.shelf.reschedule(0, 1, FARTHER + 1)
    assert rig.shelf.reschedule(0, 1, FARTHER + HOUR)  # the last request counts
    await rig.turn()
    assert rig.dues() == {1: FARTHER + HOUR, 2: FARTHER}
    assert task.due == to_datetime(FARTHER + HOUR)
    assert rig.shelf.requests == {}
    assert rig.shelf.counter.count == 2
    rig.come(FARTHER)
    assert list(rig.admitted.rows[0]) == list(row_of(2, FARTHER))
    rig.come(FARTHER + HOUR)
    assert rig.admitted.rows[1] == row_of(1, FARTHER + HOUR)


async def test_a_task_that_is_not_there_counts_in_no_figure(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.handle(99)
    await rig.turn()
    assert task.state is State.LOST
    assert rig.shelf.counter.figures() == {"pending": 1}


async def test_what_is_not_written_yet_is_moved_at_once(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.schedule(FARTHER)
    assert task.reschedule(DAY)
    due = task.due
    await rig.turn()
    assert to_datetime(rig.dues()[task._number]) == due
    assert task.due == due
    assert rig.shelf.counter.count == 2


async def test_what_was_moved_and_is_not_written_yet_can_be_moved_again(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.handle(1)
    await rig.turn()
    rig.shelf.reschedule(0, 1, FAR + HOUR)
    await rig.turn(1)
    rig.shelf.reschedule(0, 1, FAR + 2 * HOUR)
    rig.shelf.reschedule(0, 1, FAR + 3 * HOUR)
    await rig.turn()
    assert rig.dues() == {1: FAR + 3 * HOUR}
    assert task.due == to_datetime(FAR + 3 * HOUR)


async def test_the_last_of_several_requests_counts_whatever_it_is(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.handle(1)
    await rig.turn()
    assert task.reschedule(DAY)
    assert task.cancel()
    await rig.turn()
    assert task.cancelled()
    assert rig.file() == {}


async def test_a_reschedule_replaces_the_time_of_the_next_attempt(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FAR)._replace(given=NOW - 5, attempt=3))
    rig.shelf.reschedule(0, 1, FARTHER)
    await rig.turn()
    row = rig.file()[1]
    assert (row.due, row.given, row.attempt) == (FARTHER, None, 3)


async def test_a_task_moved_within_the_horizon_comes_into_memory(rig: Rig) -> None:
    rig.start(row_of(1, FAR), row_of(2, FARTHER))
    rig.come(FAR - 1)
    task = rig.handle(2)
    await rig.turn()
    rig.shelf.reschedule(0, 2, NOW + 5)
    await rig.turn()
    link, number = rig.admitted.links[0], 0
    assert rig.admitted.rows[number].due == NOW + 5
    assert (task._home, task._number) == (link, number)
    assert rig.dues() == {1: FAR, 2: NOW + 5}
    assert rig.shelf.counter.count == rig.admitted.shelved == 1
    rig.come(FARTHER)
    assert [row.row for row in rig.admitted.rows.values()] == [2, 1]  # each once


async def test_a_new_task_moved_within_the_horizon_comes_once(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.schedule(FARTHER)
    rig.come(FAR)
    assert rig.shelf.reschedule(0, task._number, NOW + 5)
    rig.come(FARTHER)
    assert [row.due for row in rig.admitted.rows.values()] == [FAR, NOW + 5]
    await rig.turn()


async def test_what_may_have_ended_the_last_host_is_in_memory_wherever_it_is_moved(
    rig: Rig,
) -> None:
    """The file would not show that."""
    rig.start(row_of(1, FAR), row_of(2, FAR))
    rig.restored.doubted.add(1)
    for number in (1, 2):
        rig.shelf.reschedule(0, number, FARTHER)
    await rig.turn()
    assert rig.restored.told == [(row_of(1, FARTHER), True)]
    rig.come(FARTHER)
    assert [row.row for row, _ in rig.restored.told] == [1, 2]
    assert rig.dues() == {1: FARTHER, 2: FARTHER}


async def test_requests_to_a_task_waiting_for_its_function_go_there(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    rig.restored.waiting.update((7, 8))
    assert rig.shelf.cancel(0, 7)
    assert rig.shelf.reschedule(0, 8, FARTHER)
    assert (rig.restored.withdrawn, rig.restored.moved) == ([7], [(8, FARTHER)])
    rig.restored.waiting.clear()
    assert rig.shelf.cancel(0, 7)
    assert rig.shelf.reschedule(0, 8, FARTHER + 1)
    rig.restored.waiting.update((7, 8))  # they wait for their functions by now
    await rig.turn()
    assert rig.restored.withdrawn == [7, 7]
    assert rig.restored.moved == [(8, FARTHER), (8, FARTHER + 1)]


# ---- taking an id


async def test_a_task_of_the_file_loses_its_id_to_a_new_one(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    old = rig.handle(1)
    await rig.turn()
    new = rig.schedule(FARTHER, "a", replace=True, value="new")
    assert old.id is None
    assert rig.known("a") == (-1, 0, new._number)
    await rig.turn()
    assert old.cancelled()
    assert (new.state, new.id) == (State.PENDING, "a")
    assert [(row.row, row.id) for row in rig.store.rows()] == [(new._number, "a")]


async def test_an_id_is_free_in_the_file_before_a_new_task_has_it_there(rig: Rig) -> None:
    """Even if the changes between them exceed one batch."""
    rig.start(row_of(1, FAR, "a"))
    old = rig.handle(1)
    await rig.turn()
    new = rig.schedule(FARTHER, "a", replace=True, value="new")
    for _ in range(3):
        rig.schedule(FARTHER, value=b"x" * (5 << 20))
    await rig.turn(12)
    assert old.cancelled()
    assert not rig.commits.refused
    assert len(rig.file()) == 4
    assert rig.file()[new._number].id == "a"


async def test_a_task_that_is_not_written_yet_loses_its_id_to_a_new_one(rig: Rig) -> None:
    rig.start()
    old = rig.schedule(FAR, "a")
    new = rig.schedule(FARTHER, "a", replace=True)
    assert (old.state, old.id) == (State.CANCELLED, None)
    await rig.turn()
    assert list(rig.file()) == [new._number]
    assert rig.schedule(FAR, "a") is new
    await rig.turn()
    assert list(rig.file()) == [new._number]


# ---- the horizon advances


async def test_listeners_move_to_the_link_when_a_task_comes_into_memory(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FAR))
    task, batch = rig.handle(1), rig.map(FAR, "a", "b")
    await rig.turn()
    rig.come(FAR)
    homes = [each._home for each in (task, batch[0], batch[1])]
    first, second = rig.admitted.links
    assert homes == [first, second, first]
    assert rig.shelf.counter.count == rig.admitted.shelved == 0
    first.end(0, State.FINISHED, 5)
    assert task.result() == 5


async def test_an_alias_leads_to_the_link_once_its_task_comes_into_memory(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    rig.shelf.adopt(FAR, rig.draft(), 1 << 40, False, False)
    await rig.turn()
    rig.come(FAR)
    assert rig.admitted.leads == {1 << 40: (1, 0, 1)}
    assert rig.shelf.held.aliases == {}


async def test_what_was_asked_of_a_task_is_asked_of_its_link_if_it_comes_first(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FAR), row_of(2, FAR), row_of(3, FAR))
    rig.shelf.cancel(0, 1)
    rig.shelf.reschedule(0, 2, FARTHER)
    rig.come(FAR)
    first, second = rig.admitted.links
    assert (first.cancelled, second.moved) == ([0], [(1, FARTHER)])
    await rig.turn()
    assert (first.cancelled, second.moved) == ([0], [(1, FARTHER)])
    assert rig.shelf.requests == {}
    assert len(rig.file()) == 3  # the rest is up to the link


async def test_an_end_on_the_way_into_memory_is_reported(rig: Rig) -> None:
    rig.start(*(row_of(number, FAR) for number in (1, 2)))
    buried, withdrawn = rig.handle(1), rig.handle(2)
    assert buried.reschedule(DAY)
    rig.shelf.buried(1, Reason.UNKNOWN, "Traceback:\n  more\nLookupError: no function\n")
    rig.shelf.withdrawn(2)
    assert rig.shelf.requests == {}
    error = buried.exception()
    assert isinstance(error, RemoteError)
    assert str(error).startswith("unknown: LookupError: no function\n")
    assert buried.state is State.FAILED
    assert withdrawn.cancelled()
    figures = rig.shelf.counter.figures()
    assert (figures["failed"], figures["cancelled"]) == (1, 1)
    rig.restored.waiting.update((1, 2))  # nothing looks for them any more
    await rig.turn()


async def test_the_count_is_corrected_when_nothing_is_behind_the_horizon(rig: Rig) -> None:
    """Unreadable tasks of the file are not counted for ever."""
    rig.start(row_of(1, FAR))
    rig.shelf.counter.add(7)
    rig.come(FARTHER)
    rig.schedule(FARTHER + HOUR)
    rig.shelf.recount()
    assert rig.shelf.counter.count == rig.admitted.shelved == 1
    await rig.turn()


# ---- listings


async def test_a_list_has_what_is_written_and_what_is_not(rig: Rig) -> None:
    rig.start(row_of(1, FAR), row_of(2, FARTHER))
    new, claim = rig.schedule(FAR), rig.schedule(FAR, "a")
    assert sorted(await rig.list()) == [1, 2, new._number, claim._number]
    assert await rig.list(id_prefix="a") == [claim._number]


async def test_a_list_hears_of_what_waits_for_its_function_and_is_moved(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    rig.restored.waiting.add(7)
    with rig.shelf.listing(Wanted()) as listing:
        went: list[tuple[Row, Row | None]] = []
        told: Any = listing
        told.goes = lambda row, moved=None: went.append((row, moved))
        rig.shelf.reschedule(0, 7, FARTHER)
    assert went == [(row_of(7), row_of(7, FARTHER))]


async def test_a_list_hears_of_what_goes_as_long_as_somebody_reads_it(rig: Rig) -> None:
    rig.start(*(row_of(number, FAR) for number in range(1, 4)))
    with rig.shelf.listing(Wanted()) as first, rig.shelf.listing(Wanted()) as second:
        listings: list[Any] = [first, second]
        went: list[list[tuple[Row, Row | None]]] = [[], []]
        for each, some in zip(listings, went, strict=True):
            each.goes = lambda row, moved=None, some=some: some.append((row, moved))
        rig.shelf.reschedule(0, 1, FARTHER)
        rig.shelf.reschedule(0, 2, NOW)
        await rig.turn()
        rig.come(FAR)
    assert went[0] == went[1]
    assert went[0][:2] == [(row_of(1, FAR), row_of(1, FARTHER)), (row_of(2, FAR), None)]
    assert [row.row for row, _ in went[0][2:]] == [2, 3]
    rig.come(FARTHER)
    assert len(went[0]) == 4


# ---- its end


async def test_at_a_close_what_is_in_the_file_stays(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    tasks = [rig.handle(1), rig.schedule(FAR)]
    batch = rig.map(FAR, "a")
    await rig.turn()
    assert rig.shelf.close(None) == 0
    assert [task.state for task in (*tasks, batch[0])] == [State.KEPT] * 3
    with pytest.raises(ManagerClosed):
        await tasks[1]
    assert rig.shelf.counter.figures() == {"kept": 3}
    assert rig.admitted.shelved == 0


@pytest.mark.parametrize("is_read", [False, True])
async def test_a_task_refused_by_the_file_is_lost_at_once_and_not_counted(
    rig: Rig, is_read: bool
) -> None:
    rig.start()
    tasks = [rig.schedule(FAR) for _ in range(2)]
    batch = rig.map(FAR, "a", "b")
    rig.schedule(FAR)  # without a handle
    first = tasks[0]._number
    rig.store.refused = {first, first + 2, first + 4}
    horizon = rig.where.horizon
    begun = horizon.begin() if is_read else None
    await rig.turn()
    if begun is not None:
        assert horizon.find(first) is not None
        horizon.end(begun)
    assert horizon.find(first) is None
    assert (tasks[0].state, batch[0].state) == (State.LOST, State.LOST)
    with pytest.raises(Unwritable):
        await tasks[0]
    assert rig.admitted.shelved == 2
    assert list(rig.file()) == [first + 1, first + 3]
    rig.come(FAR)
    assert rig.admitted.shelved == 0
    assert [row.row for row in rig.admitted.rows.values()] == [first + 1, first + 3]
    assert rig.shelf.close(None) == 0
    assert rig.shelf.counter.figures() == {"lost": 3}


@pytest.mark.parametrize("reason", [None, FULL])
async def test_at_a_close_what_never_came_into_the_file_does_not_stay(
    rig: Rig, reason: Exception | None
) -> None:
    rig.start(row_of(1, FAR))
    read, claim = rig.handle(1), rig.schedule(FAR, "a")
    rig.schedule(FAR, "b")  # without a handle
    lost = rig.schedule(FAR)
    rig.schedule(FAR)
    batch = rig.map([FAR, FAR + HOUR], "a", "b")
    rig.map(FAR, "c")
    rig.commits.stop(FULL)
    rig.lookups.stop()
    await rig.turn()
    rig.shelf.reschedule(0, 1, FAR + HOUR)  # the task is in the file; this change never will be
    assert rig.shelf.close(reason) == 7
    assert read.state is State.KEPT
    gone = State.CANCELLED if reason is None else State.LOST
    assert [task.state for task in (claim, lost, batch[0], batch[1])] == [gone] * 4
    assert reason is None or lost.exception() is reason
    assert reason is None or batch[1].exception() is reason
    assert rig.shelf.counter.figures() == {"kept": 1, gone.value: 7}
    assert len(rig.shelf.claims) == 0
