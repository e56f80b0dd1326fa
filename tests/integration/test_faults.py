"""The catalogue of faults that break process pools in the field, for real, row by row.

The crash matrix is like loky's: every step at which a worker can die, and every way to die.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
from acting import end_as

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    ManagerClosed,
    QueuedScheduler,
    RemoteError,
    State,
    Task,
    WorkerLost,
    WorkerStartError,
    current_attempt,
    current_manager,
)
from aioscheduler._processes import draining
from aioscheduler._processes.process import WorkerProcess, workers_module
from aioscheduler.stats import WorkerState

FAR = timedelta(hours=1)
SOON = timedelta(milliseconds=400)
OPEN: Any = (10**6, 1.0)  # max_restarts that no test reaches


async def give(value: Any) -> Any:
    return value


async def pid() -> int:
    return os.getpid()


async def mark(path: Path, text: str) -> str:
    with path.open("a") as file:
        file.write(f"{text}\n")
    return text


async def running(manager: Manager) -> Task[None]:
    """A task that has begun and does not end by itself."""
    task = manager.schedule(asyncio.sleep(60))
    while task.state is not State.RUNNING or not has_begun(manager, task):
        await asyncio.sleep(0.001)
    return task


def has_begun(manager: Manager, task: Task[None]) -> bool:
    """Whether its worker has begun it: it is RUNNING as soon as that was announced."""
    assert task.ref is not None
    process = manager._remotes[task.ref.worker].supervisor.process
    begun = None if process is None else process.begun(task.ref.scheduler)
    return begun is not None and begun[0] > task.ref.number


def worker_pid(manager: Manager, worker: int = 0) -> int:
    life = manager._remotes[worker].supervisor.process
    assert life is not None
    assert life.pid is not None
    return life.pid


def state_of(manager: Manager, worker: int = 0) -> WorkerState:
    return manager._remotes[worker].supervisor.state


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


# ---- the crash matrix


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("cannot travel")
        self.lock = open(os.devnull)  # noqa: SIM115


def die(way: str) -> None:
    if way == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif way == "SIGSEGV":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif way == "os._exit":
        os._exit(7)
    elif way == "SystemExit":
        raise SystemExit(7)
    raise Unpicklable


class DiesDecoded:
    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        return die, (self.way,)


class DiesEncoded(DiesDecoded):
    def __reduce__(self) -> Any:
        die(self.way)
        return DiesEncoded, (self.way,)


async def dies(step: str, way: str) -> Any:
    if step == "suspended":
        await asyncio.sleep(0.02)
    if step == "result encode":
        return DiesEncoded(way)
    if step == "done callback":
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: die(way))
        return None
    die(way)
    return None


ENDS = {"SIGKILL": "SIGKILL", "SIGSEGV": "SIGSEGV", "os._exit": "status 7"}
WAYS = [*ENDS, "SystemExit", "unpicklable"]
STEPS = ["argument decode", "first step", "suspended", "result encode", "done callback"]


# Every way at every step of one worker, and each once beside another worker.
CRASHES = {*product(STEPS, WAYS, [1]), *zip(STEPS, WAYS, [2] * 5, strict=True)}


def long_unless(short: set[Any], every: Iterable[Any]) -> list[Any]:
    """Return the parameters of a test: all of the product, or only some in a short run."""
    return [pytest.param(*p, marks=() if p in short else pytest.mark.long) for p in every]


@pytest.mark.parametrize(
    ("step", "way", "workers"), long_unless(CRASHES, product(STEPS, WAYS, (1, 2, 8)))
)
async def test_a_crash_at_every_step(step: str, way: str, workers: int, tmp_path: Path) -> None:
    async with Manager(workers=workers, max_restarts=OPEN) as manager:
        path = tmp_path / "ran"
        others = [manager.schedule(mark(path, str(n)), SOON) for n in range(20)]
        if step == "argument decode":
            task = manager.schedule(give(DiesDecoded(way)))
        else:
            task = manager.schedule(dies(step, way))
        try:
            async with asyncio.timeout(5):
                end: Any = await task
        except BaseException as error:
            end = error
        if step == "done callback":  # the task itself had ended well, if its outcome was sent
            assert end is None or isinstance(end, WorkerLost), end
        elif way in ENDS:
            assert isinstance(end, WorkerLost), end
            assert end.started
            assert ENDS[way] in str(end)
        elif step == "result encode" or (step, way) == ("argument decode", "SystemExit"):
            assert isinstance(end, RemoteError), end
            assert way.removeprefix("un") in str(end)
        elif way == "SystemExit":
            assert isinstance(end, SystemExit), end
            assert end.code == 7
        else:
            assert isinstance(end, Unpicklable), end
            assert end.args == ("cannot travel",)
        async with asyncio.timeout(10):
            assert await asyncio.gather(*others) == [str(n) for n in range(20)]
        assert sorted(path.read_text().split(), key=int) == [str(n) for n in range(20)]


@pytest.mark.parametrize(
    ("way", "workers"),
    long_unless({*product(WAYS, [1]), ("SIGKILL", 2)}, product(WAYS, (1, 2, 8))),
)
async def test_a_crash_in_the_initializer(way: str, workers: int) -> None:
    manager = Manager(workers=workers, initializer=die, initargs=(way,))
    manager.start()
    waiting = manager.schedule(give(1))
    with pytest.raises(WorkerStartError, match=ENDS.get(way, "SystemExit|Unpicklable")):
        async with asyncio.timeout(5):
            await manager.ready()
    with pytest.raises(WorkerLost):
        await waiting
    with pytest.raises(ManagerClosed):
        manager.schedule(give(1))


# ---- a death and its consequences (rows 1, 2, 15, 21)


async def test_nothing_pending_is_lost_and_other_workers_do_not_notice(tmp_path: Path) -> None:
    async with Manager(workers=2) as manager:
        tasks = [manager.schedule(mark(tmp_path / "ran", str(n)), SOON) for n in range(1000)]
        refs = [task.ref for task in tasks]
        begun = [await running(manager) for _ in range(8)]
        other = worker_pid(manager, 1)
        os.kill(worker_pid(manager, 0), signal.SIGKILL)
        for task in begun:
            if task.ref.worker == 0:  # type: ignore[union-attr]
                with pytest.raises(WorkerLost, match="SIGKILL") as caught:
                    await task
                assert caught.value.started
                assert caught.value.exitcode == -signal.SIGKILL
        assert await asyncio.gather(*tasks) == [str(n) for n in range(1000)]
        assert sorted((tmp_path / "ran").read_text().split(), key=int) == [*map(str, range(1000))]
        assert [task.ref for task in tasks] == refs
        assert worker_pid(manager, 1) == other
        assert {task.state for task in begun if task.ref.worker == 1} == {State.RUNNING}  # type: ignore[union-attr]
        await manager.close(0)


async def test_what_was_scheduled_between_two_processes_runs() -> None:
    async with Manager(workers=1) as manager:
        os.kill(worker_pid(manager), signal.SIGKILL)
        await until(lambda: state_of(manager) is not WorkerState.READY)
        task = manager.schedule(give(1))
        batch = manager.map(give, range(1000))
        gone = manager.schedule(give(2))
        assert gone.cancel()
        assert await task == 1
        assert await batch == list(range(1000))
        assert gone.cancelled()
        await manager.join()


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
async def test_a_queue_keeps_its_order_over_a_death(cls: Any, tmp_path: Path) -> None:
    async with Manager(cls=cls, workers=1) as manager:
        begun = await running(manager)
        tasks = [manager.schedule(mark(tmp_path / "ran", str(n))) for n in range(300)]
        await manager.flush()
        os.kill(worker_pid(manager), signal.SIGKILL)
        await asyncio.gather(*tasks)
        with pytest.raises(WorkerLost):
            await begun
        expected = [str(n) for n in range(300)]
        ran = (tmp_path / "ran").read_text().split()
        assert ran == (expected if cls is QueuedScheduler else expected[::-1])


async def test_definitions_and_successors_survive_a_death() -> None:
    async with Manager(workers=1) as manager:
        secret = 41

        async def closure() -> int:
            return secret + 1

        async def parent() -> Any:
            return current_manager().schedule(closure(), FAR)

        assert await manager.schedule(closure()) == 42
        ref = await manager.schedule(parent())
        child = manager.task(ref)
        os.kill(worker_pid(manager), signal.SIGKILL)
        await until(lambda: state_of(manager) is not WorkerState.READY)
        assert child.ref == ref
        assert child.reschedule(timedelta(0))
        assert await child == 42
        again = await manager.schedule(parent())  # a new process gives new numbers
        assert again not in {ref, None}
        child = manager.task(again)
        assert child.reschedule(timedelta(0))
        assert await child == 42


async def test_a_task_asked_to_cancel_ends_cancelled_and_never_starts(tmp_path: Path) -> None:
    async with Manager(workers=1, on_worker_loss="rerun") as manager:
        await manager.schedule(give(1))
        os.kill(worker_pid(manager), signal.SIGSTOP)  # it cannot confirm
        task = manager.schedule(mark(tmp_path / "ran", "it did"), timedelta(seconds=0.2))
        await manager.flush()
        assert task.cancel()
        os.kill(worker_pid(manager), signal.SIGKILL)
        with pytest.raises(asyncio.CancelledError):
            await task
        await manager.schedule(give(1), timedelta(seconds=0.4))
        assert not (tmp_path / "ran").exists()
        assert len(manager) == 0


async def test_with_rerun_what_had_started_runs_again(tmp_path: Path) -> None:
    async def once_more(path: Path) -> str:
        if not path.exists():
            path.touch()
            await asyncio.sleep(60)
        return "again"

    async with Manager(workers=1, on_worker_loss="rerun") as manager:
        task = manager.schedule(once_more(tmp_path / "first"))
        await until((tmp_path / "first").exists)
        os.kill(worker_pid(manager), signal.SIGKILL)
        await until(lambda: task.state is State.PENDING or task.done())
        assert await task == "again"
        assert len(manager) == 0


async def test_what_was_announced_and_had_not_begun_is_not_lost(tmp_path: Path) -> None:
    """A task kills its worker: those behind it in its slice run in the replacement."""

    async def deadly(n: int) -> int:
        with (tmp_path / "ran").open("a") as file:
            file.write(f"{n}\n")
        if n == 5 and not (tmp_path / "dead").exists():
            (tmp_path / "dead").touch()
            os._exit(1)
        return n

    async with Manager(1, workers=1) as manager:
        await manager.schedule(give(1))
        batch = manager.map(deadly, range(100), timedelta(milliseconds=200))
        tasks = [batch[n] for n in range(100)]
        await until(lambda: all(task.done() for task in tasks))
        for n, task in enumerate(tasks):
            error = task.exception()
            assert error is None or isinstance(error, WorkerLost), (n, error)
        # Those before it may have been lost with their outcomes; of those behind it none may.
        assert isinstance(tasks[5].exception(), WorkerLost)
        assert [task.result() for task in tasks[6:]] == list(range(6, 100))
        ran = [int(line) for line in (tmp_path / "ran").read_text().split()]
        assert sorted(ran) == list(range(100))
        with pytest.raises(WorkerLost):
            await batch


async def test_what_is_lost_takes_its_place_in_a_batch() -> None:
    async with Manager(1, workers=1, max_restarts=OPEN) as manager:
        batch = manager.map(end_as, ["kills", "fine"], key=1, return_exceptions=True)
        for ends in (await batch, [end async for end in batch]):
            assert isinstance(ends[0], WorkerLost)
            assert ends[0].exitcode == -signal.SIGKILL
            # It ran beside the other, which may have killed the worker before its outcome was sent.
            assert ends[1] == "fine" or isinstance(ends[1], WorkerLost)
        iterator = aiter(manager.starmap(end_as, [("kills",), ("fine",)], key=1))
        with pytest.raises(WorkerLost):
            await anext(iterator)
        with contextlib.suppress(WorkerLost):
            assert await anext(iterator) == "fine"
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)


async def test_large_arguments_survive_a_death() -> None:
    async with Manager(workers=1) as manager:
        payload = os.urandom(3_000_000)
        tasks = [manager.schedule(give(payload), timedelta(milliseconds=300)) for _ in range(3)]
        os.kill(worker_pid(manager), signal.SIGKILL)
        assert all([await task == payload for task in tasks])


async def test_a_segmentation_fault_leaves_its_trace(caplog: Any) -> None:
    async with Manager(workers=1) as manager:
        with pytest.raises(WorkerLost, match="SIGSEGV"):
            await manager.schedule(dies("first step", "SIGSEGV"))
        await manager.schedule(give(1))
    (record,) = caplog.records
    assert "Segmentation fault" in record.message
    assert "in die" in record.message


async def test_many_pending_are_handed_over() -> None:
    async with Manager(workers=1) as manager:
        for start in range(0, 100_000, 10_000):
            manager.map(give, range(start, start + 10_000), FAR)
            await manager.flush()
        os.kill(worker_pid(manager), signal.SIGKILL)
        assert await manager.schedule(give(1)) == 1
        assert len(manager) == 100_000
        await manager.close(0)


# ---- restarts (rows 26, 27, 30)


async def test_too_many_deaths_are_the_end(reports: list[Any]) -> None:
    async with Manager(workers=2, max_restarts=(2, 30.0)) as manager:
        pending = [manager.schedule(give(n), FAR) for n in range(100)]
        for _ in range(2):
            await until(lambda: state_of(manager) is WorkerState.READY)
            os.kill(worker_pid(manager), signal.SIGKILL)
            await until(lambda: state_of(manager) is not WorkerState.READY)
        await until(lambda: state_of(manager) is WorkerState.READY)
        begun = [await running(manager) for _ in range(8)]
        os.kill(worker_pid(manager), signal.SIGKILL)
        for task in [*pending, *begun]:
            with pytest.raises(WorkerLost) as lost:
                await task
            assert lost.value.started == (task in begun)
        with pytest.raises(ManagerClosed, match="failed: more than max_restarts") as caught:
            manager.schedule(give(1))
        (note,) = caught.value.__cause__.__notes__  # type: ignore[union-attr]
        assert "not started" not in str(caught.value.__cause__)  # it concerns no task
        assert "max_restarts=(2, 30.0)" in note
        assert "SIGKILL" in note
        (report,) = reports
        assert "108 unfinished tasks" in report["message"]
        reports.clear()
        assert len(manager) == 0


@pytest.mark.parametrize("max_restarts", [OPEN, (0, 1.0)])
async def test_an_outcome_on_its_way_is_delivered(max_restarts: Any, reports: list[Any]) -> None:
    """Whether the worker is replaced after its death, or the manager fails."""
    async with Manager(1, workers=1, max_restarts=max_restarts) as manager:
        await manager.schedule(give(0))
        good = manager.schedule(give("delivered"))
        # Its worker takes another turn before it dies, and so writes the outcomes so far.
        deadly = manager.schedule(dies("suspended", "SIGKILL"))
        await manager.flush()
        process = psutil.Process(worker_pid(manager))
        while process.status() != psutil.STATUS_ZOMBIE:  # the host must not read meanwhile
            time.sleep(0.01)
        assert await good == "delivered"
        with pytest.raises(WorkerLost):
            await deadly
        reports.clear()


async def test_a_poison_task_that_runs_again_is_stopped(reports: list[Any]) -> None:
    async with Manager(workers=1, on_worker_loss="rerun", max_restarts=(3, 30.0)) as manager:
        with pytest.raises(WorkerLost, match="status 7") as lost:
            await manager.schedule(dies("first step", "os._exit"))
        assert lost.value.started
        with pytest.raises(ManagerClosed):
            manager.schedule(give(1))
        assert reports.pop()["exception"].exitcode == 7


def _fails_if_exists(path: str) -> None:
    if os.path.exists(path):
        raise RuntimeError("not twice")


async def test_a_replacement_that_cannot_begin_is_tried_again_then_told(
    tmp_path: Path, reports: list[Any]
) -> None:
    path = tmp_path / "second"
    manager = Manager(
        workers=1, initializer=_fails_if_exists, initargs=(str(path),), max_restarts=(3, 30.0)
    )
    async with manager:
        waiting = manager.schedule(give(1), FAR)
        path.touch()
        os.kill(worker_pid(manager), signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await waiting
        note = reports.pop()["exception"].__notes__[0]
        assert "not twice" in note  # the traceback of its initializer


async def test_a_system_without_room_for_a_process_is_tried_again(
    monkeypatch: Any, caplog: Any
) -> None:
    start, refusals = WorkerProcess.start, [OSError("no memory"), OSError("no memory")]

    def refuse(self: WorkerProcess) -> None:
        if refusals:
            raise refusals.pop()
        start(self)

    async with Manager(workers=1) as manager:
        monkeypatch.setattr(WorkerProcess, "start", refuse)
        waiting = manager.schedule(give(1), timedelta(milliseconds=50))
        os.kill(worker_pid(manager), signal.SIGKILL)
        await until(lambda: state_of(manager) is WorkerState.RESTARTING)
        assert await waiting == 1
        assert sum("no memory" in record.message for record in caplog.records) == 2


async def test_a_host_without_descriptors_tries_again(caplog: Any) -> None:
    async with Manager(workers=1) as manager:
        waiting = manager.schedule(give(1), timedelta(milliseconds=50))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (5, hard))  # open descriptors stay open
            os.kill(worker_pid(manager), signal.SIGKILL)
            await until(lambda: "next attempt" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await waiting == 1
        assert "Too many open files" in caplog.text


async def test_close_while_no_process_can_be_had(monkeypatch: Any) -> None:
    def refuse(self: WorkerProcess) -> None:
        raise OSError("no memory")

    manager = Manager(workers=1)
    manager.start()
    await manager.ready()
    waiting = manager.schedule(give(1), FAR)
    monkeypatch.setattr(WorkerProcess, "start", refuse)
    os.kill(worker_pid(manager), signal.SIGKILL)
    await until(lambda: state_of(manager) is WorkerState.RESTARTING)
    await manager.close()
    assert waiting.cancelled()
    assert state_of(manager) is WorkerState.STOPPED


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"on_worker_loss": "ignore"}, ValueError),
        ({"max_restarts": 5}, TypeError),
        ({"max_restarts": (5,)}, TypeError),
        ({"max_restarts": (-1, 1.0)}, ValueError),
        ({"max_restarts": (1.5, 1.0)}, TypeError),
        ({"max_restarts": (1, 0)}, ValueError),
        ({"max_restarts": (1, "s")}, ValueError),
    ],
)
def test_bad_choices_are_refused(arguments: Any, error: Any) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        Manager(**arguments)


# ---- told to go (row 24)


async def test_sigterm_drains_a_worker_and_is_no_crash(tmp_path: Path, caplog: Any) -> None:
    async with Manager(1, workers=1, max_restarts=(0, 1.0)) as manager:
        old = worker_pid(manager)
        long = manager.schedule(asyncio.sleep(0.5, "finished"))
        await until(lambda: long.state is State.RUNNING)
        soon = [manager.schedule(pid(), timedelta(milliseconds=100)) for _ in range(50)]
        await manager.flush()
        os.kill(old, signal.SIGTERM)
        await until(lambda: state_of(manager) is WorkerState.DRAINING)
        late = manager.schedule(pid())
        assert await long == "finished"
        assert {await task for task in [*soon, late]} == {worker_pid(manager)}
        assert worker_pid(manager) != old
    assert ["was told to end" in record.message for record in caplog.records] == [True]


def is_draining(manager: Manager[Any]) -> bool:
    return state_of(manager) is WorkerState.DRAINING


DRAIN = 1.0  # seconds


def drain_within(seconds: float) -> None:
    life: Any = workers_module("lifecycle")
    life.DRAIN_TIME = seconds


async def outlast_a_drain(attempt_file: Path) -> int:
    attempt_file.write_text(attempt_file.read_text() + "x")
    if len(attempt_file.read_text()) == 1:
        await asyncio.sleep(60)
    return current_attempt()


async def test_what_outlasts_a_drain_is_lost_or_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not cancelled by anybody. Pending tasks are late by the drain, and no more."""
    monkeypatch.setattr(draining, "DRAIN_TIME", DRAIN)
    hasten: Any = {"initializer": drain_within, "initargs": (DRAIN,)}
    files = [tmp_path / name for name in ("fail", "rerun", "asked")]
    for file in files:
        file.write_text("")
    async with (
        Manager(1, workers=1, **hasten) as failing,
        Manager(1, workers=1, on_worker_loss="rerun", **hasten) as rerunning,
    ):
        lost = failing.schedule(outlast_a_drain(files[0]))
        again = rerunning.schedule(outlast_a_drain(files[1]))
        asked = failing.schedule(outlast_a_drain(files[2]))
        waiting = failing.schedule(give(7), timedelta(seconds=0.5))
        await until(lambda: all(file.read_text() for file in files))
        for manager in (failing, rerunning):
            os.kill(worker_pid(manager), signal.SIGTERM)
        for manager in (failing, rerunning):
            await until(partial(is_draining, manager))
        assert asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        with pytest.raises(WorkerLost, match=r"told to end \(SIGTERM\), and 1 s later") as told:
            await lost
        assert told.value.started
        assert await again == 2
        assert await waiting == 7


