"""A user's mistakes, each of which checkers must find: see `tests/integration/test_typing.py`.

Each line with an ignore is one; an ignore that is not needed is an error here.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from aioscheduler import (
    Every,
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    Retry,
    Task,
    TimedScheduler,
)

SOON = timedelta(seconds=1)


async def work(n: int) -> str:
    return str(n)


def managers(any_manager: Manager) -> None:
    Manager(worker=3)  # type: ignore
    Manager("3")  # type: ignore
    Manager(cls=int)  # type: ignore
    Manager(on_worker_loss="retry")  # type: ignore
    Manager(max_restarts=5)  # type: ignore
    Manager(context=["request_id"])  # type: ignore
    Manager(context=[(print,)])  # type: ignore
    Manager(cls=QueuedScheduler, prefer_utc=False)  # type: ignore
    any_manager.repeat(work(1), 60, id="a")  # type: ignore
    any_manager.repeat(work(1), Every(60))  # type: ignore
    any_manager.repeat(work, Every(60), id="a")  # type: ignore
    any_manager.repeat(work(1), Every(60), id="a", missed="never")  # type: ignore
    any_manager.repeat(work(1), Every(60), id="a", overlap=True)  # type: ignore
    any_manager.schedule(work, SOON)  # type: ignore
    any_manager.schedule(work(1), 5)  # type: ignore
    any_manager.schedule(work(1), SOON, "key")  # type: ignore
    any_manager.schedule(work(1), key=1.5)  # type: ignore
    any_manager.schedule_threadsafe(work(1), "now")  # type: ignore
    any_manager.cancel(work(1))  # type: ignore
    any_manager.task(None)  # type: ignore
    any_manager.close(1)  # type: ignore
    any_manager.schedule(work(1), id=5)  # type: ignore
    any_manager.schedule(work(1), retry=3)  # type: ignore
    any_manager.map(work, [1], id="a")  # type: ignore
    any_manager.tasks(state="pending")  # type: ignore
    Retry(OSError, 3)  # type: ignore
    Retry("OSError")  # type: ignore
    TimedScheduler().schedule(work(1), id="a")  # type: ignore


def queues() -> None:
    manager = Manager(cls=QueuedScheduler)
    manager.schedule(work(1), SOON)  # type: ignore
    manager.schedule_threadsafe(work(1), SOON)  # type: ignore
    manager.map(work, [1], SOON)  # type: ignore
    Manager(5, None, LifoQueuedScheduler, 100).schedule(work(1), SOON)  # type: ignore
    QueuedScheduler().schedule(work(1), SOON)  # type: ignore
    QueuedScheduler(prefer_utc=True)  # type: ignore
    TimedScheduler().schedule(work(1), 5)  # type: ignore


async def maps(manager: Manager) -> None:
    manager.map(work, ["x"])  # type: ignore
    manager.map(work, 3)  # type: ignore
    manager.map(work(1), [1])  # type: ignore
    manager.map(work, [1], [1.5])  # type: ignore
    manager.starmap(work, [1, 2])  # type: ignore
    manager.map(work, [1], return_exceptions="no")  # type: ignore
    manager.schedule(work(1), return_exceptions=True)  # type: ignore
    numbers: list[int] = await manager.map(work, [1])  # type: ignore
    texts: list[str] = await manager.map(work, [1], return_exceptions=True)  # type: ignore
    print(numbers, texts)


async def handles(task: Task[str]) -> None:
    number: int = await task  # type: ignore
    print(number)
    task.set_result("done")  # type: ignore
    task.get_loop()  # type: ignore
    task.cancel("why")  # type: ignore
    task.add_done_callback(work)  # type: ignore
    task.ref = None  # type: ignore
    for _ in task:  # type: ignore
        pass
    await asyncio.wait([work(1)])  # type: ignore
