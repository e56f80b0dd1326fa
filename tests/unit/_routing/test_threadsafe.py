from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from homes import Home

from aioscheduler import ManagerClosed
from aioscheduler._routing.placement import Placement
from aioscheduler._routing.router import Router
from aioscheduler._routing.threadsafe import Abroad, ThreadFuture
from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.propagation import Propagation
from aioscheduler.task import State, Task


async def work() -> int:
    return 1


class Calls:
    """The loop's side, and futures of another thread."""

    def __init__(self) -> None:
        self.home = Home(asyncio.get_running_loop())
        self.unfinished: set[ThreadFuture[Any]] = set()
        self.name: Any = None
        self.tasks: list[Task[Any]] = []
        self.loop = asyncio.get_running_loop()

    def schedule(self, coro: Awaitable[Any]) -> Task[Any]:
        coro.close()  # type: ignore[attr-defined]
        self.tasks.append(Task(self.home, 0, len(self.tasks), 0))
        return self.tasks[-1]

    def make(self, schedule: Callable[[Any], Task[Any]] | None = None) -> ThreadFuture[Any]:
        return self.make_of(work(), schedule)

    def make_of(
        self, coro: Any, schedule: Callable[[Any], Task[Any]] | None = None
    ) -> ThreadFuture[Any]:
        return ThreadFuture(self.loop, self.unfinished, schedule or self.schedule, coro, self.name)


@pytest.fixture
async def calls() -> Calls:
    return Calls()


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED, State.CANCELLED])
async def test_the_outcome_comes_back(calls: Calls, state: State) -> None:
    future = calls.make()
    thread = threading.Thread(target=future.send)
    thread.start()
    thread.join()
    assert calls.unfinished == {future}
    await turn()
    calls.tasks[0]._settle(state, LookupError("no") if state is State.FAILED else 7)
    await turn()
    assert not calls.unfinished
    assert concurrent.futures.wait([future], timeout=5).done
    if state is State.FINISHED:
        assert future.result() == 7
    elif state is State.FAILED:
        assert repr(future.exception()) == "LookupError('no')"
    else:
        assert future.cancelled()


async def test_a_refusal_is_the_futures(calls: Calls) -> None:
    def refuse(coro: Any) -> Task[Any]:
        coro.close()
        raise ValueError("past")

    future = calls.make(refuse)
    future.send()
    await turn()
    assert repr(future.exception()) == "ValueError('past')"
    assert not calls.unfinished


@pytest.mark.parametrize("wrong", [None, 3, work])
async def test_what_is_no_coroutine_is_refused_by_the_name_of_the_call(
    calls: Calls, wrong: Any
) -> None:
    future = calls.make_of(wrong)
    future.send()
    await turn()
    assert future.done()
    with pytest.raises(TypeError, match=r"schedule_threadsafe\("):
        future.result()
    assert not calls.unfinished
    assert not calls.tasks


@pytest.mark.parametrize("kind", [ValueError, SystemExit, asyncio.CancelledError, MemoryError])
async def test_so_is_whatever_scheduling_raises(calls: Calls, kind: type[BaseException]) -> None:
    def refuse(coro: Any) -> Task[Any]:
        coro.close()
        raise kind

    future = calls.make(refuse)
    future.send()
    await asyncio.sleep(0)
    assert type(future.exception(0)) is kind
    assert not calls.unfinished


@pytest.mark.parametrize("when", ["before it arrives", "while it waits", "after the end"])
async def test_cancelling_the_future_cancels_the_task(calls: Calls, when: str) -> None:
    future = calls.make()
    future.send()
    if when != "before it arrives":
        await turn()
    if when == "after the end":
        calls.tasks[0]._settle(State.FINISHED, 7)
        await turn()
        assert not future.cancel()
        return
    assert future.cancel()
    assert future.cancel()
    await turn()
    assert concurrent.futures.wait([future], timeout=5).done
    assert not calls.unfinished
    if when == "while it waits":
        assert calls.home.cancelled == [0, 0]
        calls.tasks[0]._settle(State.CANCELLED, None)
        await turn()
    else:
        assert not calls.tasks


@pytest.mark.parametrize("when", ["before it arrives", "while it waits", "ended", "cancelled"])
async def test_the_end_of_the_loop_is_the_end_of_the_future(calls: Calls, when: str) -> None:
    future = calls.make()
    if when != "before it arrives":
        future.send()
        await turn()
    if when == "ended":
        calls.tasks[0]._settle(State.FINISHED, 7)
    elif when == "cancelled":
        future.cancel()
    future.give_up(ManagerClosed("its loop ended"))
    assert concurrent.futures.wait([future], timeout=5).done
    assert not calls.unfinished
    if when == "ended":
        assert future.result() == 7
    elif when == "cancelled":
        assert future.cancelled()
    else:
        assert isinstance(future.exception(), ManagerClosed)
    await turn()