async def test_a_slice_that_was_announced_is_given_back(tmp_path: Path) -> None:
    """SIGTERM within a slice: the rest of it runs in the next process, each task once."""

    async def slow(n: int) -> int:
        with (tmp_path / "ran").open("a") as file:
            file.write(f"{n}\n")
        time.sleep(0.005)
        return n

    async with Manager(1, workers=1) as manager:
        await manager.schedule(give(1))
        batch = manager.map(slow, range(200))
        await until((tmp_path / "ran").exists)
        os.kill(worker_pid(manager), signal.SIGTERM)
        assert await batch == list(range(200))
        ran = [int(line) for line in (tmp_path / "ran").read_text().split()]
        assert sorted(ran) == list(range(200))


async def test_close_ends_a_worker_that_drains() -> None:
    async with Manager(workers=1) as manager:
        task = await running(manager)
        os.kill(worker_pid(manager), signal.SIGTERM)
        await until(lambda: state_of(manager) is WorkerState.DRAINING)
        await manager.close(0.1)
    assert task.cancelled()


# ---- frozen and blocked (rows 3, 4)


async def test_a_stopped_worker_is_silent_and_goes_on_later(caplog: Any, tmp_path: Path) -> None:
    async with Manager(workers=1) as manager:
        await manager.schedule(give(1))
        os.kill(worker_pid(manager), signal.SIGSTOP)
        task = manager.schedule(mark(tmp_path / "ran", "once"))
        await until(lambda: state_of(manager) is WorkerState.SILENT, 4)
        await until(lambda: bool(caplog.records), 2)
        assert not task.done()
        os.kill(worker_pid(manager), signal.SIGCONT)
        assert await task == "once"
        await until(lambda: state_of(manager) is WorkerState.READY, 3)
        await until(lambda: len(caplog.records) == 2, 3)
        assert (tmp_path / "ran").read_text() == "once\n"
    silent, back = (record.message for record in caplog.records)
    assert "does not answer" in silent
    assert "answers again" in back


