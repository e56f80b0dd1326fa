"""Tasks by id and in lists, replaced and rescheduled: over workers and in this loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aioscheduler import (
    Manager,
    ManagerClosed,
    NotShippable,
    QueuedScheduler,
    State,
    Task,
    TaskInfo,
    TaskLimitReached,
    TaskRef,
    TimedScheduler,
    UnknownTask,
    WorkerLost,
    current_due,
    current_manager,
    current_task,
)
from aioscheduler.testing import FakeClock

START = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


async def give(value: Any = None) -> Any:
    return value


async def fail() -> None:
    raise LookupError("no")


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def listed(manager: Manager, **wanted: Any) -> list[TaskInfo]:
    return [info async for info in manager.tasks(**wanted)]


def is_closed(coro: Any) -> bool:
    return inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


# ---- ids


async def test_the_same_id_gives_the_same_task(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(give(1), DAY, id="x")
    coro = give(2)
    again = manager.schedule(coro, 2 * DAY, id="x")
    assert again is task
    assert is_closed(coro)
    assert len(manager) == 1
    assert task.id == "x"
    assert await manager.find("x") is task
    assert await manager.find("y") is None
    await clock.advance(2 * DAY)
    assert await again == 1
    assert task.id == "x"


async def test_a_dropped_handle_is_made_again(clock: FakeClock, manager: Manager) -> None:
    ref = manager.schedule(give(1), DAY, id="x").ref
    found = await manager.find("x")
    assert found is not None
    assert (found.id, found.ref, found.due) == ("x", ref, START + DAY)
    assert manager.schedule(give(2), id="x").ref == ref
    assert manager.task(ref).id == "x"


@pytest.mark.parametrize("how", ["finished", "failed", "cancelled", "cancelled later"])
async def test_an_id_is_free_when_its_task_has_ended(
    clock: FakeClock, manager: Manager, how: str
) -> None:
    function = {"finished": give, "failed": fail}.get(how, forever)
    task = manager.schedule(function(), DAY if how == "cancelled" else None, id="x")
    if how == "cancelled":
        # It will never start, so a new task must not get its handle.
        task.cancel()
        assert manager.schedule(give(3), DAY, id="x") is not task
    await clock.advance(0)
    if how == "cancelled later":
        task.cancel()
        assert manager.schedule(give(3), DAY, id="x") is task  # it may still go on
        await clock.advance(0)
    await asyncio.wait([task])
    new = manager.schedule(give(3), DAY, id="x")
    assert new is not task
    await clock.advance(DAY)
    assert await new == 3
    if how == "failed":
        assert isinstance(task.exception(), LookupError)


async def test_what_is_refused_changes_nothing(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(give(1), DAY, id="x")
    lock: Any = threading.Lock()
    refusals: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (give(), {"replace": True}, ValueError, "replace=True needs the id of the task"),
        (give(), {"id": "↻a"}, ValueError, "ids that begin with '↻' belong to runs of repeats"),
        *(
            (give(), {"replace": odd}, TypeError, f"replace is True or False, not {name}")
            for odd, name in ((0, "int"), (None, "NoneType"), ("", "str"))
        ),
        (give(), {"id": ""}, ValueError, "id must not be empty; leave it out for none"),
        (give(), {"id": "\ud800"}, ValueError, "id cannot be written down"),
        (give(), {"id": 5}, TypeError, "id is a str, not int"),
        (give(), {"id": "x", "replace": 1}, TypeError, "replace is True or False, not int"),
        (give(), {"id": "x", "timeout": 0}, ValueError, "more than 0"),
        (give(), {"id": "x", "key": 1.0}, TypeError, "key must be"),
        (give(), {"id": "x", "when": -DAY}, ValueError, "past"),
        (give, {"id": "x"}, TypeError, "call it, schedule"),
    ]
    if manager._remotes:
        refusals += [
            (give(lock), {"id": "x", "replace": True}, NotShippable, "lock"),
            (give(lock), {"id": "x"}, NotShippable, "lock"),
        ]
    for coro, given, error, message in refusals:
        with pytest.raises(error, match=message):
            manager.schedule(coro, **{"when": DAY, **given})
        assert not asyncio.iscoroutine(coro) or is_closed(coro)
        assert task.state is State.PENDING
        assert task.id == "x"
    assert len(manager) == 1
    await clock.advance(DAY)
    assert await task == 1


async def test_one_that_waits_is_replaced(clock: FakeClock, manager: Manager) -> None:
    old = manager.schedule(give(1), DAY, id="x")
    new = manager.schedule(give(2), 2 * DAY, id="x", replace=True)
    assert (old.id, new.id) == (None, "x")
    assert len(manager) == 1
    assert await manager.find("x") is new
    await clock.advance(0)
    assert old.cancelled()
    await clock.advance(2 * DAY)
    assert await new == 2
    assert await manager.find("x") is None


async def test_one_that_runs_goes_on_beside_its_successor(
    clock: FakeClock, manager: Manager
) -> None:
    old = manager.schedule(forever(), id="x")
    await clock.advance(0)
    assert old.state is State.RUNNING
    new = manager.schedule(give(2), DAY, id="x", replace=True)
    assert (old.id, new.id) == (None, "x")
    await clock.advance(DAY)
    assert await new == 2
    assert old.state is State.RUNNING
    assert manager.schedule(give(3), id="x") is not old
    old.cancel()
    await clock.advance(0)
    assert old.cancelled()


async def test_a_free_id_may_be_replaced(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(give(2), id="x", replace=True)
    await clock.advance(0)
    assert await task == 2


@pytest.mark.parametrize("workers", [0, 1])
async def test_at_the_limit_an_id_that_is_taken_gives_its_task(
    clock: FakeClock, workers: int
) -> None:
    async with clock.manager(1, 1, workers=workers) as manager:
        running = manager.schedule(forever(), id="runs")
        await clock.advance(0)
        task = manager.schedule(give(1), DAY, id="x")
        assert manager.schedule(give(2), id="x") is task
        with pytest.raises(TaskLimitReached):
            manager.schedule(give(2), id="y")
        with pytest.raises(TaskLimitReached):
            manager.schedule(give(2), id="runs", replace=True)
        assert running.id == "runs"
        new = manager.schedule(give(3), DAY, id="x", replace=True)
        assert len(manager) == 1
        with pytest.raises(TaskLimitReached):
            manager.schedule(give(2))
        await clock.advance(DAY)
        assert await new == 3
        assert task.cancelled()
        running.cancel()


async def test_nothing_is_kept_of_ids(clock: FakeClock) -> None:
    async with clock.manager(2, workers=2) as manager:
        for coro in (give(), fail(), forever()):
            manager.schedule(coro, id=str(coro)).add_done_callback(lambda task: task.exception())
        await clock.advance(0)
        pending = [manager.schedule(give(n), DAY, id=f"p{n}", key=n) for n in range(9)]
        pending[0].cancel()
        ids = manager._router.ids
        assert len(ids._tasks) == 9
        manager.kill(0)
        manager.kill(1)
        await clock.advance(0)
        assert len(ids._tasks) == 8  # pending tasks are still pending
        await clock.advance(DAY)
        assert await asyncio.gather(*pending[1:]) == list(range(1, 9))
        assert (ids._tasks, ids.of, ids.leads, ids._aliases) == ({}, ({}, {}), {}, {})
        manager.schedule(forever(), id="a")
        manager.schedule(forever(), DAY, id="b")
        await clock.advance(0)
        await manager.close(0)
    assert (ids._tasks, ids.of) == ({}, ({}, {}))


async def test_an_id_outlives_its_worker(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1) as manager:
        manager.schedule(give(1), DAY, id="x")
        runs = manager.schedule(forever(), id="runs")
        await clock.advance(0)
        manager.kill(0)
        await clock.advance(0)
        with pytest.raises(WorkerLost):
            await runs
        assert manager.schedule(give(5), id="runs") is not runs
        found = await manager.find("x")
        assert found is not None
        new = manager.schedule(give(2), 2 * DAY, id="x", replace=True)
        await clock.advance(2 * DAY)
        assert await new == 2
        assert found.cancelled()


async def test_a_failure_that_nobody_awaits_is_reported_with_its_id(
    clock: FakeClock, manager: Manager, reports: list[Any]
) -> None:
    held = manager.schedule(fail(), id="held", name="mail")
    manager.schedule(fail(), id="dropped", name="mail")
    assert "mail 'held'" in repr(held)
    await clock.advance(0)
    del held
    gc.collect()
    await clock.advance(0)
    messages = " ".join(report["message"] for report in reports)
    assert "mail 'dropped'" in messages
    assert "mail 'held'" in messages
    reports.clear()


async def test_a_task_that_is_held_is_found_without_its_frames(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames are read by the page."""
    async with clock.manager(1, workers=1) as manager:
        task = manager.schedule(give(1), DAY, id="x")
        dropped = manager.schedule(give(2), DAY, id="y").ref
        await clock.advance(0)
        read: list[Any] = []
        ledger = manager._remotes[0].book.ledger
        monkeypatch.setattr(ledger, "read", read.append)
        assert await manager.find("x") is manager.task(task.ref) is task
        assert manager.schedule(give(), id="x") is task
        new = [manager.schedule(give(3), DAY, id=id_, replace=True) for id_ in "xy"]
        assert read == []
        monkeypatch.undo()
        await clock.advance(0)
        assert task.cancelled()
        with pytest.raises(UnknownTask):
            manager.task(dropped)
        await clock.advance(DAY)
        assert [await each for each in new] == [3, 3]


