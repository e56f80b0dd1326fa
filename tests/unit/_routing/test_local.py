"""The link to schedulers in this loop: what is reported of a task, whatever its end."""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import shared
from herewith import NOW, Rig, fail, forever, give
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
async def rig(no_tasks_left: None, reports: list[Any]) -> Rig:
    rig = Rig()
    rig.start()
    return rig


async def test_what_is_scheduled_before_the_start_waits() -> None:
    rig = Rig()
    task = rig.schedule(give(1))
    await turns()
    assert (task.state, rig.counts) == (State.PENDING, (1, 1))
    assert rig.link.stats().state is WorkerState.STARTING
    rig.start()
    await turns()
    assert task.result() == 1
    assert rig.counts == (0, 0)
    assert rig.link.stats().state is WorkerState.READY
    await rig.link.close(0)


@pytest.mark.parametrize("order", [Order.FIFO, Order.LIFO])
async def test_a_queue_runs_one_at_a_time_in_each_scheduler(order: Order) -> None:
    rig = Rig(order)
    log: list[int] = []

    async def work(n: int) -> None:
        log.append(n)
        await asyncio.sleep(0)
        log.append(n)

    for n in range(3):
        rig.schedule(work(n), scheduler=0)
    other = rig.schedule(forever(), scheduler=1)  # holds up only its own queue
    rig.start()
    await turns(30)
    expected = [0, 0, 1, 1, 2, 2]
    assert log == (expected if order is Order.FIFO else expected[::-1])
    assert other.state is State.RUNNING
    await rig.link.close(0)


async def test_what_never_starts_is_closed_without_a_warning(rig: Rig) -> None:
    cancelled, waiting, lost = give(1), give(2), give(3)
    rig.schedule(cancelled, NOW + 1).cancel()
    rig.schedule(waiting, NOW + 1)
    await rig.link.close(0)
    after = Rig()
    handle = after.schedule(lost)
    after.link.kill(ManagerClosed("the manager has failed"))
    for coro in (cancelled, waiting, lost):
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert isinstance(handle.exception(), ManagerClosed)
    assert handle.state is State.LOST
    assert after.counts == (0, 0)


async def test_close_lets_finish_what_runs_and_starts_nothing(rig: Rig) -> None:
    gate = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        return str(await gate)

    running, pending = rig.schedule(wait()), rig.schedule(give(1), NOW + 1)
    await turns()
    closing = asyncio.create_task(rig.link.close(None))
    await turns()
    assert pending.cancelled()
    assert not closing.done()
    gate.set_result("finished")
    await closing
    assert running.result() == "finished"
    assert rig.link.stats().state is WorkerState.STOPPED


async def test_what_cannot_be_awaited_is_refused_and_nothing_changed(rig: Rig) -> None:
    started = forever()
    started.send(None)
    odd: Any
    for odd in (3, give, started):
        with pytest.raises(TypeError):
            rig.link.shipper.take(odd)
    started.close()
    assert rig.counts == (0, 0)
    await rig.link.close(0)


async def test_a_handle_can_be_had_again_until_the_end(rig: Rig) -> None:
    task = rig.schedule(give(1), NOW + SECOND)
    running = rig.schedule(forever())
    await turns()
    assert rig.link.find(0, 0) is task
    assert rig.link.find(0, 1) is running
    assert (rig.link.due(0, 0), rig.link.due(0, 1)) == (NOW + SECOND, None)
    assert rig.link.find(1, 0) is None
    task.cancel()
    assert rig.link.find(0, 0) is None
    await rig.link.close(0)


async def test_many_calls_of_one_function(rig: Rig) -> None:
    def half(n: int) -> int:
        return 10 // n

    async def later(n: int) -> int:
        return 10 // n

    functions: list[Any] = [half, later]
    for function in functions:
        outcomes = Outcomes(4)
        calls = [rig.link.shipper.take_arguments((n,)) for n in (1, 2, 0, 5)]
        rig.placement.added(0, 4)
        dues = [0, 0, 0, NOW + SECOND]
        rig.link.schedule_many(outcomes, 0, 0, dues, function, calls, None)
        await turns()
        assert outcomes.states == [State.FINISHED, State.FINISHED, State.FAILED, None]
        assert outcomes.values[:2] == [10, 5]
        assert isinstance(outcomes.values[2], ZeroDivisionError)
        assert rig.counts == (1, 1)
        number = outcomes.parts[0].first + 3
        found = rig.link.find(0, number)
        assert found is not None
        assert found.cancel()
        assert rig.counts == (0, 0)
    await rig.link.close(0)


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

    rig = Rig(boot=(set_up if kind == "async" else set_up_at_once, ("db",)))
    rig.schedule(work())
    rig.start()
    ready = asyncio.create_task(rig.link.ready())
    await turns()
    assert ready.done() == (kind == "plain")
    gate.set_result(None)
    await ready
    await turns()
    assert log == ["db", "task"]
    await rig.link.close(0)


