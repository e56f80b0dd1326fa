"""The runner of the schedulers of this loop: every end of a task is reported."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import weakref
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
from herewith import NOW, Rig, fail, forever, give
from turning import turns

from aioscheduler._scheduling.clock import SECOND, to_datetime
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.propagation import Propagation
from aioscheduler.errors import ManagerClosed, TooLate
from aioscheduler.inside import current_attempt, current_due, current_task
from aioscheduler.options import Options
from aioscheduler.outcomes import Outcomes
from aioscheduler.retry import Retry
from aioscheduler.task import State, Task, TaskRef

word: ContextVar[str] = ContextVar("word", default="none")


@pytest.fixture
async def rig(no_tasks_left: None, reports: list[Any]) -> Rig:
    rig = Rig()
    rig.start()
    return rig


async def test_every_end_is_counted_once(rig: Rig) -> None:
    finished, failed = rig.schedule(give(1)), rig.schedule(fail(LookupError("no")))
    running, pending = rig.schedule(forever()), rig.schedule(give(2), NOW + 1)
    await turns()
    assert rig.counts == (1, 2)
    assert rig.link.stats().running == 1
    assert (running.state, pending.state) == (State.RUNNING, State.PENDING)
    assert running.cancel()
    assert pending.cancel()
    await turns()
    assert (finished.result(), str(failed.exception())) == (1, "no")
    assert running.cancelled()
    assert pending.cancelled()
    assert rig.counts == (0, 0)
    assert rig.ends() == {State.FINISHED: 1, State.FAILED: 1, State.CANCELLED: 2}
    assert not pending.cancel()
    await rig.link.close(0)
    assert sum(rig.ends().values()) == 4


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_what_is_launched_and_has_not_begun_ends_once(rig: Rig, how: str) -> None:
    async def compute() -> None:
        rig.now += SECOND  # longer than a slice: the rest of it waits for the loop's next turn

    first, second = rig.schedule(compute()), rig.schedule(give(1), NOW)
    while not first.done():
        await asyncio.sleep(0)
    if how == "cancel":
        second.cancel()
    else:
        await rig.link.close(0)
    await turns()
    assert second.done()
    assert rig.counts == (0, 0)
    assert sum(rig.ends().values()) == 2
    await rig.link.close(0)


async def test_a_task_that_is_cancelled_by_one_of_its_slice_ends_once(rig: Rig) -> None:
    async def cancel() -> bool:
        return second.cancel()

    first = rig.schedule(cancel())
    second = rig.schedule(give(1))
    await turns()
    assert first.result() is True
    assert second.cancelled()
    assert rig.counts == (0, 0)
    await rig.link.close(0)


async def test_a_task_that_could_not_begin_has_failed_and_is_reported(
    rig: Rig, reports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*args: Any) -> None:
        raise MemoryError

    coros = [give(n) for n in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(rig.link.engines[0].running, "begin", begin)
        tasks = [rig.schedule(coro) for coro in coros]
        await turns()
    assert all(isinstance(task.exception(), MemoryError) for task in tasks)
    assert all(inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED for coro in coros)
    assert rig.counts == (0, 0)
    (report,) = reports
    assert report["message"] == "a scheduler could not start its due tasks"
    reports.clear()
    await rig.link.close(0)


def test_a_handler_that_ends_the_loop_does_not_end_the_scheduler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aioscheduler._routing.localrunner.TICK", 0)
    rig = Rig()
    begun: Any = rig.link.engines[0].running

    def begin(*args: Any) -> None:
        del begun.begin  # once
        raise MemoryError

    def leave(*args: Any) -> None:
        raise SystemExit(3)

    async def fill() -> list[Task[Any]]:
        begun.begin = begin
        rig.start()
        return [rig.schedule(give(n)) for n in range(20)]  # more than the first slice

    async def go_on() -> None:
        await turns()
        await rig.link.close(0)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(leave)
    tasks = loop.run_until_complete(fill())
    with pytest.raises(SystemExit):
        loop.run_until_complete(turns())
    loop.run_until_complete(go_on())
    assert isinstance(tasks[0].exception(), MemoryError)
    assert tasks[-1].result() == 19
    loop.close()


async def test_a_task_that_is_cancelled_before_its_call_is_closed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_first(*args: Any) -> None:
        await forever()

    monkeypatch.setattr("aioscheduler._routing.localrunner.run_with", wait_first)
    coro = give(1)
    task = rig.schedule(coro, options=Options(timeout=1.0))
    await turns()
    task.cancel()
    await turns()
    assert task.cancelled()
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    await rig.link.close(0)


async def test_a_task_that_cancels_itself_is_cancelled(rig: Rig) -> None:
    task = rig.schedule(fail(asyncio.CancelledError()))
    await turns()
    assert task.cancelled()
    assert rig.counts == (0, 0)
    await rig.link.close(0)


async def test_a_task_has_the_context_of_its_call_and_knows_itself(rig: Rig) -> None:
    async def look() -> tuple[str, TaskRef]:
        before = word.get()
        word.set("of the task")
        return before, current_task()

    word.set("first")
    first = rig.schedule(look())
    word.set("second")
    second = rig.schedule(look(), scheduler=1)
    await turns()
    assert first.result() == ("first", TaskRef("ab", 0, 0, 0))
    assert second.result() == ("second", TaskRef("ab", 0, 1, 1))
    assert word.get() == "second"
    await rig.link.close(0)


async def test_calls_of_a_batch_do_not_see_each_others_context(rig: Rig) -> None:
    def look(new: str) -> str:
        before = word.get()
        word.set(new)
        return before

    word.set("of the batch")
    outcomes = Outcomes(2)
    rig.placement.added(0, 2)
    rig.link.schedule_many(outcomes, 0, 0, 0, look, [("one",), ("other",)], None)
    word.set("later")
    await turns()
    assert outcomes.values == ["of the batch", "of the batch"]
    await rig.link.close(0)


async def test_a_task_knows_itself_and_may_cancel_itself_in_its_first_step(rig: Rig) -> None:
    seen: list[Any] = []

    async def look(wait: float | None) -> str:
        (number,) = (n for n in (task._number for task in tasks) if n not in {s[0] for s in seen})
        found = rig.link.find(0, number)
        seen.append((number, found is not None, rig.link.state(number)))
        seen[-1] += (rig.link.cancel(0, number), rig.link.due(0, number))
        if wait is not None:
            await asyncio.sleep(wait)
        return "not cancelled"

    tasks: list[Task[Any]] = []
    tasks.append(rig.schedule(look(60)))
    await turns()
    tasks.append(rig.schedule(look(None)))
    await turns()
    assert [row[1:] for row in seen] == [(True, State.RUNNING, True, None)] * 2
    assert tasks[0].cancelled()
    assert tasks[1].result() == "not cancelled"  # it awaited nothing
    assert not rig.link.engines[0].running._causes
    assert rig.counts == (0, 0)


# ---- attempts

RETRY = Options(retry=Retry(Exception, attempts=3, wait_initial=1, wait_jitter=0))


class Failing:
    """Work of a test's task: fails a number of times, and then returns.

    Attributes:
        starts: For each start, its attempt and its due time.
    """

    def __init__(self, failures: int = 9) -> None:
        self.failures = failures
        self.starts: list[tuple[int, Any]] = []

    async def work(self) -> str:
        self.starts.append((current_attempt(), current_due()))
        if len(self.starts) <= self.failures:
            raise LookupError(f"failure {len(self.starts)}")
        return "done"


async def ring(rig: Rig, seconds: float = 0) -> None:
    """Let time pass, and run the tasks due by then."""
    rig.now += int(seconds * SECOND)
    for engine in rig.link.engines:
        engine.wake_soon()
    await turns()


@pytest.mark.parametrize("order", list(Order))
async def test_what_failed_waits_and_starts_again(order: Order, reports: list[Any]) -> None:
    rig, failing = Rig(order), Failing(2)
    rig.start()
    due = NOW if order is Order.TIMED else 0
    task = rig.schedule(failing.work(), due, options=RETRY)
    await ring(rig)
    assert (task.state, rig.counts, rig.link.stats().running) == (State.PENDING, (1, 1), 0)
    assert rig.link.find(0, 0) is task
    assert rig.link.due(0, 0) == (due + SECOND or None if due else None)
    await ring(rig, 0.9)
    assert len(failing.starts) == 1
    await ring(rig, 0.1)
    assert rig.link.due(0, 0) == (due + 3 * SECOND if due else None)
    await ring(rig, 2)
    assert task.result() == "done"
    given = to_datetime(NOW) if due else None
    assert failing.starts == [(1, given), (2, given), (3, given)]
    assert rig.counts == (0, 0)
    assert rig.ends() == {State.FINISHED: 1}
    assert rig.link.stats().counts["retried"] == 2
    assert not reports
    await rig.link.close(0)


async def test_the_last_failure_is_the_tasks(rig: Rig) -> None:
    failing = Failing()
    task = rig.schedule(failing.work(), options=RETRY)
    for _ in range(5):
        await ring(rig, 5)
    assert len(failing.starts) == 3
    error = task.exception()
    assert str(error) == "failure 3"
    assert getattr(error, "__notes__", None) == ["it had 3 attempts, of 3 at most"]
    assert rig.ends() == {State.FAILED: 1}
    await rig.link.close(0)


async def test_nothing_is_kept_of_a_failure_that_is_retried(rig: Rig) -> None:
    """It is freed at once: no reference cycle holds it."""
    found: list[weakref.ref[BaseException]] = []

    class Failure(Exception): ...

    async def work() -> None:
        error = Failure()
        found.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        task = rig.schedule(work(), options=RETRY)
        await ring(rig)
        await ring(rig, 1)
        assert [each() for each in found] == [None, None]
        await ring(rig, 2)
        assert task.exception() is found[2]()
        del task
        await ring(rig)
        assert found[2]() is None
    finally:
        gc.enable()
    await rig.link.close(0)


def test_nothing_is_left_of_a_task_that_failed_by_its_options() -> None:
    """As above, for a task that was too late, and one that ran too long."""

    async def run() -> list[weakref.ref[Any]]:
        rig = Rig()
        rig.start()
        options = (Options(max_lateness=0), Options(timeout=0.001), RETRY)
        tasks = [
            rig.schedule(forever(), NOW - SECOND, options=options[0]),
            rig.schedule(forever(), options=options[1]),
            rig.schedule(fail(TooLate("of its own", 1.0, 0.0, 1)), options=options[2]),
        ]
        await asyncio.wait(tasks)
        errors = [task.exception() for task in tasks]
        assert [type(error) for error in errors] == [TooLate, TimeoutError, TooLate]
        assert rig.link.stats().counts["too_late"] == 1
        await rig.link.close(0)
        return [weakref.ref(task) for task in tasks]

    gc.disable()
    try:
        handles = asyncio.run(run())
        assert [handle() for handle in handles] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("how", ["cancel", "withdraw", "close"])
async def test_a_task_cancelled_between_attempts_has_its_failure_logged(
    how: str, order: Order, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioscheduler")
    rig, failing = Rig(order), Failing()
    rig.start()
    options = RETRY._replace(name="a report")
    task = rig.schedule(failing.work(), options=options)
    after = rig.schedule(give(1), 0 if order is not Order.TIMED else NOW + SECOND)
    if order is Order.LIFO:
        after.cancel()
    await ring(rig)
    if how == "cancel":
        assert task.cancel()
    elif how == "withdraw":
        assert rig.link.withdraw(0, 0)
    else:
        await rig.link.close(None)
    assert task.cancelled()
    assert [record.getMessage() for record in caplog.records] == [
        "task ab/0/0/0 was cancelled while it waited for another attempt; the last one failed: "
        "a report: LookupError: failure 1"
    ]
    await ring(rig, 60)
    assert len(failing.starts) == 1
    assert after.done()
    assert rig.counts == (0, 0)
    assert not rig.link.withdraw(0, 0)
    await rig.link.close(0)


async def test_what_fails_when_it_is_closed_is_not_retried(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioscheduler")
    gate = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await gate

    task = rig.schedule(wait(), options=RETRY._replace(name="a report"))
    await ring(rig)
    closing = asyncio.create_task(rig.link.close(None))
    await turns()
    gate.set_exception(ValueError("gate"))
    await closing
    assert task.cancelled()
    assert rig.counts == (0, 0)
    assert rig.link.stats().counts["retried"] == 0
    (record,) = caplog.records
    assert record.getMessage().startswith("task ab/0/0/0 was cancelled while it waited for")
    assert record.getMessage().endswith(": a report: ValueError: gate")


@pytest.mark.parametrize("when", ["before it failed", "in its first step"])
async def test_an_attempt_that_was_to_be_cancelled_is_the_last(rig: Rig, when: str) -> None:
    tasks: list[Task[Any]] = []

    async def resist() -> None:
        if when == "in its first step":
            assert rig.link.cancel(0, 0)
        else:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        raise LookupError("resisted")

    tasks.append(rig.schedule(resist(), options=Options(retry=Retry())))
    await turns(3)
    if when == "before it failed":
        tasks[0].cancel()
    await ring(rig, 60)
    error = tasks[0].exception()
    assert (str(error), hasattr(error, "__notes__")) == ("resisted", False)
    assert rig.counts == (0, 0)
    await rig.link.close(0)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("steps", [0, 1])
async def test_a_predicate_that_cancels_its_task_ends_it(
    order: Order, steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As if cancelled right after, while it waits; a task without a retry has failed."""
    caplog.set_level(logging.INFO, "aioscheduler")
    rig = Rig(order)
    rig.start()

    async def work() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        raise LookupError("no")

    def cancel_it(error: Exception) -> bool:
        return tasks[-1].cancel()

    def refuse_it(error: Exception) -> bool:
        return not tasks[-1].cancel()

    tasks: list[Task[Any]] = []
    for again in (True, False):
        options = Options(retry=Retry(cancel_it if again else refuse_it), name="a report")
        tasks.append(rig.schedule(work(), options=options))
        await ring(rig)
        assert rig.counts == (0, 0)
        assert tasks[-1].cancelled() == again
    assert isinstance(tasks[1].exception(), LookupError)
    assert [record.getMessage() for record in caplog.records] == [
        "task ab/0/0/0 was cancelled while it waited for another attempt; the last one failed: "
        "a report: LookupError: no"
    ]
    assert rig.link.stats().counts["retried"] == 0
    last = rig.schedule(give("alive"))
    await ring(rig)
    assert last.result() == "alive"
    await rig.link.close(0)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("what", ["the wait", "the engine"])
