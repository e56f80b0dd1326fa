"""Tasks held, addressed, awaited, batched and chained, over real workers and with workers=0."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
from acting import end_as
from raising import Raises

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    ManagerProxy,
    NotShippable,
    QueuedScheduler,
    RemoteError,
    RemoteTraceback,
    State,
    TaskLimitReached,
    TaskRef,
    TimedScheduler,
    UnknownTask,
    current_manager,
    current_task,
)
from aioscheduler._transport.pipe import HIGH_WATER

NEVER = timedelta(days=1)
SOON = timedelta(milliseconds=30)
AT_ONCE = timedelta(0)


@pytest.fixture(params=[0, 2], ids=["here", "workers"])
async def manager(request: pytest.FixtureRequest) -> AsyncIterator[Manager]:
    async with Manager(4, workers=request.param) as manager:
        yield manager


async def give(value: Any) -> Any:
    return value


async def fail(error: BaseException) -> None:
    raise error


def square(n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n * n


async def square_later(n: int) -> int:
    await asyncio.sleep(0.001)
    return square(n)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.002)


# ---- handles


async def test_a_handle_is_a_good_asyncio_citizen(manager: Manager) -> None:
    tasks = [manager.schedule(square_later(n)) for n in range(10)]
    assert await asyncio.gather(*tasks) == [n * n for n in range(10)]
    later = [manager.schedule(give(n), timedelta(milliseconds=40 - n)) for n in range(10)]
    assert sorted([await done for done in asyncio.as_completed(later)]) == list(range(10))
    slow = manager.schedule(asyncio.sleep(0.1, "slow"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slow, 0.01)
    assert await asyncio.wait_for(slow, 20) == "slow"
    first, second = manager.schedule(asyncio.sleep(30)), manager.schedule(give(1))
    done, pending = await asyncio.wait([first, second], return_when="FIRST_COMPLETED")  # type: ignore[type-var]
    assert (done, pending) == ({second}, {first})
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_handle_tells_its_story(manager: Manager) -> None:
    when = datetime(2100, 1, 2, tzinfo=UTC)
    task = manager.schedule(give(1), when)
    assert task.priority is when
    assert "pending" in repr(task)
    assert "2100" in repr(task)
    assert str(task.ref) in repr(task)
    with pytest.raises(asyncio.InvalidStateError, match="await it first"):
        task.result()
    with pytest.raises(asyncio.InvalidStateError):
        task.exception()
    running = manager.schedule(asyncio.sleep(30), AT_ONCE)
    assert isinstance(running.priority, datetime)
    assert running.priority.tzinfo is UTC
    await until(lambda: running.state is State.RUNNING)
    assert "running" in repr(running)
    failed = manager.schedule(fail(KeyError("x")))
    with pytest.raises(KeyError):
        await failed
    assert isinstance(failed.exception(), KeyError)
    assert "failed" in repr(failed)
    for open_ in (task, running):
        assert open_.cancel()
        await asyncio.wait([open_])  # type: ignore[type-var]
        assert "cancelled" in repr(open_)
        with pytest.raises(asyncio.CancelledError):
            open_.exception()
    assert len({t.uuid for t in (task, running, failed)}) == 3
    with pytest.raises(TypeError, match=r"task\.ref"):
        pickle.dumps(task)
    with pytest.raises(asyncio.InvalidStateError, match="cannot become"):
        task._settle(State.FINISHED, 1)


async def test_callbacks_come_even_if_the_handle_is_dropped(manager: Manager) -> None:
    called: list[Any] = []
    manager.schedule(give(7)).add_done_callback(lambda task: called.append(task.result()))
    kept = manager.schedule(give(8))
    kept.add_done_callback(called.append)
    assert kept.remove_done_callback(called.append) == 1
    await kept
    await manager.join()
    await asyncio.sleep(0)
    kept.add_done_callback(called.append)
    await asyncio.sleep(0)
    assert called == [7, kept]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_dropped_handles_leave_nothing(count: int) -> None:
    async with Manager(workers=2) as manager:

        async def run(count: int) -> None:
            for n in range(count):
                manager.schedule(give(n))
                if n % 2000 == 0:
                    await manager.join()  # unended tasks are kept, however slow the machine is
            await manager.join()

        await run(count // 10)
        gc.collect()
        process = psutil.Process()
        before = [p.memory_info().rss for p in (process, *process.children())]
        await run(count)
        gc.collect()
        after = [p.memory_info().rss for p in (process, *process.children())]
        for link in manager._remotes:
            assert not link._listeners._handles
            assert len(link.book.ledger) == 0
        assert max(b - a for a, b in zip(before, after, strict=True)) < 30_000_000


class Loud:
    """A value that notes where it is unpickled."""

    def __reduce__(self) -> Any:
        return _unpickled, (os.getpid(),)


unpickled: list[int] = []


def _unpickled(pid: int) -> str:
    unpickled.append(pid)
    if pid == -1:
        raise RuntimeError("not here")
    return "loud"


class NotHere:
    def __reduce__(self) -> Any:
        return _unpickled, (-1,)


async def test_a_result_stays_bytes_until_somebody_asks() -> None:
    async def loud() -> Any:
        return Loud()

    async def bad() -> Any:
        return NotHere()

    unpickled.clear()
    async with Manager(workers=1) as manager:
        task, other = manager.schedule(loud()), manager.schedule(bad())
        await manager.join()
        assert task.done()
        assert unpickled == []
        assert await task == await task == "loud"
        assert len(unpickled) == 1
        with pytest.raises(RemoteError, match="not here"):
            await other
        assert await manager.schedule(give(1)) == 1


# ---- references


async def test_a_reference_leads_back(manager: Manager) -> None:
    task = manager.schedule(give(1), NEVER)
    ref = task.ref
    assert ref is not None
    copy = pickle.loads(pickle.dumps(ref))
    assert (copy, hash(copy), str(copy)) == (ref, hash(ref), str(ref))
    assert manager.task(copy) is task
    due = task.priority
    del task
    again = manager.task(copy)
    assert isinstance(again.priority, datetime)
    assert isinstance(due, datetime)
    assert abs(again.priority - due) <= timedelta(microseconds=1)
    assert again.ref == ref
    assert manager.cancel(copy)
    with pytest.raises(asyncio.CancelledError):
        await again
    assert not manager.cancel(copy)
    with pytest.raises(UnknownTask, match="has ended"):
        manager.task(copy)
    finished = manager.schedule(give(1))
    await finished
    assert finished.ref is not None
    with pytest.raises(UnknownTask, match="has ended"):
        manager.task(finished.ref)


async def test_a_foreign_or_damaged_reference_is_refused(manager: Manager) -> None:
    ref = manager.schedule(give(1), NEVER).ref
    assert ref is not None
    for bad in (
        ref._replace(manager="other"),
        ref._replace(worker=99),
        ref._replace(worker=-1),
        ref._replace(scheduler=99),
        ref._replace(number=-1),
        ref._replace(number="0"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UnknownTask):
            manager.task(bad)
        with pytest.raises(UnknownTask):
            manager.cancel(bad)
    with pytest.raises(UnknownTask):
        manager.task(ref._replace(number=10**9))
    assert not manager.cancel(ref._replace(number=10**9))
    for nonsense in (None, 3, "ref", tuple(ref)):
        with pytest.raises(TypeError):
            manager.task(nonsense)  # type: ignore[arg-type]
    assert manager.cancel(ref)


async def test_a_scheduler_without_a_manager_has_no_references() -> None:
    async with TimedScheduler() as scheduler:
        assert scheduler.schedule(give(1), NEVER).ref is None
        with pytest.raises(RuntimeError, match="Manager"):
            await scheduler.schedule(ask_who(), AT_ONCE)


# ---- batches


async def test_map_gives_results_in_order(manager: Manager) -> None:
    assert await manager.map(square, range(1000)) == [n * n for n in range(1000)]
    assert await manager.map(square_later, range(100)) == [n * n for n in range(100)]
    assert await manager.starmap(pow, [(2, n) for n in range(70)]) == [2**n for n in range(70)]
    assert await manager.map(lambda pair: pair, [(1,), [2], {3: 4}]) == [(1,), [2], {3: 4}]
    assert await manager.map(square, []) == []
    base = 10
    assert await manager.map(lambda n: n + base, [1, 2]) == [11, 12]
    assert await manager.map(str, [1]) == ["1"]
    batch = manager.map(square, range(300), SOON)
    assert len(batch) == 300
    assert [value async for value in batch] == [n * n for n in range(300)]
    assert batch.done()
    assert await batch == [n * n for n in range(300)]


async def test_small_batches_use_every_scheduler(manager: Manager) -> None:
    batch = manager.map(give, range(8), NEVER)
    assert len({task.ref[1:3] for task in (batch[i] for i in range(8)) if task.ref}) == 4
    keyed = manager.map(give, range(8), NEVER, key="k")
    assert len({task.ref[1:3] for task in (keyed[i] for i in range(8)) if task.ref}) == 1
    assert batch.cancel()
    assert keyed.cancel()
    await manager.join()
    assert not batch.cancel()


async def test_one_time_per_item(manager: Manager) -> None:
    start = datetime.now(UTC) + timedelta(milliseconds=60)
    whens = [start + timedelta(milliseconds=3 * (10 - n)) for n in range(10)]
    batch = manager.map(now_ns, range(10), whens)
    for (n, ran), when in zip(await batch, whens, strict=True):
        assert ran >= int(when.timestamp() * 1e6) * 1000, n
    assert batch[3].priority == whens[3]
    with pytest.raises(ValueError, match="9 times for 10 items"):
        manager.map(square, range(10), whens[:9])


def now_ns(n: int) -> tuple[int, int]:
    return n, time.time_ns()


async def test_the_first_failure_is_raised_at_once(manager: Manager) -> None:
    batch = manager.map(wait_or_fail, [30.0, -1.0, 30.0])
    with pytest.raises(ValueError, match="negative"):
        await batch
    assert not batch.done()
    assert isinstance(batch[1].exception(), ValueError)
    results: list[Any] = []
    other = manager.map(wait_or_fail, [0.0, 0.0, -1.0, 0.0])
    with pytest.raises(ValueError, match="negative"):
        async for value in other:
            results.append(value)
    assert results == [0.0, 0.0]
    assert batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch[0]
    await manager.join()


async def wait_or_fail(seconds: float) -> float:
    if seconds < 0:
        raise ValueError("negative")
    await asyncio.sleep(seconds)
    return seconds


async def test_handles_of_a_batch_are_made_when_touched(manager: Manager) -> None:
    batch = manager.map(square_later, range(50), SOON)
    third, last = batch[3], batch[-1]
    assert batch[3] is third
    assert third.ref is not None
    assert manager.task(third.ref) is third
    assert (await third, await last) == (9, 49 * 49)
    assert batch[5].done() is (batch._outcomes.states[5] is not None)
    await batch
    assert batch[5].result() == 25
    for wrong in (50, -51):
        with pytest.raises(IndexError):
            batch[wrong]
    with pytest.raises(TypeError):
        batch["3"]  # type: ignore[index]


async def test_a_cancelled_batch_ends_cancelled(manager: Manager) -> None:
    batch = manager.map(square, range(1000), NEVER)
    assert len(manager) == 1000
    assert batch.cancel()
    assert len(manager) == 0
    with pytest.raises(asyncio.CancelledError):
        await batch
    await manager.join()
    assert all(batch[i].cancelled() for i in range(1000))


async def test_a_dropped_batch_reports_its_failures_once(
    manager: Manager, reports: list[Any]
) -> None:
    manager.map(square, [1, -2, 3, -4, -5])
    await manager.join()
    gc.collect()
    await asyncio.sleep(0)  # the loop reports
    (report,) = reports
    assert report["message"].startswith("3 of the 5 tasks")
    assert isinstance(report["exception"], ValueError)
    reports.clear()
    kept = manager.map(square, [-1])
    await manager.join()
    assert reports == []
    del kept
    gc.collect()
    await asyncio.sleep(0)  # the loop reports
    assert len(reports) == 1
    reports.clear()
    asked = manager.map(square, [-1, -2])
    with pytest.raises(ValueError, match="negative"):
        await asked
    await manager.join()
    del asked
    gc.collect()


async def test_a_batch_gives_failures_in_the_place_of_results_if_asked(
    manager: Manager, reports: list[Any]
) -> None:
    here = not manager._remotes
    right = [str, LookupError, Raises if here else RemoteError, asyncio.CancelledError, str]
    ways = ["fine", "fails", "cannot be read", "waits", "fine"]
    for batch in (
        manager.map(end_as, ways, return_exceptions=True),
        manager.starmap(end_as, [(way,) for way in ways], return_exceptions=True),
    ):
        batch[3].cancel()
        for ends in (await batch, [end async for end in batch]):
            assert [type(end) for end in ends] == right
        failure = batch[1].exception()
        assert isinstance(failure, LookupError)
        assert here or isinstance(failure.__cause__, RemoteTraceback)
    del batch
    gc.collect()
    await asyncio.sleep(0)
    assert reports == []
    manager.map(end_as, ways[:2], return_exceptions=True)
    await manager.join()
    gc.collect()
    await asyncio.sleep(0)  # the loop reports
    (report,) = reports
    assert report["message"].startswith("1 of the 2 tasks")
    reports.clear()
    wrong: Any = "no"
    with pytest.raises(TypeError, match="return_exceptions must be True or False, not 'no'"):
        manager.map(end_as, ways, NEVER, return_exceptions=wrong)
    assert len(manager) == 0


async def test_an_iterator_gives_what_is_behind_failures(manager: Manager) -> None:
    ways = ["fails", "fine", "cannot be read", "waits", "fails", "fine"]
    batch = manager.map(end_as, ways)
    batch[3].cancel()
    ends: list[Any] = []
    iterator = aiter(batch)
    for _ in ways:
        try:
            ends.append(await anext(iterator))
        except BaseException as error:
            ends.append(error)
    unreadable = RemoteError if manager._remotes else Raises
    right = [LookupError, str, unreadable, asyncio.CancelledError, LookupError, str]
    assert [type(end) for end in ends] == right
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)


async def test_a_refused_item_is_named_and_the_rest_taken_back() -> None:
    async with Manager(4, 600, workers=2) as manager:
        with pytest.raises(NotShippable, match="item 500"):
            manager.map(give, [*range(300), *[AT_ONCE] * 200, (c for c in "")], NEVER)
        with pytest.raises(TaskLimitReached, match="item 600"):
            manager.map(give, range(700), NEVER)
        with pytest.raises(ValueError, match="item 2: .*past"):
            manager.map(give, range(3), [NEVER, NEVER, -NEVER])
        with pytest.raises(TypeError, match="item 1: when"):
            manager.map(give, range(2), [NEVER, 3])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="function"):
            manager.map(3, range(2))  # type: ignore[call-overload]
        with pytest.raises(TypeError):
            manager.map(give, 3)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="key"):
            manager.map(give, [1], key=1.5)  # type: ignore[call-overload]
        await manager.join()
        assert len(manager) == 0
    with pytest.raises(ManagerClosed):
        manager.map(give, [1])
    queue = Manager(cls=QueuedScheduler, workers=0)
    with pytest.raises(TypeError, match="leave out when"):
        queue.map(give, [1], SOON)  # type: ignore[call-overload]
    await queue.close()


async def test_large_items_go_too() -> None:
    async with Manager(workers=2) as manager:
        items = [
            bytes([n % 256]) * size for n, size in enumerate([10, 30_000, 40_000, 1_000_000] * 60)
        ]
        assert await manager.map(give, items) == items
        tasks = [manager.schedule(give(item)) for item in items]
        assert await asyncio.gather(*tasks) == items
        big = b"x" * 100_000
        assert await manager.map(lambda n: len(big) + n, [1, 2]) == [100_001, 100_002]


async def test_flush_bounds_what_is_not_sent_of_a_long_stream() -> None:
    """Fifty million bytes of arguments go through a worker that reads slowly."""
    async with Manager(workers=1) as manager:
        life = manager._remotes[0]._sender._process
        assert life is not None
        over = 0
        for _ in range(50):
            manager.map(size_slowly, [b"x" * 1000] * 1000)
            over += life.pipe.waiting > HIGH_WATER
            await manager.flush()
            assert life.pipe.waiting <= HIGH_WATER
        assert over
        await manager.join()


def size_slowly(data: bytes) -> int:
    return len(data)


# ---- keys


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
async def test_tasks_of_a_key_run_one_at_a_time(cls: Any) -> None:
    async with Manager(6, cls=cls, workers=2) as manager:
        spans: dict[int, list[Any]] = {}
        tasks = {n: manager.schedule(span(n), key=n % 5) for n in range(60)}
        for n, task in tasks.items():
            spans.setdefault(n % 5, []).append(await task)
        for ran in spans.values():
            ordered = sorted(ran, key=lambda each: each[1])
            assert all(a[2] <= b[1] for a, b in zip(ordered, ordered[1:], strict=False))
            if cls is QueuedScheduler:
                assert ordered == ran


async def span(n: int) -> tuple[int, int, int]:
    began = time.monotonic_ns()
    await asyncio.sleep(0.001)
    return n, began, time.monotonic_ns()


# ---- inside a task


async def ask_who() -> TaskRef:
    await asyncio.sleep(0)
    return current_task()


async def successor(left: int, path: str) -> int:
    """Leave its number in a file, and schedule the next of its kind."""
    with open(path, "a") as file:
        file.write(f"{left}\n")
    if left:
        current_manager().schedule(successor(left - 1, path), timedelta(milliseconds=1))
    return left


async def through(manager: Any, key: Any = None) -> tuple[TaskRef, TaskRef]:
    ref = manager.schedule(ask_who(), NEVER, key=key)
    return (ref.ref if not isinstance(ref, TaskRef) else ref), current_task()


async def test_a_task_knows_who_it_is(manager: Manager) -> None:
    tasks = [manager.schedule(ask_who()) for _ in range(20)]
    assert await asyncio.gather(*tasks) == [task.ref for task in tasks]
    batch = manager.map(lambda n: current_task(), range(20))
    assert await batch == [batch[i].ref for i in range(20)]


async def test_a_task_schedules_its_successor(manager: Manager, tmp_path: Any) -> None:
    path = tmp_path / "log"
    assert await manager.schedule(successor(50, str(path))) == 50
    await manager.join()
    assert path.read_text().split() == [str(n) for n in range(50, -1, -1)]
    assert len(manager) == 0
    for link in manager._remotes:
        assert not link.book._aliases._numbers
        assert not link.book._aliases._aliases
        assert len(link.book.ledger) == 0


async def test_the_host_knows_a_successor_by_the_reference_its_maker_got(manager: Manager) -> None:
    for key in (None, "a", "b", "c", "d"):
        ref, maker = await manager.schedule(through(manager, key))
        assert ref != maker
        if key is None and manager._remotes:  # else the manager itself was asked
            assert ref[1:3] == maker[1:3]
        task = manager.task(ref)
        assert task.ref == ref
        assert task.reschedule(AT_ONCE)  # not before, so that it could be found
        assert await task == ref
        with pytest.raises(UnknownTask):
            manager.task(ref)
        assert not manager.cancel(ref)
    assert [manager.schedule(give(1), NEVER, key="d").ref[1:3] == ref[1:3]] == [True]  # type: ignore[index]


async def test_a_task_cancels_another(manager: Manager) -> None:
    async def cancel(ref: TaskRef) -> bool:
        return current_manager().cancel(ref)

    async def refused(ref: Any) -> None:
        current_manager().cancel(ref)

    sleeping = manager.schedule(give(1), NEVER)
    assert await manager.schedule(cancel(sleeping.ref))  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    with pytest.raises(UnknownTask, match="another manager"):
        await manager.schedule(refused(TaskRef("x", 0, 0, 0)))
    with pytest.raises(TypeError, match="TaskRef"):
        await manager.schedule(refused(3))


async def test_a_manager_as_an_argument_is_the_proxy() -> None:
    async def kind(manager: Any) -> tuple[str, Any]:
        return type(manager).__name__, manager

    async with Manager(workers=1) as manager, Manager(workers=0) as local, Manager(1) as other:
        name, back = await manager.schedule(kind(manager))
        assert name == ManagerProxy.__name__
        assert back is manager
        assert (await local.schedule(kind(local))) == ("Manager", local)
        with pytest.raises(NotShippable, match="own tasks"):
            manager.schedule(kind(other))


async def test_bad_calls_inside_are_refused_there(manager: Manager) -> None:
    async def bad(how: str) -> None:
        proxy = current_manager()
        if how == "past":
            proxy.schedule(give(1), timedelta(seconds=-1))
        elif how == "key":
            proxy.schedule(give(1), key=1.5)  # type: ignore[arg-type]
        else:
            proxy.schedule(3)  # type: ignore[arg-type]

    for how, error in (("past", ValueError), ("key", TypeError), ("no coroutine", TypeError)):
        with pytest.raises(error):
            await manager.schedule(bad(how))


async def test_successors_of_every_kind_of_function(manager: Manager) -> None:
    """A function found by name, one of a shipped closure, and one made inside the task."""

    def outer() -> Any:
        async def inner(n: int) -> int:
            async def innermost(m: int) -> int:
                return m + n

            ref = current_manager().schedule(innermost(100), NEVER)
            current_manager().schedule(innermost(100), timedelta(milliseconds=30))
            current_manager().schedule(asyncio.sleep(0, b"x" * 200_000))
            return ref  # type: ignore[return-value]

        return inner

    ref = await manager.schedule(outer()(5))
    task = manager.task(ref)
    assert task.reschedule(AT_ONCE)
    assert await task == 105
    await manager.join()


async def test_a_successors_failure_is_reported_to_the_host(
    manager: Manager, reports: list[Any]
) -> None:
    async def begin() -> None:
        current_manager().schedule(fail(KeyError("inside")))

    await manager.schedule(begin())
    await manager.join()
    gc.collect()
    await asyncio.sleep(0)  # the loop reports
    (report,) = reports
    assert isinstance(report["exception"], KeyError)
    reports.clear()


async def test_what_tasks_schedule_is_not_limited() -> None:
    async def many() -> None:
        for n in range(50):
            current_manager().schedule(give(n), NEVER)

    for workers in (0, 1):
        async with Manager(1, 3, workers=workers) as manager:
            await manager.schedule(many())
            assert len(manager) == 50
            with pytest.raises(TaskLimitReached):
                manager.schedule(give(1))


def test_outside_a_task_there_is_a_clear_error() -> None:
    for function in (current_task, current_manager):
        with pytest.raises(RuntimeError, match="inside the scheduled coroutine"):
            function()


# ---- limits under load, and cancelling in every state


@pytest.mark.parametrize("workers", [0, 2])
async def test_the_limit_is_never_exceeded(workers: int) -> None:
    generator = random.Random(3)
    async with Manager(3, 50, workers=workers) as manager:
        accepted = refused = 0
        for n in range(4000):
            try:
                manager.schedule(give(n), timedelta(milliseconds=generator.random() * 3))
                accepted += 1
            except TaskLimitReached:
                refused += 1
                await asyncio.sleep(0.001)
            assert len(manager) <= 50
        await manager.join()
        assert (accepted > 500, refused > 0, len(manager)) == (True, True, 0)


@pytest.mark.parametrize("workers", [0, 2])
async def test_cancelling_is_truthful_in_every_state(workers: int, tmp_path: Any) -> None:
    """Thousands of races between starting, finishing and being cancelled."""
    log = tmp_path / "log"
    log.touch()
    generator = random.Random(5)
    async with Manager(3, workers=workers) as manager:
        tasks = []
        for n in range(3000):
            pause = generator.choice([0, 0, 0.001, 0.005])
            task = manager.schedule(
                record(n, pause, str(log)), timedelta(milliseconds=generator.random() * 10)
            )
            tasks.append(task)
            if generator.random() < 0.4:
                generator.choice(tasks[-20:]).cancel()
            if n % 50 == 0:
                await asyncio.sleep(0.003)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        lines = [line.split() for line in log.read_text().splitlines()]
        began = {int(n) for word, n in lines if word == "began"}
        returned = {int(n) for word, n in lines if word == "returned"}
        saw_it = {int(n) for word, n in lines if word == "cancelled"}
        assert len(lines) == len({tuple(line) for line in lines})
        for n, end in enumerate(ends):
            if isinstance(end, asyncio.CancelledError):
                assert n not in returned
                assert n in saw_it or n not in began
            else:
                assert end == n
                assert n in returned
        assert len(manager) == 0


async def record(n: int, pause: float, path: str) -> int:
    def note(word: str) -> None:
        with open(path, "a") as file:
            file.write(f"{word} {n}\n")

    note("began")
    try:
        await asyncio.sleep(pause)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    note("returned")
    return n


# ---- by-value modules


class Shared:
    """They are of a module that workers cannot import: this test."""

    def twin(self) -> Shared:
        return Shared()


async def twin(of: Shared) -> Shared:
    return of.twin()


async def test_a_class_travels_once() -> None:
    async with Manager(workers=1) as manager:
        assert type(await manager.schedule(twin(Shared()))) is Shared
        lines = manager._remotes[0].shipper.catalog.log.next
        for _ in range(5):
            assert type(await manager.schedule(twin(Shared()))) is Shared
        assert manager._remotes[0].shipper.catalog.log.next == lines
        payload = manager._remotes[0].shipper.take(twin(Shared()))[1]
        assert isinstance(payload, bytes)
        assert len(payload) < 150