async def test_close_ends_a_stopped_worker() -> None:
    async with Manager(workers=1) as manager:
        begun, waiting = await running(manager), manager.schedule(give(1), FAR)
        os.kill(worker_pid(manager), signal.SIGSTOP)
        await manager.close(0.1)
    assert waiting.cancelled()
    with pytest.raises(WorkerLost, match="SIGKILL"):
        await begun


async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251  as no good task would


async def cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(60)


async def test_a_task_that_cancels_all_tasks_of_its_worker_is_said_in_a_line(
    capfd: Any, caplog: Any
) -> None:
    async with Manager(1, workers=1, max_restarts=OPEN) as manager:
        with pytest.raises((asyncio.CancelledError, WorkerLost)):
            await manager.schedule(cancel_all())
        assert await manager.schedule(give(5)) == 5
    said = "exited with status 1 (a task has cancelled all asyncio tasks of its worker, and with"
    assert [record.getMessage().count(said) for record in caplog.records] == [1]
    assert "\n" not in caplog.records[0].getMessage()
    assert capfd.readouterr().err == ""


async def test_what_blocks_a_loop_is_reported_with_its_stack(capfd: Any, caplog: Any) -> None:
    async with Manager(workers=2) as manager:
        blocking = manager.schedule(block(5.5))
        await until(lambda: blocking.state is State.RUNNING)
        other = 1 - blocking.ref.worker  # type: ignore[union-attr]
        for _ in range(5):  # tasks of the other worker are on time
            tasks = [manager.schedule(give(n)) for n in range(8)]
            for task in tasks:
                if task.ref.worker == other:  # type: ignore[union-attr]
                    await task
        await blocking
        await manager.join()
    said = capfd.readouterr().err
    assert f"task {__name__}:block {blocking.ref} has kept the loop of its worker" in said
    assert "run_forever" not in said  # the frames below the task are the same in all workers
    assert "time.sleep(seconds)" in said
    assert any("does not answer" in record.message for record in caplog.records)


