"""Managers and schedulers across threads, loops and processes: right, or refused at the call."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from aioscheduler import (
    Manager,
    ManagerClosed,
    QueuedScheduler,
    TimedScheduler,
    WorkerStartError,
    current_manager,
)
from aioscheduler._routing.threadsafe import ThreadFuture
from aioscheduler._scheduling import loopthread

NEVER = timedelta(days=1)


@pytest.fixture(params=[0, 1], ids=["here", "workers"])
async def manager(request: pytest.FixtureRequest) -> AsyncIterator[Manager]:
    async with Manager(2, workers=request.param) as manager:
        yield manager


async def give(value: Any = None) -> Any:
    return value


async def fail() -> None:
    raise LookupError("no")


def in_loop_of_its_own(make: Callable[[], Any]) -> Callable[[], Any]:
    async def run() -> Any:
        return await make()

    return lambda: asyncio.run(run())


# ---- calls


async def test_every_call_in_another_thread_is_refused_and_changes_nothing(
    manager: Manager,
) -> None:
    task, batch = manager.schedule(give(), NEVER), manager.map(give, [1], NEVER)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: manager.map(give, [1]), "manager.map, func, items"),
        (lambda: manager.starmap(give, [(1,)]), "manager.starmap, func, items"),
        (lambda: manager.cancel(task), "manager.cancel, task"),
        (lambda: manager.cancel(task.ref), "manager.cancel, task"),  # type: ignore[arg-type]
        (lambda: task.cancel(), "task.cancel"),
        (lambda: task.add_done_callback(print), "task.add_done_callback, callback"),
        (lambda: task.remove_done_callback(print), "task.remove_done_callback, callback"),
        (lambda: batch.cancel(), "batch.cancel"),
        (lambda: batch[0], "function, batch"),
    ]
    for call, advice in calls:
        with pytest.raises(RuntimeError, match=rf"loop\.call_soon_threadsafe\({advice}\)$"):
            await asyncio.to_thread(call)
    for call in (
        lambda: manager.schedule(give()),
        lambda: manager.task(task.ref),  # type: ignore[arg-type]
        lambda: manager.start(),
        in_loop_of_its_own(manager.ready),
        in_loop_of_its_own(manager.flush),
        in_loop_of_its_own(manager.join),
        in_loop_of_its_own(manager.close),
        in_loop_of_its_own(lambda: task),
        in_loop_of_its_own(lambda: batch),
        in_loop_of_its_own(lambda: anext(aiter(batch))),
    ):
        with pytest.raises(RuntimeError, match="schedule_threadsafe"):
            await asyncio.to_thread(call)
    assert len(manager) == 2
    # Any thread may read.
    assert await asyncio.to_thread(lambda: (len(manager), task.done(), len(batch))) == (2, False, 1)
    await asyncio.to_thread(lambda: (task.state, task.ref, repr(task), repr(batch)))
    await asyncio.to_thread(lambda: (repr(manager), manager.stats()))
    assert await manager.schedule(give(3)) == 3


@pytest.mark.parametrize("cls", [TimedScheduler, QueuedScheduler])
async def test_a_scheduler_refuses_calls_of_another_thread(cls: Any) -> None:
    async with cls() as scheduler:
        when = () if cls is QueuedScheduler else (timedelta(0),)
        task = scheduler.schedule(asyncio.Event().wait(), *when)
        for call in (
            lambda: scheduler.schedule(give(), *when),
            lambda: scheduler.cancel(task),
            lambda: task.cancel(),
            lambda: scheduler.start(),
            in_loop_of_its_own(scheduler.close),
            in_loop_of_its_own(lambda: task),
        ):
            with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
                await asyncio.to_thread(call)
        assert len(scheduler) == 0
        assert task.cancel()


async def schedule_in_a_thread() -> str:
    manager = current_manager()
    try:
        await asyncio.to_thread(lambda: manager.schedule(asyncio.sleep(0)))
    except RuntimeError as error:
        return str(error)
    return "accepted"


async def test_a_task_schedules_in_its_own_thread_only(manager: Manager) -> None:
    advice = "hand the call to it: loop.call_soon_threadsafe(manager.schedule, coro)"
    assert (await manager.schedule(schedule_in_a_thread())).endswith(advice)
    await manager.join()


# ---- schedule_threadsafe


async def test_plain_functions_in_threads_schedule_and_wait(manager: Manager) -> None:
    def client(first: int) -> list[int]:
        return [manager.schedule_threadsafe(give(first + n)).result() for n in range(10)]

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(40) as pool:
        clients = [loop.run_in_executor(pool, client, 10 * n) for n in range(40)]
        answers = await asyncio.gather(*clients)
    assert [answer for each in answers for answer in each] == list(range(400))
    await manager.join()
    assert manager.stats().finished == 400


@pytest.mark.long
async def test_plain_endpoints_of_fastapi() -> None:
    """40 clients, 6,000 requests: every task ends once, with its own answer."""
    fastapi, httpx = pytest.importorskip("fastapi"), pytest.importorskip("httpx")
    app = fastapi.FastAPI()
    ended: Counter[int] = Counter()

    async with Manager(workers=2) as manager:

        @app.get("/wait/{n}")  # type: ignore[untyped-decorator, unused-ignore]
        def wait(n: int) -> int:
            answer: int = manager.schedule_threadsafe(give(n)).result()
            ended[answer] += 1
            return answer

        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def visit(first: int) -> None:
                for n in range(first, first + 150):
                    assert (await client.get(f"/wait/{n}")).json() == n

            await asyncio.gather(*(visit(150 * k) for k in range(40)))
        assert manager.stats().finished == 6000
    assert ended == Counter(range(6000))


async def test_what_is_refused_is_told_by_the_future(manager: Manager) -> None:
    def schedule() -> list[BaseException | None]:
        futures: list[Future[Any]] = [
            manager.schedule_threadsafe(give(), timedelta(-1)),
            manager.schedule_threadsafe(give(), key=3.5),  # type: ignore[arg-type]
            manager.schedule_threadsafe(fail()),
        ]
        return [future.exception(5) for future in futures]

    kinds = [type(error) for error in await asyncio.to_thread(schedule)]
    assert kinds == [ValueError, TypeError, LookupError]


async def test_cancelling_the_future_cancels_the_task(manager: Manager) -> None:
    def schedule() -> None:
        future = manager.schedule_threadsafe(give(), NEVER)
        assert future.cancel()
        concurrent.futures.wait([future], 5)

    await asyncio.to_thread(schedule)
    await manager.join()
    assert len(manager) == 0


async def test_no_future_hangs_when_the_manager_closes(manager: Manager) -> None:
    futures: list[Future[Any]] = []

    def schedule() -> Any:
        try:
            while True:
                futures.append(manager.schedule_threadsafe(give(), NEVER))
        except ManagerClosed as error:
            return error

    thread = asyncio.create_task(asyncio.to_thread(schedule))
    while not futures:
        await asyncio.sleep(0)
    await manager.close()
    assert isinstance(await thread, ManagerClosed)
    done, left = await asyncio.to_thread(concurrent.futures.wait, futures, 5)
    assert not left
    for future in done:
        assert future.cancelled() or isinstance(future.exception(), ManagerClosed)


def test_it_is_refused_before_the_start_and_after_the_end() -> None:
    manager = Manager(workers=0)
    with pytest.raises(RuntimeError, match=r"start\(\) comes before"):
        manager.schedule_threadsafe(give())

    async def main() -> None:
        async with manager:
            pass

    asyncio.run(main())
    with pytest.raises(ManagerClosed):
        manager.schedule_threadsafe(give())


@pytest.mark.parametrize("workers", [0, 1])
def test_no_future_hangs_when_the_loop_ends(workers: int) -> None:
    manager = Manager(1, workers=workers)
    begun = threading.Event()
    futures: list[Future[Any]] = []
    raised: list[Exception] = []

    async def main() -> None:
        manager.start()
        await manager.ready()
        begun.set()
        while len(futures) < 10:
            await asyncio.sleep(0)

    def schedule() -> None:
        begun.wait(10)
        try:
            while True:
                futures.append(manager.schedule_threadsafe(give(), NEVER))
        except ManagerClosed as error:
            raised.append(error)

    thread = threading.Thread(target=schedule)
    thread.start()
    asyncio.run(main())
    thread.join(10)
    assert "loop of this manager is closed" in str(raised[0])
    assert not concurrent.futures.wait(futures, 5).not_done
    asyncio.run(manager.close())


@pytest.mark.parametrize("workers", [0, 1])
def test_no_future_hangs_that_comes_after_the_last_turn(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = Manager(1, workers=workers)
    loop = asyncio.new_event_loop()
    entered, closed = threading.Event(), threading.Event()
    send = ThreadFuture.send

    def wait_and_send(future: ThreadFuture[Any]) -> None:
        entered.set()
        closed.wait(10)
        send(future)

    monkeypatch.setattr(ThreadFuture, "send", wait_and_send)

    with ThreadPoolExecutor(1) as pool:

        async def main() -> Future[Future[Any]]:
            async with manager:
                sending = pool.submit(manager.schedule_threadsafe, give())
                await asyncio.to_thread(entered.wait, 10)
            return sending

        sending = loop.run_until_complete(main())
        closed.set()
        future = sending.result(10)
    assert not concurrent.futures.wait([future], 5).not_done
    assert isinstance(future.exception(), ManagerClosed)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


# ---- loops


@pytest.mark.parametrize("workers", [0, 1])
def test_a_manager_whose_loop_has_ended_refuses_everything(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager(1, workers=workers)
    kept: list[Any] = []

    async def first() -> None:
        manager.start()
        await manager.ready()
        kept.extend([manager.schedule(give(), NEVER), manager.map(give, [1, 2], NEVER)])

    asyncio.run(first())
    assert "running, 3 tasks waiting> was not closed before its event loop ended" in caplog.text
    task, batch = kept
    for call in (
        lambda: manager.schedule(give()),
        lambda: manager.map(give, [1]),
        lambda: manager.cancel(task),
        lambda: task.cancel(),
        lambda: batch.cancel(),
        in_loop_of_its_own(manager.ready),
        in_loop_of_its_own(manager.flush),
        in_loop_of_its_own(manager.join),
        in_loop_of_its_own(lambda: task),
        in_loop_of_its_own(lambda: batch),
    ):
        with pytest.raises(RuntimeError, match="loop of this manager is closed"):
            call()
    for _ in range(2):
        asyncio.run(manager.close())  # and no process is left: see conftest
    assert task.done()
    assert batch.done()


def test_a_scheduler_whose_loop_has_ended_refuses_everything() -> None:
    scheduler = TimedScheduler()

    async def first() -> Any:
        scheduler.start()
        return scheduler.schedule(give(), NEVER)

    task = asyncio.run(first())
    for call in (
        lambda: scheduler.schedule(give(), NEVER),
        lambda: task.cancel(),
        in_loop_of_its_own(lambda: task),
    ):
        with pytest.raises(RuntimeError, match="loop of this scheduler is closed"):
            call()
    asyncio.run(scheduler.close())
    assert task.done()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_manager_lives_through_several_runs_of_one_loop(workers: int) -> None:
    loop = asyncio.new_event_loop()
    manager = Manager(1, workers=workers)

    async def start() -> None:
        manager.start()
        await manager.ready()

    async def wait(task: Any) -> Any:
        return await task

    loop.run_until_complete(start())
    task = manager.schedule(give(5))  # between two runs
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(wait(task))
    assert loop.run_until_complete(wait(task)) == 5
    loop.run_until_complete(manager.close())
    loop.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_closing_in_another_loop_ends_the_workers(workers: int) -> None:
    loop = asyncio.new_event_loop()
    manager = Manager(1, workers=workers)

    async def start() -> Any:
        manager.start()
        await manager.ready()
        return manager.schedule(give(5), NEVER)

    task = loop.run_until_complete(start())
    asyncio.run(manager.close())
    assert task.done()
    loop.close()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", ["starting", "ready", "closing"])
def test_a_manager_that_is_dropped_leaves_nothing(workers: int, how: str) -> None:
    async def main() -> None:
        manager = Manager(1, workers=workers)
        manager.start()
        if how != "starting":
            await manager.ready()
        if how == "closing":
            manager.schedule(asyncio.sleep(10))
            closing = asyncio.create_task(manager.close(5))
            await asyncio.sleep(0)
            closing.cancel()

    asyncio.run(main())  # no process and no descriptor: see conftest


# ---- never started


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_waits_for_a_manager_that_nobody_starts_says_so(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopthread, "START_PATIENCE", 0.01)
    manager = Manager(1, workers=workers)
    await manager.join()  # nothing to wait for
    task, batch = manager.schedule(give()), manager.map(give, [1])
    for wait in (lambda: task, lambda: batch, lambda: anext(aiter(batch)), manager.join):
        with pytest.raises(RuntimeError, match=r"not been started.* call start\(\)"):
            await wait()  # type: ignore[misc]
    waiting = asyncio.ensure_future(manager.join())
    await asyncio.sleep(0)
    async with manager:
        await waiting
        await task


async def test_a_start_that_fails_in_any_way_is_the_managers_end(
    monkeypatch: pytest.MonkeyPatch, reports: list[Any]
) -> None:
    for error, raised in ((TypeError("no"), WorkerStartError), (KeyboardInterrupt(), None)):
        manager = Manager(2, workers=2)
        task = manager.schedule(give())

        def no(loop: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(manager._remotes[1], "start", no)
        with pytest.raises(raised or type(error)):
            manager.start()
        with pytest.raises(ManagerClosed):
            manager.schedule(give())
        await manager.close()
        assert task.done()
        reports.clear()


# ---- garbage


async def test_what_is_dropped_in_another_thread_is_reported_by_the_loop(
    manager: Manager, reports: list[Any]
) -> None:
    threads: list[int] = []

    def handler(_: Any, context: dict[str, Any]) -> None:
        threads.append(threading.get_ident())

    asyncio.get_running_loop().set_exception_handler(handler)
    held: list[Any] = [manager.schedule(fail()), manager.map(give, [fail])]
    held[1] = manager.starmap(fail, [()])
    while not (held[0].done() and held[1].done()):
        await asyncio.sleep(0.001)
    await asyncio.to_thread(held.clear)
    gc.collect()
    await asyncio.sleep(0)
    assert threads == [threading.get_ident()] * 2
