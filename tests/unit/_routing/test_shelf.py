"""The tasks that are only in the file, and requests to them."""

from __future__ import annotations

import gc
from datetime import timedelta
from typing import Any

import pytest
from shelves import HOUR, NOW, PLACE, Place, row_of
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
async def place(no_tasks_left: None) -> Place:
    return Place()


def values(place: Place) -> list[Any]:
    return [wire.unpack(row.payload)[0] for row in place.store.rows()]


# ---- new tasks


async def test_what_is_scheduled_is_in_the_file_and_nowhere_else(place: Place) -> None:
    place.start(row_of(1, FAR))
    task = place.schedule(FARTHER, value="new")
    assert (task.name, task.due, task.state) == (PLACE, to_datetime(FARTHER), State.PENDING)
    assert place.admitted.shelved == 2
    await place.turn()
    assert values(place) == [1, "new"]
    assert place.dues()[task._number] == FARTHER
    assert place.admitted.rows == {}
    assert place.shelf.counter.figures() == {"pending": 2}


async def test_a_tasks_successor_is_found_by_its_alias(
    place: Place,
) -> None:
    place.start(row_of(1, FAR))
    place.shelf.adopt(FARTHER, place.draft("new"), 1 << 40, False, False)
    (row,) = place.shelf.held.aliases.values()
    await place.turn()
    assert place.dues()[row] == FARTHER
    assert place.shelf.cancel(0, row)
    await place.turn()
    assert place.shelf.held.aliases == {}


async def test_a_whole_batch_is_scheduled_and_notified_of_its_ends(place: Place) -> None:
    place.start(row_of(1, FAR))
    batch = place.map([FAR, FARTHER, FAR], "a", "b", "c")
    assert place.admitted.shelved == 4
    await place.turn()
    assert values(place) == [1, "a", "c", "b"]
    assert batch[1].due == to_datetime(FARTHER)
    assert batch[1].cancel()
    await place.turn()
    assert values(place) == [1, "a", "c"]
    assert batch._outcomes.states == [None, State.CANCELLED, None]
    assert batch.cancel()
    await place.turn()
    assert batch.done()
    assert values(place) == [1]
    assert place.shelf.counter.figures() == {"pending": 1, "cancelled": 3}
    assert not batch.cancel()


async def test_only_tasks_with_listeners_or_requests_are_returned(place: Place) -> None:
    place.start(*(row_of(row, FAR) for row in range(1, 5)))
    assert list(place.shelf.held_among(range(9))) == []
    handle = place.shelf.held.hand_out(2)
    place.shelf.held.lead(1 << 40, 3)
    batch = place.map([FAR, FAR], "a", "b")
    first = batch._outcomes.parts[0].first
    assert set(place.shelf.held_among([1, 2, 3, first, first + 1])) == {2, 3, first, first + 1}
    place.shelf.cancel(0, 4)
    assert 4 in place.shelf.held_among(range(9))
    with place.shelf.listing(Wanted()):
        assert set(place.shelf.held_among([1, 2])) == {1, 2}  # a listing is notified of all
    del handle
    await place.turn()


@pytest.mark.parametrize("dropped", [True, False])
async def test_a_task_of_a_batch_that_was_moved_to_another_bucket_can_be_cancelled(
    place: Place, dropped: bool
) -> None:
    """What is kept of it is one object for all, and its holders are notified of its end."""
    place.start(row_of(1, FAR))
    batch = place.map([FAR, FAR], "a", "b")
    await place.turn()
    task = batch[0]
    if dropped:
        del batch
        gc.collect()
    assert task.reschedule(timedelta(hours=20))
    await place.turn()
    assert place.dues()[task._number] > FAR
    gc.collect()
    assert task.cancel()
    await place.turn()
    assert values(place) == [1, "b"]
    assert task.cancelled()