async def stubborn() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def test_a_task_that_swallows_its_cancellation_is_given_up(caplog: Any) -> None:
    manager = Manager(workers=1)
    manager.start()
    task = manager.schedule(stubborn())
    await until(lambda: task.state is State.RUNNING)
    ref = task.ref
    await manager.close(0.1)
    with pytest.raises(WorkerLost, match="swallowed its cancellation.*may have run in part"):
        await task
    assert "does not end, and is killed" in caplog.text
    assert f"stubborn {ref}\n" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_cancelled_task_has_time_to_clean_up(workers: int, tmp_path: Path) -> None:
    async def cleans_up(path: Path) -> None:
        path.with_suffix(".begun").touch()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.15)
            path.touch()

    manager = Manager(workers=workers)
    manager.start()
    task = manager.schedule(cleans_up(tmp_path / "clean"))
    await until((tmp_path / "clean.begun").exists)
    await manager.close(0)
    assert (tmp_path / "clean").exists()
    assert task.cancelled()


async def test_a_cancel_that_is_swallowed_is_no_end() -> None:
    async with Manager(workers=1) as manager:
        task = manager.schedule(stubborn())
        await until(lambda: task.state is State.RUNNING)
        assert task.cancel()
        await asyncio.sleep(0.05)
        assert task.state is State.RUNNING
        await manager.close(0)


