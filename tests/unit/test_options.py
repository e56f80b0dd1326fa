"""Options are read at the call, travel once, and apply in workers, in this loop and inside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    RemoteError,
    Retry,
    State,
    Task,
    TimedScheduler,
    TooLate,
    WorkerLost,
    current_attempt,
    current_due,
    current_manager,
    now,
)
from aioscheduler._routing.endings import _UNHEARD_NAMED
from aioscheduler._scheduling.clock import LATEST, SECOND
from aioscheduler._scheduling.order import Order
from aioscheduler.options import Options, TaskOptions, lateness_error, read_options
from aioscheduler.testing import FakeClock

START = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(params=["no workers", "workers", "alone"])
async def scheduler(clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "alone":
        made: Any = clock.timed_scheduler()
    else:
        made = clock.manager(2, workers=0 if request.param == "no workers" else 2)
    async with made:
        yield made


# ---- reading


def read(order: Order = Order.TIMED, **given: Any) -> Options | None:
    return read_options(given, order)  # type: ignore[arg-type]  # whatever a user may give


def test_nothing_given_is_no_options() -> None:
    assert read() is read(name=None, timeout=None, max_lateness=None) is None


def test_numbers_and_timedeltas_are_seconds() -> None:
    assert read(timeout=2) == read(timeout=2.0) == read(timeout=timedelta(seconds=2))
    assert read(timeout=2) == Options(timeout=2.0)
    assert read(max_lateness=0.5) == Options(max_lateness=SECOND // 2)
    assert read(max_lateness=0) == Options(max_lateness=0)
    assert read(max_lateness=timedelta.max) == Options(max_lateness=LATEST)
    assert read(max_lateness=1e300) == read(max_lateness=1e308) == Options(max_lateness=LATEST)
    assert read(name="a", timeout=timedelta(milliseconds=1)) == Options("a", 0.001)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"timeout": 0}, ValueError, "timeout must be finite, and more than 0 seconds, not 0"),
        ({"timeout": timedelta(0)}, ValueError, "more than 0"),
        ({"timeout": -1}, ValueError, "more than 0"),
        ({"timeout": float("nan")}, ValueError, "finite"),
        ({"timeout": float("inf")}, ValueError, "finite"),
        ({"timeout": 10**400}, ValueError, "finite"),
        ({"timeout": 10**5000}, ValueError, "timeout must be finite"),
        ({"timeout": -(10**5000)}, ValueError, "timeout must be finite, .* not -inf"),
        ({"timeout": "5"}, TypeError, "timeout is seconds or a timedelta, not str"),
        ({"timeout": True}, TypeError, "not bool"),
        ({"timeout": datetime(2030, 1, 1, tzinfo=UTC)}, TypeError, "not datetime"),
        ({"max_lateness": -0.001}, ValueError, "0 or more"),
        ({"max_lateness": timedelta(-1)}, ValueError, "0 or more"),
        ({"name": 5}, TypeError, "name is a str, not int"),
        ({"name": ""}, ValueError, "must not be empty"),
        ({"name": "\ud800"}, ValueError, "cannot be written down"),
        (
            {"nmae": "a"},
            TypeError,
            "no option 'nmae' here; .* are name, timeout, max_lateness, retry; a man",
        ),
        ({"retry": Retry}, TypeError, r"retry is a Retry: write Retry\(attempts=3\), not"),
        ({"retry": 3}, TypeError, r"write Retry\(attempts=3\), not 3"),
        ({"retry": OSError}, TypeError, r"write Retry\(OSError\), not <class"),
        ({"key": 1}, TypeError, "no option 'key' here; the options are name, timeout, max_late"),
    ],
)
def test_what_cannot_mean_anything_is_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(**given)


class _Spiteful:
    def raise_(self, *args: Any) -> Any:
        raise LookupError("spite")

    __float__ = __str__ = __repr__ = __len__ = __bool__ = raise_
    __eq__ = __lt__ = __gt__ = __mul__ = __format__ = raise_
    __hash__ = None  # type: ignore[assignment]
    encode = total_seconds = raise_


class SpitefulFloat(_Spiteful, float): ...  # type: ignore[misc]


class SpitefulInt(_Spiteful, int): ...  # type: ignore[misc]


class SpitefulText(_Spiteful, str): ...  # type: ignore[misc]


class SpitefulDelta(_Spiteful, timedelta): ...  # type: ignore[misc]


def test_what_a_class_makes_of_a_number_or_text_does_not_matter() -> None:
    for seconds in (SpitefulFloat(2.0), SpitefulInt(2), SpitefulDelta(seconds=2)):
        options = read(timeout=seconds, max_lateness=seconds)
        assert options == Options(None, 2.0, 2 * SECOND)
        assert type(options.timeout) is float
    named = read(name=SpitefulText("a"))
    assert named is not None
    assert type(named.name) is str
    for wrong in (SpitefulFloat(-1.0), SpitefulInt(-1), SpitefulDelta(-1)):
        with pytest.raises(ValueError, match="timeout must be finite"):
            read(timeout=wrong)
    with pytest.raises(ValueError, match="name must not be empty"):
        read(name=SpitefulText(""))


ODD = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.timedeltas(), st.booleans()
)


@given(ODD, st.sampled_from(Order))
def test_whatever_is_given_is_read_or_refused(value: Any, order: Order) -> None:
    for option in TaskOptions.__annotations__:
        try:
            options = read(order, **{option: value})
        except (ValueError, TypeError):
            continue
        assert options is None or isinstance(options, Options)


def test_a_queue_has_no_lateness() -> None:
    for order in (Order.FIFO, Order.LIFO):
        with pytest.raises(TypeError, match="leave out max_lateness"):
            read(order, max_lateness=1)


async def work() -> None: ...


@pytest.mark.parametrize("cls", [TimedScheduler, QueuedScheduler, LifoQueuedScheduler])
@pytest.mark.parametrize("workers", [None, 0, 1])
async def test_a_refused_coroutine_is_closed(cls: Any, workers: int | None) -> None:
    scheduler: Any = cls() if workers is None else Manager(1, cls=cls, workers=workers)
    wrong: list[dict[str, Any]] = [{"timeout": 0}, {"name": 3}, {"later": 1}]
    for options in wrong:
        coro: Any = work()
        with pytest.raises((ValueError, TypeError)):
            scheduler.schedule(coro, **options)
        assert coro.cr_frame is None
        if isinstance(scheduler, Manager):
            with pytest.raises((ValueError, TypeError)):
                scheduler.map(echo, [()], **options)
    assert len(scheduler) == 0
    await scheduler.close()


# ---- name


async def test_a_task_has_the_name_that_it_was_given(clock: FakeClock, scheduler: Any) -> None:
    task = scheduler.schedule(work(), DAY, name="the daily report")
    plain = scheduler.schedule(work(), DAY)
    assert task.name == "the daily report"
    assert plain.name == f"{__name__}:work"
    assert "the daily report" in repr(task)
    await clock.advance(DAY)
    assert (task.name, plain.name) == ("the daily report", f"{__name__}:work")


@pytest.mark.parametrize("workers", [0, 2])
async def test_every_handle_on_a_task_has_its_name(clock: FakeClock, workers: int) -> None:
    async with clock.manager(2, workers=workers) as manager:
        batch = manager.map(echo, [1, 2], DAY, name=SpitefulText("of many"))
        assert batch[1].name == "of many"
        assert "of many" in repr(batch)
        named, plain = manager.schedule(work(), DAY, name="a"), manager.schedule(echo(1), DAY)
        refs = named.ref, plain.ref
        del named, plain
        assert [manager.task(ref).name for ref in refs if ref] == ["a", f"{__name__}:echo"]


async def fail() -> None:
    raise LookupError("lost")


async def test_a_failure_that_nobody_awaits_is_reported_by_name(
    clock: FakeClock, scheduler: Any, reports: list[dict[str, Any]]
) -> None:
    scheduler.schedule(fail(), name="my import")  # dropped at once
    kept = scheduler.schedule(fail(), name="my export")
    await clock.advance(0)
    del kept
    await clock.advance(0)
    told = [report["message"] for report in reports]
    reports.clear()
    assert sorted("my import" in message for message in told) == [False, True]
    assert sorted("my export" in message for message in told) == [False, True]


async def test_of_many_unheard_failures_some_are_reported_by_name(
    clock: FakeClock, reports: list[dict[str, Any]]
) -> None:
    """A lookup in the ledger is slow: others are reported by number, until the next tick."""
    async with clock.manager(1, workers=1) as manager:
        (link,) = manager._remotes
        kept = [manager.schedule(fail()) for _ in range(20)]  # these need no lookup
        refs = [manager.schedule(fail()).ref for _ in range(_UNHEARD_NAMED + 5)]
        await clock.advance(0)
        told = [report["message"] for report in reports]
        refs += [manager.schedule(fail(), name="again").ref]
        link.look_after(0.0)
        await clock.advance(0)
        told += [reports[-1]["message"]]
        reports.clear()
        names = [f"{__name__}:fail "] * _UNHEARD_NAMED + [""] * 5 + ["again "]
        assert told == [
            f"task {name}{ref}: its failure was never awaited"
            for name, ref in zip(names, refs, strict=True)
        ]
        for task in kept:
            assert isinstance(task.exception(), LookupError)


async def return_what_stays() -> Any:
    return (n for n in "")


async def test_a_failure_that_is_not_the_tasks_own_says_which_it_was(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1) as manager:
        stays = manager.schedule(return_what_stays(), name="odd")
        lost = manager.schedule(nap(60), name="lost")
        batch = manager.map(nap, [60])
        await clock.advance(0)
        with pytest.raises(RemoteError) as told:
            await stays
        assert told.value.__notes__ == [f"it was task odd {stays.ref}"]
        manager.kill(0)
        await clock.advance(0)
        assert [str(error.__notes__) for error in (lost.exception(),) if error] == [
            f"['it was task lost {lost.ref}']"
        ]
        with pytest.raises(WorkerLost) as of_many:
            await batch
        assert not hasattr(of_many.value, "__notes__")


# ---- timeout


async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


async def resist(seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        return "swallowed"
    return "slept"


def plain(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


async def own() -> None:
    raise TimeoutError("of its own")


async def test_what_runs_too_long_is_cancelled(clock: FakeClock, scheduler: Any) -> None:
    """Real seconds, though the clock stands still."""
    task = scheduler.schedule(nap(60), name="slow", timeout=0.01)
    await clock.advance(0)
    with pytest.raises(TimeoutError, match="task slow ran longer than its timeout of 0.01 s"):
        await task
    assert task.state is State.FAILED


async def test_what_is_quick_enough_is_as_ever(clock: FakeClock, scheduler: Any) -> None:
    tasks = [
        scheduler.schedule(nap(0.001), timeout=60),
        scheduler.schedule(resist(60), timeout=timedelta(milliseconds=1)),
        scheduler.schedule(own(), timeout=60),
        scheduler.schedule(fail(), timeout=60),
    ]
    await clock.advance(0)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[:2] == ["slept", "swallowed"]
    assert [repr(error) for error in found[2:]] == [
        "TimeoutError('of its own')",
        "LookupError('lost')",
    ]


async def test_a_cancelled_task_is_cancelled_and_has_not_timed_out(
    clock: FakeClock, scheduler: Any
) -> None:
    task = scheduler.schedule(nap(60), timeout=60)
    await clock.advance(0)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("workers", [0, 2])
async def test_of_a_map_each_has_its_timeout(clock: FakeClock, workers: int) -> None:
    async with clock.manager(2, workers=workers) as manager:
        batch = manager.map(nap, [0.001, 60, 0.001], timeout=0.05)
        functions = manager.map(plain, [0.02], timeout=0.001)
        stars = manager.starmap(nap, [(60,)], timeout=0.001)
        await clock.advance(0)
        found = await asyncio.gather(*[batch[n] for n in range(3)], return_exceptions=True)
        assert [type(one) for one in found] == [str, TimeoutError, str]
        assert await functions == ["slept"]
        with pytest.raises(TimeoutError, match=f"{__name__}:nap ran longer"):
            await stars
        with pytest.raises(TimeoutError):
            await batch


# ---- max_lateness


def late(options: Options, seconds: float, attempt: int = 1) -> TooLate | None:
    now = int(100 * SECOND + seconds * SECOND)
    return lateness_error(options, "work", 100 * SECOND, attempt, now)


def test_a_task_that_starts_too_late_says_by_how_much() -> None:
    assert late(Options(max_lateness=SECOND), 1.0) is None
    assert late(Options(), 1000.0) is None
    found = late(Options(max_lateness=SECOND), 1.5)
    assert found is not None
    assert found.lateness == 1.5
    assert str(found).startswith("task work was not started, as it was 1.500 s late")
    again = late(Options(max_lateness=SECOND), 3.0, attempt=2)
    assert str(again).startswith("attempt 2 of task work was not started, as it was 3")


async def test_each_is_judged_before_its_own_first_step(clock: FakeClock, scheduler: Any) -> None:
    """Not for a slice as a whole: the first of these makes the second late."""

    async def set_back() -> None:
        moved.append(1)
        clock._now += 5 * SECOND

    moved: list[int] = []
    if isinstance(scheduler, Manager) and scheduler._remotes:
        pytest.skip("a task on a worker does not have the test's clock")
    first = scheduler.schedule(set_back(), DAY, max_lateness=0)
    second, third = (scheduler.schedule(work(), DAY, max_lateness=n) for n in (4, 5))
    await clock.advance(DAY)
    await first
    with pytest.raises(TooLate) as told:
        await second
    assert told.value.lateness == 5.0
    await third


# ---- inside a task: attempt and due time


async def look() -> tuple[int, datetime | None, datetime]:
    return current_attempt(), current_due(), now()


async def test_a_task_knows_its_times(clock: FakeClock, scheduler: Any) -> None:
    when = START + DAY
    task = scheduler.schedule(look(), when)
    assert task.due == when
    naive = scheduler.schedule(look(), datetime(2030, 1, 2))  # noqa: DTZ001  UTC by default
    assert naive.due == when
    await clock.advance(2 * DAY)
    assert task.result() == naive.result() == (1, when, when)
    assert task.due is None


@pytest.mark.parametrize("workers", [None, 0, 1])
async def test_in_a_queue_there_is_no_due_time(
    clock: FakeClock, workers: int | None, no_tasks_left: None
) -> None:
    queue: Any = QueuedScheduler() if workers is None else clock.manager(cls=QueuedScheduler)
    async with queue:
        task = queue.schedule(look(), None, name="queued", timeout=60)
        assert (task.due, task.name) == (None, "queued")
        attempt, due, _ = await task
        assert (attempt, due) == (1, None)


async def test_a_due_time_is_that_of_the_next_start(clock: FakeClock, scheduler: Any) -> None:
    task: Task[Any] = scheduler.schedule(nap(0.05))
    assert task.due == START
    await clock.advance(0)
    assert task.state is State.RUNNING
    assert task.due is None
    await task
    assert task.due is None


def test_outside_tasks_there_is_the_present() -> None:
    assert abs(now() - datetime.now(UTC)) < timedelta(seconds=10)
    for ask in (current_attempt, current_due):
        with pytest.raises(RuntimeError, match=f"{ask.__name__}.. is for tasks: call it inside"):
            ask()


async def test_a_scheduler_alone_has_no_manager_for_its_tasks(clock: FakeClock) -> None:
    async def ask() -> object:
        return current_manager()

    async with clock.timed_scheduler() as scheduler:
        task = scheduler.schedule(ask())
        await clock.advance(0)
        with pytest.raises(RuntimeError, match="for tasks that a Manager runs"):
            await task


# ---- from inside a task


async def echo(value: Any) -> Any:
    return value


async def schedule_others() -> list[Any]:
    manager = current_manager()
    for wrong in ({"timeout": -1}, {"unknown": 1}):
        try:
            manager.schedule(echo(1), **wrong)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            continue
        raise AssertionError(wrong)
    due = current_due()
    assert due is not None
    return [
        manager.schedule(look(), due + DAY, name="next", timeout=60, max_lateness=60),
        manager.schedule(nap(60), timeout=0.5),
    ]


@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_tasks_give_options_too(clock: FakeClock, workers: int) -> None:
    async with clock.manager(2, workers=workers) as manager:
        origin = manager.schedule(schedule_others(), DAY)
        await clock.advance(DAY)
        following, slow = map(manager.task, origin.result())
        assert (following.name, following.due) == ("next", START + 2 * DAY)
        with pytest.raises(TimeoutError, match="nap ran longer"):
            await slow
        await clock.advance(DAY)
        assert await following == (1, START + 2 * DAY, START + 2 * DAY)


async def tick(left: int) -> None:
    if left:
        due = current_due()
        assert due is not None
        wait = max(due + DAY - now(), timedelta(0))
        current_manager().schedule(tick(left - 1), wait)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("start", [START - 3650 * DAY, START, START + 3650 * DAY])
async def test_a_rhythm_is_right_whatever_the_clock(start: datetime, workers: int) -> None:
    clock = FakeClock(start)
    async with clock.manager(1, workers=workers) as manager:
        manager.schedule(tick(30), start + DAY)
        await clock.advance(10 * DAY)
        assert manager.stats().finished == 10


async def test_equal_options_travel_once(clock: FakeClock) -> None:
    async with clock.manager(2, workers=2) as manager:
        log = manager._remotes[0].shipper.catalog.log
        first = manager.schedule(work(), DAY, timeout=60)
        lines = log.next
        rest = [manager.schedule(work(), DAY, timeout=60.0, name=None) for _ in range(50)]
        batch = manager.map(echo, [1], DAY, timeout=timedelta(minutes=1))
        assert log.next == lines + 1  # for echo
        await clock.advance(DAY)
        await asyncio.gather(first, *rest)
        await batch
        held = len(log.lines.keys() - log.retired)
        for n in range(200):
            task = manager.schedule(work(), name=f"number {n}")
            await clock.advance(0)
            await task
            del task
        manager._remotes[0].look_after(0.0)
        # The lines of the two functions stay, and the last options.
        assert len(log.lines.keys() - log.retired) <= held + 1


@pytest.mark.parametrize("times", [1, 3])
async def test_what_runs_again_counts_its_attempts(clock: FakeClock, times: int) -> None:
    async with clock.manager(1, workers=1, on_worker_loss="rerun") as manager:
        first = manager.schedule(nap_and_look(0.05), name="again", timeout=60)
        batch = manager.map(nap_and_look, [0.05], timeout=60)
        pending = manager.schedule(look(), DAY, name="later")
        for _ in range(times):
            await clock.advance(0)
            manager.kill(0)
        await clock.advance(0)
        assert await first == times + 1
        assert await batch == [times + 1]
        await clock.advance(DAY)
        assert pending.result()[0] == 1


async def test_options_hold_after_a_loss(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1, on_worker_loss="rerun") as manager:
        pending = manager.schedule(nap(60), DAY, name="later", timeout=0.01)
        running = manager.schedule(nap(60), name="again", max_lateness=9.5)
        await clock.advance(10)
        manager.kill(0)
        await clock.advance(DAY)
        with pytest.raises(TooLate, match=r"^attempt 2 of task again was not .* 10\.000 s late"):
            await running
        with pytest.raises(TimeoutError, match="task later ran longer"):
            await pending
        assert pending.name == "later"


async def nap_and_look(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return current_attempt()
