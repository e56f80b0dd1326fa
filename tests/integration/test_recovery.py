"""Every life ends and every handle settles, whatever cannot be sent, read or begun."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from spoiling import put_another

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    RemoteError,
    State,
    TimedScheduler,
    UnknownTask,
    WorkerLost,
    WorkerStartError,
    current_manager,
    current_task,
)
from aioscheduler._transport import pipe
from aioscheduler.testing import FakeClock

SOON = timedelta(milliseconds=400)
LATER = timedelta(seconds=2)
OPEN: Any = (10**6, 1.0)  # max_restarts that no test reaches


async def size(data: bytes) -> int:
    return len(data)


async def nap(data: bytes, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return len(data)


def kill_worker(manager: Manager) -> None:
    pid = manager.stats().workers[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


# ---- frames are limited wherever they are made


@pytest.mark.parametrize(
    ("each", "bulk"),
    [
        *((1_000, True), (5_000, False), (16_000, True), (32_000, False)),
        pytest.param(1_000, False, marks=pytest.mark.long),
        pytest.param(5_000, True, marks=pytest.mark.long),
        pytest.param(16_000, False, marks=pytest.mark.long),
        pytest.param(32_000, True, marks=pytest.mark.long),
    ],
)
async def test_pages_that_are_half_done_are_handed_over(each: int, bulk: bool) -> None:
    async with Manager(1, workers=1) as manager:
        payloads = [bytes(each + n) for n in range(120)]
        if bulk:
            now = manager.map(size, payloads)
            later = manager.map(size, payloads, LATER)
            tasks = [later[n] for n in range(120)]
            await now
        else:
            first, tasks = [], []
            for payload in payloads:
                first.append(manager.schedule(size(payload)))
                tasks.append(manager.schedule(size(payload), LATER))
            await asyncio.gather(*first)
        kill_worker(manager)
        assert await asyncio.gather(*tasks) == [each + n for n in range(120)]
        assert manager.stats().restarts == 1


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
async def test_queues_hand_over_what_is_half_done_in_order(cls: Any) -> None:
    async with Manager(1, cls=cls, workers=1, on_worker_loss="rerun") as manager:
        ended: list[int] = []
        tasks = [manager.schedule(nap(bytes(20_000), 0.001)) for _ in range(300)]
        for number, task in enumerate(tasks):
            task.add_done_callback(lambda _, number=number: ended.append(number))  # type: ignore[misc]
        await tasks[0 if cls is QueuedScheduler else -1]
        kill_worker(manager)
        assert set(await asyncio.gather(*tasks)) == {20_000}
        await asyncio.sleep(0)
        assert sorted(ended) == list(range(300))
        if cls is QueuedScheduler:
            assert ended == sorted(ended)


held: dict[str, int] = {}


def load(model: bytes) -> None:
    held["size"] = len(model)


async def held_size() -> int:
    return held["size"]


async def test_an_initializer_may_be_given_megabytes() -> None:
    async with Manager(
        1, workers=1, initializer=load, initargs=(os.urandom(3_000_000),)
    ) as manager:
        assert await manager.schedule(held_size()) == 3_000_000
        kill_worker(manager)
        assert await manager.schedule(held_size()) == 3_000_000


# ---- processes that cannot begin say why


def fail_with_surrogate(path: str) -> None:
    if os.path.exists(path):
        raise RuntimeError("no model at caf\udce9")


async def fail_cancelled(path: str) -> None:
    if os.path.exists(path):
        raise asyncio.CancelledError


def fail_with_exit(path: str) -> None:
    if os.path.exists(path):
        raise SystemExit("not today")


FAILURES = [fail_with_surrogate, fail_cancelled, fail_with_exit]


@pytest.mark.parametrize("initializer", FAILURES)
async def test_an_initializer_that_fails_is_told_to_all(
    initializer: Any, tmp_path: Path, reports: list[Any]
) -> None:
    manager = Manager(1, workers=1, initializer=initializer, initargs=(str(tmp_path),))
    task = manager.schedule(size(b""))
    manager.start()
    with pytest.raises(WorkerLost, match="could not begin"):
        await task
    with pytest.raises(WorkerStartError, match="could not begin"):
        await manager.ready()
    reports.clear()


@pytest.mark.parametrize("initializer", FAILURES)
async def test_so_is_one_that_fails_in_a_replacement(
    initializer: Any, tmp_path: Path, reports: list[Any]
) -> None:
    path = tmp_path / "second"
    async with Manager(
        1, workers=1, initializer=initializer, initargs=(str(path),), max_restarts=(2, 30.0)
    ) as manager:
        path.touch()
        task = manager.schedule(size(b""), SOON)
        kill_worker(manager)
        with pytest.raises(WorkerLost, match="could not begin"):
            await task
        reports.clear()


def no_loop() -> None:
    return None


async def test_a_loop_that_is_none_is_told_with_its_traceback() -> None:
    with pytest.raises(WorkerStartError, match="NoneType.* has no attribute"):
        async with Manager(1, workers=1, loop_initializer=no_loop):
            pass


async def exit_outside() -> None:
    def exit_in_a_callback() -> None:
        raise SystemExit(0)

    asyncio.get_running_loop().call_soon(exit_in_a_callback)
    await asyncio.sleep(10)


async def test_what_is_raised_out_of_the_loop_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Manager(1, workers=1) as manager:
        with pytest.raises(WorkerLost, match="status 0 .SystemExit: 0, raised out of its event"):
            await manager.schedule(exit_outside())
    assert "exit_in_a_callback" in caplog.text


# ---- descriptors that other code closes


def spoil(mode: int, replace: bool) -> None:
    """Close a descriptor of this process's pipe, as a double close in a library does."""
    for fd in range(3, 256):
        try:
            found = (
                fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) == pipe.PIPE_SIZE  # type: ignore[attr-defined]
                and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == mode
            )
        except OSError:
            continue
        if found:
            os.close(fd)
            if replace:
                put_another(fd)
            return