async def test_a_task_that_cannot_wait_has_failed(
    order: Order, what: str, monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    """Whatever goes wrong, the task ends, is counted once, and does not start again."""
    rig, failing = Rig(order), Failing()
    rig.start()
    engine, call = rig.link.engines[0], "add_again" if order is Order.TIMED else "rest"
    keep = getattr(engine, call)

    def refuse(*args: Any) -> None:
        if what == "the engine":
            keep(*args)
        raise MemoryError

    with monkeypatch.context() as patch:
        if what == "the wait":
            patch.setattr("aioscheduler._routing.localrunner.wait_before_retry", refuse)
        else:
            patch.setattr(engine, call, refuse)
        task = rig.schedule(
            failing.work(), NOW + SECOND if order is Order.TIMED else 0, options=RETRY
        )
        await ring(rig, 1)
    assert isinstance(task.exception(), MemoryError)
    await ring(rig, 60)
    assert len(failing.starts) == 1
    assert rig.counts == (0, 0)
    assert rig.ends() == {State.FAILED: 1}
    await rig.link.close(0)


async def test_without_a_timeout_a_task_is_awaited_as_it_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrap(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("aioscheduler._routing.localrunner.run_with", wrap)
    options = RETRY._replace(max_lateness=SECOND, name="a label")
    assert options.timeout is None
    task = rig.schedule(give(1), NOW, options=options)
    await turns()
    assert task.result() == 1
    await rig.link.close(0)


async def test_what_is_cancelled_while_its_next_attempt_runs_is_cancelled(rig: Rig) -> None:
    async def work() -> None:
        if current_attempt() == 1:
            raise LookupError
        await forever()

    task = rig.schedule(work(), options=RETRY)
    await ring(rig)
    await ring(rig, 1)
    assert task.state is State.RUNNING
    task.cancel()
    await turns()
    assert task.cancelled()
    assert rig.ends() == {State.CANCELLED: 1}
    await rig.link.close(0)


async def test_a_retry_is_late_after_the_time_it_was_to_start(rig: Rig) -> None:
    options = RETRY._replace(max_lateness=SECOND)
    slow, quick = Failing(), Failing(1)
    late = rig.schedule(slow.work(), NOW, options=options)
    timely = rig.schedule(quick.work(), NOW, options=options)
    await ring(rig)
    await ring(rig, 2)  # a second after the time of the second attempt
    assert timely.result() == "done"
    await ring(rig, 3.1)  # the third starts two seconds after the second
    error = late.exception()
    assert isinstance(error, TooLate)
    assert str(error).startswith("attempt 3 of task ")
    assert error.lateness == pytest.approx(1.1)
    counts = rig.link.stats().counts
    assert (counts["too_late"], counts["retried"], len(slow.starts)) == (1, 3, 2)
    await rig.link.close(0)


async def test_each_attempt_has_the_context_of_the_call(rig: Rig) -> None:
    seen: list[str] = []

    async def work() -> None:
        seen.append(word.get())
        word.set("of an attempt")
        raise LookupError

    word.set("of the call")
    task = rig.schedule(work(), options=RETRY)
    word.set("later")
    for _ in range(4):
        await ring(rig, 5)
    assert seen == ["of the call"] * 3
    assert isinstance(task.exception(), LookupError)
    await rig.link.close(0)


async def test_nothing_starts_again_while_the_loop_may_be_ending(rig: Rig) -> None:
    """All tasks are cancelled, as by `asyncio.run` at its end."""

    async def resist() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise LookupError("cancelled") from None

    at_once = Options(retry=Retry(wait_initial=0, wait_jitter=0))
    task = rig.schedule(resist(), options=at_once)
    await turns()
    ((running, _),) = rig.link.engines[0].running.values()
    running.cancel()
    await turns()
    assert task.state is State.PENDING
    assert rig.link.engines[0]._hold_back.active
    assert task.cancel()
    await rig.link.close(0)


@pytest.mark.parametrize("order", [Order.TIMED, Order.FIFO])
def test_on_a_closed_loop_nothing_is_retried(order: Order) -> None:
    """A coroutine that is collected may raise anything; its handle settles all the same."""
    rig = Rig(order)

    async def work() -> None:
        try:
            await forever()
        finally:
            raise LookupError("no loop")

    async def start() -> Task[Any]:
        rig.start()
        task = rig.schedule(work(), options=RETRY)
        await turns()
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(start())
    ((running, _),) = rig.link.engines[0].running.values()
    loop.close()
    coro: Any = running.get_coro()
    coro.close()  # as garbage collection does
    assert task.cancelled()
    assert rig.counts == (0, 0)
    running._log_destroy_pending = False  # type: ignore[attr-defined]
    rig.link.kill(ManagerClosed("the loop is closed"))


async def test_what_was_captured_is_restored_in_each_attempt_before_its_first_step() -> None:
    restored: list[object] = []
    rig = Rig(propagation=Propagation(((dict, restored.append),)))
    rig.start()
    failures = iter((LookupError("once"),))

    async def work() -> list[object]:
        for error in failures:
            raise error
        return restored.copy()

    record = rig.link.shipper.take_record(
        Options(retry=Retry(wait_initial=0, wait_jitter=0)), [1, "captured"]
    )
    rig.placement.added(0)
    task = rig.link.schedule(0, 0, 0, rig.link.shipper.take(work(), record))
    await turns()
    assert task.result() == ["captured", "captured"]
    await rig.link.close(0)


async def test_a_task_whose_context_cannot_be_restored_fails_and_is_closed() -> None:
    rig = Rig(propagation=Propagation(((dict, int),)))
    rig.start()
    coro = give(1)
    record = rig.link.shipper.take_record(None, [1, "no int"])
    rig.placement.added(0)
    task = rig.link.schedule(0, 0, 0, rig.link.shipper.take(coro, record))
    await turns()
    assert isinstance(task.exception(), ValueError)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert rig.counts == (0, 0)
    await rig.link.close(0)