async def test_a_failing_initializer_is_reported_to_the_manager_and_by_ready(
    no_tasks_left: None,
) -> None:
    rig = Rig(boot=(fail, (LookupError("no db"),)))
    task = rig.schedule(give(1))
    rig.start()
    with pytest.raises(WorkerStartError, match="no db") as failure:
        await rig.link.ready()
    assert rig.failures == [failure.value]
    assert isinstance(failure.value.__cause__, LookupError)
    rig.link.kill(failure.value)  # as the manager does
    assert task.exception() is failure.value
    assert rig.counts == (0, 0)


class Unreadable(Exception):
    def __repr__(self) -> str:
        raise LookupError


async def test_an_initializer_failing_with_an_unreadable_error_is_reported_too(
    no_tasks_left: None,
) -> None:
    rig = Rig(boot=(fail, (Unreadable(),)))
    rig.start()
    with pytest.raises(WorkerStartError, match="Unreadable") as failure:
        await rig.link.ready()
    assert rig.failures == [failure.value]
    rig.link.kill(failure.value)


async def test_vitals_are_those_of_this_process(rig: Rig) -> None:
    stats = rig.link.stats()
    assert (stats.pid, stats.counts["restarts"], stats.avoided) == (os.getpid(), 0, False)
    rig.schedule(give(1), NOW - SECOND)
    await turns()
    assert stats.history.most == 0.0
    rig.link.look_after(0.25)  # once a second
    assert (stats.history.most, stats.history.lag) == (1.0, 0.25)
    await rig.link.close(0)


async def test_what_has_not_begun_can_be_withdrawn_and_moved_though_it_was_launched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    launched: list[Any] = []
    monkeypatch.setattr(rig.link._runner, "launch", lambda *args: launched.append(args))
    due, moved = rig.schedule(give(0)), rig.schedule(give("moved"))
    waiting = rig.schedule(give(1), NOW + 60 * SECOND)
    early = rig.schedule(give(2), scheduler=1)
    assert rig.link.withdraw(1, 3)  # before the start, too
    assert early.cancelled()
    rig.start()
    await turns()
    ((engine, numbers, dues),) = launched
    assert numbers == [0, 1]
    assert rig.link.withdraw(0, 0)
    assert rig.link.reschedule(0, 1, NOW + 5 * SECOND)
    assert due.cancelled()
    assert moved.due == to_datetime(NOW + 5 * SECOND)
    assert rig.link.withdraw(0, 2)
    assert waiting.cancelled()
    assert not any(rig.link.withdraw(0, number) for number in (0, 2))
    monkeypatch.undo()
    engine.run(numbers, dues)
    await turns()
    assert moved.state is State.PENDING
    assert rig.counts == (1, 1)
    rig.now += 5 * SECOND
    engine.wake_soon()
    await turns()
    assert moved.result() == "moved"
    assert rig.counts == (0, 0)
    assert rig.ends() == {State.FINISHED: 1, State.CANCELLED: 3}
    await rig.link.close(0)


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
    rig = Rig(order)
    if order is Order.TIMED:
        rig.link.engines[0].concurrency = most
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
            rig.now += SECOND  # lasts longer than a slice
        elif what == "wait":
            await asyncio.sleep(0)
        elif what == "move" and order is Order.TIMED:
            due = rig.now + SECOND * seconds
            assert rig.link.reschedule(0, other, due) == pending
            if pending:
                dues[other] = due
                assert tasks[other].due == to_datetime(due)
        elif what == "withdraw":
            assert rig.link.withdraw(0, other) == pending
            ended.update([other] if pending else [])
        elif pending:
            assert tasks[other].cancel()
            ended.add(other)
        assert begun.count(number) == 1
        assert order is not Order.TIMED or dues[number] <= rig.now

    tasks = [
        rig.schedule(work(n), dues[n] if order is Order.TIMED else 0) for n in range(len(acts))
    ]
    rig.start()
    for _ in range(5):
        await turns(30)
        rig.now += SECOND
        rig.link.engines[0].wake_soon()
    await turns(30)
    for number, task in enumerate(tasks):
        assert task.cancelled() == (number in ended)
        assert number in ended or task.result() is None
    assert sorted([*begun, *ended]) == list(range(len(acts)))
    assert rig.counts == (0, 0)
    await rig.link.close(0)


