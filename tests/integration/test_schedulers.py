"""The three schedulers of one loop. The first tests are the known defects of 1.4.2, one each."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    QueuedScheduler,
    State,
    TaskLimitReached,
    TimedScheduler,
)

SOON = timedelta(milliseconds=20)
NEVER = timedelta(days=1)


async def give(value: Any) -> Any:
    return value


async def note(into: list[Any], value: Any) -> None:
    into.append(value)


async def fail(error: BaseException) -> None:
    raise error


# ---- the defects of 1.4.2


async def test_it_runs_on_this_python() -> None:
    """1.4.2 passed coroutines to asyncio.wait, which 3.11 refuses; its loop died silently."""
    async with TimedScheduler() as scheduler:
        assert await scheduler.schedule(give(1), SOON) == 1


async def test_no_helper_task_is_left_per_task_that_ran() -> None:
    """1.4.2 left a task behind, waiting for its restart event, for each task it had run."""
    async with TimedScheduler() as scheduler:
        for value in range(50):
            await scheduler.schedule(give(value), timedelta(0))
        assert len(asyncio.all_tasks()) == 1


async def test_aware_times_are_taken() -> None:
    """1.4.2 compared them with naive ones: TypeError."""
    async with TimedScheduler() as scheduler:
        east = timezone(timedelta(hours=9))
        assert await scheduler.schedule(give(1), datetime.now(east) + SOON) == 1
        assert await scheduler.schedule(give(2), datetime.now(UTC) + SOON) == 2


async def test_a_failing_task_does_not_stop_a_queue() -> None:
    """In 1.4.2 the first exception ended the queue's only task."""
    async with QueuedScheduler() as scheduler:
        failing = scheduler.schedule(fail(KeyError("x")))
        after = scheduler.schedule(give(2))
        assert await after == 2
        with pytest.raises(KeyError):
            await failing


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
async def test_a_manager_cancels_queued_tasks_in_every_scheduler(cls: Any) -> None:
    """In 1.4.2 it asked scheduler 0, which always said yes, and the slot stayed taken."""
    manager = Manager(3, 6, cls, workers=0)
    tasks = [manager.schedule(give(i)) for i in range(6)]
    with pytest.raises(TaskLimitReached):
        manager.schedule(give(6))
    assert [manager.cancel(task) for task in tasks] == [True] * 6
    assert [manager.cancel(task) for task in tasks] == [False] * 6
    assert len(manager) == 0
    manager.start()
    assert await manager.schedule(give(7)) == 7
    assert all(task.cancelled() for task in tasks)
    await manager.close()


async def test_equal_times_run_in_the_order_of_scheduling() -> None:
    """In 1.4.2 a random uuid decided."""
    ran: list[int] = []
    when = datetime.now(UTC) + SOON
    async with TimedScheduler() as scheduler:
        tasks = [scheduler.schedule(note(ran, i), when) for i in range(500)]
        await asyncio.gather(*tasks)
    assert ran == list(range(500))


