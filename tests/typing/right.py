"""A user's program that checkers must accept: see `tests/integration/test_typing.py`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Coroutine
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from aioscheduler import (
    Batch,
    Cron,
    Every,
    LifoQueuedScheduler,
    Manager,
    ManagerStats,
    QueuedScheduler,
    Repeat,
    Retry,
    State,
    Task,
    TaskInfo,
    TaskRef,
    TimedScheduler,
    WorkerLost,
    WorkerState,
    current_manager,
    current_task,
)
from aioscheduler.metrics import ManagerCollector
from aioscheduler.testing import FakeClock

SOON = timedelta(seconds=1)
request_id: ContextVar[str] = ContextVar("request_id")


async def work(n: int) -> str:
    return str(n)


async def nothing() -> None: ...


def double(n: int) -> int:
    return 2 * n


async def add(a: int, b: int) -> int:
    return a + b


async def successor(manager: Manager) -> None:
    assert_type(current_manager().schedule(work(1), SOON, key="a"), TaskRef)
    assert_type(current_manager().cancel(current_task()), bool)


async def managers() -> None:
    timed = Manager()
    assert_type(timed, Manager)
    assert_type(Manager(cls=QueuedScheduler), Manager[None])
    Manager(5)
    Manager(5, 100)
    Manager(5, max_tasks=None, workers=0, prefer_utc=False)
    Manager(5, None, TimedScheduler, 100, False)
    Manager(5, None, QueuedScheduler, 100, workers=2)
    Manager(schedulers=2, cls=LifoQueuedScheduler, workers=2, monitor=True)
    Manager(initializer=double, initargs=(1,), loop_initializer=asyncio.new_event_loop)
    Manager(on_worker_loss="rerun", max_restarts=(0, 1.0))
    Manager(max_running=4)
    Manager(context=[request_id, (request_id.get, request_id.set)])
    for cls in (TimedScheduler, QueuedScheduler):
        Manager(cls=cls)


async def any_manager(manager: Manager) -> None:
    await manager.schedule(nothing())


async def lives() -> None:
    manager: Manager = Manager(cls=QueuedScheduler)
    manager.start()
    await manager.ready()
    await any_manager(manager)
    await any_manager(Manager())
    async with Manager(8, cls=QueuedScheduler, workers=2) as queues:
        assert_type(await queues.schedule(work(1), key="a"), str)
        queues.schedule(work(1), None)
        queues.map(double, [1])
        await any_manager(queues)
    await manager.flush()
    await manager.join()
    await manager.close(timeout=1)
    stats = manager.stats()
    assert_type(stats, ManagerStats)
    print(len(manager), stats.workers[0].state is WorkerState.READY, stats.as_dict()["pending"])
    ManagerCollector({"one": manager})


async def handles(manager: Manager) -> None:
    task = manager.schedule(work(1), datetime.now(UTC), key=b"room")
    assert_type(task, Task[str])
    assert_type(await task, str)
    done, pending = await asyncio.wait([task], timeout=1, return_when=asyncio.FIRST_COMPLETED)
    assert_type(done, set[Task[str]])
    assert_type(len(pending), int)
    for first in asyncio.as_completed([task]):
        assert_type(await first, str)
    assert_type(await asyncio.gather(task, manager.schedule(add(1, 2))), tuple[str, int])
    assert_type(await asyncio.wait_for(asyncio.shield(task), 1), str)
    manager.cancel(task)
    manager.cancel(task.ref)
    assert_type(manager.task(task.ref), Task[Any])
    print(task.ref.worker, task.uuid.hex, task.priority, task.done(), task.cancelled())
    task.add_done_callback(ended)
    task.remove_done_callback(ended)
    assert_type(task.state, State)
    assert_type(task.result(), str)
    error = task.exception()
    if isinstance(error, WorkerLost):
        print(error.exitcode, error.started)
    assert_type(manager.schedule_threadsafe(work(1)), concurrent.futures.Future[str])


class Fridays:
    def next(self, after: datetime) -> datetime | None:
        return after + timedelta(days=(4 - after.weekday()) % 7 or 7)


async def repeats(manager: Manager) -> None:
    rule = Cron("0 9 * * *", "Europe/Berlin")
    repeat = manager.repeat(work(1), rule, id="a", missed="all", overlap="queue", timeout=5)
    assert_type(repeat, Repeat)
    manager.repeat(nothing(), Every(60, start=datetime.now(UTC)), id="b", jitter=SOON, times=3)
    manager.repeat(add(1, 2), Fridays(), id="c", key="k", until=datetime.now(UTC))
    assert_type(repeat.next, datetime | None)
    assert_type(manager.repeats(), list[Repeat])
    print(repeat.reason, repeat.skipped, repeat.paused, repeat.running)
    await repeat.pause()
    await repeat.cancel()


def busy(error: OSError) -> bool | float | timedelta:
    return error.errno == 11 or 2.5


async def options(manager: Manager) -> None:
    retry = Retry(ConnectionError, attempts=3, wait_max=timedelta(minutes=1))
    assert_type(manager.schedule(work(1), SOON, id="a", replace=True, retry=retry), Task[str])
    manager.schedule(work(1), timeout=1, max_lateness=SOON, name="mail", retry=Retry(busy))
    manager.map(work, [1], retry=Retry((OSError, ValueError)), timeout=timedelta(seconds=1))
    assert_type(manager.schedule_threadsafe(add(1, 2), id="b"), concurrent.futures.Future[int])
    await TimedScheduler().schedule(work(1), retry=Retry(lambda error: False))
    task = await manager.find("a")
    assert_type(task, Task[Any] | None)
    if task is not None:
        print(task.id, task.due, task.reschedule(SOON), manager.reschedule(task.ref, SOON))
    async for info in manager.tasks(name="mail", id_prefix="a", state=State.PENDING, limit=10):
        assert_type(info, TaskInfo)
        print(info.ref, info.name, info.id, info.due, info.attempt, info.worker, info.scheduler)


async def inside() -> None:
    assert_type(current_manager().schedule(work(1), SOON, id="a", replace=True), TaskRef)


def ended(task: Task[str]) -> None:
    print(task.result())


async def maps(manager: Manager) -> None:
    texts = manager.map(work, range(3))
    assert_type(texts, Batch[str])
    assert_type(await texts, list[str])
    assert_type(await manager.map(double, [1, 2], SOON, key=7), list[int])
    assert_type(await manager.map(work, [1, 2], [SOON, timedelta(0)]), list[str])
    assert_type(await manager.map(functools.partial(add, 1), [2]), list[int])
    assert_type(await manager.map(lambda n: n * 2.0, range(3)), list[float])
    assert_type(await manager.map(abs, range(-3, 0)), list[int])
    assert_type(await manager.map(int, ["1"]), list[int])
    assert_type(await manager.map(str.upper, ["a"]), list[str])
    await manager.map(print, [])
    assert_type(await manager.starmap(add, [(1, 2), [3, 4]]), list[int])
    async for text in texts:
        assert_type(text, str)
    ends = manager.map(work, range(3), SOON, return_exceptions=True, timeout=1)
    assert_type(ends, Batch[str | BaseException])
    assert_type(await ends, list[str | BaseException])
    async for end in ends:
        print(end.upper() if isinstance(end, str) else end.__cause__)
    assert_type(await manager.map(double, [1], return_exceptions=False), list[int])
    assert_type(await manager.map(double, [1], return_exceptions=True), list[int | BaseException])
    sure: bool = ends.done()
    perhaps = manager.starmap(add, [(1, 2)], return_exceptions=sure)
    assert_type(perhaps, Batch[int | BaseException])
    assert_type(await anext(aiter(perhaps)), int | BaseException)
    assert_type(texts[0], Task[str])
    print(len(texts), texts.done(), texts.cancel())


async def in_one_loop() -> None:
    async with TimedScheduler(max_tasks=3, prefer_utc=False) as timed:
        assert_type(timed.schedule(work(1), SOON), Task[str])
        timed.schedule(work(1))
    queue = LifoQueuedScheduler(max_tasks=3)
    queue.start()
    task = queue.schedule(work(1))
    print(queue.cancel(task), queue.is_started, len(queue))
    if task.ref is None:
        await queue.close()


async def under_test() -> None:
    clock = FakeClock(datetime(2030, 1, 1))
    async with clock.manager(workers=2) as manager:
        task = manager.schedule(work(1), timedelta(days=3))
        await clock.advance(timedelta(days=3))
        assert_type(await task, str)
        manager.kill(0)


def wrapped(manager: Manager, coro: Coroutine[Any, Any, int]) -> Task[int]:
    return manager.schedule(coro, SOON)
