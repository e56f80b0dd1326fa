"""The link to schedulers in this loop: what is reported of a task, whatever its end."""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import shared
from herewith import NOW, Place, fail, forever, give
from hypothesis import given
from hypothesis import strategies as st
from turning import turns

from aioscheduler._scheduling import holdback
from aioscheduler._scheduling.clock import SECOND, to_datetime
from aioscheduler._scheduling.order import Order
from aioscheduler._scheduling.running import EAGER
from aioscheduler.errors import ManagerClosed, WorkerLost, WorkerStartError
from aioscheduler.inside import current_attempt, current_due
from aioscheduler.inspection import Wanted
from aioscheduler.options import Options
from aioscheduler.outcomes import Outcomes
from aioscheduler.retry import Retry
from aioscheduler.stats import WorkerState
from aioscheduler.task import State, TaskRef


@pytest.fixture
async def place(no_tasks_left: None, reports: list[Any]) -> Place:
    place = Place()
    place.start()
    return place


async def test_what_is_scheduled_before_the_start_waits() -> None:
    place = Place()
    task = place.schedule(give(1))
    await turns()
    assert (task.state, place.counts) == (State.PENDING, (1, 1))
    assert place.link.stats().state is WorkerState.STARTING
    place.start()
    await turns()
    assert task.result() == 1
    assert place.counts == (0, 0)
    assert place.link.stats().state is WorkerState.READY
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
    other = place.schedule(forever(), scheduler=1)  # holds up only its own queue
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
    assert place.link.stats().state is WorkerState.STOPPED


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


