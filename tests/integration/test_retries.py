"""Retries in real processes: over kills, in queues, from maps, inside tasks, and by value."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from retried import (
    Failed,
    Unreadable,
    briefly,
    die_then_fail,
    fail_plainly,
    fail_until,
    schedule_inside,
    when,
)

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    Retry,
    State,
    Task,
)


def steady(seconds: float, attempts: int = 5) -> Retry:
    return Retry(Failed, attempts=attempts, wait_initial=seconds, wait_exp_base=1, wait_jitter=0)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(50):
        while not condition():
            await asyncio.sleep(0.01)


def waits_again(task: Task[Any], first: datetime) -> bool:
    """Return whether the host knows that it waits for a further attempt."""
    return task.state is State.PENDING and task.due != first


def kill_worker(manager: Manager, worker: int = 0, sign: int = signal.SIGKILL) -> int:
    pid = manager.stats().workers[worker].pid
    assert pid is not None
    os.kill(pid, sign)
    return pid


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
async def test_what_waits_runs_in_the_replacement_at_its_time(sign: int) -> None:
    async with Manager(1, workers=1) as manager:
        first = datetime.now(UTC) + timedelta(seconds=0.1)
        task = manager.schedule(fail_until(2), first, retry=steady(3))
        await until(lambda: waits_again(task, first))
        again = task.due
        pid = kill_worker(manager, sign=sign)
        attempt, due, _, other = await task
        assert again is not None
        assert datetime.now(UTC) >= again
        assert (attempt, due) == (2, first)
        assert other != pid
        stats = manager.stats()
        assert (stats.retried, stats.finished, stats.failed, stats.lost) == (1, 1, 0, 0)


async def test_a_death_in_an_attempt_does_not_count_as_a_failure() -> None:
    async with Manager(1, workers=1, on_worker_loss="rerun") as manager:
        task = manager.schedule(die_then_fail(2), retry=steady(0.01, attempts=3))
        with pytest.raises(Failed, match="attempt 4") as failure:
            await task
        assert failure.value.__notes__ == ["it had 3 attempts, of 3 at most"]
        assert manager.stats().restarts == 1
        assert manager.stats().retried == 2


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
@pytest.mark.parametrize("killed", [False, True])
async def test_nothing_overtakes_the_head_that_waits(cls: Any, killed: bool) -> None:
    async with Manager(1, cls=cls, workers=1) as manager:
        head = manager.schedule(fail_until(3), retry=steady(0.3))
        await until(lambda: manager.stats().retried)
        others = [manager.schedule(when()) for _ in range(5)]
        if killed and cls is QueuedScheduler:  # a LIFO queue begins with its newest then
            kill_worker(manager)
        _, _, done, _ = await head
        assert all(at >= done for at in await asyncio.gather(*others))
        assert manager.stats().retried == 2


async def test_of_a_map_each_is_retried() -> None:
    async with Manager(4, workers=2) as manager:
        retry = Retry(briefly)
        plain = manager.map(fail_plainly, [n % 4 for n in range(400)], retry=retry)
        batch = manager.map(fail_until, [n % 4 for n in range(400)], retry=retry)
        assert await plain == [max(n % 4, 1) for n in range(400)]
        assert [attempt for attempt, *_ in await batch] == [max(n % 4, 1) for n in range(400)]
        stats = manager.stats()
        assert (stats.retried, stats.finished) == (2 * 300, 800)
        assert (stats.failed, stats.pending, stats.running) == (0, 0, 0)


@pytest.mark.parametrize("by_value", [False, True])
async def test_a_task_schedules_what_is_retried(by_value: bool) -> None:
    async with Manager(2, workers=2) as manager:
        asking = [manager.schedule(schedule_inside(3, by_value)) for _ in range(6)]
        refs = await asyncio.gather(*asking)
        tasks = [manager.task(ref) for ref in refs]
        for worker in (0, 1):
            kill_worker(manager, worker)
        assert [attempt for attempt, *_ in await asyncio.gather(*tasks)] == [3] * 6


async def test_one_that_is_cancelled_while_it_waits_tells_its_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "aioscheduler")
    async with Manager(1, workers=1) as manager:
        task = manager.schedule(fail_until(2), name="the import", retry=steady(60))
        closed = manager.schedule(fail_until(2), name="the export", retry=steady(60))
        await until(lambda: manager.stats().retried == 2)
        assert len(manager) == 2
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(manager) == 1
    assert closed.cancelled()
    told = [r.getMessage() for r in caplog.records if "another attempt" in r.getMessage()]
    assert len(told) == 2
    for text, name, ended in zip(told, ("import", "export"), (task, closed), strict=True):
        assert f"task {ended.ref} was cancelled" in text
        assert f"the {name}: retried.Failed: attempt 1" in text


async def test_a_predicate_that_no_worker_can_import_fails_its_tasks() -> None:
    async with Manager(1, workers=1) as manager:
        for _ in range(2):
            task = manager.schedule(fail_until(1), retry=Retry(Unreadable()))
            with pytest.raises(ModuleNotFoundError, match="no_such_module"):
                await task
        assert (await manager.schedule(fail_until(1)))[0] == 1
        assert manager.stats().restarts == 0


SCRIPT = """
import asyncio
from aioscheduler import Manager, Retry, current_attempt, current_manager

class Busy(Exception):
    def __init__(self, seconds):
        super().__init__(f"busy for {seconds} s")
        self.seconds = seconds

class Gone(Exception):
    pass

FACTOR = 1

async def work(attempts, kind=Busy):
    if current_attempt() < attempts:
        raise kind(0.01)
    return current_attempt()

async def inside():
    retry = Retry(lambda error: isinstance(error, Busy) and error.seconds * FACTOR)
    return current_manager().schedule(work(3), retry=retry)

async def main():
    global FACTOR
    waits = Retry(lambda error: isinstance(error, Busy) and error.seconds * FACTOR)
    async with Manager(workers=2) as manager:
        print(await manager.schedule(work(3), retry=waits))
        classes = Retry((OSError, Busy), wait_initial=0.01, wait_jitter=0)
        print(await manager.map(work, [1, 2, 3], retry=classes))
        try:
            await manager.schedule(work(2, Gone), retry=waits)
        except Gone as error:
            print(type(error) is Gone, error.__notes__)
        print(await manager.task(await manager.schedule(inside())))
        FACTOR = "no number"  # it is shipped again
        try:
            await manager.schedule(work(2), retry=waits)
        except Busy as error:
            print(error.__notes__[0][:54])

asyncio.run(main())
"""


def test_a_script_has_predicates_and_exceptions_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines() == [
        "3",
        "[1, 2, 3]",
        "True ['it had 1 attempt, of 5 at most']",
        "3",
        "not retried, as its predicate gave no answer: TypeErro",
    ]


def test_the_waits_of_a_script_are_real() -> None:
    async def live() -> timedelta:
        async with Manager(1, workers=1) as manager:
            begun = datetime.now(UTC)
            _, _, done, _ = await manager.schedule(fail_until(3), retry=steady(0.2))
            return done - begun

    assert asyncio.run(live()) >= timedelta(seconds=0.4)
