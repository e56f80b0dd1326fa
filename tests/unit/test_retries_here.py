"""Retries in this process: the in-loop schedulers, and `workers=0`."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retried import fail_until

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    Retry,
    State,
    Task,
    TimedScheduler,
    current_attempt,
    current_due,
    current_manager,
)
from aioscheduler._scheduling.clock import to_ns
from aioscheduler.testing import FakeClock

START = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ONCE_A_DAY = Retry(wait_initial=DAY, wait_max=DAY, wait_jitter=0, attempts=3)
ORDERS = [TimedScheduler, QueuedScheduler, LifoQueuedScheduler]


@pytest.fixture(params=[None, *ORDERS], ids=["alone", *(cls.__name__ for cls in ORDERS)])
async def scheduler(clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Schedulers without a manager, and a manager's, of each order."""
    if request.param is None:
        made: Any = clock.timed_scheduler()
    else:
        made = clock.manager(1, cls=request.param, workers=0)
    async with made:
        yield made


@pytest.mark.parametrize("cls", ORDERS[1:])
async def test_a_queue_alone_retries_its_head_first(cls: Any) -> None:
    ran: list[str] = []
    begun = asyncio.Event()

    async def work(name: str, failures: int = 0) -> None:
        ran.append(name)
        begun.set()
        if current_attempt() <= failures:
            raise ConnectionError

    async with cls() as queue:
        tasks = [queue.schedule(work("x", 4), retry=Retry(wait_initial=0, wait_jitter=0))]
        await begun.wait()
        tasks += [queue.schedule(work(name)) for name in "ab"]
        await asyncio.gather(*tasks)
    assert "".join(ran) == ("xxxxxab" if cls is QueuedScheduler else "xxxxxba")


async def test_a_task_gives_retries_too(clock: FakeClock) -> None:
    async def ask() -> Any:
        with pytest.raises(TypeError, match="cannot be recreated"):
            current_manager().schedule(asyncio.get_running_loop().create_future(), retry=Retry())
        return current_manager().schedule(fail_until(3), retry=ONCE_A_DAY)

    async with clock.manager(1, workers=0) as manager:
        asking = manager.schedule(ask())
        await clock.advance(0)
        task = manager.task(asking.result())
        await clock.advance(2 * DAY)
        assert task.result()[0] == 3


