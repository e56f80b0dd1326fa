"""The link to schedulers in this loop: who is told what of a task, whatever its end."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any

import pytest
from turning import turns

from aioscheduler._routing.local import LocalLink
from aioscheduler._routing.placement import Placement
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler._scheduling.order import Order
from aioscheduler.batch import Outcomes
from aioscheduler.errors import ManagerClosed, WorkerStartError
from aioscheduler.inside import current_task
from aioscheduler.options import Options
from aioscheduler.stats import WorkerState
from aioscheduler.task import State, Task, TaskRef

NOW = 100 * SECOND
word: ContextVar[str] = ContextVar("word", default="none")


class Desk:
    """Takes nothing: it is there so that tasks know their manager."""


class Place:
    """A link whose clock stands still by itself, and the counts that it keeps right."""

    def __init__(self, order: Order = Order.TIMED, schedulers: int = 2, boot: Any = None) -> None:
        self.now = NOW
        self.placement = Placement([schedulers], by_worker=True)
        self.failures: list[Exception] = []
        loop_thread = LoopThread("manager")
        desk: Any = Desk()
        self.link = LocalLink(
            order,
            schedulers,
            self.placement,
            loop_thread,
            lambda: self.now,
            "ab",
            boot,
            desk,
            self.failures.append,
        )

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.link.loop_thread.enter(loop)
        self.link.start(loop)

    def schedule(self, awaitable: Awaitable[Any], due: int = 0, scheduler: int = 0) -> Task[Any]:
        call = self.link.shipper.take(awaitable)
        self.placement.added(scheduler)
        return self.link.schedule(scheduler, due, due, call)

    @property
    def counts(self) -> tuple[int, int]:
        """Tasks that wait, and tasks that have not ended; each scheduler's are right, too."""
        waiting, loads = self.placement.waiting, self.placement.loads
        assert all(0 <= w <= load for w, load in zip(waiting, loads, strict=True))
        return self.placement.all_waiting, self.placement.all_loads

    def ends(self) -> dict[State, int]:
        return {State(name): count for name, count in self.link.vitals().counts.items()}


@pytest.fixture
async def place(no_tasks_left: None, reports: list[Any]) -> Place:
    place = Place()
    place.start()
    return place


async def give(value: Any) -> Any:
    return value


async def fail(error: BaseException) -> None:
    raise error


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_what_is_scheduled_before_the_start_waits() -> None:
    place = Place()
    task = place.schedule(give(1))
    await turns()
    assert (task.state, place.counts) == (State.PENDING, (1, 1))
    assert place.link.vitals().state is WorkerState.STARTING
    place.start()
    await turns()
    assert task.result() == 1
    assert place.counts == (0, 0)
    assert place.link.vitals().state is WorkerState.READY
    await place.link.close(0)


async def test_every_end_is_counted_once(place: Place) -> None:
    finished, failed = place.schedule(give(1)), place.schedule(fail(LookupError("no")))
    running, pending = place.schedule(forever()), place.schedule(give(2), NOW + 1)
    await turns()
    assert place.counts == (1, 2)
    assert place.link.vitals().running == 1
    assert (running.state, pending.state) == (State.RUNNING, State.PENDING)
    assert running.cancel()
    assert pending.cancel()
    await turns()
    assert (finished.result(), str(failed.exception())) == (1, "no")
    assert running.cancelled()
    assert pending.cancelled()
    assert place.counts == (0, 0)
    assert place.ends() == {State.FINISHED: 1, State.FAILED: 1, State.CANCELLED: 2}
    assert not pending.cancel()
    await place.link.close(0)
    assert sum(place.ends().values()) == 4


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_what_is_launched_and_has_not_begun_ends_once(place: Place, how: str) -> None:
    async def compute() -> None:
        place.now += SECOND  # longer than a slice: the rest of it waits for the loop's next turn

    first, second = place.schedule(compute()), place.schedule(give(1), NOW)
    while not first.done():
        await asyncio.sleep(0)
    if how == "cancel":
        second.cancel()
    else:
        await place.link.close(0)
    await turns()
    assert second.done()
    assert place.counts == (0, 0)
    assert sum(place.ends().values()) == 2
    await place.link.close(0)


async def test_a_task_that_is_cancelled_by_one_of_its_slice_ends_once(place: Place) -> None:
    async def cancel() -> bool:
        return second.cancel()

    first = place.schedule(cancel())
    second = place.schedule(give(1))
    await turns()
    assert first.result() is True
    assert second.cancelled()
    assert place.counts == (0, 0)
    await place.link.close(0)