async def test_of_a_closed_manager_there_is_none(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1) as manager:
        manager.schedule(forever(), DAY, id="x")
    assert await manager.find("x") is None
    assert await listed(manager) == []
    with pytest.raises(ManagerClosed):
        manager.schedule(give(), id="x")


async def test_in_queues_too(clock: FakeClock) -> None:
    for workers in (0, 1):
        async with clock.manager(cls=QueuedScheduler, workers=workers) as manager:
            first = manager.schedule(forever(), id="first")
            await clock.advance(0)
            old = manager.schedule(give(1), id="x")
            last = manager.schedule(give(2))
            assert manager.schedule(give(9), id="x") is old
            new = manager.schedule(give(3), id="x", replace=True)
            first.cancel()
            await clock.advance(0)
            assert [await last, await new] == [2, 3]
            assert old.cancelled()


async def test_from_another_thread(manager: Manager) -> None:
    def call() -> list[Any]:
        futures = [manager.schedule_threadsafe(give(n), id="x") for n in range(3)]
        return [future.result(30) for future in futures]

    assert manager._loop_thread.loop is asyncio.get_running_loop()
    found = await asyncio.to_thread(call)
    assert found[0] == 0


# ---- inside tasks


async def ask(id_: str, value: Any, when: Any = DAY, replace: bool = False) -> TaskRef:
    return current_manager().schedule(give(value), when, id=id_, replace=replace)


