"""A failed task is retried by its `Retry`: one contract, wherever it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from retried import Reduced, fail_plainly, fail_until, repeat, schedule_one, steady

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    NotShippable,
    QueuedScheduler,
    Retry,
    State,
    Task,
    TaskLimitReached,
    TooLate,
    WorkerLost,
    current_attempt,
    current_due,
    current_manager,
    current_task,
)
from aioscheduler.testing import FakeClock

START = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

KINDS = ["workers", "no workers", "alone"]
"""Where tasks run: in workers, in this loop by a manager, by a scheduler alone."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(clock: FakeClock, kind: str, max_tasks: int | None = None) -> Any:
    if kind == "alone":
        return clock.timed_scheduler(max_tasks)
    return clock.manager(2, max_tasks, workers=0 if kind == "no workers" else 2)


@pytest.fixture
async def scheduler(clock: FakeClock, kind: str) -> AsyncIterator[Any]:
    async with make(clock, kind) as made:
        yield made


# ---- attempts and waits


async def test_it_waits_longer_each_time_and_its_due_time_stays(
    clock: FakeClock, scheduler: Any
) -> None:
    retry = Retry(LookupError, attempts=4, wait_initial=10, wait_exp_base=3, wait_jitter=0)
    task = scheduler.schedule(fail_until(4), DAY, retry=retry)
    await clock.advance(DAY)
    for wait in (10, 30, 90):
        assert task.state is State.PENDING
        assert task.due == clock.now() + timedelta(seconds=wait)
        assert len(scheduler) == 1
        await clock.advance(wait - 0.001)
        assert task.state is State.PENDING
        await clock.advance(0.001)
    attempt, due, at, _ = await task
    assert (attempt, due, at) == (4, START + DAY, START + DAY + timedelta(seconds=130))
    assert task.due is None
    assert len(scheduler) == 0


async def test_the_last_failure_says_how_many_there_were(clock: FakeClock, scheduler: Any) -> None:
    task = scheduler.schedule(fail_until(99), retry=steady(attempts=3))
    await clock.advance(20)
    with pytest.raises(LookupError, match="attempt 3") as failure:
        await task
    assert failure.value.__notes__ == ["it had 3 attempts, of 3 at most"]


async def test_one_attempt_is_no_retry(clock: FakeClock, scheduler: Any) -> None:
    task = scheduler.schedule(fail_until(2), retry=Retry(attempts=1))
    await clock.advance(0)
    assert isinstance(task.exception(), LookupError)


async def test_failures_in_between_are_reported_to_nobody(
    clock: FakeClock, scheduler: Any, reports: list[dict[str, Any]]
) -> None:
    scheduler.schedule(fail_until(3), retry=steady())
    scheduler.schedule(fail_until(99), name="hopeless", retry=steady(attempts=2))
    await clock.advance(5)
    assert reports == []
    await clock.advance(20)
    (report,) = reports
    assert "hopeless" in report["message"]
    assert str(report["exception"]) == "attempt 2"
    reports.clear()


async def test_who_awaits_it_waits_for_the_last_attempt(clock: FakeClock, scheduler: Any) -> None:
    task = scheduler.schedule(fail_until(2), retry=steady())
    waiter = asyncio.create_task(_value(task))
    await clock.advance(5)
    assert not waiter.done()
    await clock.advance(5)
    assert (await waiter)[0] == 2


async def _value(task: Any) -> Any:
    return await task


async def test_a_wait_without_end_is_never_over(clock: FakeClock, scheduler: Any) -> None:
    waits: tuple[Any, ...] = (timedelta.max, 1e300)
    tasks = [scheduler.schedule(fail_until(2), retry=steady(wait)) for wait in waits]
    await clock.advance(3650 * DAY)
    assert [task.state for task in tasks] == [State.PENDING] * 2


# ---- which failures


async def test_only_what_it_is_for_is_retried(clock: FakeClock, scheduler: Any) -> None:
    retry = steady(on=(OSError, LookupError), attempts=2)
    tasks = [
        scheduler.schedule(fail_until(2, error), retry=retry)
        for error in (LookupError, ConnectionError, ValueError, SystemExit, KeyboardInterrupt)
    ]
    everything = scheduler.schedule(fail_until(2, SystemExit), retry=steady(on=BaseException))
    await clock.advance(10)
    assert [task.state for task in tasks] == [State.FINISHED] * 2 + [State.FAILED] * 3
    assert everything.state is State.FAILED
    errors = [type(task.exception()) for task in (*tasks[2:], everything)]
    assert errors == [ValueError, SystemExit, KeyboardInterrupt, SystemExit]