async def test_a_cancelled_or_refused_coroutine_gives_no_warning() -> None:
    """1.4.2 dropped them: "coroutine was never awaited"."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = TimedScheduler(max_tasks=1)
        task = scheduler.schedule(give(1), NEVER)
        with pytest.raises(TaskLimitReached):
            scheduler.schedule(give(2), NEVER)
        with pytest.raises(ValueError, match="past"):
            scheduler.schedule(give(3), -SOON)
        with pytest.raises(TypeError):
            scheduler.schedule(give(3), 3.5)  # type: ignore[arg-type]
        assert scheduler.cancel(task)
        scheduler.schedule(give(4), NEVER)
        await scheduler.close()
        with pytest.raises(ManagerClosed):
            scheduler.schedule(give(5), NEVER)
        gc.collect()


async def test_cancelling_many_does_not_search() -> None:
    """1.4.2 searched the whole list and rebuilt its heap: hours for this number."""
    scheduler = TimedScheduler()
    tasks = [scheduler.schedule(give(i), NEVER) for i in range(100_000)]
    assert all(scheduler.cancel(task) for task in tasks)
    assert len(scheduler) == 0
    await scheduler.close()


# ---- promises


async def test_nothing_runs_early() -> None:
    async def lateness(due: datetime) -> timedelta:
        return datetime.now(UTC) - due

    now = datetime.now(UTC)
    dues = [now + timedelta(milliseconds=20 + i / 7) for i in range(200)]
    async with TimedScheduler() as scheduler:
        late = await asyncio.gather(*(scheduler.schedule(lateness(due), due) for due in dues))
    assert min(late) >= timedelta(0)


async def test_an_earlier_task_overtakes() -> None:
    ran: list[int] = []
    async with TimedScheduler() as scheduler:
        later = scheduler.schedule(note(ran, 2), timedelta(milliseconds=80))
        scheduler.schedule(note(ran, 1), SOON)
        await later
    assert ran == [1, 2]


async def test_scheduling_before_start_waits() -> None:
    scheduler = TimedScheduler()
    task = scheduler.schedule(give(1), timedelta(0))
    await asyncio.sleep(0.01)
    assert (task.state, len(scheduler), scheduler.is_started) == (State.PENDING, 1, False)
    scheduler.start()
    assert scheduler.is_started
    assert await task == 1
    await scheduler.close()
    assert not scheduler.is_started


async def test_naive_times_are_utc_or_local() -> None:
    local = datetime.now() + SOON
    utc = datetime.now(UTC).replace(tzinfo=None) + SOON
    async with TimedScheduler() as in_utc, TimedScheduler(prefer_utc=False) as in_local:
        task, other = in_utc.schedule(give(1), utc), in_local.schedule(give(2), local)
        assert (task.priority, other.priority) == (utc, local)
        assert (await task, await other) == (1, 2)


@pytest.mark.parametrize(
    ("cls", "order"), [(QueuedScheduler, [0, 1, 2, 3]), (LifoQueuedScheduler, [3, 2, 1, 0])]
)
async def test_queues_run_one_at_a_time_in_order(cls: Any, order: list[int]) -> None:
    ran: list[int] = []
    at_once = 0

    async def work(n: int) -> None:
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        await asyncio.sleep(0.001)
        at_once -= 1
        ran.append(n)

    scheduler = cls()
    tasks = [scheduler.schedule(work(n)) for n in range(4)]
    scheduler.start()
    await asyncio.gather(*tasks)
    assert ran == order
    assert tasks[0].priority == 0
    await scheduler.close()


async def test_a_running_task_is_cancelled_inside() -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async with TimedScheduler() as scheduler:
        task = scheduler.schedule(work(), timedelta(0))
        while task.state is not State.RUNNING:
            await asyncio.sleep(0.001)
        assert scheduler.cancel(task)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen == ["cancelled"]
    assert task.cancelled()


async def test_cancelling_an_awaiter_does_not_cancel_the_task() -> None:
    async with TimedScheduler() as scheduler:
        task = scheduler.schedule(give(1), timedelta(milliseconds=30))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.005)
        assert await task == 1
        assert await task == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_a_base_exception_reaches_the_awaiter_alone(error: BaseException) -> None:
    async with TimedScheduler() as scheduler:
        with pytest.raises(type(error)):
            await scheduler.schedule(fail(error), timedelta(0))
        assert await scheduler.schedule(give(1), timedelta(0)) == 1


async def test_a_failure_that_nobody_awaits_is_reported_once(reports: list[Any]) -> None:
    async with TimedScheduler() as scheduler:
        scheduler.schedule(fail(KeyError("lost")), timedelta(0))
        await scheduler.schedule(give(1), SOON)
        gc.collect()
        await asyncio.sleep(0)  # the loop reports
        (report,) = reports
        assert isinstance(report["exception"], KeyError)
        reports.clear()


async def test_close_cancels_what_waits_and_awaits_what_runs() -> None:
    scheduler = TimedScheduler()
    scheduler.start()
    running = scheduler.schedule(asyncio.sleep(0.05, "done"), timedelta(0))
    waiting = scheduler.schedule(give(1), NEVER)
    await asyncio.sleep(0.01)
    await scheduler.close()
    assert running.result() == "done"
    assert waiting.cancelled()


async def test_any_awaitable_goes() -> None:
    future = asyncio.get_running_loop().create_future()
    async with QueuedScheduler() as scheduler:
        task = scheduler.schedule(future)
        future.set_result(5)
        assert await task == 5


async def test_asyncio_wait_and_callbacks_work() -> None:
    called: list[Any] = []
    async with TimedScheduler() as scheduler:
        task = scheduler.schedule(give(1), SOON)
        task.add_done_callback(called.append)
        done, pending = await asyncio.wait([task], timeout=5)  # type: ignore[type-var]
        assert (done, pending) == ({task}, set())
        await asyncio.sleep(0)
    assert called == [task]


# ---- bad input


def not_called() -> Callable[[], Awaitable[int]]:
    async def work() -> int:
        return 1

    return work


@pytest.mark.parametrize("bad", [3, "work", None, not_called(), lambda: 1])
async def test_what_cannot_be_awaited_is_refused(bad: Any) -> None:
    scheduler = QueuedScheduler()
    with pytest.raises(TypeError, match="schedule"):
        scheduler.schedule(bad)
    assert len(scheduler) == 0


async def test_a_started_coroutine_is_refused_and_goes_on() -> None:
    coro = asyncio.sleep(0, "rest")
    coro.send(None)
    with pytest.raises(TypeError, match="started"):
        QueuedScheduler().schedule(coro)
    with pytest.raises(StopIteration, match="rest"):
        coro.send(None)
    with pytest.raises(TypeError, match="awaited or closed"):
        QueuedScheduler().schedule(coro)


@pytest.mark.parametrize("when", [3, 2.5, "tomorrow", (1,)])
async def test_what_is_no_time_is_refused(when: Any) -> None:
    with pytest.raises(TypeError, match="datetime or a timedelta"):
        TimedScheduler().schedule(give(1), when)


@pytest.mark.parametrize("cls", [TimedScheduler, QueuedScheduler, LifoQueuedScheduler])
async def test_wrong_limits_and_lives_are_refused(cls: Any) -> None:
    for value in (0, -1):
        with pytest.raises(ValueError, match="max_tasks"):
            cls(value)
    for wrong in (1.5, "3", True):
        with pytest.raises(TypeError, match="max_tasks"):
            cls(wrong)
    scheduler = cls()
    scheduler.start()
    with pytest.raises(RuntimeError, match="already"):
        scheduler.start()
    with pytest.raises(TypeError, match="cancel"):
        scheduler.cancel(3)
    other = cls().schedule(give(1), *([NEVER] if cls is TimedScheduler else []))
    assert scheduler.cancel(other) is False
    other.cancel()
    await scheduler.close()
    await scheduler.close()
    with pytest.raises(ManagerClosed):
        scheduler.start()


def test_start_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        TimedScheduler().start()


@pytest.mark.parametrize("kind", [TimedScheduler, QueuedScheduler, LifoQueuedScheduler])
def test_nothing_is_public_but_what_users_call(kind: Any) -> None:
    calls = {"start", "schedule", "cancel", "close", "is_started"}
    settings = {"max_tasks", "order", "prefer_utc"}
    assert {name for name in dir(kind(5)) if not name.startswith("_")} == calls | settings
