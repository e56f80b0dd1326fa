"""How waiting, closing and main() end: nothing kept, begun late or unreported."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import psutil
import pytest
from acting import end_as

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    State,
    TimedScheduler,
    WorkerStartError,
)

CLASSES = (TimedScheduler, QueuedScheduler, LifoQueuedScheduler)
NEVER = timedelta(days=1)


async def give(value: Any = None) -> Any:
    return value


async def fail_late(n: int) -> int:
    await asyncio.sleep(0.01)
    if n:
        raise ValueError(n)
    return n


# ---- waits that are given up


@pytest.mark.parametrize("workers", [0, 1])
async def test_nothing_is_kept_of_a_wait_that_was_given_up(workers: int) -> None:
    async with Manager(1, workers=workers) as manager:
        task, batch = manager.schedule(give(), NEVER), manager.map(give, [1], NEVER)

        async def handle() -> None:
            await task

        async def many() -> None:
            await batch

        waits: list[Callable[[], Any]] = [
            handle,
            many,
            manager.join,
            lambda: anext(aiter(batch)),
            lambda: asyncio.wait([task], timeout=0.001),
        ]

        async def poll(wait: Callable[[], Any]) -> None:
            waiting = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

        for wait in waits:
            await poll(wait)
            gc.collect()
            futures = sum(isinstance(each, asyncio.Future) for each in gc.get_objects())
            await poll(wait)
            gc.collect()
            assert sum(isinstance(each, asyncio.Future) for each in gc.get_objects()) == futures
        task.cancel()
        batch.cancel()


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_failure_after_a_wait_was_given_up_is_reported(
    workers: int, reports: list[Any]
) -> None:
    async with Manager(1, workers=workers) as manager:

        async def single() -> None:
            waiting = asyncio.ensure_future(manager.schedule(fail_late(1)))
            await give_up(waiting)

        async def batch() -> None:
            await give_up(asyncio.ensure_future(manager.map(fail_late, [1, 2])))

        async def left() -> None:
            async for _ in manager.map(fail_late, [0, 1]):
                break

        async def first() -> None:
            with pytest.raises(ValueError, match="1"):
                async for _ in manager.map(fail_late, [1, 2]):
                    pass

        async def never() -> None:
            manager.map(fail_late, [1, 2])

        async def give_up(waiting: asyncio.Future[Any]) -> None:
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

        for case in (single, batch, left, first, never):
            await case()
            await manager.join()
            gc.collect()
            await asyncio.sleep(0)  # the loop reports
            assert len(reports) == 1, case
            reports.clear()
        for told in (manager.map(fail_late, [1, 2]), manager.schedule(fail_late(1))):
            with pytest.raises(ValueError, match="1"):
                await told
        del told
        await manager.join()


# ---- closing


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_batch_can_be_asked_after_its_manager_was_closed(workers: int) -> None:
    async with Manager(1, workers=workers) as manager:
        quiet = manager.map(end_as, ["fine"] * 3, NEVER, return_exceptions=True)
        loud = manager.map(end_as, ["fine"] * 3, NEVER)
    for _ in range(2):
        for ends in (await quiet, [end async for end in quiet]):
            assert [type(end) for end in ends] == [asyncio.CancelledError] * 3
    iterator = aiter(loud)
    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            await anext(iterator)
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("by_child", [False, True])
async def test_a_task_closes_its_own_manager(cls: Any, by_child: bool) -> None:
    manager = Manager(1, cls=cls, workers=0)
    manager.start()
    log = []

    async def stop() -> None:
        closing = manager.close(60)
        await (asyncio.create_task(closing) if by_child else closing)
        log.append("closed")

    await manager.schedule(stop())
    assert log == ["closed"]


@pytest.mark.parametrize("cls", CLASSES)
async def test_a_task_closes_its_own_scheduler(cls: Any) -> None:
    scheduler = cls()
    scheduler.start()

    async def stop() -> str:
        await scheduler.close()
        return "closed"

    assert await scheduler.schedule(stop()) == "closed"


@pytest.mark.parametrize("make", [*CLASSES, lambda: Manager(workers=0), lambda: Manager(workers=1)])
async def test_what_close_cancels_is_said_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioscheduler")
    async with make() as first:
        pass
    assert first is not None
    assert not caplog.records
    async with make() as scheduler:
        when = [NEVER] if isinstance(scheduler, TimedScheduler | Manager) else []
        tasks = [scheduler.schedule(give(), *when) for _ in range(3)]
    assert all(task.cancelled() for task in tasks)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "cancelled" in said[0]


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, OSError])
async def test_an_initializer_that_fails_in_this_process_is_told(error: Any) -> None:
    async def fail() -> None:
        raise error("no database")

    manager = Manager(1, workers=0, initializer=fail)
    manager.start()
    task = manager.schedule(give())
    with pytest.raises(WorkerStartError, match="no database"):
        await manager.ready()
    with pytest.raises(WorkerStartError, match="no database"):
        await task


# ---- the end of main()


@pytest.mark.parametrize(
    "make", [*CLASSES, *(lambda c=c: Manager(1, cls=c, workers=0) for c in CLASSES)]
)
def test_nothing_begins_after_main_has_ended(make: Any) -> None:
    scheduler = make()
    begun: list[int] = []
    ended: list[bool] = []

    async def work(n: int) -> None:
        assert not ended
        begun.append(n)
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)  # as before an orderly end

    async def main() -> None:
        scheduler.start()
        for n in range(3):
            scheduler.schedule(work(n))
        while not begun:
            await asyncio.sleep(0)
        ended.append(True)

    ended.clear()
    asyncio.run(main())
    queue = not isinstance(scheduler, TimedScheduler) and len(begun) == 1
    assert queue or begun == [0, 1, 2]
    asyncio.run(scheduler.close())


def test_a_worker_does_not_outlive_a_loop_that_left_it_behind() -> None:
    """Nor if a task swallows every cancellation, and so do the tasks that it started."""

    async def main() -> tuple[Manager, int]:
        manager = Manager(1, workers=1)
        manager.start()
        stubborn = manager.schedule(resist())
        while stubborn.state is not State.RUNNING:
            await asyncio.sleep(0.01)
        pid = manager.stats().workers[0].pid
        assert pid is not None
        return manager, pid

    manager, pid = asyncio.run(main())
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:  # up to the test's time limit
            time.sleep(0.05)
    asyncio.run(manager.close())


async def resist(*, alone: bool = False) -> None:
    if not alone:
        asyncio.create_task(resist(alone=True))  # noqa: RUF006  its timer holds it
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def test_a_queue_goes_on_after_somebody_else_has_cancelled_its_task() -> None:
    async with QueuedScheduler() as scheduler:
        found: list[asyncio.Task[Any]] = []

        async def shown() -> None:
            task = asyncio.current_task()
            assert task is not None
            found.append(task)
            await asyncio.sleep(30)

        first, second = scheduler.schedule(shown()), scheduler.schedule(give(2))
        while not found:
            await asyncio.sleep(0)
        found[0].cancel()
        assert await second == 2
        assert first.cancelled()
        third = scheduler.schedule(asyncio.Event().wait())
        fourth = scheduler.schedule(give(4))
        await asyncio.sleep(0.001)
        assert third.cancel()
        assert await fourth == 4


# ---- shapes of calls


async def test_at_once_may_be_said_in_three_ways() -> None:
    async with TimedScheduler() as scheduler:
        coros: list[Awaitable[int]] = [give(n) for n in range(3)]
        tasks = [
            scheduler.schedule(coros[0]),
            scheduler.schedule(coros[1], None),
            scheduler.schedule(coros[2], timedelta(0)),
        ]
        assert [await task for task in tasks] == [0, 1, 2]


# ---- names in messages


async def swallow() -> None:
    while True:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            if ended:
                raise


ended: list[bool] = []


async def test_messages_of_this_process_name_the_function(
    reports: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager(2, workers=0)
    manager.start()
    manager.schedule(fail_late(3))
    manager.map(fail_late, [4])
    await manager.join()
    gc.collect()
    await asyncio.sleep(0)
    assert all("fail_late" in report["message"] for report in reports)
    assert len(reports) == 2
    reports.clear()
    task = manager.schedule(swallow())
    batch = manager.map(fail_late, [0], NEVER)
    assert "fail_late" in repr(batch)
    await asyncio.sleep(0.001)
    await manager.close(0)
    assert f"test_endings:swallow: task {task.ref} swallows its cancellation" in caplog.text
    ended.append(True)
    (running,) = manager._router.links[0].engines[0].running.values()  # type: ignore[attr-defined]
    running[0].cancel()
    await asyncio.wait([running[0]])