async def test_a_handle_from_a_dropped_batch_is_notified(place: Place) -> None:
    place.start(row_of(1, FAR))
    task = place.map([FAR, FAR], "a", "b")[0]
    await place.turn()
    assert task.reschedule(timedelta(hours=9))
    await place.turn()
    gc.collect()
    place.shelf.settle(task._number, State.CANCELLED, None)
    assert task.cancelled()


async def test_a_batch_that_is_not_written_yet_can_be_cancelled(place: Place) -> None:
    place.start(row_of(1, FAR))
    batch = place.map(FAR, "a", "b")
    assert batch.cancel()
    assert batch.done()
    await place.turn()
    assert values(place) == [1]


# ---- ids


async def test_the_task_of_an_id_is_found_in_the_file(place: Place) -> None:
    place.start(row_of(1, FAR, "a"))
    found = place.loop.create_task(place.shelf.find_id("a"))
    none = place.loop.create_task(place.shelf.find_id("b"))
    await place.turn()
    task = await found
    assert task is not None
    assert (task._number, task.id, task.name, task.due) == (1, "a", PLACE, to_datetime(FAR))
    assert await none is None
    again = place.loop.create_task(place.shelf.find_id("a"))
    await place.turn()
    assert await again is task


async def test_a_task_that_comes_into_memory_meanwhile_is_not_found_here(place: Place) -> None:
    place.start(row_of(1, FAR, "a"))
    found = place.loop.create_task(place.shelf.find_id("a"))
    await place.turn(1)
    place.come(FAR)
    await place.turn()
    assert await found is None


async def test_a_task_that_was_asked_to_end_is_not_found(place: Place) -> None:
    place.start(row_of(1, FAR, "a"))
    task = place.handle(1)
    await place.turn()
    task.cancel()
    assert place.known("a") is None
    found = place.loop.create_task(place.shelf.find_id("a"))
    await place.turn()
    assert await found is None


# ---- cancellation


async def test_what_is_not_written_yet_is_cancelled_at_once_and_never_written(
    place: Place,
) -> None:
    place.start(row_of(1, FAR))
    task = place.schedule(FARTHER)
    assert task.cancel()
    assert task.cancelled()
    await place.turn()
    assert list(place.file()) == [1]
    assert place.shelf.counter.figures() == {"pending": 1, "cancelled": 1}


async def test_what_is_in_the_file_is_cancelled_at_once_if_a_handle_knows_it(
    place: Place,
) -> None:
    place.start(row_of(1, FAR), row_of(2, FARTHER))
    task = place.handle(2)
    await place.turn()
    assert task.cancel()
    assert task.cancelled()
    assert not task.cancel()
    assert not task.reschedule(DAY)
    await place.turn()
    assert list(place.file()) == [1]
    assert place.shelf.counter.figures() == {"pending": 1, "cancelled": 1}


async def test_what_is_in_the_file_is_cancelled_when_that_has_answered(place: Place) -> None:
    place.start(row_of(1, FAR), row_of(2, FARTHER))
    task = place.handle(2)
    assert task.cancel()
    assert task.cancel()
    assert not task.reschedule(DAY)
    assert not task.done()
    await place.turn()
    assert task.cancelled()
    assert list(place.file()) == [1]
    assert place.shelf.counter.figures() == {"pending": 1, "cancelled": 1}
    assert place.shelf.requests == {}


async def test_what_has_just_been_written_can_be_cancelled(place: Place) -> None:
    place.start(row_of(1, FAR))
    task = place.schedule(FARTHER)
    await place.turn()
    assert task.cancel()
    await place.turn()
    assert task.cancelled()
    assert list(place.file()) == [1]


async def test_nothing_is_asked_of_a_task_that_certainly_is_not_there(place: Place) -> None:
    place.start()
    assert not place.shelf.cancel(0, 99)
    assert not place.shelf.reschedule(0, 99, FAR)


