"""Durable tasks from one manager to the next, with real workers: which are kept, and how."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import enduring
import pytest
from rigs import Rig, letters
from wrapping import counted

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    NotDurable,
    QueuedScheduler,
    Retry,
    SQLiteStore,
    State,
    StoreError,
    TooLate,
    WorkerLost,
)
from aioscheduler._durable.records import Batch
from aioscheduler._routing import commits

HOUR = timedelta(hours=1)
WORKERS = pytest.mark.parametrize("workers", [1, pytest.param(0, marks=pytest.mark.long)])


# ---- close, and the next host


@pytest.mark.parametrize("workers", [0, 1, pytest.param(3, marks=pytest.mark.long)])
async def test_a_deploy_keeps_what_waits_and_what_runs(rig: Rig, workers: int) -> None:
    """Tasks of two workers go on with another number of workers, at the same times."""
    gate = str(rig.gate)
    async with rig.manager(2) as manager:
        waits = manager.schedule(enduring.note(rig.log, "waits"), HOUR, id="waits")
        keyed = manager.schedule(enduring.note(rig.log, "keyed"), HOUR, id="keyed", key="k")
        ended = manager.schedule(enduring.note(rig.log, "ended"))
        batch = manager.starmap(enduring.note, [(rig.log, n) for n in range(20)], HOUR)
        plain = manager.schedule(enduring.note_plainly(rig.log, "plain"), HOUR)
        await ended
        dues = waits.due, keyed.due
        again = manager.schedule(enduring.hold(rig.log, "rerun", gate), id="rerun")
        once = manager.schedule(enduring.hold_once(rig.log, "fail", gate), id="fail")
        await rig.until_said("rerun 1", "fail 1")
        for n in range(3):  # a task that outlives a commit is on record as begun
            await manager.schedule(enduring.note(rig.log, f"later{n}"), HOUR).stored()
        await manager.close(0)
        for task in (waits, keyed, again):
            assert task.state is State.KEPT
            with pytest.raises(ManagerClosed, match="it stays in the store"):
                await task
        with pytest.raises(ManagerClosed):
            await batch
        with pytest.raises(WorkerLost):
            await once
        assert plain.cancelled()
    async with rig.manager(workers) as manager:
        found = [await manager.find(each) for each in ("waits", "keyed")]
        assert tuple(task and task.due for task in found) == dues
        assert [(each.id, each.reason) for each in await letters(manager)] == [("fail", "lost")]
        await rig.until_said("rerun 2")
        rig.gate.touch()
        async for info in manager.tasks(state=State.PENDING):
            manager.reschedule(info.ref, timedelta(0))
        await manager.join()
        await manager.sync()
        assert manager.stats().stored == 0
    wanted = ["waits 1", "keyed 1", "ended 1", "rerun 1", "fail 1", "rerun 2", "rerun ends"]
    wanted += [f"later{n} 1" for n in range(3)]
    assert sorted(rig.said()) == sorted([*wanted, *(f"{n} 1" for n in range(20))])


async def test_what_ends_while_the_manager_closes_is_struck(rig: Rig) -> None:
    async with rig.manager() as manager:
        task = manager.schedule(enduring.hold(rig.log, "task", str(rig.gate)))
        await rig.until_said("task 1")
        closing = asyncio.ensure_future(manager.close(30))
        await asyncio.sleep(0)
        rig.gate.touch()
        await task
        await closing
    async with rig.manager(0) as manager:
        assert manager.stats().stored == 0


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_a_task_makes_of_a_close_is_no_failure(rig: Rig, workers: int) -> None:
    async with rig.manager(workers) as manager:
        task = manager.schedule(enduring.convert(rig.log, "task"))
        await rig.until_said("task 1")
        await manager.close(0)
    assert task.state is State.KEPT
    assert rig.said() == ["task 1", "task was cut off"]
    async with rig.manager(workers) as manager:
        while len(rig.said()) < 3:  # it has begun again
            await asyncio.sleep(0.01)
        assert await letters(manager) == []
        await manager.close(0)


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_cancellation_that_nobody_asked_for_is_a_dead_letter(
    rig: Rig, workers: int
) -> None:
    async with rig.manager(workers) as manager:
        task = manager.schedule(enduring.cut(rig.log, "task"))
        await asyncio.wait([task])
        assert task.cancelled()
        (letter,) = await letters(manager)
        assert (letter.name, letter.reason, letter.attempts) == ("cut", "failed", 1)
        assert letter.text.startswith("ended by a CancelledError that nobody asked for\n")
        assert "in cut" in letter.text
        assert manager.stats().stored == 0


def test_what_runs_in_a_loop_that_ends_without_a_close_is_kept(rig: Rig) -> None:
    async def leave() -> None:
        manager = rig.manager(0)
        manager.start()
        await manager.ready()
        manager.schedule(enduring.clean(rig.log, "task", str(rig.gate)), id="task")
        await rig.until_said("task 1")
        rig.gate.touch()
        await manager.sync()

    async def look() -> None:
        async with rig.manager(0) as manager:
            assert await manager.find("task") is not None
            assert await letters(manager) == []
            await manager.close(0)

    asyncio.run(leave())
    asyncio.run(look())


class Full(SQLiteStore):
    """A store whose disk is full when the test says so."""

    full = False

    def commit(self, batch: Batch) -> None:
        if self.full:
            raise StoreError("the disk is full")
        super().commit(batch)


@pytest.mark.parametrize("workers", [0, 1])
async def test_no_task_is_told_that_it_stays_which_could_not_be_written(
    rig: Rig, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "CLOSE_PATIENCE", 0.1)
    store = Full(rig.path)
    async with Manager(store=store, workers=workers) as manager:
        written = manager.schedule(enduring.note(rig.log, "written"), HOUR)
        await written.stored()
        store.full = True
        other = manager.schedule(enduring.note(rig.log, "other"), HOUR)
    assert written.state is State.KEPT
    assert other.state is State.CANCELLED
    async with rig.manager() as manager:
        assert manager.stats().stored == 1


@WORKERS
async def test_a_queue_keeps_its_order(rig: Rig, workers: int) -> None:
    async with rig.manager(cls=QueuedScheduler) as manager:
        manager.schedule(enduring.hold(rig.log, "head", str(rig.gate)))
        for n in range(10):
            manager.schedule(enduring.note(rig.log, n), id=None if n % 3 else str(n))
        await rig.until_said("head 1")
        await manager.close(0)
    rig.gate.touch()
    async with rig.manager(workers, cls=QueuedScheduler) as manager:
        manager.schedule(enduring.note(rig.log, "last"))
        await manager.join()
    head, *rest = rig.said()[1:]
    assert head.startswith("head")
    assert rest == ["head ends", *(f"{n} 1" for n in range(10)), "last 1"]


@pytest.mark.parametrize("replace", [False, True])
async def test_what_is_scheduled_before_the_file_is_open(rig: Rig, replace: bool) -> None:
    async with rig.manager() as manager:
        await manager.schedule(enduring.note(rig.log, "old"), HOUR, id="x").stored()
    manager = rig.manager()
    manager.start()
    task = manager.schedule(enduring.note(rig.log, "new"), 2 * HOUR, id="x", replace=replace)
    other = manager.schedule(enduring.note(rig.log, "other"))
    await task.stored()
    assert await manager.find("x") is task
    assert task.due is not None
    left = task.due - datetime.now(UTC)
    assert (left > HOUR) is replace
    assert manager.reschedule(task, timedelta(0))
    assert await task == ("new" if replace else "old")
    assert await other == "other"
    await manager.close()
    assert sorted(rig.said()) == sorted(["other 1", "new 1" if replace else "old 1"])


async def test_an_id_holds_over_a_restart_and_is_free_when_its_task_has_ended(
    rig: Rig,
) -> None:
    async with rig.manager() as manager:
        manager.schedule(enduring.note(rig.log, "first"), HOUR, id="x")
        manager.schedule(enduring.note(rig.log, "gone"), HOUR, id="y").cancel()
    async with rig.manager() as manager:
        task = manager.schedule(enduring.note(rig.log, "second"), id="x")
        assert task is await manager.find("x")
        assert await manager.find("y") is None
        manager.reschedule(task, timedelta(0))
        assert await task == "first"
        assert await manager.schedule(enduring.note(rig.log, "second"), id="x") == "second"


# ---- options belong to the function


@WORKERS
async def test_a_retry_goes_on_where_it_was(rig: Rig, workers: int) -> None:
    attempts: list[int] = []
    for _ in range(2):
        async with rig.manager(workers) as manager:
            task = manager.schedule(enduring.fail(rig.log, "what"), id="what")
            for info in [info async for info in manager.tasks()]:
                if info.attempt > 1:  # its wait is kept, too
                    assert info.due is not None
                    assert info.due > datetime.now(UTC) + HOUR / 2
                    manager.reschedule(info.ref, timedelta(0))
            while [info.attempt async for info in manager.tasks()] in ([1], attempts[-1:]):
                await asyncio.sleep(0.01)
            while task.state is State.RUNNING:
                await asyncio.sleep(0.01)
            attempts += [info.attempt async for info in manager.tasks()]
    assert attempts == [2, 3]
    async with rig.manager(workers) as manager:
        last = await manager.find("what")
        assert last is not None
        manager.reschedule(last, timedelta(0))
        with pytest.raises(LookupError, match="what"):
            await last
        (letter,) = await letters(manager, reason="failed")
        assert (letter.name, letter.id, letter.attempts) == ("fail thrice", "what", 3)
        assert "Traceback" in letter.text
        assert letter.text.endswith("LookupError: what\nit had 3 attempts, of 3 at most\n")
    assert rig.said() == ["what 1", "what 2", "what 3"]


@WORKERS
async def test_what_is_too_late_after_the_restart_is_a_dead_letter(rig: Rig, workers: int) -> None:
    async with rig.manager(0) as manager:
        task = manager.schedule(enduring.soon_or_never(rig.log), timedelta(seconds=0.5))
        await manager.close()
        assert task.state is State.KEPT
    await asyncio.sleep(0.7)
    async with rig.manager(workers) as manager:
        await manager.join()
        (letter,) = await letters(manager)
        assert (letter.name, letter.reason, letter.attempts) == ("soon or never", "too_late", 0)
        assert "its max_lateness is 0.05 s" in letter.text
        again = await manager.requeue(letter, timedelta(0))
        try:
            await again
        except TooLate:  # this machine is slow
            return
    assert rig.said() == ["began"]


async def test_failures_are_told_in_sums_and_kept_one_by_one(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.manager() as manager:
        batch = manager.map(enduring.fail_at_once, range(500), return_exceptions=True)
        assert len(await batch) == 500
        await manager.sync()
        stats = manager.stats()
        assert (stats.stored, stats.dead_letters, stats.unsaved, stats.failed) == (0, 500, 0, 500)
        assert stats.store_bytes >= 0
        assert 0 < stats.commit_p50 <= stats.commit_p99
        assert await manager.discard(reason="lost") == 0
        first = (await letters(manager, limit=1))[0]
        assert await manager.discard(first) == 1
        assert await manager.discard(reason="failed", before=datetime.now(UTC)) == 499
        assert manager.stats().dead_letters == 0
    told = [record for record in caplog.records if "dead letter" in record.getMessage()]
    assert 1 <= len(told) <= 10
    assert sum("failed: " in record.getMessage() for record in told) == len(told)


# ---- what goes with a task


@WORKERS
async def test_values_of_a_context_are_kept(
    rig: Rig, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing one is warned of, and the others are there."""
    enduring.word.set("kept")
    enduring.gone.set("gone")
    both: Any = [enduring.gone, enduring.word]
    async with rig.manager(context=both) as manager:
        manager.schedule(enduring.say_word(rig.log), HOUR, id="x")
    enduring.word.set("another")
    enduring.gone.set("none")
    with caplog.at_level(logging.WARNING):
        async with rig.manager(workers, context=[enduring.word]) as manager:
            task = await manager.find("x")
            assert task is not None
            task.reschedule(timedelta(0))
            await task
    assert rig.said() == ["kept none"]
    assert any("enduring" in record.getMessage() for record in caplog.records)


