"""How worker processes begin and end, whatever the host's program does."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import multiprocessing
import multiprocessing.popen_spawn_posix
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from spoiling import close_another, put_another

from aioscheduler import Manager, ManagerClosed, WorkerLost, WorkerStartError
from aioscheduler._processes import workerhandle

OPEN: Any = (10**6, 1.0)  # max_restarts that no test reaches


async def give(value: Any) -> Any:
    return value


async def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def fork_and_die() -> None:
    """Leave a child behind that has all the descriptors."""
    if not os.fork():
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def worker_pid(manager: Manager) -> int:
    (life,) = (link.supervisor.process for link in manager._remotes)
    assert life is not None
    assert life.pid is not None
    return life.pid


@pytest.fixture(params=["pidfd", "no pidfd"])
def pidfd(request: Any, monkeypatch: Any) -> bool:
    """Run with and without pidfds: older kernels, sandboxes and macOS have none."""
    if request.param == "no pidfd":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    return bool(request.param == "pidfd")


Reaping = Callable[[int], None]


@pytest.fixture(params=["ours", "ignored", "listed", "reaped"])
def reaping(request: Any) -> Iterator[Reaping]:
    """Choose who else reaps children; return a function that kills one of our processes."""
    before = signal.getsignal(signal.SIGCHLD)
    if request.param == "ignored":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    elif request.param == "listed":  # multiprocessing reaps ended children when it lists them
        signal.signal(signal.SIGCHLD, lambda *_: multiprocessing.active_children() and None)

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        if request.param == "reaped":
            os.waitpid(pid, 0)

    kill.unknown = request.param in ("ignored", "reaped")  # type: ignore[attr-defined]
    yield kill
    signal.signal(signal.SIGCHLD, before)


async def test_a_death_is_seen_whoever_reaps(pidfd: bool, reaping: Any) -> None:
    async with Manager(1, workers=1, max_restarts=OPEN) as manager:
        running = manager.schedule(asyncio.sleep(60))
        await manager.schedule(give(0))  # so that one has begun before
        waiting = manager.schedule(give(1), timedelta(milliseconds=50))
        reaping(worker_pid(manager))
        with pytest.raises(WorkerLost) as lost:
            await running
        assert lost.value.exitcode == (None if reaping.unknown else -signal.SIGKILL)
        assert await waiting == 1


async def test_a_grandchild_with_all_descriptors_does_not_hide_a_death(pidfd: bool) -> None:
    async with Manager(workers=1, max_restarts=OPEN) as manager:
        with pytest.raises(WorkerLost):
            await manager.schedule(fork_and_die())
        assert await manager.schedule(give(1)) == 1


def trace(pid: int) -> int:
    """Let a child of ours hold a process as a debugger does, until the child is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    attach, go_on, all_threads = 16, 7, 0x40000000
    ready, told = os.pipe()
    tracer = os.fork()
    if not tracer:
        allowed = libc.ptrace(attach, pid, None, None) == 0
        if allowed:
            os.waitpid(pid, all_threads)
            libc.ptrace(go_on, pid, None, None)
        os.write(told, b"y" if allowed else b"n")
        signal.pause()
        os._exit(0)
    allowed = os.read(ready, 1) == b"y"
    os.close(ready)
    os.close(told)
    if not allowed:
        end(tracer)
        pytest.skip("the system lets nobody be traced")
    return tracer


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace as Linux has it")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads
async def test_a_debugger_that_keeps_the_dead_does_not_stop_the_host(
    pidfd: bool, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(workerhandle, "REAP_TIME", 0.2)
    async with Manager(workers=1, max_restarts=OPEN) as manager:
        tracer = trace(worker_pid(manager))
        waiting = manager.schedule(give(1), timedelta(milliseconds=50))
        os.kill(worker_pid(manager), signal.SIGKILL)
        if not pidfd:  # a held zombie cannot be distinguished from a living process
            life = manager._remotes[0].supervisor.process
            assert life is not None
            life.kill()
        assert await waiting == 1
        assert "cannot be reaped" in caplog.text
        end(tracer)
        await manager.close()
        async with asyncio.timeout(5):  # it is reaped as soon as possible
            while len(multiprocessing.process._children):  # type: ignore[attr-defined]
                await asyncio.sleep(0.02)


async def test_a_process_that_ends_before_it_is_told_anything(monkeypatch: Any) -> None:
    large = bytes(4 << 20)  # more than a pipe holds

    def make_loop() -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop() if large else None  # type: ignore[return-value]

    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: shutil.which("false"))
    manager = Manager(workers=1, loop_initializer=make_loop)
    manager.start()
    with pytest.raises(WorkerStartError, match="status 1 before it was ready"):
        await manager.ready()


async def test_a_worker_of_a_frozen_program_that_runs_the_program(monkeypatch: Any) -> None:
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: shutil.which("false"))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    manager = Manager(workers=1)
    manager.start()
    with pytest.raises(WorkerStartError, match="freeze_support"):
        await manager.ready()


async def test_standard_output_that_is_broken_is_no_hindrance(monkeypatch: Any) -> None:
    class Broken:
        def flush(self) -> None:
            raise BrokenPipeError

    async with Manager(workers=1, max_restarts=OPEN) as manager:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Broken())
            os.kill(worker_pid(manager), signal.SIGKILL)
            assert await manager.schedule(give(1), timedelta(milliseconds=50)) == 1


