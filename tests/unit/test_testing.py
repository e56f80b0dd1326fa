"""The fake clock for users' tests: time passes only when advanced, everything else is real."""

from __future__ import annotations

import asyncio
import os
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import uvloop

import aioscheduler.testing
from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    NotShippable,
    QueuedScheduler,
    RemoteTraceback,
    TaskLimitReached,
    TaskRef,
    TimedScheduler,
    WorkerLost,
    WorkerStartError,
    current_manager,
    current_task,
)
from aioscheduler._outpost.engine import Engine
from aioscheduler.testing import FakeClock

uvloop.new_event_loop().close()  # libuv keeps descriptors, from its first loop on

START = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@pytest.fixture(params=[0, 1, 2])
async def manager(clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[Manager]:
    async with clock.manager(4, workers=request.param) as manager:
        yield manager


@pytest.fixture
async def apart(clock: FakeClock) -> AsyncIterator[Manager]:
    """A manager whose tasks are shipped."""
    async with clock.manager(4, workers=2) as manager:
        yield manager


async def echo(value: Any) -> Any:
    return value


async def tell_time(clock: FakeClock) -> float:
    """Seconds since the start."""
    return (clock.now() - START).total_seconds()


async def nap(seconds: float = 0.01) -> str:
    await asyncio.sleep(seconds)
    return "slept"


async def give_way(turns: int) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    return turns


async def fail(word: str) -> None:
    raise LookupError(word)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def tick(clock: FakeClock, left: int, log: Path) -> None:
    """Notes the time, every ten seconds."""
    with log.open("a") as file:
        file.write(f"{await tell_time(clock)}\n")
    if left:
        current_manager().schedule(tick(clock, left - 1, log), timedelta(seconds=10))


def test_the_example_in_the_docstring_runs() -> None:
    assert aioscheduler.testing.__doc__ is not None
    lines = aioscheduler.testing.__doc__.splitlines()
    code = [line for line in lines if line.startswith("    ") or not line]
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(textwrap.dedent("\n".join(code)), namespace)
    asyncio.run(namespace["test_reminder_comes_after_three_days"]())


async def test_nothing_is_early_and_nothing_late(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(tell_time(clock), 3 * DAY)
    assert (len(manager), task.priority) == (1, START + 3 * DAY)
    await clock.advance(3 * DAY - SECOND)
    assert not task.done()
    assert clock.now() == START + 3 * DAY - SECOND
    await clock.advance(1)
    assert task.done()
    assert task.result() == 3 * 86_400
    assert len(manager) == 0


async def test_the_real_time_changes_nothing(clock: FakeClock) -> None:
    async with clock.manager(workers=0) as local, clock.manager(workers=1) as apart:
        tasks = [manager.schedule(echo(1), timedelta(milliseconds=1)) for manager in (local, apart)]
        await asyncio.sleep(1.1)  # the tick of a worker, too, has come
        assert not any(task.done() for task in tasks)
        assert clock.now() == START
        await clock.advance(0.001)
        assert all(task.done() for task in tasks)


async def test_an_engine_starts_nothing_and_says_how_many_workers_there_are(
    clock: FakeClock,
) -> None:
    engine = Engine(2, 3, ["/no/such/launcher"], {})
    async with clock.manager(engine=engine) as manager:
        task = manager.schedule(echo(1), DAY)
        await clock.advance(DAY)
        assert await task == 1
        assert [worker.node for worker in manager.stats().workers] == [None] * 6


async def test_each_runs_at_its_own_time_and_in_order(clock: FakeClock, manager: Manager) -> None:
    ends: list[Any] = []
    delays = [30, 10.5, 86_400, 0, 10, 20, 20]
    for delay in delays:
        task = manager.schedule(tell_time(clock), timedelta(seconds=delay))
        task.add_done_callback(ends.append)
    await clock.advance(DAY)
    assert [task.result() for task in ends] == sorted(delays)
    assert clock.now() == START + DAY


async def test_equal_times_run_in_the_order_of_scheduling(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1) as manager:
        ends: list[Any] = []
        tasks = [manager.schedule(echo(n), DAY) for n in range(50)]
        for task in tasks:
            task.add_done_callback(ends.append)
        await clock.advance(DAY)
        assert ends == tasks


async def test_successors_run_within_the_same_advance(
    clock: FakeClock, manager: Manager, tmp_path: Path
) -> None:
    manager.schedule(tick(clock, 5, tmp_path / "log"), timedelta(seconds=3))
    await clock.advance(52)
    assert len(manager) == 1
    assert (tmp_path / "log").read_text().split() == ["3.0", "13.0", "23.0", "33.0", "43.0"]
    await clock.advance(3600)
    assert len(manager) == 0
    assert (tmp_path / "log").read_text().split()[5:] == ["53.0"]


async def test_what_really_waits_is_awaited_by_the_test(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(nap(), DAY)
    await clock.advance(DAY)
    assert (task.done(), len(manager)) == (False, 0)
    assert await task == "slept"


async def test_what_only_gives_way_is_waited_for(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(give_way(80), DAY)
    await clock.advance(DAY)
    assert task.result() == 80


async def test_a_timer_that_is_over_at_once_is_no_real_wait(clock: FakeClock) -> None:
    """Such as the timer by which a dead worker is replaced."""
    async with clock.manager(workers=0) as manager:
        task = manager.schedule(nap(1e-9))
        await clock.advance(0)
        assert task.done()


async def test_what_gives_way_for_ever_does_not_hold_time_up(
    clock: FakeClock, manager: Manager
) -> None:
    task, later = manager.schedule(give_way(1 << 60)), manager.schedule(tell_time(clock), DAY)
    await clock.advance(2 * DAY)
    assert later.result() == 86_400
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_cannot_travel_is_refused_as_ever(apart: Manager) -> None:
    with pytest.raises(NotShippable, match="value"):
        apart.schedule(echo(threading.Lock()), DAY)
    with pytest.raises(NotShippable, match="item 1"):
        apart.map(echo, [1, threading.Lock()], DAY)
    assert len(apart) == 0


@dataclass
class Box:
    things: list[int]


async def fill(box: Box) -> Box:
    box.things.append(1)
    return box


async def test_arguments_and_results_are_copies(clock: FakeClock, apart: Manager) -> None:
    box = Box([0])
    task = apart.schedule(fill(box))
    await clock.advance(0)
    assert task.result() == Box([0, 1])
    assert type(task.result()) is Box
    assert box == Box([0])


async def test_without_workers_they_are_the_tests_own(clock: FakeClock) -> None:
    async with clock.manager(workers=0) as manager:
        lock, box = threading.Lock(), Box([0])
        tasks = [manager.schedule(echo(lock), DAY), manager.schedule(fill(box), DAY)]
        await clock.advance(DAY)
        assert [task.result() for task in tasks] == [lock, box]
        assert box == Box([0, 1])


async def test_large_results_are_here_as_well(clock: FakeClock, apart: Manager) -> None:
    task = apart.schedule(echo(b"x" * 9_000_000), DAY)
    await clock.advance(DAY)
    assert len(task.result()) == 9_000_000


async def test_cancel(clock: FakeClock, manager: Manager) -> None:
    pending, running = manager.schedule(echo(1), DAY), manager.schedule(forever(), SECOND)
    await clock.advance(1)
    assert pending.cancel()
    assert manager.cancel(running)
    await clock.advance(0)
    assert pending.cancelled()
    assert running.cancelled()
    await clock.advance(DAY)
    assert not pending.cancel()


async def test_map_with_a_time_for_each(clock: FakeClock, manager: Manager) -> None:
    batch = manager.map(tell_time, [clock] * 5, [SECOND * n for n in (5, 1, 4, 0, 3)])
    await clock.advance(4)
    assert [batch[n].done() for n in range(5)] == [False, True, True, True, True]
    await clock.advance(1)
    assert await batch == [5, 1, 4, 0, 3]


async def test_very_many_at_one_time(clock: FakeClock, manager: Manager) -> None:
    batch = manager.map(abs, range(3000), DAY)
    await clock.advance(DAY)
    assert all(batch[n].done() for n in range(3000))
    assert await batch == list(range(3000))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("cls", "expected"), [(QueuedScheduler, [0, 1, 2]), (LifoQueuedScheduler, [2, 1, 0])]
)
async def test_queues(clock: FakeClock, workers: int, cls: Any, expected: list[int]) -> None:
    async with clock.manager(1, cls=cls, workers=workers) as manager:
        ends: list[Any] = []
        for n in range(3):
            manager.schedule(echo(n)).add_done_callback(ends.append)
        await clock.advance(0)
        assert [task.result() for task in ends] == expected


async def test_a_queue_goes_on_when_what_really_waits_has_ended(clock: FakeClock) -> None:
    async with clock.manager(1, cls=QueuedScheduler, workers=1) as manager:
        first, second = manager.schedule(nap()), manager.schedule(echo(2))
        await clock.advance(DAY)
        assert (first.done(), second.done()) == (False, False)
        await first
        await clock.advance(0)
        assert second.result() == 2


async def test_managers_that_share_a_clock(clock: FakeClock) -> None:
    async with clock.manager(workers=1) as one, clock.manager(workers=0) as other:
        ends: list[Any] = []
        for manager, delay in ((one, 4), (other, 3), (one, 2), (other, 1), (one, 99)):
            task = manager.schedule(tell_time(clock), timedelta(seconds=delay))
            task.add_done_callback(ends.append)
        await clock.advance(5)
        assert [task.result() for task in ends] == [1, 2, 3, 4]


async def test_limits_hold(clock: FakeClock) -> None:
    async with clock.manager(2, 3, TimedScheduler, 2, workers=2) as manager:
        tasks = [manager.schedule(echo(n), DAY) for n in range(3)]
        with pytest.raises(TaskLimitReached):
            manager.schedule(echo(3), DAY)
        await clock.advance(DAY)
        assert [task.result() for task in tasks] == [0, 1, 2]
        manager.schedule(echo(3), DAY)


async def test_what_a_datetime_means(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    hour = timedelta(hours=1)
    naive = START.replace(tzinfo=None)
    async with clock.manager(workers=1) as utc, clock.manager(workers=1, prefer_utc=False) as local:
        tasks = [
            utc.schedule(tell_time(clock), naive + hour),
            local.schedule(tell_time(clock), naive + 4 * hour),
            utc.schedule(tell_time(clock), (START + 3 * hour).astimezone(timezone(5 * hour))),
        ]
        await clock.advance(DAY)
        assert [task.result() / 3600 for task in tasks] == [1, 2, 3]
    monkeypatch.undo()
    time.tzset()


async def test_the_past_is_refused(clock: FakeClock, manager: Manager) -> None:
    await clock.advance(DAY)
    with pytest.raises(ValueError, match="in the past"):
        manager.schedule(echo(1), START + DAY - SECOND)
    with pytest.raises(ValueError, match="in the past"):
        manager.schedule(echo(1), -SECOND)
    task = manager.schedule(echo(1), START + DAY)
    await clock.advance(0)
    assert task.result() == 1


@pytest.mark.parametrize("delay", [-1, -0.001, -SECOND, float("nan"), float("inf")])
async def test_time_goes_forward(clock: FakeClock, delay: Any) -> None:
    with pytest.raises(ValueError, match=r"advance\(\) takes"):
        await clock.advance(delay)
    assert clock.now() == START


@pytest.mark.parametrize("delay", [None, "1", True, START])
async def test_what_is_no_time(clock: FakeClock, delay: Any) -> None:
    with pytest.raises(TypeError, match="seconds or a timedelta"):
        await clock.advance(delay)


async def test_tenths_of_seconds_add_up(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(echo(1), SECOND)
    for _ in range(10):
        assert not task.done()
        await clock.advance(0.1)
    assert task.done()


def test_the_first_time() -> None:
    before = datetime.now(UTC)
    assert before <= FakeClock().now() <= datetime.now(UTC)
    assert FakeClock(datetime(2030, 1, 1)).now() == START
    assert FakeClock(START).now().tzinfo is UTC


async def advance_inside(clock: FakeClock) -> None:
    await clock.advance(1)


async def test_one_advance_at_a_time(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(advance_inside(clock), DAY)
    await clock.advance(2 * DAY)
    with pytest.raises(RuntimeError, match="under way"):
        await task
    both = await asyncio.gather(clock.advance(1), clock.advance(1), return_exceptions=True)
    assert [type(end) for end in both] == [type(None), RuntimeError]
    assert clock.now() == START + 2 * DAY + SECOND


async def test_an_advance_that_is_cancelled_can_be_followed_by_another(
    clock: FakeClock, manager: Manager
) -> None:
    task = manager.schedule(echo(1), DAY)
    advance = asyncio.create_task(clock.advance(DAY))
    await asyncio.sleep(0)
    advance.cancel()
    await asyncio.wait([advance])
    await clock.advance(DAY)
    assert task.result() == 1


async def test_failures_have_their_traceback(clock: FakeClock, apart: Manager) -> None:
    task = apart.schedule(fail("what is missing"), DAY)
    await clock.advance(DAY)
    error = task.exception()
    assert type(error) is LookupError
    assert error.args == ("what is missing",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fail" in str(error.__cause__)


async def test_a_failure_that_nobody_awaits_is_reported(
    clock: FakeClock, apart: Manager, reports: list[dict[str, Any]]
) -> None:
    apart.schedule(fail("unheard"), DAY)
    await clock.advance(DAY)
    assert [type(report["exception"]) for report in reports] == [LookupError]
    reports.clear()


async def who_am_i() -> tuple[TaskRef, int]:
    return current_task(), os.getpid()


async def test_tasks_know_who_they_are(clock: FakeClock, manager: Manager) -> None:
    tasks = [manager.schedule(who_am_i(), SECOND, key="same") for _ in range(3)]
    refs = [task.ref for task in tasks]
    await clock.advance(1)
    assert [task.result() for task in tasks] == [(ref, os.getpid()) for ref in refs]
    assert len({ref[:3] for ref in refs if ref is not None}) == 1
    with pytest.raises(RuntimeError, match="outside|tasks that a Manager runs"):
        current_task()


async def hand_on(manager: Any, clock: FakeClock) -> TaskRef:
    given = manager.schedule(tell_time(clock), DAY)
    return given if isinstance(given, TaskRef) else given.ref  # type: ignore[no-any-return]


async def test_a_manager_among_the_arguments(clock: FakeClock, manager: Manager) -> None:
    task = manager.schedule(hand_on(manager, clock), SECOND)
    await clock.advance(1)
    successor = manager.task(task.result())
    await clock.advance(DAY)
    assert successor.result() == 86_401


def set_up(module_global: str, word: str) -> None:
    os.environ[module_global] = word


async def look_up(module_global: str) -> str:
    return os.environ[module_global]


async def test_the_initializer(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, reports: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv("WORD", "no")
    async with clock.manager(workers=1, initializer=set_up, initargs=("WORD", "yes")) as manager:
        task = manager.schedule(look_up("WORD"))
        await clock.advance(0)
        assert task.result() == "yes"
    broken = clock.manager(workers=2, initializer=fail, initargs=("no database",))
    with pytest.raises(WorkerStartError, match="no database"):
        await broken.__aenter__()
    reports.clear()


async def test_what_is_scheduled_before_start_waits(clock: FakeClock) -> None:
    manager = clock.manager(workers=1)
    task = manager.schedule(tell_time(clock), DAY)
    await clock.advance(2 * DAY)
    assert not task.done()
    manager.start()
    await clock.advance(0)  # the worker begins, and receives its tasks
    assert task.result() == 2 * 86_400
    await manager.close()


async def test_close_with_all_sorts_under_way(clock: FakeClock, manager: Manager) -> None:
    pending, running = manager.schedule(echo(1), DAY), manager.schedule(nap())
    stubborn = manager.schedule(forever())
    await clock.advance(1)
    just_now = manager.schedule(echo(2))
    await manager.close(0.05)
    assert pending.cancelled()
    assert running.result() == "slept"
    assert stubborn.cancelled()
    assert just_now.done()
    with pytest.raises(ManagerClosed):
        manager.schedule(echo(1))
    await clock.advance(2 * DAY)
    assert clock._dues == {}


async def test_close_at_once_and_without_a_start(clock: FakeClock) -> None:
    manager = clock.manager(workers=2)
    await manager.close()
    manager = clock.manager(workers=2)
    manager.start()
    await manager.close()
    manager = clock.manager(workers=2)
    manager.start()
    task = manager.schedule(echo(1), DAY)
    await asyncio.sleep(0)
    await manager.close(0)
    assert task.cancelled()


async def resist() -> None:
    """Swallow the cancellations of `close`, but not that at the end of the worker."""
    for _ in range(3):
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            continue


async def test_close_ends_what_resists(clock: FakeClock) -> None:
    async with clock.manager(workers=1) as manager:
        task = manager.schedule(resist())
        await clock.advance(0)
        await manager.close(0)
        assert isinstance(task.exception(), WorkerLost)


@pytest.mark.parametrize("rerun", [False, True])
async def test_a_worker_that_is_killed_is_replaced(clock: FakeClock, rerun: bool) -> None:
    async with clock.manager(2, workers=2, on_worker_loss="rerun" if rerun else "fail") as manager:
        keys: dict[int, str] = {}
        for n in range(100):
            place = manager._router.placement.place_of_key(str(n))
            keys.setdefault(place, str(n))
        running = [manager.schedule(nap(0.05), key=keys[n]) for n in range(2)]
        pending = [manager.schedule(tell_time(clock), DAY, key=keys[n]) for n in range(2)]
        await clock.advance(0)
        manager.kill(0)
        await clock.advance(0)
        stats = manager.stats()
        assert (stats.restarts, stats.running) == (1, 2 if rerun else 1)
        assert await running[1] == "slept"
        if rerun:
            assert await running[0] == "slept"
        else:
            assert isinstance(running[0].exception(), WorkerLost)
        await clock.advance(DAY)
        assert [task.result() for task in pending] == [86_400, 86_400]
        with pytest.raises(ValueError, match="no worker 2"):
            manager.kill(2)


async def test_a_worker_that_writes_nonsense_is_killed(clock: FakeClock) -> None:
    async with clock.manager(workers=1) as manager:
        task = manager.schedule(echo(1), DAY)
        life: Any = manager._remotes[0].supervisor.process
        life.worker._pipe.send(b"no frame of ours")
        life.worker._pipe.flush()
        await clock.advance(DAY)
        assert (manager.stats().restarts, task.result()) == (1, 1)


async def test_too_many_deaths(clock: FakeClock, reports: list[dict[str, Any]]) -> None:
    async with clock.manager(workers=1, max_restarts=(0, 1.0)) as manager:
        task = manager.schedule(echo(1), DAY)
        manager.kill()
        await clock.advance(0)
        assert isinstance(task.exception(), WorkerLost)
        with pytest.raises(ManagerClosed):
            manager.schedule(echo(1))
    reports.clear()


async def test_stats_know_of_it_all(clock: FakeClock, manager: Manager) -> None:
    manager.map(abs, range(5), DAY)
    await clock.advance(DAY)
    stats = manager.stats()
    assert (stats.pending, stats.finished, stats.workers[0].pid) == (0, 5, os.getpid())


async def test_a_scheduler_alone(clock: FakeClock) -> None:
    async with clock.timed_scheduler(max_tasks=1) as scheduler:
        task = scheduler.schedule(tell_time(clock), START + DAY)
        with pytest.raises(TaskLimitReached):
            scheduler.schedule(echo(1), DAY)
        await clock.advance(DAY - SECOND)
        assert not task.done()
        await clock.advance(1)
        assert task.result() == 86_400
        with pytest.raises(ValueError, match="in the past"):
            scheduler.schedule(echo(1), START)
        pending = scheduler.schedule(echo(1), DAY)
    assert pending.cancelled()


async def test_a_clock_stays_in_its_process(clock: FakeClock) -> None:
    import pickle

    there = pickle.dumps(clock)
    assert pickle.loads(there) is clock
    assert (await echo(pickle.loads(pickle.dumps(clock.now))))() == START
    with pytest.raises(LookupError, match="cannot leave its process"):
        aioscheduler.testing._find_clock(-1)


async def test_context_variables_stay_on_their_side(clock: FakeClock, apart: Manager) -> None:
    from decimal import Context, setcontext

    setcontext(Context(prec=7))
    task = apart.schedule(decimals(), DAY)
    await clock.advance(DAY)
    assert task.result() == 28


async def decimals() -> int:
    from decimal import getcontext

    return getcontext().prec


def test_a_loop_that_does_not_say_whether_it_is_busy() -> None:
    async def live() -> None:
        clock = FakeClock(START)
        async with clock.manager(workers=2) as manager:
            batch = manager.map(
                tell_time, [clock] * 1000, [SECOND * (n // 100) for n in range(1000)]
            )
            task = manager.schedule(give_way(30), DAY)
            await clock.advance(DAY)
            assert await batch == [n // 100 for n in range(1000)]
            assert task.result() == 30

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())
