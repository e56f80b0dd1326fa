"""The three schedulers of one loop: start and close, limits, and refusals."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from turning import turns

from aioscheduler import (
    LifoQueuedScheduler,
    ManagerClosed,
    QueuedScheduler,
    State,
    TaskLimitReached,
    TimedScheduler,
)
from aioscheduler._routing.local import LocalLink
from aioscheduler.scheduler import make_model, running_loop
from aioscheduler.testing import FakeClock

Make = Callable[..., Any]
every = pytest.mark.parametrize("cls", [TimedScheduler, QueuedScheduler, LifoQueuedScheduler])
DAY = timedelta(days=1)


async def give(value: Any = None) -> Any:
    return value


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_outside_a_loop_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"start\(\) needs a running event loop: call it inside"):
        running_loop("start()")
    with pytest.raises(RuntimeError, match="needs a running event loop"):
        TimedScheduler().start()


@every
async def test_it_starts_once_and_closes_for_good(cls: Make) -> None:
    scheduler = cls()
    assert not scheduler.is_started
    scheduler.start()
    assert scheduler.is_started
    with pytest.raises(RuntimeError, match="was already started"):
        scheduler.start()
    await scheduler.close()
    await scheduler.close()
    assert not scheduler.is_started
    with pytest.raises(ManagerClosed, match=f"this {cls.__name__} was closed"):
        scheduler.start()
    coro = give()
    with pytest.raises(ManagerClosed, match="make a new one"):
        scheduler.schedule(coro)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED  # it will never run


@every
async def test_the_limit_is_of_what_waits(cls: Make) -> None:
    scheduler = cls(2)
    tasks = [scheduler.schedule(give(n)) for n in range(2)]
    refused = give()
    with pytest.raises(TaskLimitReached, match="max_tasks=2 tasks are waiting already"):
        scheduler.schedule(refused)
    assert inspect.getcoroutinestate(refused) == inspect.CORO_CLOSED
    assert (len(scheduler), bool(scheduler)) == (2, True)
    async with scheduler:
        await asyncio.gather(*tasks)
        assert len(scheduler) == 0
        assert bool(scheduler)  # it is true, although nothing is pending
        assert await scheduler.schedule(give(3)) == 3


@every
@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), ("2", TypeError)]
)
def test_what_is_no_limit(cls: Make, limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_tasks must be"):
        cls(limit)


@every
async def test_only_what_it_gave_can_be_cancelled(cls: Make) -> None:
    one, other = cls(), cls()
    task = one.schedule(give())
    assert not other.cancel(task)
    assert task.state is State.PENDING
    with pytest.raises(TypeError, match="takes a Task from schedule.., not str"):
        one.cancel("task")
    assert one.cancel(task)
    assert not one.cancel(task)
    assert task.cancelled()
    assert len(one) == 0


@pytest.mark.parametrize(
    ("cls", "expected"), [(QueuedScheduler, [0, 1, 2]), (LifoQueuedScheduler, [2, 1, 0])]
)
async def test_queues_have_their_order_and_take_no_time(cls: Make, expected: list[int]) -> None:
    log: list[int] = []

    async def work(n: int) -> None:
        await asyncio.sleep(0)
        log.append(n)

    scheduler = cls()
    tasks = [scheduler.schedule(work(n)) for n in range(3)]
    refused = give()
    with pytest.raises(TypeError, match="takes no time: leave out when"):
        scheduler.schedule(refused, DAY)
    assert inspect.getcoroutinestate(refused) == inspect.CORO_CLOSED
    async with scheduler:
        await asyncio.gather(*tasks)
    assert log == expected
    assert [task.priority for task in tasks] == [0, 0, 0]
    assert tasks[0].ref is None  # it has no manager


async def test_equal_times_keep_their_order_and_earlier_ones_overtake() -> None:
    log: list[str] = []

    async def work(name: str) -> None:
        log.append(name)

    scheduler = TimedScheduler()
    scheduler._clock = lambda: 0
    for name, when in (("b", 2), ("c", 2), ("a", 1), ("d", 2)):
        scheduler.schedule(work(name), timedelta(seconds=when))
    async with scheduler:  # its link has the real clock: all have long been due
        await turns(20)
    assert log == ["a", "b", "c", "d"]


@every
async def test_left_by_an_exception_it_waits_for_nothing(
    cls: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience: list[float | None] = []

    async def close(link: LocalLink, timeout: float | None) -> None:
        patience.append(timeout)
        await original(link, timeout)

    original = LocalLink.close
    monkeypatch.setattr(LocalLink, "close", close)
    scheduler = cls()
    with pytest.raises(LookupError):
        async with scheduler:
            running = scheduler.schedule(forever())
            await turns()
            assert running.state is State.RUNNING
            raise LookupError
    assert running.cancelled()
    async with cls():
        pass
    assert patience == [0, None]


@every
async def test_close_says_how_much_it_cancelled(
    cls: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioscheduler")
    scheduler = cls()
    tasks = [scheduler.schedule(give()) for _ in range(3)]
    await scheduler.close()
    assert all(task.cancelled() for task in tasks)
    (record,) = caplog.records
    assert f"close() of a {cls.__name__} cancelled 3 unfinished tasks" in record.getMessage()
    await scheduler.close()
    assert len(caplog.records) == 1


def test_one_whose_loop_has_ended_is_closed_in_another() -> None:
    scheduler = TimedScheduler()

    async def begin() -> Any:
        scheduler.start()
        return scheduler.schedule(give(), DAY)

    task = asyncio.run(begin())
    with pytest.raises(RuntimeError, match="event loop of this scheduler is closed"):
        scheduler.cancel(task)
    asyncio.run(scheduler.close())
    assert task.state is State.LOST
    assert isinstance(task.exception(), ManagerClosed)
    assert not scheduler.is_started


# ---- as the model of a manager's schedulers


@pytest.mark.parametrize(
    ("cls", "kwargs", "message"),
    [
        (
            TimedScheduler,
            {"foo": 1},
            r"'foo'; what .* goes to TimedScheduler\(max_tasks, ",
        ),
        (QueuedScheduler, {"prefer_utc": True}, r"goes to QueuedScheduler\(max_tasks\)$"),
        (TimedScheduler, {"maxtasksperchild": 5}, r"; did you mean max_tasks_per_worker\?$"),
        (dict, {}, "cls must be TimedScheduler, QueuedScheduler or LifoQueuedScheduler"),
    ],
)
def test_arguments_that_no_scheduler_takes(cls: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_model(cls, (), kwargs)


@every
def test_a_model_knows_what_its_words_mean(cls: Make) -> None:
    assert make_model(cls, (7,), {}).max_tasks == 7  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_tasks must be at least 1"):
        make_model(cls, (0,), {})  # type: ignore[arg-type]
    assert not make_model(TimedScheduler, (None, False), {}).prefer_utc


@pytest.mark.parametrize("wrong", ["no", None, 1])
def test_a_flag_is_a_bool(wrong: Any) -> None:
    for make in (TimedScheduler, FakeClock().timed_scheduler):
        with pytest.raises(TypeError, match=f"prefer_utc must be True or False, not {wrong!r}"):
            make(None, wrong)