async def test_a_working_directory_that_was_removed(monkeypatch: Any, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    async with Manager(workers=1, max_restarts=OPEN) as manager:
        gone.rmdir()
        os.kill(worker_pid(manager), signal.SIGKILL)
        assert await manager.schedule(give(1), timedelta(milliseconds=50)) == 1


@pytest.mark.parametrize(
    ("pidfd", "which"),
    [
        *(("pidfd", which) for which in ("writer", "watch", "box", "told", "sentinel")),
        *(("no pidfd", which) for which in ("told", "sentinel")),  # which report its end
        *(
            pytest.param("no pidfd", which, marks=pytest.mark.long)
            for which in ("writer", "watch", "box")
        ),
    ],
    indirect=["pidfd"],
)
async def test_a_descriptor_of_the_hosts_that_a_library_replaces(
    pidfd: bool, which: str, caplog: Any
) -> None:
    """The process goes on to work, or it ends and is replaced."""
    async with Manager(workers=1, max_restarts=OPEN) as manager:
        life: Any = manager._remotes[0].supervisor.process
        process = life.process.aio_process
        taken = {
            "writer": life.pipe.descriptors[1],
            "watch": process.watch,
            "box": life._box._fd,
            "told": process._popen.parent_pipe,
            "sentinel": process.sentinel,
        }[which]
        put_another(taken)
        await asyncio.sleep(0.1)
        with contextlib.suppress(WorkerLost):
            await manager.schedule(die())
        assert await manager.schedule(give(1)) == 1
    close_another(taken)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_main_is_left_alone_by_starts_in_many_threads() -> None:
    main, seen, failures = sys.modules["__main__"], set[int](), []

    async def use() -> None:
        async with Manager(1, workers=1) as manager:
            if await manager.schedule(give(1)) != 1:
                failures.append("no answer")

    def run() -> None:
        try:
            asyncio.run(use())
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.add(id(sys.modules["__main__"]))
        time.sleep(0.0001)
    assert not failures
    assert seen == {id(main)}


async def test_a_loop_initializer_that_cannot_travel_is_named(reports: list[Any]) -> None:
    lock = threading.Lock()

    def make_loop() -> asyncio.AbstractEventLoop:
        with lock:
            return asyncio.new_event_loop()

    manager = Manager(workers=1, loop_initializer=make_loop)
    with pytest.raises(WorkerStartError, match=r"loop_initializer=.*make_loop cannot travel"):
        manager.start()
    reports.clear()
    with pytest.raises(ManagerClosed):
        manager.schedule(give(1))
    await manager.close()


async def test_a_daemonic_host_is_told_what_to_do(monkeypatch: Any, reports: list[Any]) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    manager = Manager(workers=1)
    with pytest.raises(WorkerStartError, match="workers=0"):
        manager.start()
    reports.clear()
    await manager.close()


# ---- processes that tasks fork and start


async def fork(how: str) -> int:
    child = os.fork()
    if not child:
        if how == "exits":
            sys.exit(3)
        elif how == "exits with a text":
            sys.exit("why")
        elif how == "raises":
            raise ValueError("in the child")
        elif how == "awaits":
            await asyncio.sleep(0)
        elif how == "has a loop":
            asyncio.run(asyncio.sleep(0.01))
    return child


async def status_of(how: str) -> int:
    """Fork in a worker, within a user's own task if asked to; return the child's status."""
    child = await (asyncio.create_task(fork(how[5:])) if how.startswith("task ") else fork(how))
    if not child:
        return 0
    return os.waitstatus_to_exitcode(await asyncio.to_thread(lambda: os.waitpid(child, 0)[1]))


async def clean_up_once(path: Path) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        with path.open("a") as file:
            file.write("x")


async def shift(path: Path) -> None:
    while True:
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("returns", 0),
        ("exits", 3),
        ("exits with a text", 1),
        ("raises", 1),
        ("awaits", 1),
        ("has a loop", 0),
        ("task exits", 3),
        ("task returns", 1),
        ("task awaits", 1),
    ],
)
async def test_a_forked_child_is_no_worker(
    how: str, status: int, tmp_path: Path, capfd: Any
) -> None:
    cleaned, others = tmp_path / "cleaned", tmp_path / "others"
    async with Manager(2, workers=1) as manager:
        tasks = [manager.schedule(clean_up_once(cleaned)), manager.schedule(shift(others))]
        await manager.schedule(give(1))
        assert await manager.schedule(status_of(how)) == status
        assert await manager.schedule(give(2), timedelta(milliseconds=20)) == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pid = worker_pid(manager)
    assert cleaned.read_text() == "x"
    assert set(others.read_text().split()) == {str(pid)}
    said = capfd.readouterr().err
    assert ("come back to the loop" in said) == (how in ("awaits", "task awaits", "task returns"))
    assert ("in the child" in said) == (how == "raises")
    assert "aio process" not in said


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def start_others() -> list[int]:
    """Start processes that live on: a forked child, a program, and the process of a pool."""
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    program = await asyncio.create_subprocess_exec("sleep", "60")
    pool = ProcessPoolExecutor(1)
    global _kept
    _kept = pool, program
    loop = asyncio.get_running_loop()
    return [child, program.pid, await loop.run_in_executor(pool, os.getpid)]


_kept: Any = None


async def test_what_tasks_have_started_is_killed_with_their_worker() -> None:
    manager = Manager(1, workers=1)
    manager.start()
    others = await manager.schedule(start_others())
    assert all(map(alive, others))
    manager.schedule(clings())
    await manager.schedule(give(1))
    await manager.close(0)
    async with asyncio.timeout(5):
        while any(map(alive, others)):
            await asyncio.sleep(0.01)


async def fork_and_stay() -> int:
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    return child


async def test_what_a_crashed_worker_has_forked_is_left_alone() -> None:
    async with Manager(1, workers=1, max_restarts=OPEN) as manager:
        child = await manager.schedule(fork_and_stay())
        with pytest.raises(WorkerLost):
            await manager.schedule(die())
        assert await manager.schedule(give(1)) == 1
    assert alive(child)
    os.kill(child, signal.SIGKILL)


async def clings() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