class Room:
    """Calls of many kinds, each of which fails at first."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def fail_first(self, who: str) -> None:
        self.made.append(who)
        if current_attempt() == 1:
            raise ConnectionError

    async def method(self, n: int, /, *args: int, k: int = 5, **kwargs: int) -> tuple[Any, ...]:
        kwargs["z"] = n
        self.fail_first("method")
        return n, args, k, kwargs

    def closure(self, step: int) -> Callable[..., Any]:
        async def add(n: int = 2) -> int:
            def sum_up() -> int:
                return n + step

            self.fail_first("closure")
            return sum_up()

        return add

    def decorated(self) -> Callable[..., Any]:
        inner = self.closure(7)

        @functools.wraps(inner)
        async def outer(*args: int) -> tuple[str, Any]:
            self.made.append("wrapper")
            return "wrapped", await inner(*args)

        return outer


async def test_coroutines_of_functions_of_every_kind_are_retried(
    clock: FakeClock, scheduler: Any
) -> None:
    """The coroutine that was given is retried, even if a wrapper made it."""
    room = Room()
    coros = [
        room.method(1, 2, 3, y=4),
        room.closure(5)(),
        room.closure(5)(4),
        room.decorated()(1),
    ]
    for coro, expected, made in zip(
        coros,
        [(1, (2, 3), 5, {"y": 4, "z": 1}), 7, 9, ("wrapped", 8)],
        [["method"], ["closure"], ["closure"], ["wrapper", "closure"]],
        strict=True,
    ):
        room.made.clear()
        task = scheduler.schedule(coro, retry=ONCE_A_DAY)
        await clock.advance(0)
        assert (task.state, room.made) == (State.PENDING, made)
        await clock.advance(DAY)
        assert (task.result(), room.made) == (expected, made * 2)


async def test_all_attempts_have_the_same_objects(clock: FakeClock, scheduler: Any) -> None:
    seen: list[list[int]] = []

    async def note(found: list[int]) -> None:
        seen.append(found)
        found.append(current_attempt())
        raise ConnectionError

    own: list[int] = []
    awaited = [scheduler.schedule(note(own), retry=ONCE_A_DAY)]
    if isinstance(scheduler, Manager):
        awaited.append(scheduler.map(note, [own], retry=ONCE_A_DAY))
    for each in awaited:
        await clock.advance(4 * DAY)  # in a queue, one after the other
        with pytest.raises(ConnectionError):
            await each
    assert all(found is own for found in seen)
    assert sorted(own) == sorted([1, 2, 3] * len(awaited))


class Odd:
    def __await__(self) -> Iterator[Any]:
        yield from ()


async def test_an_argument_that_can_be_used_once_is_refused(
    clock: FakeClock, scheduler: Any
) -> None:
    """Otherwise the second attempt would fail for that, and hide why the first failed."""
    inner = asyncio.sleep(0)
    coro = asyncio.wait_for(inner, 1)
    with pytest.raises(TypeError, match="wait_for.. has a coroutine as an argument, which can be"):
        scheduler.schedule(coro, retry=Retry())
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    inner.close()
    assert len(scheduler) == 0


async def test_what_cannot_be_retried_is_refused(clock: FakeClock, scheduler: Any) -> None:
    odd: Any = Odd()
    with pytest.raises(TypeError, match="a Odd cannot be recreated: wrap it in an async def"):
        scheduler.schedule(odd, retry=Retry())
    assert len(scheduler) == 0
    assert await scheduler.schedule(odd, timeout=60) is None  # as usual


# ---- any history, against a model


class Model:
    """The expected behaviour, as simple as possible: every task by its number.

    Attributes:
        log: Every start: number, attempt, the due time that the task sees, the time.
    """

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.now = 0
        self.tasks: dict[int, dict[str, Any]] = {}
        self.log: list[tuple[int, int, int | None, int]] = []
        self.head: int | None = None  # the task that rests in a queue

    def schedule(self, number: int, due: int, failures: int, wait: int) -> None:
        self.tasks[number] = {
            "state": State.PENDING,
            "due": due,
            "start": due,
            "failures": failures,
            "wait": wait,
            "attempt": 1,
        }

    def waiting(self) -> list[int]:
        return [n for n, task in self.tasks.items() if task["state"] is State.PENDING]

    def end(self, number: int) -> bool:
        """Cancel or withdraw a task: it is not running, as no task here is, and ends at once."""
        if number not in self.waiting():
            return False
        self.tasks[number]["state"] = State.CANCELLED
        self.head = None if self.head == number else self.head
        return True

    def move(self, number: int, due: int) -> bool:
        if number not in self.waiting():
            return False
        self.tasks[number] |= {"due": due, "start": due}
        return True

    def next(self) -> int | None:
        """Return what starts next, None if nothing may start by now."""
        waiting = self.waiting()
        if not waiting:
            return None
        if self.cls is TimedScheduler:
            first = min(waiting, key=lambda n: (self.tasks[n]["start"], n))
        elif self.head is not None:
            first = self.head
        else:
            first = waiting[0 if self.cls is QueuedScheduler else -1]
        return first if self.tasks[first]["start"] <= self.now else None

    def advance(self, seconds: int) -> None:
        until = self.now + seconds
        while True:
            while (number := self.next()) is not None:
                self.start(number)
            if self.now == until:
                return
            self.now += 1

    def start(self, number: int) -> None:
        task = self.tasks[number]
        due = task["due"] if self.cls is TimedScheduler else None
        self.log.append((number, task["attempt"], due, self.now))
        self.head = None
        if task["attempt"] <= task["failures"]:
            if task["attempt"] == 3:
                task["state"] = State.FAILED
                return
            task["attempt"] += 1
            task["start"] = self.now + task["wait"]
            self.head = None if self.cls is TimedScheduler else number
        else:
            task["state"] = State.FINISHED


class Failed(Exception): ...


async def compare(cls: type, history: list[tuple[Any, ...]]) -> None:
    clock = FakeClock(START)
    model = Model(cls)
    log: list[tuple[int, int, int | None, int]] = []
    tasks: list[Task[Any]] = []
    origin = to_ns(START, 0)

    def seconds(when: datetime | None) -> int | None:
        return None if when is None else round((when - START).total_seconds())

    async def work(number: int, failures: int, waits: bool) -> None:
        log.append((number, current_attempt(), seconds(current_due()), seconds(clock.now()) or 0))
        if waits:
            await asyncio.sleep(0)
        if current_attempt() <= failures:
            raise Failed

    async with clock.manager(1, cls=cls, workers=0) as manager:
        link: Any = manager._router.links[0]
        for what, which, span, failures in history:
            number = which % len(tasks) if tasks else 0
            if what == "schedule":
                number = len(tasks)
                timed = cls is TimedScheduler
                model.schedule(number, model.now + span if timed else 0, failures, which % 3 + 1)
                tasks.append(
                    manager.schedule(
                        work(number, failures, bool(which % 2)),
                        timedelta(seconds=span) if timed else None,
                        retry=Retry(
                            lambda error, wait=which % 3 + 1: wait,  # type: ignore[misc]
                            attempts=3,
                        ),
                    )
                )
            elif what == "advance":
                model.advance(span)
                await clock.advance(span)
            elif tasks and what == "cancel":
                assert tasks[number].cancel() == model.end(number)
            elif tasks and what == "withdraw":
                assert link.withdraw(0, number) == model.end(number)
            elif tasks and what == "move" and cls is TimedScheduler:
                due = model.now + span
                moved = link.reschedule(0, number, origin + due * 10**9)
                assert moved == model.move(number, due)
            waiting = model.waiting()
            assert len(manager) == len(waiting)
            assert [task.state for task in tasks] == [t["state"] for t in model.tasks.values()]
            if cls is TimedScheduler:
                dues = [model.tasks[n]["start"] for n in waiting]
                assert [seconds(tasks[n].due) for n in waiting] == dues
        model.advance(100)
        await clock.advance(100)
        assert log == model.log
        assert [task.state for task in tasks] == [t["state"] for t in model.tasks.values()]
        assert len(manager) == 0
        counts = manager.stats()
        ends = [t["state"] for t in model.tasks.values()]
        assert (counts.finished, counts.failed, counts.cancelled) == tuple(
            ends.count(state) for state in (State.FINISHED, State.FAILED, State.CANCELLED)
        )
        retried = sum(t["attempt"] - 1 for t in model.tasks.values())
        assert link.stats().counts["retried"] == retried
        await manager.join()
        for task in tasks:
            if task.state is State.FAILED:
                assert isinstance(task.exception(), Failed)


steps = st.tuples(
    st.sampled_from(["schedule", "schedule", "advance", "cancel", "withdraw", "move"]),
    st.integers(0, 11),
    st.integers(0, 6),
    st.integers(0, 4),
)


@pytest.mark.parametrize("cls", ORDERS)
@given(history=st.lists(steps, max_size=40))
@settings(max_examples=60)
def test_any_history_is_that_of_the_model(cls: type, history: list[tuple[Any, ...]]) -> None:
    asyncio.run(compare(cls, history))