async def test_an_unreadable_file_does_not_mean_that_a_task_is_missing(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aioscheduler._routing.lookups.RETRY", 0)
    place.start(row_of(1, FAR), row_of(2, FAR))
    task = place.handle(1)
    assert task.reschedule(DAY)
    assert place.shelf.cancel(0, 2)

    def refuse(ids: Any, rows: Any) -> Any:
        raise FULL

    place.store.find = refuse  # type: ignore[method-assign]
    await place.turn(12)
    assert task.state is State.LOST
    assert task.exception() is FULL
    assert caplog.messages == [f"{FULL}; the request to its task 2 is not carried out"]
    assert (place.shelf.requests, place.shelf.counter.figures()) == ({}, {"pending": 2})


async def test_a_task_that_is_not_there_is_cancelled_and_rescheduled_in_vain(
    place: Place,
) -> None:
    place.start(row_of(1, FAR))
    task = place.handle(99)
    assert place.shelf.cancel(0, 98)
    assert task.reschedule(DAY)
    await place.turn()
    with pytest.raises(UnknownTask):
        await task
    assert place.dues() == {1: FAR}


# ---- rescheduling


async def test_a_task_of_the_file_is_moved_when_that_has_answered(place: Place) -> None:
    place.start(row_of(1, FAR), row_of(2, FARTHER))
    task = place.handle(1)
    assert place.shelf.reschedule(0, 1, FARTHER + 1)
    assert place.shelf.reschedule(0, 1, FARTHER + HOUR)  # the last request counts
    await place.turn()
    assert place.dues() == {1: FARTHER + HOUR, 2: FARTHER}
    assert task.due == to_datetime(FARTHER + HOUR)
    assert place.shelf.requests == {}
    assert place.shelf.counter.count == 2
    place.come(FARTHER)
    assert list(place.admitted.rows[0]) == list(row_of(2, FARTHER))
    place.come(FARTHER + HOUR)
    assert place.admitted.rows[1] == row_of(1, FARTHER + HOUR)


async def test_a_task_that_is_not_there_counts_in_no_figure(place: Place) -> None:
    place.start(row_of(1, FAR))
    task = place.handle(99)
    await place.turn()
    assert task.state is State.LOST
    assert place.shelf.counter.figures() == {"pending": 1}


async def test_what_is_not_written_yet_is_moved_at_once(place: Place) -> None:
    place.start(row_of(1, FAR))
    task = place.schedule(FARTHER)
    assert task.reschedule(DAY)
    due = task.due
    await place.turn()
    assert to_datetime(place.dues()[task._number]) == due
    assert task.due == due
    assert place.shelf.counter.count == 2


async def test_what_was_moved_and_is_not_written_yet_can_be_moved_again(place: Place) -> None:
    place.start(row_of(1, FAR))
    task = place.handle(1)
    await place.turn()
    place.shelf.reschedule(0, 1, FAR + HOUR)
    await place.turn(1)
    place.shelf.reschedule(0, 1, FAR + 2 * HOUR)
    place.shelf.reschedule(0, 1, FAR + 3 * HOUR)
    await place.turn()
    assert place.dues() == {1: FAR + 3 * HOUR}
    assert task.due == to_datetime(FAR + 3 * HOUR)


async def test_the_last_of_several_requests_counts_whatever_it_is(place: Place) -> None:
    place.start(row_of(1, FAR))
    task = place.handle(1)
    await place.turn()
    assert task.reschedule(DAY)
    assert task.cancel()
    await place.turn()
    assert task.cancelled()
    assert place.file() == {}


async def test_a_reschedule_replaces_the_time_of_the_next_attempt(
    place: Place,
) -> None:
    place.start(row_of(1, FAR)._replace(given=NOW - 5, attempt=3))
    place.shelf.reschedule(0, 1, FARTHER)
    await place.turn()
    row = place.file()[1]
    assert (row.due, row.given, row.attempt) == (FARTHER, None, 3)


async def test_a_task_moved_within_the_horizon_comes_into_memory(place: Place) -> None:
    place.start(row_of(1, FAR), row_of(2, FARTHER))
    place.come(FAR - 1)
    task = place.handle(2)
    await place.turn()
    place.shelf.reschedule(0, 2, NOW + 5)
    await place.turn()
    link, number = place.admitted.links[0], 0
    assert place.admitted.rows[number].due == NOW + 5
    assert (task._home, task._number) == (link, number)
    assert place.dues() == {1: FAR, 2: NOW + 5}
    assert place.shelf.counter.count == place.admitted.shelved == 1
    place.come(FARTHER)
    assert [row.row for row in place.admitted.rows.values()] == [2, 1]  # each once


async def test_a_new_task_moved_within_the_horizon_comes_once(place: Place) -> None:
    place.start(row_of(1, FAR))
    task = place.schedule(FARTHER)
    place.come(FAR)
    assert place.shelf.reschedule(0, task._number, NOW + 5)
    place.come(FARTHER)
    assert [row.due for row in place.admitted.rows.values()] == [FAR, NOW + 5]
    await place.turn()


async def test_what_may_have_ended_the_last_host_is_in_memory_wherever_it_is_moved(
    place: Place,
) -> None:
    """The file would not show that."""
    place.start(row_of(1, FAR), row_of(2, FAR))
    place.restored.doubted.add(1)
    for number in (1, 2):
        place.shelf.reschedule(0, number, FARTHER)
    await place.turn()
    assert place.restored.told == [(row_of(1, FARTHER), True)]
    place.come(FARTHER)
    assert [row.row for row, _ in place.restored.told] == [1, 2]
    assert place.dues() == {1: FARTHER, 2: FARTHER}


async def test_requests_to_a_task_waiting_for_its_function_go_there(place: Place) -> None:
    place.start(row_of(1, FAR))
    place.restored.waiting.update((7, 8))
    assert place.shelf.cancel(0, 7)
    assert place.shelf.reschedule(0, 8, FARTHER)
    assert (place.restored.withdrawn, place.restored.moved) == ([7], [(8, FARTHER)])
    place.restored.waiting.clear()
    assert place.shelf.cancel(0, 7)
    assert place.shelf.reschedule(0, 8, FARTHER + 1)
    place.restored.waiting.update((7, 8))  # they wait for their functions by now
    await place.turn()
    assert place.restored.withdrawn == [7, 7]
    assert place.restored.moved == [(8, FARTHER), (8, FARTHER + 1)]


# ---- taking an id


async def test_a_task_of_the_file_loses_its_id_to_a_new_one(place: Place) -> None:
    place.start(row_of(1, FAR, "a"))
    old = place.handle(1)
    await place.turn()
    new = place.schedule(FARTHER, "a", replace=True, value="new")
    assert old.id is None
    assert place.known("a") == (-1, 0, new._number)
    await place.turn()
    assert old.cancelled()
    assert (new.state, new.id) == (State.PENDING, "a")
    assert [(row.row, row.id) for row in place.store.rows()] == [(new._number, "a")]


async def test_an_id_is_free_in_the_file_before_a_new_task_has_it_there(place: Place) -> None:
    """Even if the changes between them exceed one batch."""
    place.start(row_of(1, FAR, "a"))
    old = place.handle(1)
    await place.turn()
    new = place.schedule(FARTHER, "a", replace=True, value="new")
    for _ in range(3):
        place.schedule(FARTHER, value=b"x" * (5 << 20))
    await place.turn(12)
    assert old.cancelled()
    assert not place.commits.refused
    assert len(place.file()) == 4
    assert place.file()[new._number].id == "a"


async def test_a_task_that_is_not_written_yet_loses_its_id_to_a_new_one(place: Place) -> None:
    place.start()
    old = place.schedule(FAR, "a")
    new = place.schedule(FARTHER, "a", replace=True)
    assert (old.state, old.id) == (State.CANCELLED, None)
    await place.turn()
    assert list(place.file()) == [new._number]
    assert place.schedule(FAR, "a") is new
    await place.turn()
    assert list(place.file()) == [new._number]


# ---- the horizon advances


async def test_listeners_move_to_the_link_when_a_task_comes_into_memory(
    place: Place,
) -> None:
    place.start(row_of(1, FAR))
    task, batch = place.handle(1), place.map(FAR, "a", "b")
    await place.turn()
    place.come(FAR)
    homes = [each._home for each in (task, batch[0], batch[1])]
    first, second = place.admitted.links
    assert homes == [first, second, first]
    assert place.shelf.counter.count == place.admitted.shelved == 0
    first.end(0, State.FINISHED, 5)
    assert task.result() == 5


async def test_an_alias_leads_to_the_link_once_its_task_comes_into_memory(place: Place) -> None:
    place.start(row_of(1, FAR))
    place.shelf.adopt(FAR, place.draft(), 1 << 40, False, False)
    await place.turn()
    place.come(FAR)
    assert place.admitted.leads == {1 << 40: (1, 0, 1)}
    assert place.shelf.held.aliases == {}


async def test_what_was_asked_of_a_task_is_asked_of_its_link_if_it_comes_first(
    place: Place,
) -> None:
    place.start(row_of(1, FAR), row_of(2, FAR), row_of(3, FAR))
    place.shelf.cancel(0, 1)
    place.shelf.reschedule(0, 2, FARTHER)
    place.come(FAR)
    first, second = place.admitted.links
    assert (first.cancelled, second.moved) == ([0], [(1, FARTHER)])
    await place.turn()
    assert (first.cancelled, second.moved) == ([0], [(1, FARTHER)])
    assert place.shelf.requests == {}
    assert len(place.file()) == 3  # the rest is up to the link


async def test_an_end_on_the_way_into_memory_is_reported(place: Place) -> None:
    place.start(*(row_of(number, FAR) for number in (1, 2)))
    buried, withdrawn = place.handle(1), place.handle(2)
    assert buried.reschedule(DAY)
    place.shelf.buried(1, Reason.UNKNOWN, "Traceback:\n  more\nLookupError: no function\n")
    place.shelf.withdrawn(2)
    assert place.shelf.requests == {}
    error = buried.exception()
    assert isinstance(error, RemoteError)
    assert str(error).startswith("unknown: LookupError: no function\n")
    assert buried.state is State.FAILED
    assert withdrawn.cancelled()
    figures = place.shelf.counter.figures()
    assert (figures["failed"], figures["cancelled"]) == (1, 1)
    place.restored.waiting.update((1, 2))  # nothing looks for them any more
    await place.turn()


async def test_the_count_is_corrected_when_nothing_is_behind_the_horizon(place: Place) -> None:
    """Unreadable tasks of the file are not counted for ever."""
    place.start(row_of(1, FAR))
    place.shelf.counter.add(7)
    place.come(FARTHER)
    place.schedule(FARTHER + HOUR)
    place.shelf.recount()
    assert place.shelf.counter.count == place.admitted.shelved == 1
    await place.turn()


# ---- listings


async def test_a_list_has_what_is_written_and_what_is_not(place: Place) -> None:
    place.start(row_of(1, FAR), row_of(2, FARTHER))
    new, claim = place.schedule(FAR), place.schedule(FAR, "a")
    assert sorted(await place.list()) == [1, 2, new._number, claim._number]
    assert await place.list(id_prefix="a") == [claim._number]


async def test_a_list_hears_of_what_waits_for_its_function_and_is_moved(place: Place) -> None:
    place.start(row_of(1, FAR))
    place.restored.waiting.add(7)
    with place.shelf.listing(Wanted()) as listing:
        went: list[tuple[Row, Row | None]] = []
        told: Any = listing
        told.goes = lambda row, moved=None: went.append((row, moved))
        place.shelf.reschedule(0, 7, FARTHER)
    assert went == [(row_of(7), row_of(7, FARTHER))]


async def test_a_list_hears_of_what_goes_as_long_as_somebody_reads_it(place: Place) -> None:
    place.start(*(row_of(number, FAR) for number in range(1, 4)))
    with place.shelf.listing(Wanted()) as first, place.shelf.listing(Wanted()) as second:
        listings: list[Any] = [first, second]
        went: list[list[tuple[Row, Row | None]]] = [[], []]
        for each, some in zip(listings, went, strict=True):
            each.goes = lambda row, moved=None, some=some: some.append((row, moved))
        place.shelf.reschedule(0, 1, FARTHER)
        place.shelf.reschedule(0, 2, NOW)
        await place.turn()
        place.come(FAR)
    assert went[0] == went[1]
    assert went[0][:2] == [(row_of(1, FAR), row_of(1, FARTHER)), (row_of(2, FAR), None)]
    assert [row.row for row, _ in went[0][2:]] == [2, 3]
    place.come(FARTHER)
    assert len(went[0]) == 4


# ---- its end


async def test_at_a_close_what_is_in_the_file_stays(place: Place) -> None:
    place.start(row_of(1, FAR))
    tasks = [place.handle(1), place.schedule(FAR)]
    batch = place.map(FAR, "a")
    await place.turn()
    assert place.shelf.close(None) == 0
    assert [task.state for task in (*tasks, batch[0])] == [State.KEPT] * 3
    with pytest.raises(ManagerClosed):
        await tasks[1]
    assert place.shelf.counter.figures() == {"kept": 3}
    assert place.admitted.shelved == 0


@pytest.mark.parametrize("is_read", [False, True])
async def test_a_task_refused_by_the_file_is_lost_at_once_and_not_counted(
    place: Place, is_read: bool
) -> None:
    place.start()
    tasks = [place.schedule(FAR) for _ in range(2)]
    batch = place.map(FAR, "a", "b")
    place.schedule(FAR)  # without a handle
    first = tasks[0]._number
    place.store.refused = {first, first + 2, first + 4}
    horizon = place.where.horizon
    begun = horizon.begin() if is_read else None
    await place.turn()
    if begun is not None:
        assert horizon.find(first) is not None
        horizon.end(begun)
    assert horizon.find(first) is None
    assert (tasks[0].state, batch[0].state) == (State.LOST, State.LOST)
    with pytest.raises(Unwritable):
        await tasks[0]
    assert place.admitted.shelved == 2
    assert list(place.file()) == [first + 1, first + 3]
    place.come(FAR)
    assert place.admitted.shelved == 0
    assert [row.row for row in place.admitted.rows.values()] == [first + 1, first + 3]
    assert place.shelf.close(None) == 0
    assert place.shelf.counter.figures() == {"lost": 3}


@pytest.mark.parametrize("reason", [None, FULL])
async def test_at_a_close_what_never_came_into_the_file_does_not_stay(
    place: Place, reason: Exception | None
) -> None:
    place.start(row_of(1, FAR))
    read, claim = place.handle(1), place.schedule(FAR, "a")
    place.schedule(FAR, "b")  # without a handle
    lost = place.schedule(FAR)
    place.schedule(FAR)
    batch = place.map([FAR, FAR + HOUR], "a", "b")
    place.map(FAR, "c")
    place.commits.stop(FULL)
    place.lookups.stop()
    await place.turn()
    place.shelf.reschedule(0, 1, FAR + HOUR)  # the task is in the file; this change never will be
    assert place.shelf.close(reason) == 7
    assert read.state is State.KEPT
    gone = State.CANCELLED if reason is None else State.LOST
    assert [task.state for task in (claim, lost, batch[0], batch[1])] == [gone] * 4
    assert reason is None or lost.exception() is reason
    assert reason is None or batch[1].exception() is reason
    assert place.shelf.counter.figures() == {"kept": 1, gone.value: 7}
    assert len(place.shelf.claims) == 0