async def test_a_task_of_another_thread_is_durable(rig: Rig) -> None:
    async with rig.manager() as manager:
        coro = enduring.note(rig.log, "abroad")
        future = await asyncio.to_thread(manager.schedule_threadsafe, coro, HOUR, id="x")
        while await manager.find("x") is None:
            await asyncio.sleep(0.01)
        await manager.sync()
        assert manager.stats().stored == 1
    with pytest.raises(ManagerClosed):
        future.result(10)
    async with rig.manager() as manager:
        assert await manager.find("x") is not None


@pytest.mark.long
async def test_a_payload_of_100_mb(rig: Rig) -> None:
    async with rig.manager() as manager:
        task = manager.schedule(enduring.size(bytes(100 << 20)), HOUR, id="large")
        await task.stored()
    async with rig.manager() as manager:
        found = await manager.find("large")
        assert found is not None
        found.reschedule(timedelta(0))
        assert await found == 100 << 20


@pytest.mark.parametrize("count", [10_000, pytest.param(200_000, marks=pytest.mark.long)])
async def test_a_long_map_over_a_restart(rig: Rig, count: int) -> None:
    async with rig.manager(2) as manager:
        manager.map(enduring.nothing, range(count), HOUR)
        await manager.sync()
        assert manager.stats().stored == count
    async with rig.manager(2) as manager:
        async for info in manager.tasks():
            manager.reschedule(info.ref, timedelta(0))
        await manager.join()
        await manager.sync()
        stats = manager.stats()
        assert (stats.stored, stats.dead_letters, stats.finished) == (0, 0, count)


