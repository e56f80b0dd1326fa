"""Workers that have run enough, or have grown too large, are replaced by new processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from acting import end_when
from shared import see, share, words

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    QueuedScheduler,
    TimedScheduler,
    WorkerLost,
)
from aioscheduler.stats import WorkerState

CLASSES = (TimedScheduler, QueuedScheduler, LifoQueuedScheduler)
NEVER: Any = (0, 1.0)  # max_restarts: the manager fails at the first death

kept: list[bytearray] = []


async def pid(value: Any = None) -> int:
    return os.getpid()


async def keep(size: int) -> int:
    kept.append(bytearray(b"x") * size)
    return os.getpid()


async def wait_for(path: Path) -> int:
    while not path.exists():
        await asyncio.sleep(0.005)
    return os.getpid()


@pytest.mark.parametrize(
    ("cls", "most"),
    [
        *((TimedScheduler, 1), (TimedScheduler, 4), (QueuedScheduler, 4), (LifoQueuedScheduler, 1)),
        pytest.param(QueuedScheduler, 1, marks=pytest.mark.long),
        pytest.param(LifoQueuedScheduler, 4, marks=pytest.mark.long),
    ],
)
async def test_each_process_runs_as_many_tasks_one_after_the_other(cls: Any, most: int) -> None:
    manager: Manager[Any] = Manager(
        1, cls=cls, workers=1, max_tasks_per_worker=most, max_restarts=NEVER
    )
    async with manager:
        pids = [await manager.schedule(pid()) for _ in range(3 * most)]
    assert [pids.count(each) for each in dict.fromkeys(pids)] == [most] * 3


async def test_a_backlog_goes_through_many_processes_and_is_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "aioscheduler")
    async with Manager(4, workers=2, max_tasks_per_worker=20, max_restarts=NEVER) as manager:
        later = manager.map(pid, range(50), timedelta(seconds=0.5))
        rounds = 0
        while manager.stats().recycled < 3 or not later.done():
            await manager.map(pid, range(20))
            rounds += 1
        assert len(await later) == 50
        stats = manager.stats()
        assert stats.finished == 50 + 20 * rounds
        assert stats.restarts == 0
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert "is recycled: it has run" in caplog.text


async def test_one_that_has_grown_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioscheduler")
    async with Manager(1, workers=1) as manager:
        size = psutil.Process(await manager.schedule(pid())).memory_info().rss
    limit = size + 50_000_000
    async with Manager(1, workers=1, max_rss_per_worker=limit, max_restarts=NEVER) as manager:
        waiting = manager.schedule(pid(), timedelta(hours=1))
        large = await manager.schedule(keep(100_000_000))
        while not manager.stats().recycled:
            await asyncio.sleep(0.05)
        assert await manager.schedule(pid()) != large
        assert waiting.reschedule(timedelta(0))
        assert await waiting != large
        assert manager.stats().recycled == 1
    assert "is recycled: it has 1" in caplog.text


async def test_one_that_is_large_from_the_beginning_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Manager(1, workers=1, max_rss_per_worker=1_000_000) as manager:
        first = await manager.schedule(pid())
        await asyncio.sleep(2.5)  # as many looks
        assert await manager.schedule(pid()) == first
        assert manager.stats().recycled == 0
    assert caplog.text.count("bytes before its first task, and max_rss_per_worker") == 1


@pytest.mark.parametrize("cls", CLASSES)
async def test_what_runs_is_awaited_and_what_waits_goes_to_the_next(
    cls: Any, tmp_path: Path
) -> None:
    path = tmp_path / "go"
    manager: Manager[Any] = Manager(
        2, cls=cls, workers=1, max_tasks_per_worker=1, max_restarts=NEVER
    )
    async with manager:
        slow = manager.schedule(wait_for(path))
        first = await manager.schedule(pid())
        assert manager.stats().workers[0].state is WorkerState.DRAINING
        rest = [manager.schedule(pid()) for _ in range(4)]
        path.touch()
        assert await slow == first
        assert first not in await asyncio.gather(*rest)


async def test_a_death_while_one_is_recycled_is_a_death(tmp_path: Path) -> None:
    path = tmp_path / "go"
    async with Manager(2, workers=2, max_tasks_per_worker=1, max_restarts=(1, 30.0)) as manager:
        slow = [manager.schedule(wait_for(path)) for _ in range(2)]
        while any(task.state.value == "pending" for task in slow):
            await asyncio.sleep(0.001)
        await manager.schedule(pid())
        states = [worker.state for worker in manager.stats().workers]
        (other,) = [n for n, state in enumerate(states) if state is WorkerState.READY]
        killed = manager.stats().workers[other].pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        path.touch()
        await asyncio.wait(slow)
        await manager.schedule(pid())
        assert manager.stats().restarts == 1


@pytest.mark.parametrize("how", ["exit", "signal"])
async def test_a_death_of_the_one_that_is_recycled_is_a_death(
    how: str, tmp_path: Path, reports: list[Any]
) -> None:
    """Though a worker is nearly always being recycled, `max_restarts` must hold."""
    path = tmp_path / "go"
    manager = Manager(2, workers=1, max_tasks_per_worker=1, max_restarts=(1, 30.0))
    async with manager:
        for last in (False, True):
            dying = manager.schedule(end_when(str(path), how))
            first = await manager.schedule(pid())
            assert manager.stats().workers[0].pid == first
            assert manager.stats().workers[0].state is WorkerState.DRAINING
            path.touch()
            with pytest.raises(WorkerLost) as told:
                await dying
            assert "10 s later" not in str(told.value)
            assert "max_restarts=(1, 30.0)" in str(told.value) or not last
            path.unlink()
        with pytest.raises(ManagerClosed, match="max_restarts"):
            manager.schedule(pid())
        assert (manager.stats().restarts, manager.stats().recycled) == (1, 0)
    (report,) = reports
    assert "has failed, and its 1 unfinished tasks with it" in report["message"]
    reports.clear()


async def test_each_process_leaves_its_lifespan(tmp_path: Path) -> None:
    path = tmp_path / "log"
    manager = Manager(
        1, workers=1, max_tasks_per_worker=1, initializer=share, initargs=(str(path),)
    )
    async with manager:
        for _ in range(3):
            await manager.schedule(see(str(path)))
    one = ["entered", "task", "left"]
    assert words(path)[:9] == one * 3
    assert words(path)[9:] in ([], ["entered", "left"])  # the fourth process, if there was one