async def test_a_failing_initializer_is_reported_to_the_manager_and_by_ready(
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


class Unreadable(Exception):
    def __repr__(self) -> str:
        raise LookupError


async def test_an_initializer_failing_with_an_unreadable_error_is_reported_too(
    no_tasks_left: None,
) -> None:
    place = Place(boot=(fail, (Unreadable(),)))
    place.start()
    with pytest.raises(WorkerStartError, match="Unreadable") as failure:
        await place.link.ready()
    assert place.failures == [failure.value]
    place.link.kill(failure.value)


async def test_vitals_are_those_of_this_process(place: Place) -> None:
    stats = place.link.stats()
    assert (stats.pid, stats.counts["restarts"], stats.avoided) == (os.getpid(), 0, False)
    place.schedule(give(1), NOW - SECOND)
    await turns()
    assert stats.history.most == 0.0
    place.link.look_after(0.25)  # once a second
    assert (stats.history.most, stats.history.lag) == (1.0, 0.25)
    await place.link.close(0)


async def test_what_has_not_begun_can_be_withdrawn_and_moved_though_it_was_launched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place()
    launched: list[Any] = []
    monkeypatch.setattr(place.link._runner, "launch", lambda *args: launched.append(args))
    due, moved = place.schedule(give(0)), place.schedule(give("moved"))
    waiting = place.schedule(give(1), NOW + 60 * SECOND)
    early = place.schedule(give(2), scheduler=1)
    assert place.link.withdraw(1, 3)  # before the start, too
    assert early.cancelled()
    place.start()
    await turns()
    ((engine, numbers, dues),) = launched
    assert numbers == [0, 1]
    assert place.link.withdraw(0, 0)
    assert place.link.reschedule(0, 1, NOW + 5 * SECOND)
    assert due.cancelled()
    assert moved.due == to_datetime(NOW + 5 * SECOND)
    assert place.link.withdraw(0, 2)
    assert waiting.cancelled()
    assert not any(place.link.withdraw(0, number) for number in (0, 2))
    monkeypatch.undo()
    engine.run(numbers, dues)
    await turns()
    assert moved.state is State.PENDING
    assert place.counts == (1, 1)
    place.now += 5 * SECOND
    engine.wake_soon()
    await turns()
    assert moved.result() == "moved"
    assert place.counts == (0, 0)
    assert place.ends() == {State.FINISHED: 1, State.CANCELLED: 3}
    await place.link.close(0)


@pytest.mark.parametrize("order", list(Order))
@given(
    most=st.sampled_from([None, 1, 2]),
    acts=st.lists(
        st.tuples(
            st.sampled_from(["withdraw", "cancel", "move", "compute", "wait"]),
            st.integers(0, 9),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=10,
    ),
)
def test_what_is_pending_can_be_withdrawn_and_moved(
    order: Order, most: int | None, acts: list[tuple[str, int, int]]
) -> None:
    """Whatever tasks request of each other while many of them begin."""
    asyncio.run(ask_each_other(order, most, acts))


async def ask_each_other(order: Order, most: int | None, acts: list[tuple[str, int, int]]) -> None:
    place = Place(order)
    if order is Order.TIMED:
        place.link.engines[0].concurrency = most
    begun: list[int] = []
    ended: set[int] = set()  # before they began
    dues = {n: NOW + SECOND * act[2] for n, act in enumerate(acts)}

    async def work(number: int) -> None:
        begun.append(number)
        what, other, seconds = acts[number]
        other %= len(acts)
        pending = tasks[other].state is State.PENDING
        if EAGER:  # else it runs before its first step
            assert pending == (other not in ended and other not in begun)
        if what == "compute":
            place.now += SECOND  # lasts longer than a slice
        elif what == "wait":
            await asyncio.sleep(0)
        elif what == "move" and order is Order.TIMED:
            due = place.now + SECOND * seconds
            assert place.link.reschedule(0, other, due) == pending
            if pending:
                dues[other] = due
                assert tasks[other].due == to_datetime(due)
        elif what == "withdraw":
            assert place.link.withdraw(0, other) == pending
            ended.update([other] if pending else [])
        elif pending:
            assert tasks[other].cancel()
            ended.add(other)
        assert begun.count(number) == 1
        assert order is not Order.TIMED or dues[number] <= place.now

    tasks = [
        place.schedule(work(n), dues[n] if order is Order.TIMED else 0) for n in range(len(acts))
    ]
    place.start()
    for _ in range(5):
        await turns(30)
        place.now += SECOND
        place.link.engines[0].wake_soon()
    await turns(30)
    for number, task in enumerate(tasks):
        assert task.cancelled() == (number in ended)
        assert number in ended or task.result() is None
    assert sorted([*begun, *ended]) == list(range(len(acts)))
    assert place.counts == (0, 0)
    await place.link.close(0)


async def test_what_is_not_wanted_costs_no_reference(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = place.schedule(forever())
    await turns()
    waiting = [place.schedule(give(n), NOW + SECOND) for n in range(3)]
    made: list[int] = []
    make = place.link._runner.ref

    def note(scheduler: int, number: int) -> TaskRef | None:
        made.append(number)
        return make(scheduler, number)

    monkeypatch.setattr(place.link._runner, "ref", note)
    (info,) = (each for some in place.link.infos(Wanted(state=State.RUNNING)) for each in some)
    assert made == [running._number]
    assert info.ref == running.ref
    made.clear()
    assert not [each for some in place.link.infos(Wanted(name="no")) for each in some]
    assert not made
    every = [each.ref for some in place.link.infos(Wanted()) for each in some]
    assert every == [*(task.ref for task in waiting), running.ref]
    await place.link.close(0)


async def test_what_runs_is_neither_withdrawn_nor_moved(place: Place) -> None:
    task = place.schedule(forever())
    await turns()
    assert not place.link.withdraw(0, 0)
    assert not place.link.reschedule(0, 0, NOW + 5)
    assert task.state is State.RUNNING
    assert place.link.due(0, 0) is None
    await place.link.close(0)


async def test_pending_tasks_of_a_queue_are_withdrawn() -> None:
    place = Place(Order.FIFO)
    place.start()
    tasks = [place.schedule(give(n)) for n in range(3)]
    assert place.link.withdraw(0, 1)
    await turns()
    assert [task.cancelled() for task in tasks] == [False, True, False]
    assert place.counts == (0, 0)
    await place.link.close(0)


async def test_what_is_moved_starts_at_its_new_time_and_in_its_order() -> None:
    place = Place()
    log: list[tuple[int, Any]] = []

    async def work(n: int) -> None:
        log.append((n, current_due()))

    whens = NOW + SECOND, NOW + 2 * SECOND, NOW + 3 * SECOND
    tasks = [place.schedule(work(n), due) for n, due in enumerate(whens)]
    assert place.link.reschedule(0, 2, NOW)
    place.start()
    assert place.link.reschedule(0, 0, NOW + 2 * SECOND)
    assert [task.due for task in tasks] == [to_datetime(NOW + n * SECOND) for n in (2, 2, 0)]
    assert place.counts == (3, 3)
    await turns()
    place.now += 2 * SECOND
    place.link.engines[0].wake_soon()
    await turns()
    assert log == [(2, to_datetime(NOW))] + [(n, to_datetime(NOW + 2 * SECOND)) for n in (0, 1)]
    assert place.counts == (0, 0)
    assert not place.link.reschedule(0, 0, NOW)
    await place.link.close(0)


async def test_calls_of_a_batch_are_retried_withdrawn_and_moved(place: Place) -> None:
    starts: list[tuple[int, int, Any]] = []

    def half(n: int) -> int:
        starts.append((n, current_attempt(), current_due()))
        return 10 // (n if current_attempt() == 1 else 5)

    async def later(n: int) -> int:
        await asyncio.sleep(0)
        return half(n)

    options = Options(retry=Retry(ZeroDivisionError, wait_initial=1, wait_jitter=0))
    functions: list[Any] = [half, later]
    for function in functions:
        starts.clear()
        outcomes = Outcomes(4, "half")
        calls = [place.link.shipper.take_arguments((n,)) for n in (1, 0, 0, 2)]
        place.placement.added(0, 4)
        now = place.now
        dues = [now, now, now, now + SECOND]
        record = place.link.shipper.take_record(options)
        place.link.schedule_many(outcomes, 0, 0, dues, function, calls, record)
        await turns()
        first = outcomes.parts[0].first
        assert outcomes.values == [10, None, None, None]
        again = outcomes.task(outcomes.parts[0], 1)
        assert (again.state, again.due) == (State.PENDING, to_datetime(now + SECOND))
        assert place.link.withdraw(0, first + 2)
        assert place.link.reschedule(0, first + 1, now + 5 * SECOND)
        assert place.link.reschedule(0, first + 3, now + 5 * SECOND)
        assert again.due == to_datetime(now + 5 * SECOND)
        assert place.counts == (2, 2)
        place.now += 5 * SECOND
        place.link.engines[0].wake_soon()
        await turns()
        assert outcomes.values == [10, 2, None, 5]
        assert outcomes.states[2] is State.CANCELLED
        moved = to_datetime(now + 5 * SECOND)
        assert starts[3:] == [(0, 2, moved), (2, 1, moved)]
        assert place.counts == (0, 0)
    await place.link.close(0)


class Once:
    """An awaitable that is not a coroutine."""

    def __await__(self) -> Any:
        yield from ()


async def test_a_call_that_cannot_be_repeated_is_not_retried(place: Place) -> None:
    shipper = place.link.shipper
    retried, limited = map(shipper.take_record, (Options(retry=Retry()), Options(timeout=1.0)))
    future = asyncio.get_running_loop().create_future()
    for awaitable in (Once(), future):
        with pytest.raises(TypeError, match="wrap it in an async def function"):
            shipper.take(awaitable, retried)
        assert shipper.take(awaitable, limited)[0] is awaitable
    await place.link.close(0)


# ---- the lifespan of the initializer


async def test_a_lifespan_is_left_after_the_last_task(tmp_path: Path, no_tasks_left: None) -> None:
    path = tmp_path / "log"
    place = Place(boot=(shared.share, (str(path),)))
    place.start()
    await place.link.ready()
    slow = place.schedule(shared.see_slowly(str(path), 60.0))
    await turns()
    await place.link.close(0)
    assert slow.cancelled()
    assert shared.words(path) == ["entered", "task", "left"]
    assert place.failures == []


async def test_one_that_ends_by_itself_fails_the_manager(
    tmp_path: Path, no_tasks_left: None
) -> None:
    path = tmp_path / "log"
    place = Place(boot=(shared.share_badly, (str(path), "ends")))
    place.start()
    await place.link.ready()
    running, waiting = place.schedule(forever()), place.schedule(give(1), NOW + SECOND)
    retried = place.schedule(fail(LookupError()), options=Options(retry=Retry(wait_initial=60)))
    await turns()
    (tmp_path / "log.end").touch()
    while not place.failures:
        await asyncio.sleep(0.001)
    (reason,) = place.failures
    assert isinstance(reason, WorkerLost)
    assert "has ended before its tasks" in str(reason)
    place.link.kill(reason)  # as the manager does
    await turns()
    for task, started in ((running, True), (waiting, False), (retried, False)):
        error = task.exception()
        assert task.state is State.LOST
        assert isinstance(error, WorkerLost)
        assert error.started is started
        assert error.__cause__ is reason
        assert "has ended before its tasks" in str(error)
    assert place.counts == (0, 0)
    await place.link.close(0)
    assert shared.words(path) == ["over"]


async def test_what_raises_as_its_place_fails_is_not_retried(no_tasks_left: None) -> None:
    async def resist() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise LookupError from None

    place = Place()
    place.start()
    task = place.schedule(resist(), options=Options(retry=Retry(wait_initial=60)))
    await turns()
    place.link.kill(WorkerStartError("no"))
    await turns()
    assert isinstance(task.exception(), LookupError)
    assert place.counts == (0, 0)


async def test_a_lifespan_of_a_place_that_fails_is_cancelled(
    tmp_path: Path, no_tasks_left: None
) -> None:
    path = tmp_path / "log"
    place = Place(boot=(shared.share, (str(path),)))
    place.start()
    await place.link.ready()
    place.link.kill(ManagerClosed("it has failed"))
    await place.link.close(0)
    assert shared.words(path) == ["entered", "cancelled"]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_one_that_is_cancelled_with_all_there_is_does_not_fail_a_loop_that_ends(
    tmp_path: Path, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdback, "LOOK_EVERY", 0)
    place = Place(boot=(shared.share, (str(tmp_path / "log"),)))
    place.start()
    await place.link.ready()
    loop = asyncio.get_running_loop()
    if not goes_on:
        monkeypatch.setattr(loop, "_asyncgens_shutdown_called", True)
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(place.failures) == goes_on
    monkeypatch.undo()
    await place.link.close(0)
    await asyncio.sleep(0.002)


async def test_ready_raises_on_a_close_and_on_its_own_cancellation(
    no_tasks_left: None,
) -> None:
    place = Place(boot=(asyncio.sleep, (60,)))
    place.start()
    closed, cancelled = (asyncio.create_task(place.link.ready()) for _ in range(2))
    await turns()
    cancelled.cancel()
    await turns()
    assert cancelled.cancelled()
    await place.link.close(0)
    with pytest.raises(WorkerStartError, match="closed before its initializer had finished"):
        await closed


@pytest.mark.parametrize("turn", [0, 3])
async def test_an_initializer_cancelled_by_others_fails_its_link(
    turn: int, no_tasks_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdback, "LOOK_EVERY", 0)
    place = Place(boot=(asyncio.sleep, (60,)))
    place.start()
    await turns(turn)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(WorkerStartError, match="was cancelled, as when all tasks"):
        await place.link.ready()
    await asyncio.sleep(0.001)
    (failure,) = place.failures
    assert isinstance(failure, WorkerStartError)
    await place.link.close(0)


async def test_one_that_was_cancelled_fails_no_place_that_is_closed_meanwhile(
    no_tasks_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdback, "LOOK_EVERY", 0)
    place = Place(boot=(asyncio.sleep, (60,)))
    place.start()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turns(2)
    await place.link.close(0)
    await asyncio.sleep(0.001)
    assert not place.failures