async def test_close_gives_up_what_swallows_its_cancellation_in_this_loop(caplog: Any) -> None:
    stop = asyncio.Event()

    async def until_told() -> None:
        while not stop.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await stop.wait()

    manager = Manager(workers=0)
    manager.start()
    task = manager.schedule(until_told())
    await until(lambda: task.state is State.RUNNING)
    async with asyncio.timeout(5):
        await manager.close(0.1)
    assert f"task {task.ref} swallows its cancellation; it runs on" in caplog.text
    stop.set()
    await task


# ---- the pipe (rows 12, 13, 14, 16, 28, 29)


async def write_garbage(data: bytes) -> None:
    from aioscheduler._transport.pipe import _open_pipes

    (pipe,) = _open_pipes
    os.write(pipe.descriptors[1], data)
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00\x00\x02\x91\x63",
        b"\x00\x00\x00\x02\x91\x01",
        b"\x00\x00\x00\x05\x93\x08\x00\x91\x63",  # STARTED of a task that was never sent
        b"\x00\x00\x00\x05\x93\x08\x63\x91\x00",  # STARTED at a scheduler that is not there
    ],
)
async def test_garbage_on_the_pipe_replaces_the_worker(garbage: bytes, caplog: Any) -> None:
    async with Manager(workers=1) as manager:
        pending = manager.schedule(give("here"), SOON)
        with pytest.raises(WorkerLost):
            await manager.schedule(write_garbage(garbage))
        assert await pending == "here"
    assert "cannot be read" in caplog.text


