from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aioscheduler._scheduling import loopthread
from aioscheduler._scheduling.loopthread import LoopThread, Waiters


def elsewhere(call: Callable[[], Any]) -> BaseException | None:
    """Call something in another thread; return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001  for the test to see
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())  # closing does not wait for it
    loop.close()


async def enter(loop_thread: LoopThread) -> None:
    loop_thread.enter(asyncio.get_running_loop())


@pytest.mark.parametrize(
    ("what", "instead"),
    [("manager", "schedule_threadsafe"), ("scheduler", r"loop\.call_soon_threadsafe")],
)
async def test_a_call_in_another_thread_is_refused_while_the_loop_runs(
    what: str, instead: str
) -> None:
    loop_thread = LoopThread(what)
    assert elsewhere(loop_thread.check) is None  # not started
    await enter(loop_thread)
    loop_thread.check()
    with pytest.raises(RuntimeError, match=instead):
        raise elsewhere(loop_thread.check) or AssertionError
    assert loop_thread.ident == threading.get_ident()


async def test_what_is_awaited_is_handed_over_in_a_coroutine() -> None:
    loop_thread = LoopThread("manager")
    await enter(loop_thread)
    advice = r"has `await manager\.find\(id\)`: asyncio\.run_coroutine_threadsafe\(coro, loop\)"
    with pytest.raises(RuntimeError, match=advice):
        raise (
            elsewhere(lambda: loop_thread.check_inside("await manager.find(id)")) or AssertionError
        )
    with pytest.raises(RuntimeError, match="schedule_threadsafe"):  # for no call in particular
        raise elsewhere(loop_thread.check_inside) or AssertionError
    with pytest.raises(RuntimeError, match=r"call_soon_threadsafe\(task\.cancel\)"):
        raise elsewhere(lambda: loop_thread.check("task.cancel")) or AssertionError
    loop_thread.check_inside("await manager.find(id)")


def test_any_thread_may_call_while_the_loop_does_not_run(loop: asyncio.AbstractEventLoop) -> None:
    loop_thread = LoopThread("manager")
    loop.run_until_complete(enter(loop_thread))
    assert elsewhere(loop_thread.check) is None
    with pytest.raises(RuntimeError, match="is not running"):
        loop_thread.check_inside()


def test_a_loop_that_moves_takes_its_thread_along(loop: asyncio.AbstractEventLoop) -> None:
    loop_thread = LoopThread("manager")
    loop.run_until_complete(enter(loop_thread))
    refused: list[BaseException | None] = []

    async def check() -> None:
        loop_thread.check()
        assert loop_thread.ident == threading.get_ident()
        refused.append(await asyncio.to_thread(elsewhere, loop_thread.check))

    assert elsewhere(lambda: loop.run_until_complete(check())) is None
    assert isinstance(refused[0], RuntimeError)


def test_a_closed_loop_is_refused_everywhere() -> None:
    loop_thread = LoopThread("manager")
    asyncio.run(enter(loop_thread))
    for call in (loop_thread.check, loop_thread.check_inside):
        with pytest.raises(RuntimeError, match="closed; make a new manager"):
            call()


async def test_a_forked_child_is_refused() -> None:
    """Without a fork: the hook runs in the child."""
    loop_thread, unused = LoopThread("manager"), LoopThread("manager")
    await enter(loop_thread)
    everything = loopthread._all
    loopthread._all = {loop_thread, unused}  # type: ignore[assignment]
    try:
        loopthread._leave_behind()
    finally:
        loopthread._all = everything
    with pytest.raises(RuntimeError, match="forked"):
        loop_thread.check()
    assert loop_thread.ident == 0
    unused.check()


def test_a_copy_that_a_worker_imports_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loop_thread = LoopThread("manager")
    monkeypatch.setattr(loopthread, "_in_worker", True)
    with pytest.raises(RuntimeError, match=r"current_manager\(\)"):
        loop_thread.check()
    asyncio.run(enter(loop_thread))  # one that the task itself starts
    with pytest.raises(RuntimeError, match="closed"):
        loop_thread.check()


async def test_a_waiter_of_a_manager_that_is_not_started_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loopthread, "START_PATIENCE", 0.0)
    with pytest.raises(RuntimeError, match=r"not been started.* call start\(\)"):
        await LoopThread("manager").make_waiter()
    for loop_thread in (LoopThread("manager"), LoopThread("scheduler")):
        waiter = loop_thread.make_waiter()
        await enter(loop_thread)
        await asyncio.sleep(0.001)
        assert not waiter.done()
        waiter.cancel()


async def test_a_waiter_of_a_manager_started_in_another_loop_fails(
    monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    monkeypatch.setattr(loopthread, "START_PATIENCE", 0.0)
    loop_thread = LoopThread("manager")
    waiter = loop_thread.make_waiter()
    loop_thread.enter(loop)
    with pytest.raises(RuntimeError, match="another event loop"):
        await waiter


async def test_telling_a_loop_that_is_gone_is_silent() -> None:
    told: list[int] = []
    gone = asyncio.new_event_loop()
    gone.close()
    for loop in (asyncio.get_running_loop(), gone, None):
        loopthread.call_in_loop(loop, told.append, 1)
    assert not told
    await asyncio.sleep(0)
    assert told == [1]


async def test_all_who_wait_are_woken_once() -> None:
    waiters, loop = Waiters(), asyncio.get_running_loop()
    waits = [loop.create_task(waiters.wait(loop.create_future())) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(waiters) == 3
    waits[1].cancel()  # in the same turn: it must not be woken any more
    waiters.wake()
    assert not waiters
    assert await asyncio.gather(*waits[::2]) == [None, None]
    with pytest.raises(asyncio.CancelledError):
        await waits[1]


@pytest.mark.parametrize("how", ["cancelled", "closed", "failed"])
async def test_nothing_is_kept_of_a_wait_that_was_given_up(how: str) -> None:
    waiters, loop = Waiters(), asyncio.get_running_loop()
    waiter, other = loop.create_future(), loop.create_future()
    waiters.append(other)
    wait = waiters.wait(waiter)
    wait.send(None)
    assert len(waiters) == 2
    if how == "closed":
        wait.close()
    else:
        error = asyncio.CancelledError() if how == "cancelled" else RuntimeError("nobody starts it")
        with pytest.raises(type(error)):
            wait.throw(error)
    assert list(waiters) == [other]