async def test_what_could_not_begin_has_failed_and_is_told(
    place: Place, reports: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*args: Any) -> None:
        raise MemoryError

    coros = [give(n) for n in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(place.link.engines[0].running, "begin", begin)
        tasks = [place.schedule(coro) for coro in coros]
        await turns()
    assert all(isinstance(task.exception(), MemoryError) for task in tasks)
    assert all(inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED for coro in coros)
    assert place.counts == (0, 0)
    (report,) = reports
    assert report["message"] == "a scheduler could not start what was due"
    reports.clear()
    await place.link.close(0)


def test_a_handler_that_ends_the_loop_does_not_end_the_scheduler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aioscheduler._routing.local.TICK", 0)
    place = Place()
    begun: Any = place.link.engines[0].running

    def begin(*args: Any) -> None:
        del begun.begin  # once
        raise MemoryError

    def leave(*args: Any) -> None:
        raise SystemExit(3)

    async def fill() -> list[Task[Any]]:
        begun.begin = begin
        place.start()
        return [place.schedule(give(n)) for n in range(20)]  # more than the first slice

    async def go_on() -> None:
        await turns()
        await place.link.close(0)

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
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_first(*args: Any) -> None:
        await forever()

    monkeypatch.setattr("aioscheduler._routing.local.run_with", wait_first)
    coro = give(1)
    call = place.link.shipper.take(coro, Options(timeout=1.0))
    place.placement.added(0)
    task = place.link.schedule(0, 0, 0, call)
    await turns()
    task.cancel()
    await turns()
    assert task.cancelled()
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    await place.link.close(0)


async def test_a_task_that_cancels_itself_is_cancelled(place: Place) -> None:
    task = place.schedule(fail(asyncio.CancelledError()))
    await turns()
    assert task.cancelled()
    assert place.counts == (0, 0)
    await place.link.close(0)


@pytest.mark.parametrize("order", [Order.FIFO, Order.LIFO])
async def test_a_queue_runs_one_at_a_time_in_each_scheduler(order: Order) -> None:
    place = Place(order)
    log: list[int] = []

    async def work(n: int) -> None:
        log.append(n)
        await asyncio.sleep(0)
        log.append(n)

    for n in range(3):
        place.schedule(work(n), scheduler=0)
    other = place.schedule(forever(), scheduler=1)  # holds up its own queue alone
    place.start()
    await turns(30)
    expected = [0, 0, 1, 1, 2, 2]
    assert log == (expected if order is Order.FIFO else expected[::-1])
    assert other.state is State.RUNNING
    await place.link.close(0)


async def test_what_never_starts_is_closed_without_a_warning(place: Place) -> None:
    cancelled, waiting, lost = give(1), give(2), give(3)
    place.schedule(cancelled, NOW + 1).cancel()
    place.schedule(waiting, NOW + 1)
    await place.link.close(0)
    after = Place()
    handle = after.schedule(lost)
    after.link.kill(ManagerClosed("the manager has failed"))
    for coro in (cancelled, waiting, lost):
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert isinstance(handle.exception(), ManagerClosed)
    assert handle.state is State.LOST
    assert after.counts == (0, 0)


async def test_close_lets_finish_what_runs_and_starts_nothing(place: Place) -> None:
    gate = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        return str(await gate)

    running, pending = place.schedule(wait()), place.schedule(give(1), NOW + 1)
    await turns()
    closing = asyncio.create_task(place.link.close(None))
    await turns()
    assert pending.cancelled()
    assert not closing.done()
    gate.set_result("finished")
    await closing
    assert running.result() == "finished"
    assert place.link.vitals().state is WorkerState.STOPPED


async def test_what_cannot_be_awaited_is_refused_and_nothing_changed(place: Place) -> None:
    started = forever()
    started.send(None)
    odd: Any
    for odd in (3, give, started):
        with pytest.raises(TypeError):
            place.link.shipper.take(odd)
    started.close()
    assert place.counts == (0, 0)
    await place.link.close(0)


async def test_a_task_has_the_context_of_its_call_and_knows_itself(place: Place) -> None:
    async def look() -> tuple[str, TaskRef]:
        before = word.get()
        word.set("of the task")
        return before, current_task()

    word.set("first")
    first = place.schedule(look())
    word.set("second")
    second = place.schedule(look(), scheduler=1)
    await turns()
    assert first.result() == ("first", TaskRef("ab", 0, 0, 0))
    assert second.result() == ("second", TaskRef("ab", 0, 1, 1))
    assert word.get() == "second"
    await place.link.close(0)


async def test_a_handle_can_be_had_again_until_the_end(place: Place) -> None:
    task = place.schedule(give(1), NOW + SECOND)
    running = place.schedule(forever())
    await turns()
    assert place.link.find(0, 0) is task
    assert place.link.find(0, 1) is running
    assert (place.link.due(0, 0), place.link.due(0, 1)) == (NOW + SECOND, None)
    assert place.link.find(1, 0) is None
    task.cancel()
    assert place.link.find(0, 0) is None
    await place.link.close(0)


async def test_many_calls_of_one_function(place: Place) -> None:
    def half(n: int) -> int:
        return 10 // n

    async def later(n: int) -> int:
        return 10 // n

    functions: list[Any] = [half, later]
    for function in functions:
        outcomes = Outcomes(4)
        calls = [place.link.shipper.take_arguments((n,)) for n in (1, 2, 0, 5)]
        place.placement.added(0, 4)
        dues = [0, 0, 0, NOW + SECOND]
        place.link.schedule_many(outcomes, 0, 0, dues, function, calls, None)
        await turns()
        assert outcomes.states == [State.FINISHED, State.FINISHED, State.FAILED, None]
        assert outcomes.values[:2] == [10, 5]
        assert isinstance(outcomes.values[2], ZeroDivisionError)
        assert place.counts == (1, 1)
        number = outcomes.parts[0].first + 3
        found = place.link.find(0, number)
        assert found is not None
        assert found.cancel()
        assert place.counts == (0, 0)
    await place.link.close(0)


async def test_calls_of_a_batch_do_not_see_each_others_context(place: Place) -> None:
    def look(new: str) -> str:
        before = word.get()
        word.set(new)
        return before

    word.set("of the batch")
    outcomes = Outcomes(2)
    place.placement.added(0, 2)
    place.link.schedule_many(outcomes, 0, 0, 0, look, [("one",), ("other",)], None)
    word.set("later")
    await turns()
    assert outcomes.values == ["of the batch", "of the batch"]
    await place.link.close(0)


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_tasks_wait_for_the_initializer(kind: str, no_tasks_left: None) -> None:
    log: list[str] = []
    gate = asyncio.get_running_loop().create_future()

    async def set_up(name: str) -> None:
        await gate
        log.append(name)

    def set_up_at_once(name: str) -> None:
        log.append(name)

    async def work() -> None:
        log.append("task")

    place = Place(boot=(set_up if kind == "async" else set_up_at_once, ("db",)))
    place.schedule(work())
    place.start()
    ready = asyncio.create_task(place.link.ready())
    await turns()
    assert ready.done() == (kind == "plain")
    gate.set_result(None)
    await ready
    await turns()
    assert log == ["db", "task"]
    await place.link.close(0)


async def test_an_initializer_that_fails_is_told_to_the_manager_and_to_ready(
    no_tasks_left: None,
) -> None:
    place = Place(boot=(fail, (LookupError("no db"),)))
    task = place.schedule(give(1))
    place.start()
    with pytest.raises(WorkerStartError, match="no db") as failure:
        await place.link.ready()
    assert place.failures == [failure.value]
    assert isinstance(failure.value.__cause__, LookupError)
    place.link.kill(failure.value)  # as the manager does
    assert task.exception() is failure.value
    assert place.counts == (0, 0)


async def test_vitals_are_those_of_this_process(place: Place) -> None:
    vitals = place.link.vitals()
    assert (vitals.pid, vitals.counts["restarts"], vitals.avoided) == (os.getpid(), 0, False)
    place.schedule(give(1), NOW - SECOND)
    await turns()
    assert vitals.history.most == 0.0
    place.link.look_after(0.25)  # once a second
    assert (vitals.history.most, vitals.history.lag) == (1.0, 0.25)
    await place.link.close(0)


async def test_a_task_knows_itself_and_may_cancel_itself_in_its_first_step(place: Place) -> None:
    seen: list[Any] = []

    async def look(wait: float | None) -> str:
        (number,) = (n for n in (task._number for task in tasks) if n not in {s[0] for s in seen})
        found = place.link.find(0, number)
        seen.append((number, found is not None, place.link.state(number)))
        seen[-1] += (place.link.cancel(0, number), place.link.due(0, number))
        if wait is not None:
            await asyncio.sleep(wait)
        return "not cancelled"

    tasks: list[Task[Any]] = []
    tasks.append(place.schedule(look(60)))
    await turns()
    tasks.append(place.schedule(look(None)))
    await turns()
    assert [row[1:] for row in seen] == [(True, State.RUNNING, True, None)] * 2
    assert tasks[0].cancelled()
    assert tasks[1].result() == "not cancelled"  # it has not waited for anything
    assert not place.link.engines[0].running._asked
    assert place.counts == (0, 0)