async def close_pipe() -> None:
    from aioscheduler._transport.pipe import _open_pipes

    (pipe,) = _open_pipes
    os.close(pipe.descriptors[1])
    await asyncio.sleep(60)


async def test_a_worker_that_closes_its_pipe_is_replaced() -> None:
    async with Manager(workers=1) as manager:
        pending = manager.schedule(give("here"), SOON)
        host = psutil.Process()
        with pytest.raises(WorkerLost):
            await manager.schedule(close_pipe())
        before = sum(host.cpu_times()[:2])
        assert await pending == "here"
        assert sum(host.cpu_times()[:2]) - before < 5


async def grandchild() -> int:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(30)"],
        close_fds=False,  # it holds everything open
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    from aioscheduler._transport.pipe import _open_pipes

    (pipe,) = _open_pipes
    os.set_inheritable(pipe.descriptors[1], True)
    held = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False)
    child.kill()
    child.wait()
    return held.pid


async def test_a_grandchild_that_holds_the_pipe_does_not_hide_a_death() -> None:
    async with Manager(workers=1) as manager:
        held = psutil.Process(await manager.schedule(grandchild()))
        try:
            begun = await running(manager)
            os.kill(worker_pid(manager), signal.SIGKILL)
            with pytest.raises(WorkerLost, match="SIGKILL"):
                async with asyncio.timeout(5):
                    await begun
            assert await manager.schedule(give(1)) == 1
        finally:
            held.kill()


