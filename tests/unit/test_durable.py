"""Durable tasks as users see them: several managers, one after another, on one store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import reminders
from reminders import done, gates
from stores import FULL, GONE, TrickyStore

from aioscheduler import (
    DeadLetter,
    ManagerClosed,
    NotDurable,
    QueuedScheduler,
    State,
    StoreError,
    TaskLimitReached,
    UnknownTask,
    WorkerLost,
    registry,
)
from aioscheduler._durable.records import Batch, Begun, Function, Row
from aioscheduler._processes.paired import PairedWorkerHandle
from aioscheduler._transport import wire
from aioscheduler.testing import FakeClock, FakeManager

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WORKERS = pytest.mark.parametrize("workers", [0, 2])


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    done.clear()
    gates.clear()
    yield
    done.clear()
    gates.clear()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def store() -> TrickyStore:
    return TrickyStore()


async def letters(manager: FakeManager, **which: Any) -> list[DeadLetter]:
    return [letter async for letter in manager.dead_letters(**which)]


async def settle(clock: FakeClock, manager: FakeManager) -> None:
    """Wait until everything that is due now is done and on disk."""
    for _ in range(3):
        await clock.advance(0)
        await manager.sync()


# ---- from one manager to the next


@WORKERS
async def test_what_waits_is_kept_and_runs_in_the_next_manager(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        task = manager.schedule(reminders.note(7), DAY, id="remind:7")
        plain = manager.schedule(reminders.note(8), 2 * DAY)
        await task.stored()
        assert manager.stats().stored == 2
    assert task.state is plain.state is State.KEPT
    with pytest.raises(ManagerClosed, match="it stays in the store"):
        await task
    assert plain.done()
    assert not plain.cancelled()
    assert manager.stats().kept == 2
    assert store.closed == [True]
    async with clock.manager(store=store, workers=workers) as manager:
        assert len(manager) == 2
        found = await manager.find("remind:7")
        assert found is not None
        assert found.due == START + DAY
        assert done == []
        await clock.advance(DAY)
        assert await found == 7
        assert done == [7]
        await settle(clock, manager)
        assert (manager.stats().stored, len(manager)) == (1, 1)
    await clock.advance(3 * DAY)  # no manager is there
    async with clock.manager(store=store, workers=workers) as manager:
        await settle(clock, manager)
        await manager.join()
        assert done == [7, 8]
    assert store.rows() == []


@WORKERS
async def test_a_batch_is_kept_with_its_times(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        whens = [timedelta(seconds=n) for n in range(300)]
        batch = manager.map(reminders.note, range(300), whens)
        await manager.sync()
        await clock.advance(99)
        await settle(clock, manager)
        assert manager.stats().stored == 200
    with pytest.raises(ManagerClosed):
        await batch
    async with clock.manager(store=store, workers=workers) as manager:
        await clock.advance(1000)
        assert sorted(done) == list(range(300))
    assert store.rows() == []


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_queue_keeps_its_order(clock: FakeClock, store: TrickyStore, workers: int) -> None:
    gates["first"] = asyncio.Event()
    async with clock.manager(cls=QueuedScheduler, store=store, workers=workers) as manager:
        manager.schedule(reminders.hold("first"))
        for n in range(5):
            manager.schedule(reminders.note(n), id=f"n{n}" if n % 2 else None)
        await settle(clock, manager)
        assert done == ["first"]
        await manager.close(0)
    done.clear()
    gates["first"].set()
    async with clock.manager(cls=QueuedScheduler, store=store, workers=workers) as manager:
        manager.schedule(reminders.note("last"))
        await settle(clock, manager)
        await manager.join()
    assert done == ["first", 0, 1, 2, 3, 4, "last"]


@WORKERS
async def test_what_is_not_durable_is_in_memory_alone(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        task = manager.schedule(asyncio.sleep(0), DAY)
        with pytest.raises(TypeError, match=r"decorate its function with @durable"):
            await task.stored()
        await manager.sync()
        assert manager.stats().stored == 0
    assert task.cancelled()


@WORKERS
async def test_without_a_store_a_durable_function_is_as_any_other(
    clock: FakeClock, workers: int
) -> None:
    async with clock.manager(workers=workers) as manager:
        task = manager.schedule(reminders.retried(1))
        with pytest.raises(TypeError, match="give its manager a store"):
            await task.stored()
        for call in (manager.sync(), manager.discard(), manager.requeue(1), manager.backup("x")):
            with pytest.raises(TypeError, match="this manager has no store"):
                await call
        with pytest.raises(TypeError, match="this manager has no store"):
            manager.dead_letters()
        await clock.advance(120)
        assert await task == 1
        assert done == [(1, 1), (1, 2), (1, 3)]
        stats = manager.stats()
        assert (stats.stored, stats.dead_letters, stats.store_bytes) == (0, 0, 0)


async def test_before_the_start_the_store_cannot_be_asked(
    clock: FakeClock, store: TrickyStore
) -> None:
    manager = clock.manager(store=store, workers=0)
    task = manager.schedule(reminders.note(1), DAY)
    for call in (manager.sync(), task.stored(), manager.discard()):
        with pytest.raises(RuntimeError, match=r"start\(\)"):
            await call
    await manager.close()
    assert task.cancelled()  # it was never opened
    assert store.closed == []


# ---- ids


@WORKERS
async def test_an_id_holds_over_restarts(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        first = manager.schedule(reminders.note(1), DAY, id="a")
        assert manager.schedule(reminders.note(2), DAY, id="a") is first
    async with clock.manager(store=store, workers=workers) as manager:
        known = manager.schedule(reminders.note(3), 2 * DAY, id="a")
        await known.stored()  # until the file has answered it is the new one
        assert known.due == START + DAY
        other = manager.schedule(reminders.note(4), 2 * DAY, id="a", replace=True)
        await other.stored()
        await clock.advance(0)
        assert known.cancelled()
    assert [row.id for row in store.rows()] == ["a"]
    async with clock.manager(store=store, workers=workers) as manager:
        await clock.advance(3 * DAY)
    assert done == [4]


@WORKERS
async def test_before_the_store_is_open_an_id_is_bound_when_it_has_answered(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        for id_ in "abc":
            manager.schedule(reminders.note(f"old {id_}"), DAY, id=id_)
    manager = clock.manager(store=store, workers=workers)
    early = [manager.schedule(reminders.note(f"new {id_}"), 2 * DAY, id=id_) for id_ in "ad"]
    taken = manager.schedule(reminders.note("new b"), 2 * DAY, id="b", replace=True)
    gone = manager.schedule(reminders.note("new c"), 2 * DAY, id="c")
    ends: list[Any] = []
    early[0].add_done_callback(ends.append)
    manager.start()
    assert gone.cancel()
    await early[0].stored()
    assert [task.due for task in early] == [START + DAY, START + 2 * DAY]
    assert await manager.find("a") is early[0]
    assert await manager.find("b") is taken
    assert await manager.find("c") is None
    assert len(manager) == 3
    await manager.sync()
    assert sorted(row.id or "" for row in store.rows()) == ["a", "b", "d"]
    await manager.ready()
    await clock.advance(DAY)
    assert await early[0] == "old a"
    await asyncio.sleep(0)
    assert ends == [early[0]]
    await clock.advance(DAY)
    assert sorted(done) == ["new b", "new d", "old a"]
    await manager.close()
    assert store.rows() == []


@WORKERS
async def test_what_is_closed_while_it_opens_is_kept(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        manager.schedule(reminders.note(1), DAY, id="a")
    manager = clock.manager(store=store, workers=workers)
    early = [manager.schedule(reminders.note(n), DAY, id=id_) for n, id_ in ((2, "a"), (3, None))]
    manager.start()
    await manager.close()
    assert [task.state for task in early] == [State.KEPT] * 2
    assert store.closed == [True, True]
    async with clock.manager(store=store, workers=workers) as manager:
        await clock.advance(2 * DAY)
    assert sorted(done) == [1, 3]


# ---- queries about tasks


@WORKERS
async def test_what_is_cancelled_or_moved_is_so_in_the_file(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        first, second = (manager.schedule(reminders.note(n), DAY) for n in (1, 2))
        await manager.sync()
        assert first.cancel()
        assert second.reschedule(3 * DAY)
        await clock.advance(0)
        assert first.cancelled()
    (row,) = store.rows()
    assert row.due == (START + 3 * DAY).timestamp() * 10**9
    async with clock.manager(store=store, workers=workers) as manager:
        await clock.advance(2 * DAY)
        assert done == []
        await clock.advance(DAY)
        assert done == [2]


async def test_handles_and_lists_know_what_is_stored(clock: FakeClock, store: TrickyStore) -> None:
    async with clock.manager(store=store, workers=2, max_tasks=3) as manager:
        manager.schedule(reminders.note(1), DAY, id="a:1", name="mine")
        manager.schedule(reminders.note(2), DAY)
    async with clock.manager(store=store, workers=2, max_tasks=3) as manager:
        infos = [info async for info in manager.tasks()]
        assert {(info.name, info.id) for info in infos} == {
            ("mine", "a:1"),
            ("reminders:note", None),
        }
        task = manager.task(infos[0].ref)
        await task.stored()
        manager.schedule(reminders.note(3), DAY)
        with pytest.raises(TaskLimitReached):
            manager.schedule(reminders.note(4), DAY)


async def test_a_file_may_have_more_than_the_limit(clock: FakeClock, store: TrickyStore) -> None:
    async with clock.manager(store=store, workers=0) as manager:
        manager.map(reminders.note, range(5), DAY)
    async with clock.manager(store=store, workers=0, max_tasks=3) as manager:
        assert len(manager) == 5
        with pytest.raises(TaskLimitReached):
            manager.schedule(reminders.note(4), DAY)
        await clock.advance(DAY)
        assert sorted(done) == list(range(5))


# ---- failures, retries, dead letters


@WORKERS
async def test_a_failure_is_a_letter_that_can_be_requeued_or_dropped(
    clock: FakeClock,
    store: TrickyStore,
    workers: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        tasks = [manager.schedule(reminders.fail(n), id=f"f{n}") for n in range(4)]
        await settle(clock, manager)
        assert all(task.state is State.FAILED for task in tasks)
        with pytest.raises(ValueError, match="no 2"):
            await tasks[2]
        found = await letters(manager)
        assert [(each.name, each.id, each.attempts, each.reason) for each in found] == [
            ("test.fail", f"f{n}", 1, "failed") for n in range(4)
        ]
        assert found[2].due == START
        assert "ValueError: no 2" in found[2].text
        assert (manager.stats().stored, manager.stats().dead_letters) == (0, 4)
    assert "4 durable tasks became dead letters (failed: 4)" in caplog.text
    async with clock.manager(store=store, workers=workers) as manager:
        assert manager.stats().dead_letters == 4
        assert len(await letters(manager, limit=3)) == 3
        assert await letters(manager, limit=0) == []
        assert await letters(manager, reason="lost") == []
        manager.schedule(reminders.note("taken"), DAY, id="f3")
        with pytest.raises(ValueError, match="another task has the id 'f3' now"):
            await manager.requeue(found[3])
        again = await manager.requeue(found[1], DAY)
        with pytest.raises(UnknownTask, match="it may have been requeued or discarded"):
            await manager.requeue(found[1].row)
        assert (again.id, again.due) == ("f1", START + DAY)
        await again.stored()
        assert await manager.discard(found[0].row) == 1
        with pytest.raises(UnknownTask):
            await manager.discard(found[0])
        assert await manager.discard(found[2], reason="lost") == 0
        assert await manager.discard(reason="failed", before=START) == 0
        assert [each.id for each in await letters(manager)] == ["f2", "f3"]
        assert await manager.discard() == 2
        assert manager.stats().dead_letters == 0
        done.clear()
        await clock.advance(DAY)
        await settle(clock, manager)
        assert sorted(map(str, done)) == ["1", "taken"]
        assert [each.id for each in await letters(manager)] == ["f1"]


async def test_letters_are_read_page_by_page(clock: FakeClock, store: TrickyStore) -> None:
    async with clock.manager(store=store, workers=0) as manager:
        batch = manager.map(reminders.fail, range(600), return_exceptions=True)
        await settle(clock, manager)
        assert len(await batch) == 600
        rows = [letter.row for letter in await letters(manager)]
        assert len(rows) == 600
        assert rows == sorted(rows)
        async for letter in manager.dead_letters(limit=300):
            assert await manager.discard(letter) == 1
        assert [letter.row for letter in await letters(manager)] == rows[300:]


@WORKERS
async def test_a_retry_goes_on_in_the_next_manager(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        manager.schedule(reminders.retried("a"), timedelta(seconds=10))
        await clock.advance(10)
        await settle(clock, manager)
        assert done == [("a", 1)]
    async with clock.manager(store=store, workers=workers) as manager:
        (info,) = [info async for info in manager.tasks()]
        assert (info.attempt, info.due) == (2, START + timedelta(seconds=70))
        await clock.advance(60)
        await settle(clock, manager)
        assert done == [("a", 1), ("a", 2)]
    async with clock.manager(store=store, workers=workers) as manager:
        await clock.advance(60)
        await settle(clock, manager)
        assert done[2:] == [("a", 3)]
        manager.schedule(reminders.retried("b", 9))
        await clock.advance(200)
        await settle(clock, manager)
        (letter,) = await letters(manager)
        assert (letter.reason, letter.attempts) == ("failed", 3)
    assert store.rows() == []


@WORKERS
async def test_what_is_too_late_is_a_letter(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        manager.schedule(reminders.late(1), DAY)
    await clock.advance(2 * DAY)
    async with clock.manager(store=store, workers=workers) as manager:
        await settle(clock, manager)
        (letter,) = await letters(manager)
        assert letter.reason == "too_late"
        assert manager.stats().too_late == 1
    assert done == []


@WORKERS
async def test_what_cannot_be_read_or_called_is_a_letter_and_the_others_run(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        for n in range(4):
            manager.schedule(reminders.note(n), DAY)
    first, second, third, fourth = store.rows()
    store.write(
        Batch(
            functions=[
                Function(7, "test.nobody", "reminders:nobody", once=False),
                Function(8, "test.nowhere", "no_such_module:f", once=False),
            ],
            strikes=[(row.bucket, row.row) for row in (first, second, third)],
            puts=[
                first._replace(row=101, payload=b"\xc1garbage"),
                second._replace(row=102, options=b"\xc1"),
                third._replace(row=103, function=7),
                third._replace(row=104, function=8),
                third._replace(row=105, function=77),
            ],
        )
    )
    await clock.advance(DAY)
    async with clock.manager(store=store, workers=workers) as manager:
        await settle(clock, manager)
        found = {letter.row: letter.reason for letter in await letters(manager)}
        assert found == {
            101: "unreadable",
            102: "unreadable",
            103: "unknown",
            104: "unknown",
            105: "unknown",
        }
    assert done == [3]
    assert fourth.row
    assert store.rows() == []


# ---- close


@WORKERS
async def test_what_runs_is_awaited_and_then_stays(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    gates.update({name: asyncio.Event() for name in ("quick", "slow", "once")})
    async with clock.manager(store=store, workers=workers) as manager:
        quick, slow = (manager.schedule(reminders.hold(name)) for name in ("quick", "slow"))
        once = manager.schedule(reminders.hold_once("once"))
        await settle(clock, manager)
        assert sorted(done) == ["once", "quick", "slow"]
        gates["quick"].set()
        await manager.close(0.1)
    assert quick.result() == "quick"
    assert (slow.state, once.state) == (State.KEPT, State.LOST)
    with pytest.raises(WorkerLost):
        await once
    (row,) = store.rows()
    assert row.begun is Begun.NO
    (letter,) = store.dead()
    assert letter.reason.value == "lost"
    gates["slow"].set()
    async with clock.manager(store=store, workers=workers) as manager:
        await settle(clock, manager)
        await manager.join()
    assert done[3:] == ["slow"]
    assert store.rows() == []


@WORKERS
async def test_what_a_task_makes_of_a_close_is_no_failure(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    functions = (
        *(reminders.convert, reminders.convert_retried),
        *(reminders.convert_once, reminders.convert_plainly),
    )
    names = [function.__name__ for function in functions]
    gates.update({name: asyncio.Event() for name in (*names, "early", "asked")})
    async with clock.manager(store=store, workers=workers) as manager:
        tasks = [manager.schedule(function(function.__name__)) for function in functions]
        early, asked = (manager.schedule(reminders.convert(name)) for name in ("early", "asked"))
        await settle(clock, manager)
        closing = asyncio.ensure_future(manager.close(1))
        await clock.advance(1)
        gates["early"].set()  # before anything was cancelled
        asked.cancel()
        await clock.advance(10)
        await closing
    assert [task.state for task in tasks] == [
        *(State.KEPT, State.KEPT, State.LOST),
        State.FAILED,  # a task in memory only fails as usual
    ]
    assert repr(early.exception()) == "ValueError('early has failed')"
    assert repr(asked.exception()) == "LookupError('asked was cut off')"
    assert isinstance(tasks[3].exception(), LookupError)
    assert [(row.begun, row.failed) for row in store.rows()] == [(Begun.NO, 0)] * 2
    reasons = sorted((letter.reason.value, letter.text) for letter in store.dead())
    assert [reason for reason, _ in reasons] == ["failed", "lost"]
    assert reasons[0][1].endswith("ValueError: early has failed\n")
    gates["convert"].set()
    gates["convert_retried"].set()
    async with clock.manager(store=store, workers=workers) as manager:
        await settle(clock, manager)
        assert sorted(done[6:]) == names[:2]
        assert len(await letters(manager)) == 3
        assert manager.stats().stored == 1  # the retried one


@WORKERS
async def test_a_cancellation_that_nobody_asked_for_is_a_letter(
    clock: FakeClock, store: TrickyStore, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    hows = ["by itself", "of another", "at its gate"]
    gates["at its gate"] = asyncio.Event()
    async with clock.manager(store=store, workers=workers) as manager:
        tasks = [manager.schedule(reminders.cut(how), id=how) for how in hows]
        await settle(clock, manager)
        assert [task.cancelled() for task in tasks] == [True, True, False]
        again = manager.schedule(reminders.note("again"), id="by itself")
        await settle(clock, manager)
        assert again.result() == "again"
        assert manager.stats().dead_letters == 2
        closing = asyncio.ensure_future(manager.close(5))
        await clock.advance(1)
        gates["at its gate"].set()  # before the close cancels anything
        await clock.advance(1)
        await closing
    assert tasks[2].cancelled()
    assert manager.stats().cancelled == 3
    assert sum(map(int, re.findall(r"\(failed: (\d)\)", caplog.text))) == 3
    assert sorted(done) == sorted([*hows, "again"])  # none is retried
    assert store.rows() == []
    found = {letter.id: letter for letter in store.dead()}
    assert found.keys() == set(hows)
    for how, letter in found.items():
        assert (letter.reason.value, letter.attempt) == ("failed", 1)
        assert letter.text.startswith("ended by a CancelledError that nobody asked for\nTraceback")
        assert "in cut" in letter.text
        assert letter.text.endswith(f"CancelledError: {how}\n")


@WORKERS
@pytest.mark.parametrize("end", ["returns", "fails", "is cancelled"])
async def test_a_cancellation_is_on_record_while_the_task_cleans_up(
    clock: FakeClock, store: TrickyStore, workers: int, end: str
) -> None:
    gates["a"] = asyncio.Event()
    async with clock.manager(store=store, workers=workers) as manager:
        task = manager.schedule(reminders.clean("a", end), id="a")
        await settle(clock, manager)
        assert task.cancel()
        await settle(clock, manager)
        assert task.state is State.RUNNING
        assert store.rows() == []
        assert manager.schedule(reminders.note("other"), id="a") is task  # as long as it runs
        new = manager.schedule(reminders.note("new"), DAY, id="a", replace=True)
        await new.stored()
        assert [row.id for row in store.rows()] == ["a"]
        gates["a"].set()
        await settle(clock, manager)
        expected = {"returns": State.FINISHED, "fails": State.FAILED}
        assert task.state is expected.get(end, State.CANCELLED)
        if end == "fails":
            assert isinstance(task.exception(), LookupError)
        assert [row.id for row in store.rows()] == ["a"]
    assert new.state is State.KEPT
    assert store.dead() == []


async def test_what_is_cancelled_and_cleans_up_dies_with_its_worker(
    clock: FakeClock, store: TrickyStore
) -> None:
    gates["a"] = asyncio.Event()
    async with clock.manager(1, store=store, workers=1) as manager:
        task = manager.schedule(reminders.clean("a", "returns"), id="a")
        await settle(clock, manager)
        task.cancel()
        await settle(clock, manager)
        manager.kill()
        await settle(clock, manager)
        assert task.cancelled()
        assert await manager.schedule(reminders.note("next"), id="a") == "next"
        await settle(clock, manager)
    assert done == ["a", "next"]
    assert store.rows() == []
    assert store.dead() == []


@WORKERS
async def test_a_task_that_is_cancelled_while_it_runs_is_no_more(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    gates["a"] = asyncio.Event()
    async with clock.manager(store=store, workers=workers) as manager:
        task = manager.schedule(reminders.hold("a"), id="a")
        await settle(clock, manager)
        assert task.cancel()
        await settle(clock, manager)
        assert task.cancelled()
        assert manager.stats().stored == 0
    assert store.rows() == []
    assert store.dead() == []


@WORKERS
async def test_a_chain_goes_on_over_managers(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        manager.schedule(reminders.chain(manager, 4), id="chain")  # type: ignore[arg-type]
        await clock.advance(25)
        assert done == [4, 3, 2]
        await settle(clock, manager)
        assert manager.stats().stored == 1
    for _ in range(2):
        async with clock.manager(store=store, workers=workers) as manager:
            assert len(manager) == 1
            await clock.advance(10)
            await settle(clock, manager)
    assert done == [4, 3, 2, 1, 0]
    assert store.rows() == []


# ---- a store that fails


@WORKERS
async def test_a_store_that_cannot_be_opened_is_the_end_and_nothing_was_started(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    store.cannot_open = StoreError("tasks.db is no database")
    manager = clock.manager(store=store, workers=workers)
    task = manager.schedule(reminders.note(1))
    with pytest.raises(StoreError, match="is no database"):
        async with manager:
            pytest.fail("it is not ready")
    assert task.state is State.LOST
    with pytest.raises(ManagerClosed):
        manager.schedule(reminders.note(1))
    if workers:
        assert [worker.pid for worker in manager.stats().workers] == [None] * workers
    assert done == []


async def test_who_does_not_ask_is_told_by_the_loop(
    clock: FakeClock, store: TrickyStore, reports: list[dict[str, Any]]
) -> None:
    store.cannot_open = StoreError("tasks.db is no database")
    manager = clock.manager(store=store, workers=2)
    manager.start()
    await clock.advance(0)
    with pytest.raises(StoreError, match="is no database"):
        await manager.sync()
    (report,) = reports
    assert report["exception"] is store.cannot_open
    reports.clear()
    await manager.close()


@WORKERS
async def test_while_the_store_cannot_write_tasks_run_and_what_is_new_waits_for_it(
    clock: FakeClock,
    store: TrickyStore,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("aioscheduler._routing.commits.FIRST_RETRY", 1e-9)
    monkeypatch.setattr("aioscheduler._routing.commits.LONGEST_RETRY", 0.0)
    async with clock.manager(store=store, workers=workers) as manager:
        await manager.sync()
        store.fails = FULL
        plain = manager.schedule(reminders.note("plain"))
        named = manager.schedule(reminders.note("named"), id="a")
        once = manager.schedule(reminders.once("once"))
        syncing = asyncio.create_task(manager.sync())
        assert await plain == "plain"
        for _ in range(50):
            await asyncio.sleep(0)
        assert done == ["plain"]
        assert not syncing.done()
        assert manager.stats().unsaved
        store.fails = None
        await syncing
        assert sorted([await named, await once]) == ["named", "once"]
        await settle(clock, manager)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("cannot be written" in message for message in messages) == 1
    assert any("can be written again" in message for message in messages)
    assert store.rows() == []


@WORKERS
async def test_a_store_that_is_gone_fails_the_manager_and_all_are_told(
    clock: FakeClock,
    store: TrickyStore,
    workers: int,
    reports: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    gates["a"] = asyncio.Event()
    manager = clock.manager(store=store, workers=workers)
    async with manager:
        stored = manager.schedule(reminders.note(1), DAY)
        runs = manager.schedule(reminders.hold("a"))
        manager.map(reminders.note, range(4), DAY)
        await settle(clock, manager)
        store.fails = GONE
        new = manager.schedule(reminders.note(2), DAY)
        manager.map(reminders.note, range(3), DAY)
        with pytest.raises(StoreError, match="was deleted"):
            await new.stored()
        with pytest.raises(StoreError, match="was deleted"):
            await stored.stored()  # it was stored
        with pytest.raises(ManagerClosed, match="has failed"):
            manager.schedule(reminders.note(3))
        for _ in range(50):
            await asyncio.sleep(0)
        with pytest.raises(StoreError, match="was deleted"):
            await new
        with pytest.raises(ManagerClosed, match="has failed"):
            await stored
        assert runs.done()
        stats = manager.stats()
        assert (stats.stored, stats.dead_letters, stats.pending, len(manager)) == (6, 0, 0, 0)
        assert (stats.kept, stats.lost) == (6, 4)
        for ask in (manager.sync(), letters(manager)):
            with pytest.raises(StoreError, match="was deleted"):
                await ask
    with pytest.raises(StoreError, match="whether a task has the id 'a' is not known"):
        await manager.find("a")
    with pytest.raises(StoreError, match="is not open"):
        await anext(manager.tasks())
    assert manager.stats().lost == stats.lost
    (report,) = reports
    assert report["exception"] is GONE
    reports.clear()
    assert "4 new tasks are not in tasks.db, and are lost" in caplog.messages
    assert store.closed == [False]
    assert "dead letter" not in caplog.text  # none can be written


async def test_what_is_wrong_with_the_file_is_said(
    clock: FakeClock, store: TrickyStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.complains = "tasks.db is corrupt: tasks at 3 places cannot be read"
    store.heartbeat = int((START + DAY).timestamp()) * 10**9
    async with clock.manager(store=store, workers=0):
        pass
    assert store.complains in caplog.messages
    assert "is from the future: its last host was alive 86400 s later" in caplog.text


@WORKERS
async def test_what_the_file_has_refused_is_not_said_to_stay(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        near, far = (manager.schedule(reminders.note(n), n * DAY) for n in (1 / 99, 99))
        kept = manager.schedule(reminders.note("kept"), 99 * DAY)
        store.refused = {task.ref.number for task in (near, far) if task.ref is not None}
        for task in (near, far):
            with pytest.raises(StoreError, match="a page is bad"):
                await task.stored()
        assert (len(manager), manager.stats().stored, far.state) == (2, 1, State.LOST)
    stats = manager.stats()
    assert (near.state, kept.state) == (State.CANCELLED, State.KEPT)
    assert (stats.kept, stats.cancelled, stats.lost, stats.stored) == (1, 1, 1, 1)
    assert [row.row for row in store.rows()] == [kept.ref and kept.ref.number]


async def test_a_plain_task_that_has_the_id_of_one_that_only_the_file_has_loses_it_to_that(
    clock: FakeClock, store: TrickyStore
) -> None:
    async with clock.manager(store=store, workers=0) as manager:
        await manager.schedule(reminders.note("durable"), 3 * DAY, id="a").stored()
        plain = manager.schedule(asyncio.sleep(0, "plain"), 5 * DAY, id="a")
        await clock.advance(3 * DAY - timedelta(seconds=30))
        found = await manager.find("a")
        assert found is not None
        assert found.name.endswith("note")
        assert len(manager) == 2
        await clock.advance(3 * DAY)
        assert (await plain, done) == ("plain", ["durable"])


# ---- dead hosts


def died(store: TrickyStore, *rows: Row, heartbeat: datetime = START) -> None:
    """Write the file of a host that died with these tasks."""
    functions = [
        Function(n, f"test.{name}", f"reminders:{name}", name == "once")
        for n, name in enumerate(("note", "once", "hold"), 1)
    ]
    store.write(Batch(functions=functions, puts=rows))
    store.dirty, store.heartbeat = True, int(heartbeat.timestamp()) * 10**9


def row_of(number: int, name: str, value: Any, **more: Any) -> Row:
    due = int(START.timestamp()) * 10**9
    function = ("note", "once", "hold").index(name) + 1
    return Row(number, due, function, wire.pack([value]))._replace(**more)


@WORKERS
async def test_what_had_begun_when_its_host_died(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    died(
        store,
        row_of(1, "note", "begun", begun=Begun.YES),
        row_of(2, "note", "twice", begun=Begun.YES, losses=1, attempt=2),
        row_of(3, "note", "too often", begun=Begun.YES, losses=2, attempt=3),
        row_of(4, "once", "once", begun=Begun.ONCE),
        row_of(5, "once", "waited"),
        row_of(6, "note", "waited, too"),
    )
    async with clock.manager(store=store, workers=workers) as manager:
        for _ in range(4):
            await settle(clock, manager)
        await manager.join()
        found = {each.row: (each.reason, each.attempts) for each in await letters(manager)}
        assert found == {3: ("lost", 3), 4: ("lost", 1)}
    assert sorted(done) == ["begun", "twice", "waited", "waited, too"]
    assert store.rows() == []


async def test_suspects_are_on_record_when_they_begin(clock: FakeClock, store: TrickyStore) -> None:
    gates["poison"] = asyncio.Event()
    died(store, row_of(1, "hold", "poison"), row_of(2, "note", "innocent"))
    async with clock.manager(store=store, workers=0) as manager:
        await settle(clock, manager)
        assert sorted(done) == ["innocent", "poison"]
        assert [row.begun for row in store.rows()] == [Begun.YES]
        gates["poison"].set()
        await manager.join()


async def test_one_whose_next_loss_is_the_last_begins_alone(
    clock: FakeClock, store: TrickyStore
) -> None:
    gates["poison"] = asyncio.Event()
    died(
        store,
        row_of(1, "hold", "poison", losses=2, attempt=3),
        row_of(2, "note", "suspect"),
        row_of(3, "note", "later", due=int((START + DAY).timestamp()) * 10**9),
    )
    async with clock.manager(store=store, workers=0) as manager:
        manager.schedule(reminders.note("new"))
        await settle(clock, manager)
        assert sorted(done) == ["new", "poison"]
        gates["poison"].set()
        await settle(clock, manager)
        assert done[2:] == ["suspect"]
        await clock.advance(DAY)
        assert done[3:] == ["later"]


async def test_a_worker_that_dies_spends_no_budget_for_durable_tasks(
    clock: FakeClock, store: TrickyStore
) -> None:
    gates["a"] = asyncio.Event()
    gates["once"] = asyncio.Event()
    async with clock.manager(1, store=store, workers=1, max_restarts=(0, 1.0)) as manager:
        task = manager.schedule(reminders.hold("a"), id="a")
        once = manager.schedule(reminders.hold_once("once"))
        await settle(clock, manager)
        for losses in range(1, 4):
            manager.kill()
            await settle(clock, manager)
            rows = [row for row in store.rows() if row.id == "a"]
            assert [(row.losses, row.attempt) for row in rows] == (
                [(losses, losses + 1)] if losses < 3 else []
            )
        assert done.count("a") == 3
        assert done.count("once") == 1
        assert (task.state, once.state) == (State.LOST, State.LOST)
        assert sorted((each.reason, each.id or "") for each in await letters(manager)) == [
            ("lost", ""),
            ("lost", "a"),
        ]
        assert await manager.schedule(reminders.note(1)) == 1
        assert manager.stats().restarts == 3


@pytest.mark.parametrize("id_", [None, "a"])  # it begins on its own, or on CONFIRM
async def test_a_worker_that_dies_before_it_begins_anything_is_not_replaced_for_ever(
    clock: FakeClock, store: TrickyStore, id_: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates["a"] = asyncio.Event()
    monkeypatch.setattr(
        PairedWorkerHandle, "begun", lambda self, scheduler: (0, 0)
    )  # what the black box says
    manager = clock.manager(1, store=store, workers=1, max_restarts=(3, 1e9))
    await manager.__aenter__()
    task = manager.schedule(reminders.hold("a"), id=id_)
    (link,) = manager._remotes
    lives: list[Any] = []
    while manager._router.closed is None and len(lives) < 20:
        if link.book.ledger.running and link.supervisor.process not in lives:
            lives.append(link.supervisor.process)  # it has announced the task to the host
            manager.kill()
        await asyncio.sleep(0)
    assert len(lives) == 4
    await manager.join()
    await manager.close()
    assert task.state is State.KEPT
    assert [row.losses for row in store.rows()] == [0]


# ---- functions of a script


async def test_a_script_has_a_minute_to_define_its_functions(
    clock: FakeClock, store: TrickyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, id_ in ((1, "a"), (2, "b"), (3, "c")):
        died(store, row_of(n, "note", n, function=7, id=id_))
    store.write(
        Batch(
            functions=[Function(7, "test.script", "__main__:script", once=False)],
            puts=[row_of(4, "note", 4, function=7, due=int((START + DAY).timestamp()) * 10**9)],
        )
    )
    store.dirty = False
    async with clock.manager(store=store, workers=0) as manager:
        keeper = manager._router.keeper
        assert keeper is not None
        await settle(clock, manager)
        keeper.look_after()
        assert manager.stats().stored == 4
        new = manager.schedule(reminders.note("mine"), id="a")  # it waits for no script
        await settle(clock, manager)
        assert await new == "mine"
        assert [each.id for each in await letters(manager)] == ["a"]
        await clock.advance(59)
        keeper.look_after()
        await settle(clock, manager)
        assert manager.stats().dead_letters == 1
        await clock.advance(1)
        keeper.look_after()
        await settle(clock, manager)
        assert [(each.id, each.reason) for each in await letters(manager)] == [
            ("a", "unknown"),
            ("b", "unknown"),
            ("c", "unknown"),
        ]
        assert manager.stats().stored == 1
        known = registry.find("test.note")
        assert known is not None
        monkeypatch.setitem(registry._names, "test.script", known)
        keeper.look_after()
        assert len(manager) == 1
        again = await manager.requeue((await letters(manager))[1])
        await settle(clock, manager)
        assert await again == 2
        await clock.advance(DAY)
        assert done == ["mine", 2, 4]
    assert store.rows() == []


# ---- several at once


@WORKERS
async def test_what_a_task_schedules_while_its_manager_closes_is_for_the_next(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    gates["closing"] = asyncio.Event()
    async with clock.manager(store=store, workers=workers) as manager:
        manager.schedule(reminders.note("kept"), DAY, id="kept")
        manager.schedule(reminders.note("taken"), DAY, id="taken")
        manager.schedule(reminders.last(manager, "closing"))  # type: ignore[arg-type]
        await settle(clock, manager)
        closing = asyncio.create_task(manager.close())
        await asyncio.sleep(0.01)
        gates["closing"].set()
        await closing
    async with clock.manager(store=store, workers=workers) as manager:
        assert len(manager) == 4
        assert sorted([info.id or "" async for info in manager.tasks()]) == [
            "",
            "kept",
            "new",
            "taken",
        ]
        done.clear()
        await clock.advance(2 * DAY)
        assert sorted(done) == ["kept", "late new", "late plain", "late taken"]
    assert store.closed == [True, True]


@WORKERS
async def test_who_runs_and_loses_its_id_goes_on_beside_the_new_one(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    gates.update(old=asyncio.Event())
    async with clock.manager(store=store, workers=workers) as manager:
        old = manager.schedule(reminders.hold("old"), id="a")
        await settle(clock, manager)
        new = manager.schedule(reminders.note("new"), DAY, id="a", replace=True)
        await manager.sync()
        assert (old.id, new.id) == (None, "a")
        assert sorted(row.id or "" for row in store.rows()) == ["", "a"]
        await manager.close(0)
    assert (old.state, new.state) == (State.KEPT, State.KEPT)
    gates["old"].set()
    async with clock.manager(store=store, workers=workers) as manager:
        await clock.advance(DAY)
        await settle(clock, manager)
    assert done == ["old", "old", "new"]


@WORKERS
async def test_an_id_that_is_replaced_many_times_in_a_turn_is_of_the_last(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers) as manager:
        for round_ in range(3):
            tasks = [
                manager.schedule(reminders.note(n), DAY, id="a", replace=True) for n in range(5)
            ]
            await tasks[-1].stored()
            await clock.advance(0)
            assert [task.cancelled() for task in tasks] == [True] * 4 + [False]
            (row,) = store.rows()
            assert row.id == "a"
            if round_ == 1:
                assert tasks[-1].cancel()
                await settle(clock, manager)
                assert store.rows() == []


@WORKERS
async def test_values_of_the_context_are_kept(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(
        store=store, workers=workers, context=[reminders.request_id]
    ) as manager:
        token = reminders.request_id.set("r1")
        manager.schedule(reminders.request(1), DAY)
        manager.map(reminders.request, [2], DAY)
        reminders.request_id.reset(token)
        manager.schedule(reminders.request(3), DAY)
    async with clock.manager(
        store=store, workers=workers, context=[reminders.request_id]
    ) as manager:
        await clock.advance(DAY)
        assert sorted(done) == [(1, "r1"), (2, "r1"), (3, "none")]


@WORKERS
async def test_what_is_refused_of_many_is_in_no_file(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    async with clock.manager(store=store, workers=workers, max_tasks=10) as manager:
        with pytest.raises(NotDurable, match="item 3: "):
            manager.map(reminders.note, [1, 2, 3, lambda: 4], DAY)
        with pytest.raises(TaskLimitReached, match="item 10: "):
            manager.map(reminders.note, range(11), DAY)
        coro: Any = reminders.note(lambda: 4)
        with pytest.raises(NotDurable):
            manager.schedule(coro, DAY)
        assert coro.cr_frame is None
        with pytest.raises(TypeError, match=r"set timeout in the decorator, @durable\("):
            manager.schedule(reminders.note(1), timeout=5)
        await settle(clock, manager)
        assert (manager.stats().stored, len(manager)) == (0, 0)


async def test_a_queue_s_letters_and_retries(clock: FakeClock, store: TrickyStore) -> None:
    async with clock.manager(1, cls=QueuedScheduler, store=store, workers=1) as manager:
        with pytest.raises(TypeError, match="a queue has no due times"):
            manager.schedule(reminders.late(1))
        manager.schedule(reminders.fail("bad"), id="f")
        manager.schedule(reminders.retried("again"))
        manager.schedule(reminders.note("behind"))
        await settle(clock, manager)
        assert done == ["bad", ("again", 1)]
        (letter,) = await letters(manager)
        assert letter.due == datetime(1970, 1, 1, tzinfo=UTC)
        await manager.requeue(letter)
    assert [(row.attempt, row.due) for row in store.rows()] == [(2, 0), (1, 0), (1, 0)]
    done.clear()
    async with clock.manager(1, cls=QueuedScheduler, store=store, workers=1) as manager:
        await settle(clock, manager)
        await clock.advance(70)
        await settle(clock, manager)
        await manager.join()
    assert done == [("again", 2), ("again", 3), "behind", "bad"]


async def test_a_queue_goes_on_where_its_worker_has_died(
    clock: FakeClock, store: TrickyStore
) -> None:
    gates["a"] = asyncio.Event()
    async with clock.manager(1, cls=QueuedScheduler, store=store, workers=1) as manager:
        manager.schedule(reminders.hold("a"))
        for n in range(3):
            manager.schedule(reminders.note(n), id=f"n{n}")
        await settle(clock, manager)
        manager.kill()
        await settle(clock, manager)
        gates["a"].set()
        await settle(clock, manager)
        await manager.join()
    assert done == ["a", "a", 0, 1, 2]


@WORKERS
async def test_many_suspects_all_run_once(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    died(store, *(row_of(n, "note" if n % 3 else "once", n) for n in range(1, 900)))
    async with clock.manager(store=store, workers=workers) as manager:
        for _ in range(20):
            await settle(clock, manager)
        await manager.join()
    assert sorted(done) == list(range(1, 900))
    assert store.rows() == []
    assert store.dead() == []


@WORKERS
async def test_a_suspect_that_is_cancelled_in_the_queue_of_suspects_holds_up_nobody(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    gates["first"] = asyncio.Event()
    died(
        store,
        row_of(1, "hold", "first", losses=2),
        row_of(2, "note", "gone", losses=2, id="gone"),
        row_of(3, "note", "third", losses=2),
        row_of(4, "note", "moved", losses=2, id="moved"),
    )
    async with clock.manager(1, store=store, workers=min(workers, 1)) as manager:
        await settle(clock, manager)
        assert done == ["first"]
        gone, moved = await manager.find("gone"), await manager.find("moved")
        assert gone is not None
        assert moved is not None
        assert gone.cancel()
        has_moved = moved.reschedule(DAY)
        await settle(clock, manager)
        assert done == ["first"]
        gates["first"].set()
        for _ in range(3):
            await settle(clock, manager)
        assert done == ["first", "third"] + ([] if has_moved else ["moved"])
        assert gone.cancelled()
        await clock.advance(DAY)
        await settle(clock, manager)
        await manager.join()
    assert done == ["first", "third", "moved"]
    assert store.rows() == []
    assert store.dead() == []


async def test_hosts_that_die_one_after_another_find_the_task_that_kills_them(
    clock: FakeClock, store: TrickyStore
) -> None:
    """The host dies as soon as the poison has begun; the innocents are cleared by running."""
    gates["poison"] = asyncio.Event()
    died(store, row_of(1, "hold", "poison"), *(row_of(n, "note", n) for n in range(2, 300)))
    lives = 0
    while any(row.row == 1 for row in store.rows()):
        lives += 1
        assert lives <= 5
        manager = clock.manager(store=store, workers=0)
        await manager.__aenter__()
        for _ in range(5):
            await settle(clock, manager)
        keeper = manager._router.keeper
        assert keeper is not None
        begun = [row for row in store.rows() if row.row == 1]
        # As after a kill: only what was committed is there.
        rows = store.rows()
        await manager.close(0)
        now = store.rows()
        store.write(
            Batch(strikes=[(row.bucket, row.row) for row in now], puts=rows),
        )
        store.dirty = True
        assert all(row.begun is Begun.YES for row in begun)
    assert {row for row in done if isinstance(row, int)} == set(range(2, 300))
    assert [(each.row, each.reason.value) for each in store.dead()] == [(1, "lost")]


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_waits_in_a_queue_behind_what_runs_has_not_begun_at_a_close(
    clock: FakeClock, store: TrickyStore, workers: int
) -> None:
    """Although it was announced, and is on record as one that may begin."""
    gates["a"] = asyncio.Event()
    async with clock.manager(1, cls=QueuedScheduler, store=store, workers=workers) as manager:
        manager.schedule(reminders.hold("a"))
        tasks = [
            manager.schedule(reminders.once(1)),
            manager.schedule(reminders.note(2), id="a"),
            manager.schedule(reminders.note(3)),
        ]
        for _ in range(3):
            manager.schedule(reminders.note("more"))
            await settle(clock, manager)
        assert done == ["a"]
        await manager.close(0)
    assert [task.state for task in tasks] == [State.KEPT] * 3
    assert store.dead() == []
    assert [(row.begun, row.attempt) for row in store.rows()][1:4] == [(Begun.NO, 1)] * 3
