"""The manager without a process: its refusals, its `repr` and stats, and its end.

Its workers live in the test's thread (`aioscheduler.testing`), or are the calling loop.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from crowding import BEGUN, GATES, look, wait
from crowding import fail as fail_beside

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    NotShippable,
    QueuedScheduler,
    State,
    TaskRef,
    UnknownTask,
    current_manager,
)
from aioscheduler._routing.assembly import Seams
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.running import EAGER
from aioscheduler.testing import FakeClock

DAY = timedelta(days=1)


async def give(value: Any = None) -> Any:
    return value


async def fail(word: str) -> None:
    raise LookupError(word)


async def note(n: int) -> None:
    BEGUN.append(n)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# ---- refusals say what to do


def test_a_limit_is_a_count() -> None:
    limit: Any = True
    with pytest.raises(TypeError, match="max_tasks must be an int, not bool"):
        Manager(1, limit, workers=0)
    with pytest.raises(ValueError, match="max_tasks must be at least 1, not 0"):
        Manager(1, 0, workers=0)


async def test_what_is_mapped_must_be_iterable(manager: Manager) -> None:
    items: Any = 2
    coro: Any = give()
    with pytest.raises(TypeError, match="map.. takes a function and an iterable of items"):
        manager.map(coro, items)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    with pytest.raises(TypeError, match="map.. takes a function and an iterable of items"):
        manager.map(len, items)
    with pytest.raises(TypeError, match="item 1: starmap.. takes the arguments of each call in a"):
        manager.starmap(len, [("a",), items])
    assert len(manager) == 0


async def schedule_a_function() -> str:
    function: Any = give
    with pytest.raises(TypeError) as told:
        current_manager().schedule(function, function)
    return str(told.value)


async def test_a_function_in_place_of_a_coroutine_is_to_be_called(
    manager: Manager, clock: FakeClock
) -> None:
    function: Any = give
    with pytest.raises(TypeError, match="give is the function: call it"):
        manager.schedule(function, function)
    task = manager.schedule(schedule_a_function())
    await clock.advance(0)
    assert (await task).startswith("give is the function: call it")


async def test_a_refused_coroutine_is_closed(manager: Manager) -> None:
    for when, key, error in (
        (-DAY, None, ValueError),
        ("now", None, TypeError),
        (DAY, 0.5, TypeError),
    ):
        coro = give()
        with pytest.raises(error):
            manager.schedule(coro, when, key=key)  # type: ignore[arg-type]
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert len(manager) == 0


async def test_only_tasks_of_its_own_are_cancelled_and_found(
    clock: FakeClock, manager: Manager
) -> None:
    async with clock.manager(1, workers=1) as another:
        task, theirs = manager.schedule(give(), DAY), another.schedule(give(), DAY)
        assert not manager.cancel(theirs)
        with pytest.raises(UnknownTask, match="another manager"):
            manager.cancel(theirs.ref)
        with pytest.raises(UnknownTask, match="another manager"):
            manager.task(theirs.ref)
        for odd in (TaskRef(task.ref.manager, 9, 0, 0), task.ref._replace(number=-1)):
            with pytest.raises(UnknownTask, match="is damaged"):
                manager.task(odd)
        with pytest.raises(UnknownTask, match="has ended, or never was"):
            manager.task(task.ref._replace(number=task.ref.number + 1))
        for wrong in ("task", 3, tuple(task.ref)):
            with pytest.raises(TypeError):
                manager.cancel(wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                manager.task(wrong)  # type: ignore[arg-type]
        assert manager.task(task.ref).ref == task.ref
        assert manager.cancel(task.ref)
        await clock.advance(0)
        assert task.cancelled()
        assert not theirs.done()
        assert not manager.cancel(task)


async def test_it_does_not_travel_by_itself(manager: Manager) -> None:
    with pytest.raises(NotShippable, match="only to its own tasks"):
        pickle.dumps(manager)


# ---- start and close


@pytest.mark.parametrize("workers", [0, 1])
async def test_calls_in_the_wrong_order(clock: FakeClock, workers: int) -> None:
    manager = clock.manager(1, workers=workers)
    with pytest.raises(RuntimeError, match=r"start\(\) comes before ready\(\)"):
        await manager.ready()
    coro = give()
    with pytest.raises(RuntimeError, match=r"start\(\) comes before schedule_threadsafe\(\)"):
        manager.schedule_threadsafe(coro)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    manager.start()
    with pytest.raises(RuntimeError, match="was started already"):
        manager.start()
    await manager.ready()
    await manager.close()
    await manager.close()
    for call in (manager.start, lambda: manager.schedule(give()), lambda: manager.map(abs, [1])):
        with pytest.raises(ManagerClosed, match="was closed; make a new one"):
            call()
    with pytest.raises(ManagerClosed):
        await manager.ready()


def test_start_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="needs a running event loop"):
        Manager(1, workers=0).start()


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, "1", True, None])
async def test_a_timeout_is_a_finite_number_of_seconds(manager: Manager, timeout: Any) -> None:
    error = ValueError if isinstance(timeout, int | float) and timeout is not True else TypeError
    with pytest.raises(error, match="timeout must be"):
        await manager.close(timeout)
    assert repr(manager).startswith(f"<Manager {manager._id} running")


@pytest.mark.parametrize("workers", [0, 1])
async def test_it_says_how_it_is(clock: FakeClock, workers: int) -> None:
    manager = clock.manager(2, workers=workers)
    assert "not started, 0 tasks waiting" in repr(manager)
    assert bool(manager)
    manager.schedule(give(), DAY)
    manager.start()
    assert (len(manager), "running, 1 tasks waiting" in repr(manager)) == (1, True)
    await manager.close()
    assert (len(manager), "closed, 0 tasks waiting" in repr(manager)) == (0, True)
    assert bool(manager)


async def test_left_by_an_exception_it_cancels_what_runs(clock: FakeClock) -> None:
    with pytest.raises(LookupError):
        async with clock.manager(1, workers=1) as manager:
            running = manager.schedule(forever())
            await clock.advance(0)
            raise LookupError
    assert running.cancelled()


async def test_the_clock_may_be_any_function() -> None:
    """A class attribute would take a plain function for a method."""
    private: dict[str, Any] = {"_seams": Seams(clock=lambda: 7 * SECOND)}
    manager = Manager(1, workers=0, **private)
    task = manager.schedule(give(), timedelta(seconds=1))
    assert task.due == datetime.fromtimestamp(8, UTC)
    await manager.close()
    assert not [name for name in inspect.signature(Manager).parameters if name.startswith("_")]


# ---- limits on running tasks


@pytest.fixture
def gates() -> Iterator[dict[int, asyncio.Event]]:
    yield GATES
    BEGUN.clear()
    GATES.clear()


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
def test_a_queue_is_not_told_how_many_may_run(cls: Any) -> None:
    with pytest.raises(ValueError, match="one task at a time: leave out max_running"):
        Manager(cls=cls, workers=0, max_running=1)


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_is_due_beyond_the_limit_is_pending(
    clock: FakeClock, workers: int, gates: dict[int, asyncio.Event]
) -> None:
    async with clock.manager(1, workers=workers, max_running=2) as manager:
        tasks = [manager.schedule(wait(n), timedelta(seconds=9 - n)) for n in range(5)]
        await clock.advance(60)
        assert BEGUN == [4, 3]
        assert [task.state for task in tasks] == [State.PENDING] * 3 + [State.RUNNING] * 2
        assert (len(manager), manager.stats().running) == (3, 2)
        at_once = manager.schedule(wait(5))
        assert tasks[1].cancel()
        gates[3].set()
        await clock.advance(0)
        assert BEGUN == [4, 3, 2]
        assert tasks[4].cancel()  # a cancelled task makes room, too
        await clock.advance(0)
        assert BEGUN == [4, 3, 2, 0]
        for number in (0, 2, 5):
            gates.setdefault(number, asyncio.Event()).set()
        await clock.advance(0)
        assert BEGUN == [4, 3, 2, 0, 5]
        assert max(await asyncio.gather(tasks[0], tasks[2], tasks[3], at_once)) == 2
        assert [task.state for task in (tasks[1], tasks[4])] == [State.CANCELLED] * 2


@pytest.mark.parametrize("workers", [0, 2])
async def test_each_scheduler_has_its_own_limit(
    clock: FakeClock, workers: int, gates: dict[int, asyncio.Event]
) -> None:
    async with clock.manager(2, workers=workers, max_running=1) as manager:
        tasks = [manager.schedule(wait(n)) for n in range(6)]
        await clock.advance(0)
        assert [task.state for task in tasks].count(State.RUNNING) == 2
        for number in range(6):
            gates.setdefault(number, asyncio.Event()).set()
        await clock.advance(0)
        assert sorted(BEGUN) == list(range(6))


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_fails_or_ends_at_once_makes_room(clock: FakeClock, workers: int) -> None:
    async with clock.manager(1, workers=workers, max_running=1) as manager:
        looks, fails = manager.map(look, range(700)), manager.map(fail_beside, range(30))
        last = manager.schedule(give("the last"))
        await clock.advance(0)
        assert await looks == [1] * 700
        assert await last == "the last"
        with pytest.raises(LookupError):
            await fails


async def test_in_another_thread_each_call_says_how_it_is_made() -> None:
    def refused(call: Callable[[], Any]) -> str:
        with pytest.raises(RuntimeError) as refusal:
            call()
        return str(refusal.value)

    async with Manager(1, workers=0) as manager:
        waits = {
            "await manager.ready()": manager.ready,
            "await manager.find(id)": lambda: manager.find("x"),
            "await manager.flush()": manager.flush,
            "await manager.join()": manager.join,
        }
        for call, make in waits.items():
            told = await asyncio.to_thread(refused, lambda make=make: make().send(None))  # type: ignore[misc]
            assert f"`{call}`: asyncio.run_coroutine_threadsafe(coro, loop)" in told
        told = await asyncio.to_thread(refused, manager.tasks)
        assert "`async for info in manager.tasks()`: asyncio.run_coroutine_threadsafe(" in told


@pytest.mark.skipif(not EAGER, reason="all that is launched together is running then")
@pytest.mark.parametrize(("what", "then"), [("replace", [2]), ("reschedule", [1]), ("cancel", [])])
async def test_of_two_due_together_the_first_may_do_what_it_likes_with_the_other(
    clock: FakeClock, what: str, then: list[int]
) -> None:
    """In this loop: the other was launched with it, and is pending."""
    BEGUN.clear()
    later = timedelta(seconds=1)

    async def act() -> State:
        if what == "replace":
            current_manager().schedule(note(2), later, id="x", replace=True)
        elif what == "reschedule":
            assert second.reschedule(later)
        else:
            assert second.cancel()
        return second.state

    async with clock.manager(1, workers=0) as manager:
        first = manager.schedule(act(), later)
        second = manager.schedule(note(1), later, id="x")
        await clock.advance(1)
        moved = what == "reschedule"
        assert await first is (State.PENDING if moved else State.CANCELLED)
        assert not BEGUN
        await clock.advance(1)
        assert then == BEGUN
        assert second.cancelled() != moved
        await manager.join()


async def test_what_waits_for_its_place_can_be_withdrawn_or_moved(
    clock: FakeClock, gates: dict[int, asyncio.Event]
) -> None:
    async with clock.manager(1, workers=1, max_running=1) as manager:
        tasks = [manager.schedule(wait(n)) for n in range(4)]
        await clock.advance(0)
        (link,) = manager._remotes
        first, second, third, _ = (task._number for task in tasks)
        assert not link.withdraw(0, first)
        assert link.withdraw(0, second)
        assert link.reschedule(0, third, clock() + 5 * SECOND)
        await clock.advance(0)
        assert [task.state for task in tasks[:3]] == [
            *(State.RUNNING, State.CANCELLED, State.PENDING)
        ]
        for number in range(4):
            gates.setdefault(number, asyncio.Event()).set()
        await clock.advance(0)
        assert BEGUN == [0, 3]
        await clock.advance(5)
        assert BEGUN == [0, 3, 2]
