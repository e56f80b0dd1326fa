"""A manager over real worker processes."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import psutil
import pytest

import aioscheduler
from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    NotShippable,
    QueuedScheduler,
    RemoteError,
    RemoteTraceback,
    State,
    TaskLimitReached,
    TimedScheduler,
    WorkerLost,
    WorkerStartError,
)
from aioscheduler._processes.cores import usable_cores
from tests.conftest import children

NEVER = timedelta(days=1)
SOON = timedelta(milliseconds=50)

database: Any = None


async def give(value: Any) -> Any:
    return value


async def fail(error: BaseException) -> None:
    raise error


async def pid() -> int:
    return os.getpid()


async def busy(seconds: float) -> float:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


# ---- the main job


async def test_a_hundred_thousand_timed_tasks_run_once_and_never_early() -> None:
    async def work(number: int, due: int) -> tuple[int, int, int]:
        return number, time.time_ns() - due, os.getpid()

    count = 100_000
    seen: collections.Counter[int] = collections.Counter()
    pids: collections.Counter[int] = collections.Counter()
    early = 0
    generator = random.Random(7)
    async with Manager(workers=2) as manager:
        tasks = []
        base = time.time_ns() + 1_000_000_000
        for number in range(count):
            due = base + generator.randrange(2_000_000) * 1000
            when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=due // 1000)
            try:
                tasks.append(manager.schedule(work(number, due), when))
            except ValueError:  # a slow machine: the time passed while we were scheduling
                tasks.append(manager.schedule(work(number, time.time_ns())))
            if number % 5000 == 0:
                await manager.flush()
        for task in tasks:
            number, lateness, worker = await task
            seen[number] += 1
            pids[worker] += 1
            early += lateness < 0
        assert len(manager) == 0
    assert early == 0
    assert seen == collections.Counter(range(count))
    assert len(pids) == 2
    assert min(pids.values()) > count * 0.45


async def test_there_are_exactly_as_many_children_as_workers() -> None:
    before = children()
    async with Manager(5, workers=3) as manager:
        workers = children() - before
        assert len(workers) == 3
        assert {await manager.schedule(pid()) for _ in range(50)} <= workers
    assert children() == before


async def test_schedulers_are_spread_and_cores_are_the_default() -> None:
    manager = Manager(5, workers=2)
    assert manager._router.placement.worker_of == [0, 0, 0, 1, 1]
    cores = usable_cores()  # fewer than there are, in a container with a quota
    assert len(Manager()._router.links) == cores
    assert len(Manager()._router.placement.loads) == 4 * cores
    assert len(Manager(1)._router.links) == 1
    for cls in (QueuedScheduler, LifoQueuedScheduler):
        assert len(Manager(cls=cls)._router.placement.loads) == 1
        assert len(Manager(cls=cls, workers=2)._router.placement.loads) == 2


async def test_equal_times_keep_their_order_in_a_scheduler() -> None:
    async with Manager(1, workers=1) as manager:
        ran: list[int] = []
        when = datetime.now(UTC) + timedelta(milliseconds=200)
        tasks = [manager.schedule(give(i), when) for i in range(300)]
        for number, task in enumerate(tasks):
            task.add_done_callback(lambda _, number=number: ran.append(number))  # type: ignore[misc]
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)
        assert ran == list(range(300))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("cls", "expected"), [(QueuedScheduler, [0, 1, 2, 3]), (LifoQueuedScheduler, [3, 2, 1, 0])]
)
async def test_queues_run_one_at_a_time_in_their_order(
    cls: Any, expected: list[int], workers: int
) -> None:
    async def work(n: int) -> tuple[float, float]:
        began = time.monotonic()
        await asyncio.sleep(0.01)
        return began, time.monotonic()

    manager = Manager(1, cls=cls, workers=workers)
    tasks = [manager.schedule(work(n)) for n in range(4)]
    manager.start()
    times = await asyncio.gather(*tasks)
    order = sorted(range(4), key=lambda n: times[n])
    assert order == expected
    assert all(times[a][1] <= times[b][0] for a, b in zip(order, order[1:], strict=False))
    await manager.close()


async def test_a_key_names_one_scheduler_of_one_worker() -> None:
    async with Manager(6, workers=2) as manager:
        keys: list[str | bytes | int] = ["a", b"a", 7, "b", -3, "\udc80"]
        for key in keys:
            tasks = [manager.schedule(pid(), key=key) for _ in range(10)]
            assert len({task.ref[1:3] for task in tasks if task.ref}) == 1
            assert len(set(await asyncio.gather(*tasks))) == 1
        with pytest.raises(TypeError, match="key"):
            manager.schedule(pid(), key=1.5)  # type: ignore[arg-type]


async def test_what_is_scheduled_before_start_and_ready_waits() -> None:
    manager = Manager(workers=2)
    tasks = [manager.schedule(give(i)) for i in range(1000)]
    assert len(manager) == 1000
    manager.start()
    tasks += [manager.schedule(give(i)) for i in range(1000, 2000)]
    assert await asyncio.gather(*tasks) == list(range(2000))
    await manager.close()


async def test_no_processes_with_workers_0() -> None:
    touched: list[int] = []

    async def touch(n: int) -> int:
        touched.append(n)
        return os.getpid()

    before = children()
    async with Manager(3, workers=0, initializer=touched.append, initargs=(0,)) as manager:
        assert await manager.schedule(touch(1)) == os.getpid()
        future = asyncio.get_running_loop().create_future()
        future.set_result(3)
        assert await manager.schedule(future) == 3
        assert children() == before
    assert touched == [0, 1]


async def test_join_and_len() -> None:
    async with Manager(workers=2) as manager:
        await manager.join()
        far = manager.schedule(give(1), NEVER)
        for i in range(500):
            manager.schedule(give(i))
        assert len(manager) == 501
        assert far.cancel()
        assert len(manager) == 500
        await manager.join()
        assert len(manager) == 0


# ---- shipping


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    children: list[Point] = dataclasses.field(default_factory=list)

    async def moved(self, by: int, /, *more: int, times: int = 1, **others: int) -> Point:
        return Point(self.x + (by + sum(more) + sum(others.values())) * times, [self])


VALUES = [
    None, True, 7, -1, 2**63, 2**64, -(2**200), 1.5, float("inf"), "text", "\udc80", b"bytes",
    bytearray(b"array"), [bytearray(b"in a list")], (1, (2, 3)), [1, [2]], {"a": (1,)}, {1: 2},
    {(1, 2): {3}}, {1, 2}, frozenset({1}), 3 + 4j, date(2026, 1, 2),
    datetime(2026, 1, 2, tzinfo=UTC), timedelta(days=1), Colour.RED, Point(1, [Point(2)]),
    Point, give, len, range(5), ..., collections.OrderedDict(a=1), collections.deque([1]),
]  # fmt: skip


async def test_arguments_and_results_keep_their_exact_types() -> None:
    def types(value: Any) -> Any:
        inner = [types(v) for v in value] if isinstance(value, list | tuple) else None
        return type(value), inner

    async with Manager(workers=1) as manager:
        for value in VALUES:
            back = await manager.schedule(give(value))
            assert (back, types(back)) == (value, types(value))
        assert await manager.schedule(give(VALUES)) == VALUES


async def test_every_kind_of_argument_arrives() -> None:
    def make(offset: list[int]) -> Any:
        async def inner(n: int) -> int:
            return n + offset[0] + (await inner(n - 1) if n else 0)

        return inner

    async def captured(n: int, m: int) -> int:
        def use() -> int:
            return n

        return use() + m

    async with Manager(workers=1) as manager:
        moved = await manager.schedule(Point(1).moved(2, 3, times=10, q=5))
        assert moved == Point(101, [Point(1)])
        assert type(moved) is Point
        assert await manager.schedule(make([5])(2)) == 3 + 15
        assert await manager.schedule(make([6])(0)) == 6
        assert await manager.schedule(captured(1, 2)) == 3
        assert await manager.schedule((lambda n: give(n))(4)) == 4


async def test_large_arguments_and_results_pass_small_ones() -> None:
    async with Manager(workers=1) as manager:
        large = manager.schedule(give(b"x" * 30_000_000))
        small = [manager.schedule(give(i)) for i in range(100)]
        assert await asyncio.gather(*small) == list(range(100))
        assert len(await large) == 30_000_000
        queued = Manager(cls=QueuedScheduler, workers=1)
        queued.start()
        order: list[int] = []
        tasks = [queued.schedule(give(b"x" * 3_000_000)), queued.schedule(give(b"y"))]
        for number, task in enumerate(tasks):
            task.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
        await asyncio.gather(*tasks)
        await queued.close()


async def test_a_large_argument_of_a_cancelled_task_is_dropped() -> None:
    async with Manager(workers=1) as manager:
        task = manager.schedule(give(b"x" * 1_000_000), NEVER)
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await manager.schedule(give(1)) == 1


async def test_what_cannot_travel_is_named_at_the_call() -> None:
    opened = socket.socket()

    async def capture() -> Any:
        return opened

    started = asyncio.sleep(0)
    started.send(None)
    manager = Manager(workers=1)
    for coro, message in (
        (give(opened), "argument 'value' of give"),
        (capture(), "closure variable 'opened' of .*capture"),
        (give(asyncio.get_running_loop().create_future()), "argument 'value'"),
        (started, "started"),
        (asyncio.get_running_loop().create_future(), "workers=0"),
        (give, "call it"),
        (3, "coroutine"),
    ):
        with pytest.raises(NotShippable, match=message):
            manager.schedule(coro)  # type: ignore[arg-type]
    assert len(manager) == 0
    manager.start()
    assert await manager.schedule(give(1)) == 1
    await manager.close()
    opened.close()
    started.close()


# ---- outcomes


class Awkward(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class Fine(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


async def test_a_failure_arrives_as_itself_with_the_remote_traceback() -> None:
    async with Manager(workers=1) as manager:
        with pytest.raises(Fine) as caught:
            await manager.schedule(fail(Fine(7)))
        assert caught.value.code == 7
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "in fail" in str(caught.value.__cause__)
        for error in (SystemExit(3), KeyboardInterrupt()):
            with pytest.raises(type(error)):
                await manager.schedule(fail(error))

        async def awkward() -> None:
            raise Awkward(1, 2)

        with pytest.raises(Awkward, match="1 and 2") as wanted_more:
            await manager.schedule(awkward())
        assert "in awkward" in str(wanted_more.value.__cause__)

        async def unpicklable() -> Any:
            return socket.socket()

        with pytest.raises(RemoteError, match="socket"):
            await manager.schedule(unpicklable())
        assert await manager.schedule(give(1)) == 1


class Bomb:
    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    if os.getpid() != int(os.environ["AIOSCHEDULER_TEST_HOST"]):
        raise RuntimeError("boom")


async def test_arguments_that_cannot_be_decoded_fail_their_task_only() -> None:
    os.environ["AIOSCHEDULER_TEST_HOST"] = str(os.getpid())
    async with Manager(workers=1) as manager:
        with pytest.raises(RuntimeError, match="boom"):
            await manager.schedule(give(Bomb()))
        assert await manager.schedule(give(1)) == 1


async def test_failures_that_nobody_awaits_are_reported(reports: list[Any]) -> None:
    async with Manager(workers=1) as manager:
        manager.schedule(fail(Fine(1)))
        kept = manager.schedule(fail(Fine(2)))
        await manager.join()
        assert [report["exception"].code for report in reports] == [1]
        del kept
        await asyncio.sleep(0)  # the loop reports
        assert [report["exception"].code for report in reports] == [1, 2]
        reports.clear()


async def test_cancel_in_every_state() -> None:
    async with Manager(workers=1) as manager:
        pending = manager.schedule(give(1), NEVER)
        running = manager.schedule(asyncio.sleep(60))
        finished = manager.schedule(give(1))
        await finished
        while running.state is not State.RUNNING:
            await asyncio.sleep(0.001)
        for task in (pending, running):
            assert manager.cancel(task)
            assert not task.done()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert not manager.cancel(task)
        assert not manager.cancel(finished)
        assert len(manager) == 0
        foreign = Manager(workers=1).schedule(give(1))
        assert not manager.cancel(foreign)
        with pytest.raises(TypeError):
            manager.cancel(3)  # type: ignore[arg-type]


async def test_a_task_cancelled_while_pending_never_starts(tmp_path: Any) -> None:
    """Thousands of races: each task that ran leaves a file."""

    async def touch(n: int) -> None:
        (tmp_path / str(n)).touch()

    async with Manager(workers=2) as manager:
        tasks = []
        for n in range(3000):
            task = manager.schedule(touch(n), timedelta(milliseconds=n % 40))
            if n % 3 == 0:
                task.cancel()
            tasks.append(task)
            if n % 100 == 0:
                await asyncio.sleep(0.002)
        for task in tasks[1::3]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        ran = {int(path.name) for path in tmp_path.iterdir()}
        for n, (task, outcome) in enumerate(zip(tasks, outcomes, strict=True)):
            assert task.cancelled() == isinstance(outcome, asyncio.CancelledError)
            assert task.cancelled() or n in ran
            assert not (task.cancelled() and n in ran)
        assert len(manager) == 0


# ---- limits


@pytest.mark.parametrize("workers", [0, 2])
async def test_limits_hold(workers: int) -> None:
    manager = Manager(4, 10, workers=workers)
    tasks = [manager.schedule(give(i), NEVER) for i in range(10)]
    with pytest.raises(TaskLimitReached, match="max_tasks=10"):
        manager.schedule(give(10), NEVER)
    assert tasks[3].cancel()
    manager.schedule(give(11), NEVER)
    assert len(manager) == 10
    await manager.close()

    each = Manager(4, None, TimedScheduler, 2, workers=workers)
    for i in range(8):
        each.schedule(give(i), NEVER)
    with pytest.raises(TaskLimitReached, match="max_tasks=2"):
        each.schedule(give(8), NEVER)
    await each.close()


async def test_the_limit_is_free_again_when_tasks_have_started() -> None:
    async with Manager(max_tasks=5, workers=1) as manager:
        for round_ in range(20):
            tasks = [manager.schedule(give(i)) for i in range(5)]
            assert await asyncio.gather(*tasks) == list(range(5)), round_


# ---- life


async def test_an_initializer_runs_first_and_its_globals_are_seen() -> None:
    def connect(name: str) -> None:
        global database
        database = f"{name} in {os.getpid()}"

    async def connect_later(name: str) -> None:
        await asyncio.sleep(0.01)
        connect(name)

    async def query() -> tuple[Any, int]:
        return database, os.getpid()

    for initializer in (connect, connect_later):
        async with Manager(workers=2, initializer=initializer, initargs=("db",)) as manager:
            for _ in range(4):
                found, worker = await manager.schedule(query())
                assert found == f"db in {worker}"
    assert database is None


def _raise(error: Any) -> None:
    raise error


async def _yield_later(name: str = "") -> AsyncIterator[None]:
    yield


def _yield(name: str = "") -> Iterator[None]:
    yield


class _Yields:
    def __call__(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        (5, "must be a function, not 5"),
        (_yield, "_yield.* contains a yield"),
        (_yield_later, "a yield"),
        (partial(_yield_later, "db"), "a yield"),
        (partial(contextmanager(_yield), "db"), "a yield"),
        (_Yields(), "a yield"),
    ],
)
def test_an_initializer_that_would_not_run_is_refused(
    workers: int, initializer: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        Manager(workers=workers, initializer=initializer)


@contextmanager
def _prepared() -> Iterator[None]:
    yield


@_prepared()
def _run_prepared() -> None: ...


class _Opens:
    def open(self) -> None: ...


@pytest.mark.parametrize(
    "initializer", [print, dict, _Opens, _Opens().open, _run_prepared, partial(_run_prepared)]
)
async def test_what_can_be_called_is_an_initializer(initializer: Any) -> None:
    async with Manager(1, workers=0, initializer=initializer):
        pass


@pytest.mark.parametrize("workers", [0, 2])
async def test_a_failing_initializer_is_told_by_ready(workers: int) -> None:
    manager = Manager(workers=workers, initializer=_raise, initargs=(ValueError("no db"),))
    manager.start()
    task = manager.schedule(give(1))
    with pytest.raises(WorkerStartError, match="no db"):
        await manager.ready()
    with pytest.raises(ManagerClosed):
        manager.schedule(give(1))
    assert task.done()


async def test_a_failing_initializer_that_nobody_awaits_is_reported(reports: list[Any]) -> None:
    manager = Manager(workers=1, initializer=os._exit, initargs=(3,))
    manager.start()
    task = manager.schedule(give(1))
    with pytest.raises(WorkerLost):
        await task
    (report,) = reports
    assert "status 3" in str(report["exception"])
    reports.clear()
    with pytest.raises(ManagerClosed, match="status 3"):
        manager.schedule(give(1))
    await manager.close()


def _own_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.made_here = True  # type: ignore[attr-defined]
    return loop


async def test_a_loop_initializer_makes_the_workers_loops() -> None:
    async def is_own() -> bool:
        return hasattr(asyncio.get_running_loop(), "made_here")

    async with Manager(workers=1, loop_initializer=_own_loop) as manager:
        assert await manager.schedule(is_own())
    broken = Manager(workers=1, loop_initializer=lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    broken.start()
    with pytest.raises(WorkerStartError, match="ZeroDivisionError"):
        await broken.ready()


async def test_a_dead_worker_breaks_the_manager_loudly(reports: list[Any]) -> None:
    async with Manager(workers=2, max_restarts=(0, 1.0)) as manager:
        done = manager.schedule(give(5))
        assert await done == 5
        running = manager.schedule(asyncio.sleep(60))
        while running.state is not State.RUNNING:
            await asyncio.sleep(0.001)
        pending = [manager.schedule(give(i), NEVER) for i in range(100)]
        cancelled = manager.schedule(give(i), NEVER) if (i := 3) else None
        victim = manager._remotes[running.ref.worker].supervisor.process  # type: ignore[union-attr]
        assert victim is not None
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(WorkerLost, match="SIGKILL") as caught:
            await running
        assert caught.value.started
        for task in pending:
            with pytest.raises(WorkerLost) as lost:
                await task
            assert not lost.value.started
        assert cancelled is not None
        with pytest.raises(ManagerClosed, match="SIGKILL"):
            manager.schedule(give(1))
        (report,) = reports
        assert "102 unfinished tasks" in report["message"]
        reports.clear()
        assert len(manager) == 0
        with pytest.raises(WorkerLost):
            await cancelled


async def test_close_in_the_middle_of_everything() -> None:
    manager = Manager(workers=2)
    manager.start()
    await manager.ready()
    quick = manager.schedule(asyncio.sleep(0.2, "quick"))
    slow = manager.schedule(asyncio.sleep(60))
    stuck = manager.schedule(busy(60))
    pending = [manager.schedule(give(i), NEVER) for i in range(1000)]
    while State.PENDING in (quick.state, slow.state, stuck.state):
        await asyncio.sleep(0.001)
    began = time.monotonic()
    await asyncio.gather(manager.close(0.5), manager.close(0.5))
    await manager.close()
    assert time.monotonic() - began < 30
    assert all(task.cancelled() for task in pending)
    assert quick.done()
    assert slow.done()
    with pytest.raises(WorkerLost) as lost:
        stuck.result()
    assert lost.value.started
    with pytest.raises(ManagerClosed):
        manager.schedule(give(1))
    with pytest.raises(ManagerClosed):
        manager.start()
    quick.exception() if not quick.cancelled() else None
    slow.exception() if not slow.cancelled() else None


async def test_close_lets_running_tasks_finish() -> None:
    manager = Manager(workers=1)
    manager.start()
    await manager.ready()
    task = manager.schedule(asyncio.sleep(0.2, "whole"))
    while task.state is State.PENDING:
        await asyncio.sleep(0.001)
    await manager.close()
    assert await task == "whole"


async def test_an_exception_leaves_at_once() -> None:
    with pytest.raises(KeyError):
        async with Manager(workers=1) as manager:
            task = manager.schedule(asyncio.sleep(60))
            while task.state is State.PENDING:
                await asyncio.sleep(0.001)
            raise KeyError
    assert task.cancelled()


async def test_close_before_start_and_while_starting() -> None:
    never = Manager(workers=1)
    task = never.schedule(give(1))
    await never.close()
    assert task.cancelled()
    starting = Manager(workers=2)
    starting.start()
    task = starting.schedule(give(1), NEVER)
    await starting.close()
    assert task.cancelled()


# ---- bad input


def bad_counts() -> Iterator[Any]:
    for name in ("schedulers", "workers", "max_tasks"):
        for value in (-1, -100):
            yield {name: value}, ValueError, name
        for wrong in (1.5, "2", True, [1]):
            yield {name: wrong}, TypeError, name
    yield {"schedulers": 0}, ValueError, "schedulers"
    yield {"max_tasks": 0}, ValueError, "max_tasks"
    yield {"schedulers": 2, "workers": 3}, ValueError, "workers=3"
    yield {"cls": dict}, TypeError, "TimedScheduler"
    yield {"cls": "TimedScheduler"}, TypeError, "TimedScheduler"
    yield {"cls": QueuedScheduler, "prefer_utc": True}, TypeError, "prefer_utc"
    yield {"no_such_option": 1}, TypeError, "no_such_option"
    yield {"workers": 0, "loop_initializer": _own_loop}, ValueError, "workers=0"
    yield {"workers": 1, "initializer": print, "initargs": (socket,)}, None, ""


@pytest.mark.parametrize(("arguments", "error", "message"), list(bad_counts()))
def test_bad_arguments_are_refused(arguments: Any, error: Any, message: str) -> None:
    if error is None:
        Manager(**arguments)
        return
    with pytest.raises(error, match=message):
        Manager(**arguments)


@pytest.mark.parametrize("workers", [0, 1])
async def test_bad_calls_are_refused(workers: int) -> None:
    manager = Manager(workers=workers)
    with pytest.raises(ValueError, match="past"):
        manager.schedule(give(1), timedelta(seconds=-1))
    with pytest.raises(ValueError, match="past"):
        manager.schedule(give(1), datetime(2020, 1, 1))
    for when in (3, "now", 2.5):
        with pytest.raises(TypeError, match="when"):
            manager.schedule(give(1), when)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        manager.schedule(3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="start"):
        await manager.ready()
    manager.start()
    with pytest.raises(RuntimeError, match="already"):
        manager.start()
    for timeout in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout"):
            await manager.close(timeout)
    with pytest.raises(TypeError, match="timeout"):
        await manager.close("1")  # type: ignore[arg-type]
    assert await manager.schedule(give(1)) == 1
    await manager.close()
    queued = Manager(cls=QueuedScheduler, workers=workers)
    with pytest.raises(TypeError, match="leave out when"):
        queued.schedule(give(1), SOON)  # type: ignore[arg-type]
    await queued.close()


def test_start_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        Manager(workers=1).start()


def test_the_public_names_are_there() -> None:
    assert aioscheduler.__version__.startswith("2.")
    for name in aioscheduler.__all__:
        assert getattr(aioscheduler, name)
    assert psutil.Process().is_running()


async def test_a_failing_initializer_here_ends_what_waits(reports: list[Any]) -> None:
    manager = Manager(workers=0, initializer=_raise, initargs=(ValueError("no db"),))
    task = manager.schedule(give(1))
    manager.start()
    with pytest.raises(WorkerStartError, match="no db"):
        await task
    assert task.state is State.LOST
    (report,) = reports
    assert "no db" in str(report["exception"])
    reports.clear()
    with pytest.raises(ManagerClosed, match="no db"):
        manager.schedule(give(1))
    await manager.close()


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    async def begin() -> None:
        async with Manager(workers=2, initializer=time.sleep, initargs=(30,)):
            raise AssertionError("not reached")

    task = asyncio.create_task(begin())
    while not children():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()