# ---- refusals


@WORKERS
async def test_what_would_not_be_durable_is_refused(rig: Rig, workers: int) -> None:
    async with rig.manager(workers) as manager:
        wrapped = counted(enduring.note)
        with pytest.raises(NotDurable, match=r'@counted makes .* put @durable\("note"\) above'):
            manager.schedule(wrapped(rig.log, 1))
        with pytest.raises(NotDurable, match="@counted"):
            manager.starmap(wrapped, [(rig.log, 1)])
        options: list[Any] = [{"timeout": 1}, {"retry": Retry()}, {"max_lateness": 1}]
        for option in options:
            with pytest.raises(TypeError, match=f"set {next(iter(option))} in the decorator"):
                manager.schedule(enduring.note(rig.log, 1), **option)
            with pytest.raises(TypeError, match=f"set {next(iter(option))} in the decorator"):
                manager.map(enduring.nothing, [1], **option)
        with pytest.raises(NotDurable):
            manager.schedule(enduring.note(rig.log, lambda: 1))
        plain = manager.schedule(enduring.note_plainly(rig.log, 1))
        with pytest.raises(TypeError, match="is not in a store"):
            await plain.stored()
        await plain
        assert manager.stats().stored == 0
    lifo: Any = LifoQueuedScheduler
    with pytest.raises(ValueError, match="Lifo"):
        Manager(store=rig.path, cls=lifo)
    async with Manager(workers=0) as manager:
        task = manager.schedule(enduring.note(rig.log, "in memory"))
        with pytest.raises(TypeError, match="is not in a store"):
            await task.stored()
        with pytest.raises(TypeError, match="has no store"):
            await manager.sync()
        assert await task == "in memory"


async def test_top_shows_the_store(
    rig: Rig, short_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(short_path))
    async with rig.manager(monitor=True) as manager:
        manager.map(enduring.nothing, range(1234), HOUR)
        manager.schedule(enduring.fail_at_once("bad"))
        await manager.sync()
        while manager.stats().dead_letters != 1:
            await asyncio.sleep(0.01)
        command = [sys.executable, "-m", "aioscheduler", "top", "--once"]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=50
        )
    assert done.returncode == 0, done.stderr
    assert "stored 1,234  dead letters 1  unsaved 0" in done.stdout