@pytest.mark.parametrize(
    ("name", "said"), [(None, f"{__name__}:work: "), ("a", "a: "), (3, f"{__name__}:work: ")]
)
async def test_a_failure_that_nobody_asks_for_is_reported(
    calls: Calls, reports: list[dict[str, Any]], name: Any, said: str
) -> None:
    calls.name = name

    def refuse(coro: Any) -> Task[Any]:
        coro.close()
        raise ValueError("past")

    for schedule in (refuse, None):
        future = calls.make(schedule)
        future.send()
        await turn()
        if schedule is None:
            calls.tasks[-1]._settle(State.FAILED, ValueError("no"))
            await turn()
        assert future.done()
        calls.tasks.clear()
        gc.collect()
        gc.disable()  # nothing may keep it until the next collection
        try:
            del future
            await turn()
        finally:
            gc.enable()
        assert repr(reports[0]["exception"]) in ("ValueError('past')", "ValueError('no')")
        assert reports[0]["message"].startswith(said)
        ref = None if schedule else calls.home.ref(0, 0)
        whose = reports[0]["scheduled_task"]
        assert whose == {"name": said.removesuffix(": "), "id": None, "ref": ref}
        reports.clear()


async def test_a_ctrl_c_while_the_outcome_is_read_is_the_futures(calls: Calls) -> None:
    def interrupt(value: Any) -> Any:
        raise KeyboardInterrupt

    future = calls.make()
    future.send()
    await turn()
    calls.tasks[0]._settle(State.FINISHED, b"", interrupt)
    await turn()
    assert isinstance(future.exception(0), KeyboardInterrupt)


async def test_one_that_somebody_asks_for_is_not(calls: Calls, reports: list[Any]) -> None:
    futures = [calls.make() for _ in range(3)]
    futures[0].add_done_callback(lambda _: None)
    for future in futures:
        future.send()
    await turn()
    for task in calls.tasks:
        task._settle(State.FAILED, ValueError("no"))
    await turn()
    futures[1].exception(0)
    with pytest.raises(ValueError, match="no"):
        futures[2].result()
    del future, futures
    await turn()
    assert not reports


async def test_the_loop_does_not_wait_for_itself(calls: Calls) -> None:
    future = calls.make()
    future.send()
    for ask in (future.result, future.exception):
        with pytest.raises(RuntimeError, match="use schedule"):
            ask()
        with pytest.raises(TimeoutError):
            ask(0)
    await turn()
    calls.tasks[0]._settle(State.FINISHED, 5)
    await turn()
    assert future.result() == 5


variable: ContextVar[str] = ContextVar("variable")


class NobodyError(LookupError):
    """An exception that can be weakly referenced."""


async def test_what_goes_with_a_task_is_captured_in_the_thread_that_schedules_it(
    calls: Calls,
) -> None:
    loop_thread = LoopThread("manager")
    router = Router("m", Order.TIMED, True, Placement([1], True), loop_thread)
    router.propagation = Propagation((variable, (threading.get_ident, print)))
    loop_thread.enter(calls.loop)
    abroad = Abroad(router, lambda: None)
    taken: list[Any] = []

    def schedule(coro: Any, captured: Any) -> Task[Any]:
        taken.append(captured)
        return calls.schedule(coro)

    def in_thread() -> int:
        variable.set("of the thread")
        abroad.schedule(work(), schedule, None)
        return threading.get_ident()

    ident = await asyncio.to_thread(in_thread)
    await turn()
    assert taken == [[3, "of the thread", ident]]
    calls.tasks[0]._settle(State.FINISHED, None)
    await turn()


def abroad_with(calls: Calls, capture: Callable[[], Any]) -> Abroad:
    loop_thread = LoopThread("manager")
    router = Router("m", Order.TIMED, True, Placement([1], True), loop_thread)
    router.propagation = Propagation(((capture, print),))
    loop_thread.enter(calls.loop)
    return Abroad(router, lambda: None)


async def test_what_capturing_raises_is_the_futures(calls: Calls) -> None:
    def capture() -> None:
        raise NobodyError

    abroad = abroad_with(calls, capture)
    future = abroad.schedule(work(), calls.schedule, None)
    await turn()  # and no warning about a coroutine
    error = future.exception()
    assert isinstance(error, NobodyError)
    assert not calls.tasks
    gone = weakref.ref(error)
    gc.disable()
    try:
        del error, future
        assert gone() is None  # it is in no reference cycle
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
async def test_what_is_no_exception_is_raised_where_it_was_captured(
    calls: Calls, error: type[BaseException]
) -> None:
    def interrupted() -> None:
        raise error

    coro = work()
    with pytest.raises(error):
        abroad_with(calls, interrupted).schedule(coro, calls.schedule, None)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    await turn()
    assert not calls.tasks
