"""Workers in the host's thread are recycled: nothing is lost, and no budget is spent."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from turning import turns

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    Retry,
    TimedScheduler,
    WorkerLost,
    current_attempt,
)
from aioscheduler._processes.process import workers_module
from aioscheduler.stats import WorkerState
from aioscheduler.testing import FakeClock

CLASSES = (TimedScheduler, QueuedScheduler, LifoQueuedScheduler)

seen: list[Any] = []


async def give(value: Any = None) -> Any:
    return value


async def note(value: Any) -> None:
    seen.append(value)


async def fail_twice() -> int:
    seen.append(current_attempt())
    if len(seen) < 3:
        raise LookupError
    return len(seen)


async def stay_once() -> int:
    if current_attempt() == 1:
        await forever()
    return current_attempt()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def lives(manager: Manager[Any]) -> list[int]:
    return [remote.supervisor._generation for remote in manager._remotes]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("most", [1, 3])
async def test_who_awaits_task_after_task_sees_as_many_in_each_process(cls: Any, most: int) -> None:
    clock = FakeClock()
    manager = clock.manager(
        *(1, None, cls), workers=1, max_tasks_per_worker=most, max_restarts=(0, 1.0)
    )
    async with manager:
        found = []
        for n in range(3 * most):
            assert await manager.schedule(give(n)) == n
            found.append(lives(manager)[0])
            if (n + 1) % most == 0:
                while lives(manager)[0] == found[-1]:
                    await asyncio.sleep(0)
        assert found == [1] * most + [2] * most + [3] * most
        stats = manager.stats()
        assert (stats.recycled, stats.restarts, stats.finished) == (3, 0, 3 * most)


@pytest.mark.parametrize("cls", CLASSES)
async def test_what_waits_keeps_its_order_over_every_recycling(
    cls: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen.clear()
    clock = FakeClock()
    manager = clock.manager(1, None, cls, workers=1, max_tasks_per_worker=1, max_restarts=(0, 1.0))
    with caplog.at_level(logging.INFO, "aioscheduler"):
        async with manager:
            tasks = [manager.schedule(note(n)) for n in range(200)]
            await asyncio.gather(*tasks)
            assert manager.stats().recycled > 0
    assert seen == (
        list(range(200)) if cls is not LifoQueuedScheduler else list(range(199, -1, -1))
    )
    said = [record for record in caplog.records if "is recycled: it has run" in record.getMessage()]
    assert said
    assert {record.levelno for record in caplog.records} == {logging.INFO}


async def test_new_tasks_go_elsewhere_and_one_goes_at_a_time() -> None:
    clock = FakeClock()
    async with clock.manager(3, workers=3, max_tasks_per_worker=2) as manager:
        held = manager.map(give, range(3), timedelta(days=1))  # they wait for the next process
        running = [manager.schedule(forever()) for _ in range(3)]
        await turns()
        await asyncio.gather(*(manager.schedule(give()) for _ in range(6)))
        states = [worker.state for worker in manager.stats().workers]
        assert states.count(WorkerState.DRAINING) == 1  # running tasks hold it up
        going = states.index(WorkerState.DRAINING)
        tasks = [manager.schedule(give()) for _ in range(20)]
        assert going not in {task.ref.worker for task in tasks if task.ref is not None}
        await asyncio.gather(*tasks)
        assert [worker.state for worker in manager.stats().workers].count(WorkerState.DRAINING) == 1
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        while lives(manager) != [2, 2, 2]:
            await asyncio.sleep(0)
        assert manager.stats().recycled == 3
        assert len(manager) == 3
        await clock.advance(timedelta(days=1))
        assert await held == [0, 1, 2]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("rerun", [False, True])
async def test_what_outlasts_its_time_is_lost_or_runs_again_and_is_told_why(
    cls: Any, rerun: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers_module("lifecycle"), "DRAIN_TIME", 0)
    seen.clear()
    clock = FakeClock()
    manager = clock.manager(
        *(2, None, cls),
        workers=1,
        max_tasks_per_worker=1,
        max_restarts=(0, 1.0),
        on_worker_loss="rerun" if rerun else "fail",
    )
    async with manager:
        slow = manager.schedule(stay_once())
        await turns()
        assert await manager.schedule(give(1)) == 1
        if rerun:
            assert await slow == 2
        else:
            with pytest.raises(WorkerLost, match="was recycled, as it has run 1 task, and 10 s"):
                await slow
        assert manager.stats().cancelled == 0
        assert manager.stats().recycled >= 1
    warning = next(record for record in caplog.records if record.levelno == logging.WARNING)
    assert ("to run again: 1" if rerun else "started, and lost: 1") in warning.getMessage()
    assert "stay_once" in warning.getMessage()


@pytest.mark.parametrize("cls", CLASSES)
async def test_attempts_count_and_a_retry_waits_in_the_next_process(cls: Any) -> None:
    seen.clear()
    clock = FakeClock()
    manager = clock.manager(1, None, cls, workers=1, max_tasks_per_worker=1, max_restarts=(0, 1.0))
    async with manager:
        retry = Retry(LookupError, wait_initial=60, wait_exp_base=1, wait_jitter=0)
        task = manager.schedule(fail_twice(), retry=retry)
        for recycled in (1, 2):
            while manager.stats().recycled < recycled:
                await clock.advance(1)
        await clock.advance(60)
        assert await task == 3


async def test_a_manager_that_closes_or_fails_while_one_is_recycled_has_its_own_end() -> None:
    clock = FakeClock()
    async with clock.manager(1, workers=1, max_tasks_per_worker=1) as manager:
        slow = manager.schedule(forever())
        await turns()
        await manager.schedule(give())
        assert manager.stats().workers[0].state is WorkerState.DRAINING
        await manager.close(0)
        assert slow.cancelled()
        assert manager.stats().recycled == 0
    manager = clock.manager(1, workers=1, max_tasks_per_worker=1)
    async with manager:
        slow = manager.schedule(forever())
        await turns()
        await manager.schedule(give())
        manager._fleet.fail(WorkerLost(0, None, started=None))
        with pytest.raises(WorkerLost):
            await slow


async def test_one_that_grows_is_recycled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [500]
    monkeypatch.setattr(workers_module("worker"), "resident_bytes", lambda: sizes[-1])
    clock = FakeClock()
    async with clock.manager(1, workers=1, max_rss_per_worker=1000) as manager:
        life: Any = manager._remotes[0].supervisor.process
        life.worker._lifecycle._send_tick()
        await turns()
        assert manager.stats().workers[0].state is WorkerState.READY
        sizes.append(1001)
        life.worker._lifecycle._send_tick()
        while manager.stats().recycled < 1:
            await asyncio.sleep(0)
        while manager.stats().workers[0].state is not WorkerState.READY:  # already too large
            await asyncio.sleep(0)
        life = manager._remotes[0].supervisor.process
        life.worker._lifecycle._send_tick()
        await turns()
        assert manager.stats().workers[0].state is WorkerState.READY
        assert manager.stats().recycled == 1