async def spoil_in_worker(mode: int, replace: bool) -> None:
    spoil(mode, replace)
    await asyncio.sleep(60)


@pytest.mark.parametrize("mode", [os.O_RDONLY, os.O_WRONLY])
@pytest.mark.parametrize("replace", [False, True])
async def test_a_worker_without_its_pipe_is_replaced(mode: int, replace: bool) -> None:
    async with Manager(1, workers=1, max_restarts=OPEN) as manager:
        pending = manager.schedule(size(b"abc"), SOON)
        with pytest.raises(WorkerLost):
            await manager.schedule(spoil_in_worker(mode, replace))
        assert await pending == 3


# ---- memory


async def give(count: int) -> bytes:
    return bytes(count)


@pytest.mark.parametrize("call", [size(bytes(200_000)), give(200_000)])
async def test_what_memory_has_no_room_for_fails_alone(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(size: int) -> bytearray:
        raise MemoryError

    monkeypatch.setattr(pipe, "bytearray", none_left, raising=False)
    clock = FakeClock()
    async with clock.manager(1, workers=1) as manager:
        other = manager.schedule(size(b"abc"))
        with pytest.raises((MemoryError, RemoteError), match="no memory"):
            await manager.schedule(call)
        assert await other == 3
        assert manager.stats().restarts == 0


# ---- requests of tasks


async def cancel(**changes: Any) -> None:
    current_manager().cancel(current_task()._replace(**changes))


DAMAGE: list[dict[str, Any]] = [
    {"worker": 99},
    {"worker": "0"},
    {"number": "7"},
    {"number": -5},
    {"number": 1 << 70},
    {"scheduler": 99},
    {"scheduler": None},
]


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_damaged_reference_is_refused_where_it_is_used(workers: int) -> None:
    async with Manager(1, cls=TimedScheduler, workers=workers) as manager:
        for changes in DAMAGE:
            other = manager.schedule(nap(b"abc", 0.05))
            with pytest.raises(UnknownTask, match="damaged"):
                await manager.schedule(cancel(**changes))
            assert await other == 3
        assert manager.stats().restarts == 0


# ---- exceptions that resist


class NoTraceback(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("none of yours")


class Closed(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


async def resist(kind: type[Exception]) -> None:
    raise kind


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [NoTraceback, Closed])
@pytest.mark.parametrize("cls", [TimedScheduler, QueuedScheduler])
async def test_an_exception_that_resists_is_an_end_too(
    workers: int, kind: type[Exception], cls: Any, reports: list[Any]
) -> None:
    async with Manager(1, cls=cls, workers=workers) as manager:
        tasks: list[Any] = [manager.schedule(resist(kind)), manager.map(resist, [kind])[0]]
        after = manager.schedule(size(b"abc"))
        await asyncio.wait([asyncio.ensure_future(manager.join())], timeout=10)
        assert [task.state for task in (*tasks, after)] == [State.FAILED] * 2 + [State.FINISHED]
        for task in tasks:
            with pytest.raises((kind, RemoteError, RuntimeError)):
                await task
    del tasks, task
    await asyncio.sleep(0)
    reports.clear()
