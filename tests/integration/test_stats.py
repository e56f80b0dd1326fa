"""The figures of a manager, over real workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from aioscheduler import Manager, ManagerStats, QueuedScheduler, WorkerState
from aioscheduler._monitoring.statsserver import Snapshot, snapshots

SOON = timedelta(milliseconds=50)
FAR = timedelta(hours=1)
COUNTERS = ("finished", "failed", "cancelled", "lost", "restarts")


async def give(value: Any) -> Any:
    return value


async def fail() -> None:
    raise ValueError


async def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def counters(stats: ManagerStats) -> tuple[int, ...]:
    return tuple(getattr(stats, name) for name in COUNTERS)


@pytest.mark.parametrize("workers", [0, 2])
async def test_every_task_is_counted_where_it_is(workers: int, reports: list[Any]) -> None:
    manager = Manager(workers=workers)
    stats = manager.stats()
    assert [w.state for w in stats.workers] == [WorkerState.STARTING] * (workers or 1)
    async with manager:
        good = [manager.schedule(give(n), SOON) for n in range(20)]
        bad = [manager.schedule(fail(), SOON) for _ in range(3)]
        far = [manager.schedule(give(n), FAR) for n in range(5)]
        running = manager.schedule(asyncio.sleep(60), key="a")
        await asyncio.gather(*good, *bad, return_exceptions=True)
        await until(lambda: manager.stats().running == 1)
        assert far[0].cancel()
        await until(far[0].done)
        stats = manager.stats()
        assert (stats.pending, stats.running) == (len(manager), 1) == (4, 1)
        assert counters(stats) == (20, 3, 1, 0, 0)
        for name in ("pending", "running", *COUNTERS):
            assert sum(getattr(worker, name) for worker in stats.workers) == getattr(stats, name)
        assert sum(worker.schedulers for worker in stats.workers) == manager_schedulers(manager)
        await until(lambda: sum(w.lateness_buckets[-1][1] for w in manager.stats().workers) == 24)
        for worker in manager.stats().workers:
            assert worker.state == "ready"
            assert worker.pid == (os.getpid() if workers == 0 else worker.pid)
            assert worker.rss > 1 << 20
            assert worker.loop_lag >= 0
            assert 0 < worker.lateness_p50 <= worker.lateness_p99 <= worker.lateness_max
            assert worker.lateness_p99 <= worker.lateness_sum
            counts = [count for _, count in worker.lateness_buckets]
            assert counts == sorted(counts)
        running.cancel()
    stats = manager.stats()
    assert counters(stats) == (20, 3, 6, 0, 0)
    assert (stats.pending, stats.running) == (0, 0)
    assert {worker.state for worker in stats.workers} == {WorkerState.STOPPED}
    json.dumps(stats.as_dict(), allow_nan=False)


def manager_schedulers(manager: Manager) -> int:
    return len(manager._router.placement.loads)


async def test_counters_do_not_go_back_when_a_worker_is_replaced() -> None:
    async with Manager(workers=1, max_restarts=(99, 1.0)) as manager:
        await manager.map(give, range(50), SOON)
        lost = manager.schedule(asyncio.sleep(60))
        await until(lambda: manager.stats().running == 1)
        await until(lambda: manager.stats().workers[0].lateness_buckets[-1][1] > 50)
        before = manager.stats()
        (worker,) = before.workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        await until(lost.done)
        await until(lambda: manager.stats().workers[0].state is WorkerState.READY)
        after = manager.stats()
        assert counters(after) == (50, 0, 0, 1, 1)
        assert after.workers[0].pid not in (None, worker.pid)
        assert after.workers[0].lateness_buckets[-1][1] >= worker.lateness_buckets[-1][1]
        assert after.workers[0].lateness_sum >= worker.lateness_sum
        assert await manager.schedule(give(1), SOON) == 1
        assert manager.stats().finished == 51


async def test_cpu_and_lag_tell_who_is_busy() -> None:
    async with Manager(workers=2) as manager:
        manager.stats()  # from now on
        busy, idle = (manager.schedule(give(w), key=key) for w, key in enumerate(keys_of(manager)))
        await asyncio.gather(busy, idle)
        task = manager.schedule(spin(1.5), key=keys_of(manager)[0])
        await task
        await asyncio.sleep(1.0)  # the next tick
        stats = manager.stats()
        assert stats.workers[0].cpu_percent > stats.workers[1].cpu_percent
        assert stats.workers[0].loop_lag > 0.2
        assert stats.host.pid == os.getpid()
        assert stats.host.cpu_percent >= 0
        assert stats.host.rss > 1 << 20


def keys_of(manager: Manager) -> list[int]:
    """Return a key for each worker."""
    placement = manager._router.placement
    worker_of = [placement.worker_of[placement.place_of_key(key)] for key in range(64)]
    return [worker_of.index(worker) for worker in range(max(worker_of) + 1)]


async def test_psutil_is_asked_four_times_a_second_at_the_most(monkeypatch: Any) -> None:
    asked = []
    oneshot = psutil.Process.oneshot

    def noted(process: psutil.Process) -> Any:
        asked.append(process.pid)
        return oneshot(process)

    monkeypatch.setattr(psutil.Process, "oneshot", noted)
    async with Manager(workers=1) as manager:
        begun = time.monotonic()
        while time.monotonic() < begun + 0.6:
            manager.stats()
        assert len(asked) <= 2 * 4


async def test_any_thread_may_ask() -> None:
    """Even while a worker dies, and while the manager is closed."""
    manager = Manager(workers=2, max_restarts=(99, 1.0))
    stop, found, errors = threading.Event(), [0], []

    def watch() -> None:
        while not stop.wait(0.0002):  # seconds, which leave the loop some
            try:
                found.append(manager.stats().finished)
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    async with manager:
        for _ in range(8):
            await manager.map(give, range(100))
            pid = manager.stats().workers[0].pid
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
    stop.set()
    await asyncio.to_thread(thread.join)
    assert errors == []
    assert found == sorted(found)
    assert manager.stats().finished == 800
    assert len(found) > 10


async def test_a_host_that_was_busy_does_not_take_its_workers_for_silent() -> None:
    async with Manager(workers=2) as manager:
        states: list[str] = []

        def watch() -> None:
            time.sleep(3.2)
            states.extend(worker.state for worker in manager.stats().workers)

        thread = threading.Thread(target=watch)
        thread.start()
        time.sleep(3.5)  # the loop stands still
        thread.join()
        assert states == ["ready", "ready"]


async def test_a_queue_has_no_lateness() -> None:
    async with Manager(cls=QueuedScheduler, workers=1) as manager:
        await manager.map(give, range(10))
        await asyncio.sleep(1.1)
        (worker,) = manager.stats().workers
        assert worker.finished == 10
        assert (worker.lateness_max, worker.lateness_buckets[-1][1]) == (0.0, 0)


async def told_by(manager: Manager) -> list[Snapshot]:
    """Return the figures found of a manager; others of this user may be monitored, too."""
    own = os.getpid(), manager.stats().manager
    return [found for found in await asyncio.to_thread(snapshots, 5.0) if found[:2] == own]


async def test_it_may_be_watched_from_outside(short_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    monkeypatch.delenv("AIOSCHEDULER_MONITOR", raising=False)
    folder = short_path / "aioscheduler"
    async with Manager(workers=1):
        assert not folder.exists()  # it costs nothing when it is off
    async with Manager(workers=1, monitor=True) as manager:
        await manager.map(give, range(7))
        (snapshot,) = await told_by(manager)
        assert snapshot.stats is not None
        assert snapshot.stats["finished"] == 7
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("AIOSCHEDULER_MONITOR", "1")
    async with Manager(workers=0) as manager:
        assert len(await told_by(manager)) == 1
    assert list(folder.iterdir()) == []


async def test_a_worker_has_a_name_that_ps_shows() -> None:
    async with Manager(workers=2) as manager:
        names = [psutil.Process(w.pid).name() for w in manager.stats().workers]
        assert names == ["aiosched-0", "aiosched-1"]
    async with Manager(workers=2, name="reminders and more") as manager:
        names = [psutil.Process(w.pid).name() for w in manager.stats().workers]
        assert names == ["reminders and-0", "reminders and-1"]


async def test_the_log_tells_of_a_death_in_one_line(caplog: Any) -> None:
    async with Manager(workers=1) as manager:
        assert caplog.records == []  # quiet in the good case
        far = [manager.schedule(give(n), FAR) for n in range(1200)]
        lost = manager.schedule(asyncio.sleep(60))
        await until(lambda: manager.stats().running == 1)
        (worker,) = manager.stats().workers
        assert worker.pid is not None
        ref = lost.ref
        os.kill(worker.pid, signal.SIGKILL)
        await until(lost.done)
        (record,) = [r for r in caplog.records if "does not answer" not in r.getMessage()]
        assert record.name == "aioscheduler"
        assert record.getMessage() == (
            f"worker 0 (pid {worker.pid}) was killed by SIGKILL; it is replaced: "
            "1,200 pending tasks go to the next process; "
            f"started, and lost: 1 (asyncio.tasks:sleep {ref})"
        )
        del far
