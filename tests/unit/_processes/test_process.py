"""Worker processes that are never started: how they are made, and how many are ended."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import multiprocessing.connection
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aioscheduler._processes import process
from aioscheduler._processes.process import WorkerProcess, end_workers, workers_module
from aioscheduler._processes.spawn import SpawnProcess
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.order import Order

CONFIG = WorkerConfig(manager="ab", order=Order.TIMED, layout=(2,), prefer_utc=True, host=0)
NO_BOX: Any = None

Ends = tuple[multiprocessing.connection.Connection, multiprocessing.connection.Connection]


@pytest.fixture
def ends() -> Iterator[Ends]:
    reader, writer = multiprocessing.connection.Pipe(duplex=False)
    with reader, writer:
        yield reader, writer


def test_it_is_spawned_may_have_children_and_starts_no_server(ends: Ends) -> None:
    made = WorkerProcess("aio-0", *ends, NO_BOX, CONFIG, None)
    assert isinstance(made.aio_process, SpawnProcess)
    assert (made.aio_process.name, made.aio_process.daemon) == ("aio-0", False)
    assert made.unit.namespace is None
    assert made.unit.loop_initializer is None
    assert made.unit.args == (*ends, NO_BOX, CONFIG)


def test_a_loop_initializer_travels_by_value(ends: Ends) -> None:
    word = "made there"
    made = WorkerProcess("aio-0", *ends, NO_BOX, CONFIG, lambda: word)
    assert made.unit.loop_initializer() == "made there"


def test_one_that_cannot_travel_is_named(ends: Ends) -> None:
    lock = threading.Lock()

    def make_loop() -> None:
        lock.acquire()

    with pytest.raises(OSError, match=r"loop_initializer=.*make_loop .*lock"):
        WorkerProcess("aio-0", *ends, NO_BOX, CONFIG, make_loop)


def fail_with(error: BaseException) -> Callable[[], None]:
    def make_loop() -> None:
        raise error

    return make_loop


@pytest.mark.parametrize("kind", [ImportError, SystemExit])
def test_one_that_fails_is_reported_on_asyncios_own_loop(
    ends: Ends, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[BaseException] = []
    monkeypatch.setattr(process, "loop_failure", failures)
    made = WorkerProcess("aio-0", *ends, NO_BOX, CONFIG, fail_with(kind("no uvloop")))
    loop = made.unit.loop_initializer()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.close()
    assert [(type(error), str(error)) for error in failures] == [(kind, "no uvloop")]


class Box:
    def __init__(self) -> None:
        self.told: list[BaseException] = []

    def write_failure(self, error: BaseException) -> None:
        self.told.append(error)


Run = Callable[..., Box]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, ends: Ends) -> Run:
    """Runs a worker, or a fork of it, whose loop ends by an exception."""

    def run(error: BaseException, forks: bool = False) -> Box:
        def run_async(unit: Any) -> None:
            if forks:
                monkeypatch.setattr(os, "getpid", lambda: -1)
            raise error

        monkeypatch.setattr("aiomultiprocess.core.Process.run_async", run_async)
        box = Box()
        made_up: Any = box
        with pytest.raises(type(error)):
            process._run(WorkerProcess("aio-0", *ends, made_up, CONFIG, None).unit)
        return box

    return run


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_what_ends_the_loop_is_among_the_last_words(run: Run, error: BaseException) -> None:
    assert run(error).told == [error]


@pytest.mark.parametrize("status", [None, 1])
def test_a_worker_ends_with_the_status_that_it_returns(
    ends: Ends, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiomultiprocess.core.Process.run_async", lambda unit: status)
    made_up: Any = Box()
    with pytest.raises(SystemExit) if status else contextlib.nullcontext() as caught:
        process._run(WorkerProcess("aio-0", *ends, made_up, CONFIG, None).unit)
    assert caught is None or caught.value.code == status
    assert made_up.told == []


def test_in_a_forked_child_it_ends_the_child_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[BaseException] = []

    def end_child(error: BaseException) -> None:
        ended.append(error)
        raise SystemExit(4)

    monkeypatch.setattr(workers_module("forked"), "end_child", end_child)
    box = run(SystemExit("of the task"), forks=True)
    assert [str(error) for error in ended] == ["of the task"]
    assert box.told == []


def test_the_workers_are_imported_by_name() -> None:
    assert workers_module("main") is sys.modules["aioscheduler_workers.main"]
    with pytest.raises(ModuleNotFoundError):
        workers_module("no_such_module")


# ---- ending many


class Process:
    """A process that has ended, or ends if killed, or not even then."""

    def __init__(self, log: list[str], ends_by: str) -> None:
        self.aio_process = self
        self.kills = self.releases = 0
        self._log = log
        self._ends_by = ends_by

    @property
    def has_ended(self) -> bool:
        return self._ends_by == "itself" or (self._ends_by == "kill" and self.kills > 0)

    def kill(self) -> None:
        self.kills += 1
        self._log.append("kill")

    def release(self) -> None:
        self.releases += 1
        self._log.append("release")


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EXIT_GRACE", "REAP_TIME"):
        monkeypatch.setattr(process, name, 0.0)


def pair() -> list[int]:
    return [os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError as error:
        assert error.errno == errno.EBADF  # noqa: PT017  it is asked, and not expected
        return False
    return True


@pytest.mark.parametrize("ends_by", ["itself", "kill", "nothing"])
def test_each_is_notified_killed_and_released(ends_by: str, no_patience: None) -> None:
    log: list[str] = []
    made = [Process(log, ends_by) for _ in range(3)]
    fds = [pair() for _ in made]
    numbers = [fd for pipe in fds for fd in pipe]
    alive: Any = dict(zip(made, fds, strict=True))
    end_workers(alive)
    assert alive == {}
    assert log == ["kill"] * 3 + ["release"] * 3  # killing an ended process does nothing
    assert not any(is_open(fd) for fd in numbers)
    assert fds == [[-1, -1]] * 3


def test_at_exit_descriptors_stay_valid_and_lead_nowhere(
    no_patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "is_exiting", lambda: True)
    reader, writer = os.pipe()
    kept = os.dup(reader)
    made = Process([], "kill")
    end_workers({made: [writer, -1]})  # type: ignore[dict-item]
    assert os.read(kept, 1) == b""  # the worker reads the end of its pipe
    os.write(writer, b"x")  # a loop that still runs in another thread does no harm
    assert (made.kills, made.releases) == (1, 0)  # its descriptors stay valid
    for fd in (reader, writer, kept):
        os.close(fd)


def test_what_the_loop_has_taken_is_the_loops(no_patience: None) -> None:
    class Taken(dict[Any, list[int]]):
        """The loop removes the last one between the check and the removal."""

        def popitem(self) -> tuple[Any, list[int]]:
            if len(self) == 1:
                self.clear()
            return super().popitem()

    log: list[str] = []
    one, other = Process(log, "kill"), Process(log, "kill")
    end_workers(Taken({one: [-1, -1], other: [-1, -1]}))
    assert (one.kills, other.kills) == (0, 1)