async def test_what_is_not_wanted_costs_no_reference(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = rig.schedule(forever())
    await turns()
    waiting = [rig.schedule(give(n), NOW + SECOND) for n in range(3)]
    made: list[int] = []
    make = rig.link._runner.ref

    def note(scheduler: int, number: int) -> TaskRef | None:
        made.append(number)
        return make(scheduler, number)

    monkeypatch.setattr(rig.link._runner, "ref", note)
    (info,) = (each for some in rig.link.infos(Wanted(state=State.RUNNING)) for each in some)
    assert made == [running._number]
    assert info.ref == running.ref
    made.clear()
    assert not [each for some in rig.link.infos(Wanted(name="no")) for each in some]
    assert not made
    every = [each.ref for some in rig.link.infos(Wanted()) for each in some]
    assert every == [*(task.ref for task in waiting), running.ref]
    await rig.link.close(0)


async def test_what_runs_is_neither_withdrawn_nor_moved(rig: Rig) -> None:
    task = rig.schedule(forever())
    await turns()
    assert not rig.link.withdraw(0, 0)
    assert not rig.link.reschedule(0, 0, NOW + 5)
    assert task.state is State.RUNNING
    assert rig.link.due(0, 0) is None
    await rig.link.close(0)


async def test_pending_tasks_of_a_queue_are_withdrawn() -> None:
    rig = Rig(Order.FIFO)
    rig.start()
    tasks = [rig.schedule(give(n)) for n in range(3)]
    assert rig.link.withdraw(0, 1)
    await turns()
    assert [task.cancelled() for task in tasks] == [False, True, False]
    assert rig.counts == (0, 0)
    await rig.link.close(0)


async def test_what_is_moved_starts_at_its_new_time_and_in_its_order() -> None:
    rig = Rig()
    log: list[tuple[int, Any]] = []

    async def work(n: int) -> None:
        log.append((n, current_due()))

    whens = NOW + SECOND, NOW + 2 * SECOND, NOW + 3 * SECOND
    tasks = [rig.schedule(work(n), due) for n, due in enumerate(whens)]
    assert rig.link.reschedule(0, 2, NOW)
    rig.start()
    assert rig.link.reschedule(0, 0, NOW + 2 * SECOND)
    assert [task.due for task in tasks] == [to_datetime(NOW + n * SECOND) for n in (2, 2, 0)]
    assert rig.counts == (3, 3)
    await turns()
    rig.now += 2 * SECOND
    rig.link.engines[0].wake_soon()
    await turns()
    assert log == [(2, to_datetime(NOW))] + [(n, to_datetime(NOW + 2 * SECOND)) for n in (0, 1)]
    assert rig.counts == (0, 0)
    assert not rig.link.reschedule(0, 0, NOW)
    await rig.link.close(0)


async def test_calls_of_a_batch_are_retried_withdrawn_and_moved(rig: Rig) -> None:
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
        calls = [rig.link.shipper.take_arguments((n,)) for n in (1, 0, 0, 2)]
        rig.placement.added(0, 4)
        now = rig.now
        dues = [now, now, now, now + SECOND]
        record = rig.link.shipper.take_record(options)
        rig.link.schedule_many(outcomes, 0, 0, dues, function, calls, record)
        await turns()
        first = outcomes.parts[0].first
        assert outcomes.values == [10, None, None, None]
        again = outcomes.task(outcomes.parts[0], 1)
        assert (again.state, again.due) == (State.PENDING, to_datetime(now + SECOND))
        assert rig.link.withdraw(0, first + 2)
        assert rig.link.reschedule(0, first + 1, now + 5 * SECOND)
        assert rig.link.reschedule(0, first + 3, now + 5 * SECOND)
        assert again.due == to_datetime(now + 5 * SECOND)
        assert rig.counts == (2, 2)
        rig.now += 5 * SECOND
        rig.link.engines[0].wake_soon()
        await turns()
        assert outcomes.values == [10, 2, None, 5]
        assert outcomes.states[2] is State.CANCELLED
        moved = to_datetime(now + 5 * SECOND)
        assert starts[3:] == [(0, 2, moved), (2, 1, moved)]
        assert rig.counts == (0, 0)
    await rig.link.close(0)


class Once:
    """An awaitable that is not a coroutine."""

    def __await__(self) -> Any:
        yield from ()


async def test_a_call_that_cannot_be_repeated_is_not_retried(rig: Rig) -> None:
    shipper = rig.link.shipper
    retried, limited = map(shipper.take_record, (Options(retry=Retry()), Options(timeout=1.0)))
    future = asyncio.get_running_loop().create_future()
    for awaitable in (Once(), future):
        with pytest.raises(TypeError, match="wrap it in an async def function"):
            shipper.take(awaitable, retried)
        assert shipper.take(awaitable, limited)[0] is awaitable
    await rig.link.close(0)


# ---- the lifespan of the initializer


async def test_a_lifespan_is_left_after_the_last_task(tmp_path: Path, no_tasks_left: None) -> None:
    path = tmp_path / "log"
    rig = Rig(boot=(shared.share, (str(path),)))
    rig.start()
    await rig.link.ready()
    slow = rig.schedule(shared.see_slowly(str(path), 60.0))
    await turns()
    await rig.link.close(0)
    assert slow.cancelled()
    assert shared.words(path) == ["entered", "task", "left"]
    assert rig.failures == []


async def test_one_that_ends_by_itself_fails_the_manager(
    tmp_path: Path, no_tasks_left: None
) -> None:
    path = tmp_path / "log"
    rig = Rig(boot=(shared.share_badly, (str(path), "ends")))
    rig.start()
    await rig.link.ready()
    running, waiting = rig.schedule(forever()), rig.schedule(give(1), NOW + SECOND)
    retried = rig.schedule(fail(LookupError()), options=Options(retry=Retry(wait_initial=60)))
    await turns()
    (tmp_path / "log.end").touch()
    while not rig.failures:
        await asyncio.sleep(0.001)
    (reason,) = rig.failures
    assert isinstance(reason, WorkerLost)
    assert "has ended before its tasks" in str(reason)
    rig.link.kill(reason)  # as the manager does
    await turns()
    for task, started in ((running, True), (waiting, False), (retried, False)):
        error = task.exception()
        assert task.state is State.LOST
        assert isinstance(error, WorkerLost)
        assert error.started is started
        assert error.__cause__ is reason
        assert "has ended before its tasks" in str(error)
    assert rig.counts == (0, 0)
    await rig.link.close(0)
    assert shared.words(path) == ["over"]


async def test_what_raises_as_its_place_fails_is_not_retried(no_tasks_left: None) -> None:
    async def resist() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise LookupError from None

    rig = Rig()
    rig.start()
    task = rig.schedule(resist(), options=Options(retry=Retry(wait_initial=60)))
    await turns()
    rig.link.kill(WorkerStartError("no"))
    await turns()
    assert isinstance(task.exception(), LookupError)
    assert rig.counts == (0, 0)


async def test_a_lifespan_of_a_place_that_fails_is_cancelled(
    tmp_path: Path, no_tasks_left: None
) -> None:
    path = tmp_path / "log"
    rig = Rig(boot=(shared.share, (str(path),)))
    rig.start()
    await rig.link.ready()
    rig.link.kill(ManagerClosed("it has failed"))
    await rig.link.close(0)
    assert shared.words(path) == ["entered", "cancelled"]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_one_that_is_cancelled_with_all_there_is_does_not_fail_a_loop_that_ends(
    tmp_path: Path, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdback, "LOOK_EVERY", 0)
    rig = Rig(boot=(shared.share, (str(tmp_path / "log"),)))
    rig.start()
    await rig.link.ready()
    loop = asyncio.get_running_loop()
    if not goes_on:
        monkeypatch.setattr(loop, "_asyncgens_shutdown_called", True)
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(rig.failures) == goes_on
    monkeypatch.undo()
    await rig.link.close(0)
    await asyncio.sleep(0.002)


async def test_ready_raises_on_a_close_and_on_its_own_cancellation(
    no_tasks_left: None,
) -> None:
    rig = Rig(boot=(asyncio.sleep, (60,)))
    rig.start()
    closed, cancelled = (asyncio.create_task(rig.link.ready()) for _ in range(2))
    await turns()
    cancelled.cancel()
    await turns()
    assert cancelled.cancelled()
    await rig.link.close(0)
    with pytest.raises(WorkerStartError, match="closed before its initializer had finished"):
        await closed


@pytest.mark.parametrize("turn", [0, 3])
async def test_an_initializer_cancelled_by_others_fails_its_link(
    turn: int, no_tasks_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdback, "LOOK_EVERY", 0)
    rig = Rig(boot=(asyncio.sleep, (60,)))
    rig.start()
    await turns(turn)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(WorkerStartError, match="was cancelled, as when all tasks"):
        await rig.link.ready()
    await asyncio.sleep(0.001)
    (failure,) = rig.failures
    assert isinstance(failure, WorkerStartError)
    await rig.link.close(0)


async def test_one_that_was_cancelled_fails_no_place_that_is_closed_meanwhile(
    no_tasks_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdback, "LOOK_EVERY", 0)
    rig = Rig(boot=(asyncio.sleep, (60,)))
    rig.start()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turns(2)
    await rig.link.close(0)
    await asyncio.sleep(0.001)
    assert not rig.failures