async def test_what_says_that_it_cannot_go_on_is_not_retried(
    clock: FakeClock, scheduler: Any
) -> None:
    for error in (asyncio.CancelledError, WorkerLost):
        task = scheduler.schedule(raise_odd(error), retry=steady(on=BaseException))
        await clock.advance(0)
        assert task.done()
        assert task.cancelled() or isinstance(task.exception(), WorkerLost)


async def raise_odd(error: type[BaseException]) -> None:
    raise error(0, None, True) if error is WorkerLost else error


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        (lambda error: True, 10.0),
        (lambda error: 5000, 5000.0),  # `wait_max` does not cap it
        (lambda error: timedelta(minutes=1), 60.0),
        (lambda error: 0, 0.0),
    ],
)
async def test_a_predicate_may_say_how_long_to_wait(
    clock: FakeClock, scheduler: Any, answer: Any, waits: float
) -> None:
    task = scheduler.schedule(fail_until(2), retry=steady(on=answer))
    await clock.advance(0)
    if waits:
        assert task.due == START + timedelta(seconds=waits)
        await clock.advance(waits)
    assert (await task)[2] == START + timedelta(seconds=waits)


def answer_nothing(error: BaseException) -> None: ...


def answer_with_an_error(error: BaseException) -> bool:
    raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (lambda error: False, None),
        (answer_nothing, "its answer, if not True or False, is seconds or a timedelta"),
        (answer_with_an_error, "RuntimeError: no idea"),
        (lambda error: -1, "0 or more"),
    ],
)
async def test_a_predicate_without_an_answer_is_a_no_with_a_note(
    clock: FakeClock, scheduler: Any, answer: Any, note: str | None
) -> None:
    task = scheduler.schedule(fail_until(2), retry=Retry(answer))
    await clock.advance(0)
    error = task.exception()
    notes = "\n".join(error.__notes__)
    assert "it had 1 attempt, of 5 at most" in notes
    assert (note or "it had") in notes


async def test_the_traceback_has_the_note_where_the_failure_loses_it(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1) as manager:
        task = manager.schedule(fail_until(99, Reduced), retry=steady(attempts=2))
        await clock.advance(10)
        assert "it had 2 attempts, of 2 at most" in str(task.exception().__cause__)  # type: ignore[union-attr]


async def test_a_predicate_of_a_task_knows_the_task(clock: FakeClock, scheduler: Any) -> None:
    task = scheduler.schedule(fail_until(99), retry=steady(on=lambda _: current_attempt() < 3))
    await clock.advance(100)
    assert str(task.exception()) == "attempt 3"


# ---- with the other options


async def test_each_attempt_has_its_timeout(clock: FakeClock, scheduler: Any) -> None:
    task = scheduler.schedule(sleep_until(2), timeout=0.05, retry=steady(on=TimeoutError))
    await clock.advance(0)
    await settled(lambda: task.state is State.PENDING)
    await clock.advance(10)
    assert await task == 2


async def sleep_until(attempt: int) -> int:
    await asyncio.sleep(60 if current_attempt() < attempt else 0)
    return current_attempt()


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_retry_is_late_by_the_time_it_was_to_start(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1) as manager:
        on_time = manager.schedule(fail_until(2), DAY, max_lateness=1, retry=steady(3600))
        manager.schedule(oversleep(clock, 10), DAY + timedelta(seconds=3605))
        late = manager.schedule(fail_until(2), DAY, max_lateness=1, retry=steady(3605))
        await clock.advance(2 * DAY)
        assert (await on_time)[:2] == (2, START + DAY)
        with pytest.raises(TooLate, match=r"^attempt 2 .* 10\.000 s late"):
            await late
        stats = manager.stats()
        assert (stats.retried, stats.too_late, stats.failed, stats.finished) == (2, 1, 1, 2)


async def oversleep(clock: FakeClock, seconds: int) -> None:
    clock._now += seconds * 10**9


async def raise_too_late() -> None:
    raise TooLate("of a user's own", 1.0, 1.0, 1)


async def test_a_failure_of_the_task_s_own_is_not_counted_as_too_late(
    clock: FakeClock, scheduler: Any
) -> None:
    task = scheduler.schedule(raise_too_late(), retry=steady(on=BaseException))
    await clock.advance(0)
    assert isinstance(task.exception(), TooLate)
    if isinstance(scheduler, Manager):
        assert (scheduler.stats().too_late, scheduler.stats().failed) == (0, 1)


