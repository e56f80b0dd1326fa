"""The home of handles whose tasks are only in the file."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from shelves import HOUR, NOW, PLACE, Rig, row_of

from aioscheduler import UnknownTask
from aioscheduler._routing.shelfhome import CANCEL
from aioscheduler._scheduling.clock import to_datetime
from aioscheduler.task import State, TaskRef

FAR = NOW + 9 * HOUR


@pytest.fixture
async def rig(no_tasks_left: None) -> Rig:
    return Rig()


# ---- handles by reference


async def test_a_handle_is_there_at_once_and_knows_its_task_when_the_file_has_answered(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FAR, "a"))
    task = rig.handle(1)
    assert (task.state, task.id, task.name, task.due) == (State.PENDING, None, "", None)
    assert rig.handle(1) is task
    await rig.turn()
    assert (task.state, task.id, task.name) == (State.PENDING, "a", PLACE)
    assert task.due == task.priority == to_datetime(FAR)
    assert rig.known("a") == (-1, 0, 1)


async def test_a_handle_of_no_task_ends_when_the_file_has_answered(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.handle(99)
    await rig.turn()
    assert task.state is State.LOST
    with pytest.raises(UnknownTask, match=r"row 99 has ended, or never was"):
        await task


async def test_there_is_no_handle_if_it_is_known_that_there_is_no_task(rig: Rig) -> None:
    rig.start()
    assert rig.shelf.find(0, 99) is None


async def test_what_waits_for_its_function_is_there_though_nothing_is_behind_the_horizon(
    rig: Rig,
) -> None:
    rig.start()
    rig.restored.waiting.add(99)
    task = rig.handle(99)
    await rig.turn()
    assert task.state is State.PENDING


async def test_what_is_not_written_yet_has_the_handle_that_it_was_given(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task, claim = rig.schedule(FAR), rig.schedule(FAR, "a")
    batch = rig.map(FAR, 1, 2)
    assert rig.handle(task._number) is task
    assert rig.handle(claim._number) is claim
    assert rig.handle(batch[1]._number) is batch[1]
    await rig.turn()


async def test_what_is_not_written_yet_has_a_handle_though_its_own_was_dropped(
    rig: Rig,
) -> None:
    rig.start(row_of(1, FAR))
    numbers = [rig.schedule(FAR)._number, rig.schedule(FAR, "a")._number]
    tasks = [rig.handle(number) for number in numbers]
    assert [task.id for task in tasks] == [None, "a"]
    assert [task.due for task in tasks] == [to_datetime(FAR)] * 2
    assert [rig.handle(number) for number in numbers] == tasks
    await rig.turn()
    for task in tasks:
        assert task.cancel()
    await rig.turn()
    assert all(task.cancelled() for task in tasks)
    assert list(rig.file()) == [1]


async def test_there_is_no_handle_of_a_claim_that_has_ended(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    number = rig.schedule(FAR, "a")._number
    assert rig.shelf.cancel(0, number)
    assert rig.shelf.find(0, number) is None
    await rig.turn()


# ---- requests of handles


async def test_a_reference_leads_to_the_row_once_the_file_is_open(rig: Rig) -> None:
    assert rig.shelf.ref(0, 5) is None
    rig.start(row_of(1, FAR))
    ref = rig.handle(1).ref
    assert ref == TaskRef(rig.where.store, -1, -1, 1)
    await rig.turn()


async def test_a_task_is_due_when_it_was_asked_to_be(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    task = rig.handle(1)
    assert task.reschedule(timedelta(days=2))
    assert task.due == datetime.fromtimestamp(NOW / 10**9, UTC) + timedelta(days=2)
    await rig.turn()
    assert task.due == datetime.fromtimestamp(NOW / 10**9, UTC) + timedelta(days=2)
    task.cancel()
    assert task.due is None
    await rig.turn()


async def test_a_task_that_was_asked_to_end_is_due_when_it_was_before(rig: Rig) -> None:
    rig.start(row_of(1, FAR), row_of(2, FAR))
    task = rig.map([FAR, FAR + HOUR], 1, 2)[1]
    await rig.turn()
    task.cancel()
    assert rig.shelf.requests == {task._number: CANCEL}
    assert task.due == to_datetime(FAR + HOUR)
    await rig.turn()
    assert task.due is None


async def test_the_tasks_of_a_queue_are_due_at_no_time(no_tasks_left: None) -> None:
    rig = Rig(timed=False)
    rig.start(reached=-1)
    task = rig.schedule(0)
    assert task.due is None
    assert rig.map(0, 1)[0].due is None


async def test_an_awaited_handle_is_kept(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    told: list[State] = []
    rig.handle(1).add_done_callback(lambda task: told.append(task.state))
    await rig.turn()
    assert rig.shelf.cancel(0, 1)
    await rig.turn()
    assert told == [State.CANCELLED]


# ---- stored tasks


async def test_a_new_task_is_stored_when_it_is_written(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    storing = asyncio.ensure_future(rig.schedule(FAR).stored())
    await asyncio.sleep(0)
    assert not storing.done()
    await rig.turn()
    await storing
    assert len(rig.file()) == 2


async def test_a_task_with_an_id_is_stored_when_it_is_known_who_has_it(rig: Rig) -> None:
    rig.start(row_of(1, FAR, "a"))
    task = rig.schedule(FAR + HOUR, "a")
    storing = asyncio.ensure_future(task.stored())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not storing.done()
    await rig.turn()
    await storing
    assert task._number == 1


async def test_a_task_of_a_batch_is_stored_when_it_is_written(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    batch = rig.map(FAR, 1, 2)
    storing = asyncio.ensure_future(batch[1].stored())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not storing.done()
    await rig.turn()
    await storing
    await batch[0].stored()  # at once


async def test_what_was_read_is_stored(rig: Rig) -> None:
    rig.start(row_of(1, FAR))
    storing = asyncio.ensure_future(rig.handle(1).stored())
    await asyncio.sleep(0)
    assert not storing.done()  # it is unknown whether there is such a task
    await rig.turn()
    await storing
