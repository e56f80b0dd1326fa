"""The workers of a manager: how they start and end, and what ends them.

They run in the test's thread (`aioscheduler.testing`), or are the calling loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
from typing import Any

import pytest

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    NotShippable,
    QueuedScheduler,
    WorkerLost,
    WorkerStartError,
)
from aioscheduler._routing import fleet
from aioscheduler.testing import FakeClock

DAY = timedelta(days=1)


async def give(value: Any = None) -> Any:
    return value


async def fail(word: str) -> None:
    raise LookupError(word)


def test_an_initializer_that_cannot_travel_is_refused_at_once() -> None:
    lock = threading.Lock()
    with pytest.raises(NotShippable, match="print, or an argument of it"):
        Manager(1, workers=1, initializer=print, initargs=(lock,))
    Manager(1, workers=0, initializer=print, initargs=(lock,))  # it stays in this process


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


def tick(manager: Manager) -> None:
    """Run the next tick now."""
    fleet: Any = manager._fleet
    timer = fleet._watch()
    timer._run()
    timer.cancel()


async def test_a_look_that_raises_is_reported_and_others_follow(
    manager: Manager,
    reports: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = manager._router.links[-1]
    look_after, looks = link.look_after, 0

    def look(lag: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise MemoryError
        look_after(lag)

    monkeypatch.setattr(link, "look_after", look)
    tick(manager)
    tick(manager)
    assert looks == 2
    (report,) = reports
    assert isinstance(report["exception"], MemoryError)
    reports.clear()


async def test_definitions_are_looked_after_once_a_tick_whatever_the_workers(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with clock.manager(4, workers=2) as manager:
        told: list[str] = []
        for index, link in enumerate(manager._remotes):
            monkeypatch.setattr(link, "look_after", lambda _, n=index: told.append(f"link {n}"))
        catalog = manager._remotes[0].shipper.catalog
        monkeypatch.setattr(catalog._spaces, "let_go", lambda: told.append("namespaces"))
        monkeypatch.setattr(catalog, "forget_unused", lambda: told.append("lines"))
        tick(manager)
        assert told == ["namespaces", "lines", "link 0", "link 1"]
        monkeypatch.undo()


def test_each_process_gets_the_log_levels_of_its_creation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [Manager(1, workers=1, forward_logs=forward) for forward in (True, False)]
    makers = [manager._remotes[0].supervisor._make for manager in made]

    def config(make: Any) -> Any:
        return make(0, print, print)._config

    for level in (logging.INFO, logging.ERROR):
        monkeypatch.setattr(logging.root, "level", level)
        forwards, not_so = map(config, makers)
        assert forwards.forward_logs
        assert forwards.log_levels["root"] == level
        assert (not_so.forward_logs, not_so.log_levels) == (False, {})


# ---- its failure


@pytest.mark.parametrize("workers", [0, 2])
async def test_ready_raises_if_a_worker_cannot_start(clock: FakeClock, workers: int) -> None:
    manager = clock.manager(2, workers=workers, initializer=fail, initargs=("no database",))
    task = manager.schedule(give())
    manager.start()
    with pytest.raises(WorkerStartError, match="no database"):
        await manager.ready()
    assert manager._fleet._closing is not None
    assert manager._fleet._closing.done()
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


def test_a_handler_that_ends_the_loop_leaves_no_task_without_an_end() -> None:
    def leave(*args: Any) -> None:
        raise SystemExit(3)

    async def fail_and_close() -> None:
        clock = FakeClock()
        manager = clock.manager(2, workers=2, max_restarts=(0, 1.0))
        manager.start()
        tasks.extend(manager.schedule(give(), DAY) for _ in range(4))
        await clock.advance(0)
        loop.set_exception_handler(leave)
        manager.kill()
        try:
            await clock.advance(0)
        finally:
            await manager.close()

    tasks: list[Any] = []
    loop = asyncio.new_event_loop()
    failing = loop.create_task(fail_and_close())
    with pytest.raises(SystemExit):  # in a turn of its own
        loop.run_until_complete(failing)
    loop.run_until_complete(failing)
    loop.close()
    assert all(isinstance(task.exception(), WorkerLost) for task in tasks)
    assert len(tasks) == 4


async def test_a_process_that_cannot_be_had_is_the_end(
    clock: FakeClock, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*args: Any) -> Any:
        raise OSError("no room for a process")

    monkeypatch.setattr("aioscheduler.testing.PairedWorkerHandle", launch)
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


@pytest.mark.parametrize("ends", [False, True])
async def test_a_close_that_somebody_else_has_cancelled_goes_on_unless_the_loop_ends(
    clock: FakeClock, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "next_tick", lambda now: now + 0.001)
    monkeypatch.setattr(fleet, "seems_to_end", lambda loop: ends)
    manager = clock.manager(2, workers=2)
    manager.start()
    await manager.ready()
    waiting = manager.schedule(give(), DAY)
    closing = asyncio.create_task(manager.close())
    await asyncio.sleep(0)  # close() has begun
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0.005)
    assert closing.cancelled()
    if ends:
        assert manager._fleet._closing is not None
        assert manager._fleet._closing.cancelled()
    else:
        await manager.join()
        assert waiting.cancelled()
    await manager.close()


async def test_a_waiter_for_a_close_is_not_cancelled_with_it(
    clock: FakeClock, manager: Manager
) -> None:
    closing = asyncio.create_task(manager.close())
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task(), closing}:
        task.cancel()
    await closing
