"""The front without a process: what it refuses, what it says of itself, and how it ends.

Its workers live in the test's thread (`aioscheduler.testing`), or are the calling loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import math
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    NotShippable,
    QueuedScheduler,
    TaskRef,
    TimedScheduler,
    UnknownTask,
    WorkerLost,
    WorkerStartError,
    current_manager,
)
from aioscheduler._scheduling.clock import SECOND
from aioscheduler.manager import Seams
from aioscheduler.testing import FakeClock

DAY = timedelta(days=1)


@pytest.fixture
def clock(reports: list[Any], no_tasks_left: None) -> FakeClock:
    return FakeClock()


@pytest.fixture(params=[0, 2])
async def manager(clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[Manager]:
    async with clock.manager(4, workers=request.param) as manager:
        yield manager


async def give(value: Any = None) -> Any:
    return value


async def fail(word: str) -> None:
    raise LookupError(word)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# ---- what is refused says what to do


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"foo": 1}, r"'foo'; what .* goes to TimedScheduler\(max_tasks, prefer_utc\)"),
        ({"cls": QueuedScheduler, "prefer_utc": True}, r"goes to QueuedScheduler\(max_tasks\)"),
        ({"cls": dict}, "cls must be TimedScheduler, QueuedScheduler or LifoQueuedScheduler"),
        ({"initargs": 5}, r"a tuple, such as \(5,\), not 5"),
        ({"initializer": print, "initargs": "dsn"}, r"such as \('dsn',\)"),
        ({"initializer": 5}, "initializer must be a function, not 5"),
        ({"loop_initializer": 5}, r"makes a loop, not 5; leave out the \(\)"),
        ({"max_restarts": 5}, r"max_restarts must be \(how many, in seconds\), not 5"),
        ({"max_restarts": (1, 2, 3)}, "max_restarts must be"),
        ({"max_restarts": (1.5, 30.0)}, r"max_restarts\[0\] must be an int, not float"),
        ({"max_tasks": True}, "max_tasks must be an int, not bool"),
    ],
)
def test_arguments_that_no_manager_takes(kwargs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Manager(1, workers=0, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_tasks": 0}, "max_tasks must be at least 1, not 0"),
        ({"workers": 2}, "workers=2 is more than schedulers=1"),
        ({"on_worker_loss": "again"}, 'must be "fail" or "rerun", not \'again\''),
        ({"max_restarts": (-1, 30.0)}, r"max_restarts\[0\] must be at least 0"),
        ({"max_restarts": (5, 0)}, r"max_restarts\[1\] must be seconds, more than 0, not 0"),
        ({"max_restarts": (5, math.inf)}, r"max_restarts\[1\] must be seconds"),
        ({"loop_initializer": asyncio.new_event_loop}, "workers=0 has none"),
    ],
)
def test_values_that_no_manager_takes(kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Manager(1, **({"workers": 0} | kwargs))


@contextlib.contextmanager
def lifespan() -> Iterator[None]:
    yield


def generator() -> Iterator[int]:
    yield 1


class Steps:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize("initializer", [lifespan, functools.partial(lifespan), generator, Steps()])
def test_an_initializer_that_would_not_run_is_refused(initializer: Any) -> None:
    with pytest.raises(TypeError, match="must not contain a yield"):
        Manager(1, workers=0, initializer=initializer)


def test_an_initializer_that_cannot_travel_is_refused_at_once() -> None:
    lock = threading.Lock()
    with pytest.raises(NotShippable, match="print, or an argument of it"):
        Manager(1, workers=1, initializer=print, initargs=(lock,))
    Manager(1, workers=0, initializer=print, initargs=(lock,))  # it stays here


@pytest.mark.parametrize("flag", ["prefer_utc", "monitor"])
@pytest.mark.parametrize("wrong", ["no", None, 1])
def test_a_flag_is_a_bool(flag: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"{flag} must be True or False, not {wrong!r}"):
        Manager(1, workers=0, **{flag: wrong})
    if flag == "prefer_utc":
        for make in (TimedScheduler, FakeClock().timed_scheduler):
            with pytest.raises(TypeError, match="must be True or False"):
                make(None, wrong)


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


# ---- its life


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


async def test_close_says_how_much_it_cancelled(
    clock: FakeClock, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioscheduler")
    batch = manager.map(abs, range(1200), DAY)
    await manager.close()
    assert all(batch[n].cancelled() for n in (0, 1199))
    assert [record.getMessage() for record in caplog.records] == [
        f"<Manager {manager._id} closed, 0 tasks waiting>: its close() cancelled 1,200 unfinished "
        "tasks"
    ]


async def test_left_by_an_exception_it_cancels_what_runs(clock: FakeClock) -> None:
    with pytest.raises(LookupError):
        async with clock.manager(1, workers=1) as manager:
            running = manager.schedule(forever())
            await clock.advance(0)
            raise LookupError
    assert running.cancelled()


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
def test_a_queue_has_one_scheduler_unless_there_is_a_word_of_more(cls: Any) -> None:
    def layout(manager: Manager) -> list[int]:
        stats = manager.stats()
        return [worker.schedulers for worker in stats.workers]

    assert layout(Manager(cls=cls)) == [1]
    assert layout(Manager(cls=cls, workers=2)) == [1, 1]
    assert layout(Manager(5, cls=cls, workers=2)) == [3, 2]
    assert layout(Manager(workers=2)) == [4, 4]
    assert layout(Manager(workers=0)) == [4]


# ---- its failure


@pytest.mark.parametrize("workers", [0, 2])
async def test_a_worker_that_cannot_begin_is_told_by_ready(clock: FakeClock, workers: int) -> None:
    manager = clock.manager(2, workers=workers, initializer=fail, initargs=("no database",))
    task = manager.schedule(give())
    manager.start()
    with pytest.raises(WorkerStartError, match="no database"):
        await manager.ready()
    assert manager._closing is not None
    assert manager._closing.done()
    assert isinstance(task.exception(), WorkerLost if workers else WorkerStartError)
    assert len(manager) == 0
    with pytest.raises(ManagerClosed, match="this manager has failed") as closed:
        manager.schedule(give())
    assert isinstance(closed.value.__cause__, WorkerStartError)


async def test_a_failure_that_nobody_waits_for_is_told_to_the_loop(
    clock: FakeClock, reports: list[dict[str, Any]]
) -> None:
    manager = clock.manager(1, workers=1, max_restarts=(0, 1.0))
    manager.start()
    task = manager.schedule(give(), DAY)
    await clock.advance(0)
    manager.kill()
    await clock.advance(0)
    (report,) = reports
    assert "has failed, and its 1 unfinished tasks with it; make a new one" in report["message"]
    assert isinstance(task.exception(), WorkerLost)
    reports.clear()
    await manager.close()


async def test_a_process_that_cannot_be_had_is_the_end(
    clock: FakeClock, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*args: Any) -> Any:
        raise OSError("no room for a process")

    monkeypatch.setattr("aioscheduler.testing.PairedLife", launch)
    manager = clock.manager(1, workers=1)
    task = manager.schedule(give())
    with pytest.raises(WorkerStartError, match="could not be started: no room for a process"):
        manager.start()
    assert isinstance(task.exception(), WorkerLost)
    (report,) = reports
    assert isinstance(report["exception"], WorkerStartError)
    reports.clear()
    await manager.close()


def test_one_whose_loop_has_ended_is_closed_in_another() -> None:
    async def begin() -> tuple[Any, Any]:
        manager = FakeClock().manager(1, workers=0)
        manager.start()
        return manager, manager.schedule(give(), DAY)

    manager, task = asyncio.run(begin())
    with pytest.raises(RuntimeError, match="event loop of this manager is closed"):
        manager.cancel(task)
    asyncio.run(manager.close())
    assert isinstance(task.exception(), ManagerClosed)


async def test_the_clock_may_be_any_function() -> None:
    """A class attribute would take a plain function for a method."""
    private: dict[str, Any] = {"_seams": Seams(clock=lambda: 7 * SECOND)}
    manager = Manager(1, workers=0, **private)
    task = manager.schedule(give(), timedelta(seconds=1))
    assert task.due == datetime.fromtimestamp(8, UTC)
    await manager.close()
    assert not [name for name in inspect.signature(Manager).parameters if name.startswith("_")]