async def cancel_by_id(id_: str) -> None:
    manager = current_manager()
    manager.cancel(manager.schedule(give(), DAY, id=id_))


async def succeed_itself(times: int) -> TaskRef:
    """A rhythm, each time under the same id."""
    if times:
        current_manager().schedule(succeed_itself(times - 1), DAY, id="rhythm", replace=True)
    return current_task()


async def test_a_task_is_led_to_the_one_that_has_the_id(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(give(1), DAY, id="x")
    asked = [manager.schedule(ask("x", n), key=str(n)) for n in range(6)]
    await clock.advance(0)
    for ref in await asyncio.gather(*asked):
        assert manager.task(ref) is task
        assert manager.task(ref).ref == task.ref
    assert len(manager) == 1
    await clock.advance(DAY)
    assert await task == 1
    for ref in await asyncio.gather(*asked):
        with pytest.raises(UnknownTask):
            manager.task(ref)
    assert not manager._router.ids.leads


async def test_a_task_may_take_a_free_id(clock: FakeClock, manager: Manager) -> None:
    asked = manager.schedule(ask("x", 7))
    await clock.advance(0)
    found = await manager.find("x")
    assert found is not None
    assert manager.task(await asked) is found
    assert manager.schedule(give(8), id="x") is found
    assert found.id == "x"
    assert manager.cancel(await asked)
    await clock.advance(0)
    assert found.cancelled()
    assert await manager.find("x") is None


async def test_a_task_may_replace_another(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(give(1), DAY, id="x")
    asked = manager.schedule(ask("x", 2, 2 * DAY, replace=True))
    await clock.advance(0)
    assert task.cancelled()
    new = await manager.find("x")
    assert new is not None
    assert manager.task(await asked) is new
    await clock.advance(2 * DAY)
    assert await new == 2


async def test_a_task_may_cancel_one_by_its_id(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(give(1), DAY, id="x")
    asked = manager.schedule(cancel_by_id("x"), key="elsewhere")
    await clock.advance(0)
    await asked
    assert task.cancelled()
    assert await manager.find("x") is None


async def test_a_rhythm_keeps_its_id(clock: FakeClock, manager: Manager) -> None:
    seen = []
    manager.schedule(succeed_itself(3), id="rhythm")
    for _ in range(4):
        await clock.advance(0)
        if found := await manager.find("rhythm"):
            seen.append(found)
        await clock.advance(DAY)
    assert len(seen) == 3
    assert len({task.ref for task in seen}) == 3
    assert all(task.state is State.FINISHED for task in seen)
    assert await manager.find("rhythm") is None


async def refuse_inside() -> list[str]:
    told = []
    for given in (
        *({"id": ""}, {"id": 5}, {"replace": True}),
        *({"id": "x", "replace": None}, {"replace": 0}),
    ):
        try:
            current_manager().schedule(give(), **given)  # type: ignore[arg-type]
        except (ValueError, TypeError) as error:
            told.append(type(error).__name__)
    return told


async def test_what_cannot_be_is_refused_inside(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(refuse_inside())
    await clock.advance(0)
    assert await task == ["ValueError", "TypeError", "ValueError", "TypeError", "TypeError"]
    await manager.join()


# ---- rescheduling


async def due() -> datetime | None:
    return current_due()


async def test_a_task_starts_at_its_new_time(clock: FakeClock, manager: Manager) -> None:
    earlier, later, at_once = (manager.schedule(due(), 2 * DAY, id=str(n)) for n in range(3))
    await clock.advance(0)
    assert earlier.reschedule(DAY)
    assert manager.reschedule(later, START + 3 * DAY)
    assert manager.reschedule(at_once.ref, None)
    assert (earlier.due, later.due, at_once.due) == (START + DAY, START + 3 * DAY, START)
    assert earlier.priority == START + 2 * DAY  # as given
    await clock.advance(0)
    assert await at_once == START
    await clock.advance(DAY)
    assert await earlier == START + DAY
    await clock.advance(DAY)
    assert later.state is State.PENDING
    await clock.advance(DAY)
    assert await later == START + 3 * DAY


async def test_before_it_is_sent_and_twice(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(due(), DAY)
    assert task.reschedule(2 * DAY)
    assert task.reschedule(3 * DAY)
    await clock.advance(0)
    assert task.reschedule(4 * DAY)
    assert task.reschedule(5 * DAY)
    assert task.due == START + 5 * DAY
    await clock.advance(5 * DAY - timedelta(seconds=1))
    assert not task.done()
    await clock.advance(1)
    assert await task == START + 5 * DAY


async def test_of_a_batch_too(clock: FakeClock, manager: Manager) -> None:
    batch = manager.map(give, range(3), DAY)
    await clock.advance(0)
    assert batch[1].reschedule(2 * DAY)
    assert batch[1].due == START + 2 * DAY
    await clock.advance(DAY)
    assert [batch[n].done() for n in range(3)] == [True, False, True]
    await clock.advance(DAY)
    assert await batch == [0, 1, 2]


async def test_what_has_begun_or_ended_or_is_to_end_stays(
    clock: FakeClock, manager: Manager
) -> None:
    running, ended = manager.schedule(forever()), manager.schedule(give())
    await clock.advance(0)
    cancelled = manager.schedule(give(), DAY)
    cancelled.cancel()
    for task in (running, ended, cancelled):
        assert not task.reschedule(DAY)
        assert not manager.reschedule(task.ref, DAY)
    await clock.advance(DAY)
    assert cancelled.cancelled()
    running.cancel()


async def test_what_is_no_new_time_is_refused(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(give(1), DAY)
    refused: list[tuple[Any, type[Exception]]] = [
        (-DAY, ValueError),
        ("soon", TypeError),
        (START - DAY, ValueError),
    ]
    for when, error in refused:
        for call in (task.reschedule, lambda when: manager.reschedule(task.ref, when)):
            with pytest.raises(error):
                call(when)
    unknown: Any = 5
    with pytest.raises(TypeError, match="reschedule.. takes a Task or a TaskRef"):
        manager.reschedule(unknown, DAY)
    with pytest.raises(UnknownTask):
        manager.reschedule(TaskRef("m", 0, 0, 0), DAY)
    other = Manager(1, workers=0)
    assert other.reschedule(task, DAY) is False
    await other.close()
    assert task.due == START + DAY


async def test_queues_have_no_times(clock: FakeClock, no_tasks_left: None) -> None:
    for workers in (0, 1):
        async with clock.manager(cls=QueuedScheduler, workers=workers) as manager:
            task = manager.schedule(give(1))
            for when in (DAY, None):
                with pytest.raises(TypeError, match="a queue runs tasks in turn"):
                    task.reschedule(when)
                with pytest.raises(TypeError, match="a queue runs tasks in turn"):
                    manager.reschedule(task.ref, when)
    queue = QueuedScheduler()
    task = queue.schedule(give(1))
    with pytest.raises(TypeError, match="a queue runs tasks in turn"):
        task.reschedule(DAY)
    await queue.close()


async def test_without_a_manager(clock: FakeClock) -> None:
    async with clock.timed_scheduler() as scheduler:
        task = scheduler.schedule(due(), 2 * DAY)
        assert task.reschedule(DAY)
        assert task.id is None
        await clock.advance(DAY)
        assert await task == START + DAY
        with pytest.raises(TypeError, match="there is no option 'id' here"):
            scheduler.schedule(give(), id="x")  # type: ignore[call-arg]


# ---- lists


async def test_the_fields_of_a_listed_task(clock: FakeClock, manager: Manager) -> None:
    named = manager.schedule(give(), DAY, name="a name", id="x")
    plain = manager.schedule(give(), 2 * DAY)
    runs = manager.schedule(forever())
    batch = manager.map(lambda n: n, [1], DAY)
    await clock.advance(0)
    found = {info.ref: info for info in await listed(manager)}
    assert found.keys() == {named.ref, plain.ref, runs.ref, batch[0].ref}
    worker, scheduler = named.ref[1:3]
    assert found[named.ref] == TaskInfo(
        named.ref, "a name", "x", State.PENDING, START + DAY, 1, worker, scheduler
    )
    assert found[plain.ref].name == plain.name == f"{__name__}:give"
    assert (found[runs.ref].state, found[runs.ref].due) == (State.RUNNING, None)
    assert found[batch[0].ref].name == batch[0].name
    runs.cancel()


async def test_only_what_is_asked_for(clock: FakeClock, manager: Manager) -> None:
    tasks = [manager.schedule(give(), DAY, id=f"user:{n}") for n in range(3)]
    tasks += [manager.schedule(give(), DAY, name="mail", id=f"mail:{n}") for n in range(2)]
    tasks += [manager.schedule(forever(), name="mail"), manager.schedule(forever())]
    await clock.advance(0)

    async def refs(**wanted: Any) -> set[TaskRef]:
        infos = await listed(manager, **wanted)
        assert len({info.ref for info in infos}) == len(infos)
        return {info.ref for info in infos}

    def of(*numbers: int) -> set[TaskRef]:
        return {tasks[n].ref for n in numbers}

    assert await refs() == of(*range(7))
    assert await refs(id_prefix="user:") == of(0, 1, 2)
    assert await refs(id_prefix="") == of(*range(5))
    assert await refs(name="mail") == of(3, 4, 5)
    assert await refs(name="mail", state=State.RUNNING) == of(5)
    assert await refs(state=State.PENDING) == of(*range(5))
    assert await refs(state=State.FINISHED) == set()
    assert await refs(name="mai") == set()
    assert len(await refs(limit=4)) == 4
    with pytest.raises(TypeError, match="state is a State"):
        manager.tasks(state="pending")  # type: ignore[arg-type]
    await manager.close(0)


async def test_it_is_given_as_it_was_asked_to_be(clock: FakeClock, manager: Manager) -> None:
    moved, cancelled, old = (manager.schedule(give(), DAY, id=str(n)) for n in range(3))
    await clock.advance(0)
    moved.reschedule(2 * DAY)
    cancelled.cancel()
    new = manager.schedule(give(), id="2", when=3 * DAY, replace=True)
    found = {info.ref: (info.due, info.id) for info in await listed(manager)}
    assert found == {moved.ref: (START + 2 * DAY, "0"), new.ref: (START + 3 * DAY, "2")}
    assert old.id is None


@pytest.mark.parametrize("workers", [0, 2])
async def test_what_is_there_throughout_is_given_once(clock: FakeClock, workers: int) -> None:
    async with clock.manager(4, workers=workers) as manager:
        stay = [*manager.map(give, range(2000), DAY)._outcomes.parts]
        kept = {
            Task(p.home, p.scheduler, n, 0).ref
            for p in stay
            for n in range(p.first, p.first + p.count)
        }
        kept |= {manager.schedule(give(), DAY).ref for _ in range(300)}
        gone = [manager.schedule(give(), DAY, key=n) for n in range(600)]
        seen: list[TaskRef] = []
        counter = itertools.count()
        async for info in manager.tasks():
            seen.append(info.ref)
            n = next(counter)
            if n % 5 == 0 and gone:
                gone.pop().cancel()
                manager.schedule(give(), DAY)
            if n % 50 == 0:
                await asyncio.sleep(0)
        assert len(set(seen)) == len(seen)
        assert kept <= set(seen)


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_list_is_made_in_small_parts(clock: FakeClock, workers: int) -> None:
    async with clock.manager(2, workers=workers) as manager:
        manager.map(give, range(3000), DAY)
        wanted: Any = __import__("aioscheduler.inspection").inspection.Wanted()
        parts = [len(infos) for link in manager._router.links for infos in link.infos(wanted)]
        assert sum(parts) == 3000
        assert max(parts) <= 256


async def test_a_list_that_nobody_finishes_leaves_nothing(manager: Manager) -> None:
    manager.map(give, range(1000), DAY)
    async for _ in manager.tasks():
        break
    async for _ in manager.tasks():
        await manager.close()
    assert await listed(manager) == []


async def test_before_the_start(clock: FakeClock) -> None:
    for workers in (0, 1):
        manager = clock.manager(1, workers=workers)
        task = manager.schedule(give(1), DAY, id="x")
        assert [info.id for info in await listed(manager)] == ["x"]
        assert await manager.find("x") is task
        assert manager.schedule(give(2), id="x") is task
        assert task.reschedule(2 * DAY)
        new = manager.schedule(give(3), DAY, id="x", replace=True)
        async with manager:
            await clock.advance(DAY)
            assert await new == 3
        assert task.cancelled()


def test_in_another_thread_it_is_refused() -> None:
    async def main() -> None:
        async with Manager(1, workers=0) as manager:
            task = manager.schedule(give(1), DAY, id="x")

            def wrong() -> None:
                calls: list[Any] = [
                    lambda: task.reschedule(DAY),
                    lambda: manager.reschedule(task, DAY),
                    manager.tasks,
                    lambda: manager.schedule(give(), id="x"),
                ]
                for call in calls:
                    with pytest.raises(RuntimeError):
                        call()
                find = manager.find("x")
                with pytest.raises(RuntimeError):
                    find.send(None)
                assert task.id == "x"

            await asyncio.to_thread(wrong)
            assert task.due is not None
            assert task.due - datetime.now(UTC) <= DAY

    asyncio.run(main())


def test_only_tasks_of_a_manager_have_ids() -> None:
    assert "id" not in inspect.signature(TimedScheduler.schedule).parameters