async def test_both_directions_full_is_no_deadlock() -> None:
    async with Manager(workers=1) as manager:
        await manager.schedule(give(1))
        stopped = worker_pid(manager)
        os.kill(stopped, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.5, os.kill, stopped, signal.SIGCONT)
        tasks = [manager.schedule(give(b"x" * 20_000)) for _ in range(2000)]  # 40 MB each way
        await manager.flush()
        assert all([await task == b"x" * 20_000 for task in tasks])


@pytest.mark.parametrize("count", [50_000, pytest.param(200_000, marks=pytest.mark.long)])
async def test_many_due_at_one_instant_and_cancels_are_answered_meanwhile(count: int) -> None:
    async with Manager(workers=2) as manager:
        batch = manager.map(give, range(count), timedelta(milliseconds=100))
        last = manager.schedule(asyncio.sleep(60), timedelta(seconds=50))
        await asyncio.sleep(0.1)
        assert last.cancel()
        with pytest.raises(asyncio.CancelledError):
            await last
        assert await batch == list(range(count))


@pytest.mark.long
async def test_a_hundred_megabytes_both_ways() -> None:
    async with Manager(workers=1) as manager:
        payload = os.urandom(100_000_000)
        large = manager.schedule(give(payload))
        small = [manager.schedule(give(n), timedelta(milliseconds=n)) for n in range(300)]
        assert [await task for task in small] == list(range(300))
        assert await large == payload


# ---- create and close (row 25)


async def create_and_close(times: int) -> None:
    for n in range(times):
        async with Manager(workers=1) as manager:
            manager.schedule(give(n), FAR)
            if n % 3 == 0:
                assert await manager.schedule(give(n)) == n
            if n % 3 == 1:
                os.kill(worker_pid(manager), signal.SIGKILL)


async def test_nothing_is_left_behind() -> None:
    """The fixture around all tests counts processes, descriptors and threads."""
    await create_and_close(12)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_nothing_is_left_behind_after_a_thousand() -> None:
    logging.disable()
    try:
        await create_and_close(1000)
    finally:
        logging.disable(logging.NOTSET)