@pytest.mark.parametrize("workers", [0, 2])
async def test_attempts_are_counted(clock: FakeClock, workers: int) -> None:
    async with clock.manager(2, workers=workers) as manager:
        tasks = [manager.schedule(fail_until(n), retry=steady(attempts=3)) for n in (1, 2, 3, 4)]
        await clock.advance(20)
        await asyncio.gather(*tasks, return_exceptions=True)
        stats = manager.stats()
        assert (stats.retried, stats.finished, stats.failed) == (5, 3, 1)
        assert (stats.pending, stats.running, stats.lost, stats.cancelled) == (0, 0, 0, 0)


# ---- calls on a task that waits for its retry


async def test_one_that_waits_may_be_cancelled_and_its_failure_is_told(
    clock: FakeClock, scheduler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task = scheduler.schedule(fail_until(2), name="my import", retry=steady())
    plain = scheduler.schedule(fail_until(1), DAY)
    await clock.advance(1)
    with caplog.at_level(logging.INFO, "aioscheduler"):
        assert task.cancel()
        assert plain.cancel()
        await clock.advance(100)
    assert task.cancelled()
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage() == (
        f"task {task.ref or task._number} was cancelled while it waited for another attempt; "
        "the last one failed: my import: retried.Failed: attempt 1"
    )


async def test_one_that_runs_or_has_been_retried_tells_nothing_at_its_end(
    clock: FakeClock, scheduler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task = scheduler.schedule(fail_then_hang(), retry=steady())
    other = scheduler.schedule(fail_until(2), retry=steady())
    await clock.advance(10)
    assert task.state is State.RUNNING
    with caplog.at_level(logging.INFO, "aioscheduler"):
        task.cancel()
        await settled(task.done)
    assert task.cancelled()
    assert other.done()
    assert not caplog.records


async def fail_then_hang() -> None:
    if current_attempt() == 1:
        raise LookupError
    await asyncio.Event().wait()


async def test_a_cancelled_attempt_is_not_retried(clock: FakeClock, scheduler: Any) -> None:
    task = scheduler.schedule(fail_when_cancelled(), retry=steady())
    await clock.advance(0)
    task.cancel()
    await settled(task.done)
    assert str(task.exception()) == "its clean-up failed"


async def fail_when_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise LookupError("its clean-up failed") from None


async def test_a_close_cancels_what_waits_and_what_fails_meanwhile(
    clock: FakeClock, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "aioscheduler"):
        async with make(clock, kind) as scheduler:
            waits = scheduler.schedule(fail_until(2), retry=steady())
            runs = scheduler.schedule(fail_later(0.05), name="still", retry=steady())
            await clock.advance(0)
            assert (waits.state, runs.state) == (State.PENDING, State.RUNNING)
    assert (waits.state, runs.state) == (State.CANCELLED, State.CANCELLED)
    told = [r.getMessage() for r in caplog.records if "another attempt" in r.getMessage()]
    assert len(told) == 2
    assert any("still: LookupError: later" in text for text in told)


async def fail_later(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise LookupError("later")


async def test_max_tasks_never_refuses_a_retry(clock: FakeClock, kind: str) -> None:
    async with make(clock, kind, max_tasks=1) as scheduler:
        retried = scheduler.schedule(fail_until(2), retry=steady())
        await clock.advance(0)
        other: Any = fail_until(1)
        with pytest.raises(TaskLimitReached):
            scheduler.schedule(other, DAY)
        await clock.advance(10)
        await retried


@pytest.mark.parametrize("workers", [0, 1])
async def test_join_waits_for_the_next_attempt(clock: FakeClock, workers: int) -> None:
    async with clock.manager(1, workers=workers) as manager:
        task = manager.schedule(fail_until(2), retry=steady())
        batch = manager.map(fail_until, [2], retry=steady())
        joining = asyncio.create_task(manager.join())
        await clock.advance(9)
        assert (len(manager), manager.stats().pending, joining.done()) == (2, 2, False)
        await clock.advance(1)
        await joining
        assert (task.done(), batch.done()) == (True, True)


async def test_one_that_waits_and_is_moved_has_another_due_time(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1) as manager:
        task = manager.schedule(fail_until(2), DAY, retry=steady())
        await clock.advance(DAY)
        link: Any = task._home
        later = clock._now + 3600 * 10**9
        assert link.reschedule(task._scheduler, task._number, later)
        await clock.advance(3599)
        assert task.state is State.PENDING
        await clock.advance(1)
        attempt, due, at, _ = await task
        assert (attempt, due, at) == (2, clock.now(), clock.now())


async def test_one_that_waits_goes_to_the_next_process(clock: FakeClock) -> None:
    async with clock.manager(1, workers=1) as manager:
        task = manager.schedule(fail_until(3), DAY, retry=steady(3600))
        await clock.advance(DAY)
        for _ in range(2):
            manager.kill(0)
            await clock.advance(3600)
        assert (await task)[:2] == (3, START + DAY)


@pytest.mark.parametrize("loss", ["fail", "rerun"])
async def test_an_attempt_that_its_worker_does_not_survive_has_not_failed(
    clock: FakeClock, loss: str
) -> None:
    async with clock.manager(1, workers=1, on_worker_loss=loss) as manager:
        task = manager.schedule(hang_then_fail(2), DAY, retry=steady(attempts=2))
        await clock.advance(DAY)
        manager.kill(0)
        await clock.advance(0)
        if loss == "fail":
            with pytest.raises(WorkerLost):
                await task
            return
        await clock.advance(10)
        with pytest.raises(LookupError, match="attempt 3") as failure:
            await task
        assert failure.value.__notes__ == ["it had 2 attempts, of 2 at most"]


async def hang_then_fail(attempt: int) -> None:
    if current_attempt() < attempt:
        await asyncio.Event().wait()
    raise LookupError(f"attempt {current_attempt()}, due {current_due()}")


# ---- queues


def schedule_three(manager: Manager, ran: list[int]) -> list[Task[Any]]:
    """Schedule tasks that record the order in which they run."""
    tasks = [manager.schedule(echo(n)) for n in range(3)]
    for task in tasks:
        task.add_done_callback(lambda task: ran.append(task.result()))
    return tasks


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
@pytest.mark.parametrize("workers", [0, 1])
async def test_a_queue_waits_for_the_next_attempt_of_its_head(
    clock: FakeClock, cls: Any, workers: int
) -> None:
    ran: list[int] = []

    async with clock.manager(1, workers=workers, cls=cls) as manager:
        head = manager.schedule(fail_until(3), retry=steady(100))
        await clock.advance(0)
        rest = schedule_three(manager, ran)
        await clock.advance(199)
        assert (head.state, head.due, len(manager)) == (State.PENDING, None, 4)
        assert ran == []
        await clock.advance(1)
        assert (await head)[:3] == (3, None, clock.now())
        await asyncio.gather(*rest)
    assert ran == ([0, 1, 2] if cls is QueuedScheduler else [2, 1, 0])


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
@pytest.mark.parametrize("rerun", [False, True])
async def test_a_head_that_waits_is_the_head_in_the_next_process(
    clock: FakeClock, cls: Any, rerun: bool
) -> None:
    ran: list[int] = []
    loss: Any = "rerun" if rerun else "fail"
    async with clock.manager(1, workers=1, cls=cls, on_worker_loss=loss) as manager:
        before = manager.schedule(echo(-1))
        await clock.advance(0)
        head = manager.schedule(fail_until(3), retry=steady(100))
        await clock.advance(0)
        rest = schedule_three(manager, ran)
        await clock.advance(50)
        manager.kill(0)
        await clock.advance(49)
        assert (head.state, head.due, len(manager)) == (State.PENDING, None, 4)
        await clock.advance(1)
        assert head.state is State.PENDING  # it has failed once more
        manager.kill(0)
        await clock.advance(99)
        assert ran == []
        await clock.advance(1)
        assert (await head)[:3] == (3, None, clock.now())
        assert await before == -1
        await asyncio.gather(*rest)
    assert ran == ([0, 1, 2] if cls is QueuedScheduler else [2, 1, 0])


@pytest.mark.parametrize("how", ["cancel", "replace"])
async def test_a_head_in_the_next_process_may_end_there(clock: FakeClock, how: str) -> None:
    async with clock.manager(1, workers=1, cls=QueuedScheduler) as manager:
        head = manager.schedule(fail_until(2), retry=steady(100), id="x")
        after = manager.schedule(echo(1))
        await clock.advance(1)
        manager.kill(0)
        await clock.advance(1)
        if how == "cancel":
            head.cancel()
        else:
            manager.schedule(echo(2), id="x", replace=True)
        assert await after == 1
        assert head.cancelled()


async def test_a_head_with_large_arguments_waits_for_them_in_the_next_process(
    clock: FakeClock,
) -> None:
    async with clock.manager(1, workers=1, cls=QueuedScheduler) as manager:
        head = manager.schedule(fail_with(bytes(200_000), 2), retry=steady(0.001))
        after = manager.schedule(echo(1))
        await clock.advance(0)
        assert head.state is State.PENDING
        manager.kill(0)
        await clock.advance(1)
        assert await head == 200_000
        assert await after == 1


async def fail_with(payload: bytes, attempt: int) -> int:
    if current_attempt() < attempt:
        raise LookupError
    return len(payload)


async def echo(value: Any) -> Any:
    return value


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_head_that_is_cancelled_holds_nothing_up(clock: FakeClock, workers: int) -> None:
    async with clock.manager(1, workers=workers, cls=QueuedScheduler) as manager:
        head = manager.schedule(fail_until(2), retry=steady(100))
        after = manager.schedule(echo(1))
        await clock.advance(1)
        head.cancel()
        assert await after == 1
        assert head.cancelled()


# ---- map, and from inside a task


async def test_of_a_map_each_is_retried_coroutines_and_plain_functions(clock: FakeClock) -> None:
    async with clock.manager(2, workers=2) as manager:
        coroutines = manager.map(fail_until, [1, 2, 3], retry=steady())
        functions = manager.map(fail_plainly, [1, 2, 3], retry=steady())
        calls = manager.starmap(fail_twice_removed, [(2,)], retry=steady())
        hopeless = manager.map(fail_plainly, [1, 99], retry=steady(attempts=2))
        await clock.advance(20)
        assert [attempt for attempt, *_ in await coroutines] == [1, 2, 3]
        assert await functions == [1, 2, 3]
        assert await calls == [2]
        with pytest.raises(LookupError, match="attempt 2"):
            await hopeless
        assert manager.stats().retried == 3 + 3 + 1 + 1


def fail_twice_removed(attempt: int) -> Any:
    """Return an awaitable; another attempt calls this again."""
    return asyncio.ensure_future(_number(attempt))


async def _number(attempt: int) -> int:
    return fail_plainly(attempt)


async def schedule_a_successor() -> Any:
    seconds = 60
    manager = current_manager()
    with pytest.raises(NotShippable, match="the closure variable 'loop' of the option retry"):
        manager.schedule(echo(1), retry=Retry(_ask_a_loop()))
    return [
        manager.schedule(fail_until(2), retry=steady(on=lambda error: seconds)),
        manager.schedule(fail_until(3), name="named", retry=steady(on=LookupError)),
        current_task(),
    ]


def _ask_a_loop() -> Callable[[BaseException], bool]:
    loop = asyncio.get_running_loop()
    return lambda _: loop.is_closed()


async def test_a_task_may_schedule_what_is_retried(clock: FakeClock) -> None:
    async with clock.manager(2, workers=2, on_worker_loss="rerun") as manager:
        origin = manager.schedule(schedule_a_successor(), DAY)
        await clock.advance(DAY)
        by_value, by_class, _ = origin.result()
        first, second = manager.task(by_value), manager.task(by_class)
        assert first.due == clock.now() + timedelta(seconds=60)
        for worker in (0, 1):
            manager.kill(worker)
        await clock.advance(60)
        assert (await first)[:2] == (2, START + DAY)
        assert (await second)[0] == 3
        assert second.name == "named"


async def test_equal_ones_of_tasks_and_of_the_host_are_one_line(clock: FakeClock) -> None:
    async with clock.manager(2, workers=2) as manager:
        log = manager._remotes[0].shipper.catalog.log
        first = manager.schedule(fail_until(2), DAY, retry=steady(on=LookupError))
        manager.schedule(schedule_one())
        await clock.advance(0)
        lines = log.next
        manager.map(repeat, range(20))
        await clock.advance(0)
        assert log.next <= lines + 1  # for `repeat`
        del first


@pytest.mark.parametrize("cls", [None, QueuedScheduler])
async def test_one_that_cannot_travel_is_refused_and_the_coroutine_closed(
    clock: FakeClock, cls: Any
) -> None:
    async with clock.manager(1, workers=1, **({"cls": cls} if cls else {})) as manager:
        coro: Any = echo(1)
        with pytest.raises(NotShippable, match="^the closure variable 'loop' of the option retry"):
            manager.schedule(coro, retry=Retry(_ask_a_loop()))
        assert coro.cr_frame is None
        with pytest.raises(NotShippable, match="of the option retry"):
            manager.map(echo, [1], retry=Retry(_ask_a_loop()))
        assert len(manager) == 0
