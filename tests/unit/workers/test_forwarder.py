"""Log records of a worker go to the host: after outcomes, one frame at a time, bounded."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from acting import end_as
from solo import Rig, forever, give
from turning import turns

from aioscheduler import Manager
from aioscheduler._processes.process import workers_module
from aioscheduler._transport.logrecords import make_record, pack_record, unpack_record
from aioscheduler._transport.wire import FINISHED, Kind
from aioscheduler.testing import FakeClock

LOG = logging.getLogger("tests.forwarder")
MOST = workers_module("backlog").MOST_RECORDS
IN_FRAME = workers_module("backlog").FRAME_RECORDS


class Forks(list[Callable[[], None]]):
    """The functions that a child forked now would call."""


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forks]:
    """Restore the root logger after the test."""
    forks = Forks()
    monkeypatch.setattr(os, "register_at_fork", lambda after_in_child: forks.append(after_in_child))
    level = logging.root.level
    yield forks
    for handler in logging.root.handlers[:]:
        if isinstance(handler, workers_module("forwarder").Handler):
            logging.root.removeHandler(handler)
    logging.root.setLevel(level)
    LOG.setLevel(logging.NOTSET)


@pytest.fixture
def forwarding(rig: Rig, forks: Forks) -> Rig:
    rig.worker.forwarder.install({"root": logging.INFO})
    return rig


def messages(frame: list[Any]) -> list[str]:
    return [make_record(unpack_record(record)).getMessage() for record in frame[1]]


@contextmanager
def alone(rig: Rig) -> Iterator[None]:
    """Keep records from pytest's handlers, which format them, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.root, "handlers", [rig.worker.forwarder._handler])
        yield


async def test_records_come_behind_the_outcomes_of_their_turn(forwarding: Rig) -> None:
    rig, own = forwarding, LOG  # not a global: a worker may log something about those

    async def log(value: int) -> int:
        own.debug("not wanted")
        own.info("wanted")
        return value

    rig.schedule(0, log(1))
    await turns()
    started, finished, logged = rig.take()
    assert (started[0], finished) == (Kind.ANNOUNCED, [Kind.ENDED, 0, [0], FINISHED, [1]])
    assert (logged[0], messages(logged), logged[2]) == (Kind.LOG, ["wanted"], 0)


async def test_the_host_answers_before_it_is_told_more(forwarding: Rig) -> None:
    rig = forwarding
    for number in range(3 * IN_FRAME):
        LOG.info("%d", number)
    await turns()
    LOG.info("one more")
    await turns()
    (first,) = rig.take()
    assert messages(first) == [str(n) for n in range(IN_FRAME)]
    for start in (IN_FRAME, 2 * IN_FRAME):
        rig.send(Kind.LOGGED)
        (frame,) = rig.take()
        assert messages(frame) == [str(n) for n in range(start, start + IN_FRAME)]
    rig.send(Kind.LOGGED)
    assert [messages(frame) for frame in rig.take()] == [["one more"]]
    rig.send(Kind.LOGGED)
    await turns()
    assert rig.take() == []
    LOG.info("the last")
    await turns()
    assert [messages(frame) for frame in rig.take()] == [["the last"]]


async def test_records_beyond_the_bounds_are_dropped_unformatted_and_counted(
    forwarding: Rig,
) -> None:
    rig = forwarding
    formatted = 0

    class Counts:
        def __str__(self) -> str:
            nonlocal formatted
            formatted += 1
            return "text"

    with alone(rig):
        for _ in range(MOST + 500):
            LOG.info("%s", Counts())
    assert formatted == MOST
    assert len(rig.worker.forwarder.backlog._records) == MOST
    await turns()
    arrived = dropped = 0
    while frames := rig.take():
        (frame,) = frames
        arrived, dropped = arrived + len(frame[1]), dropped + frame[2]
        rig.send(Kind.LOGGED)
    assert (arrived, dropped) == (MOST, 500)


async def test_a_full_pipe_gets_no_log_records(
    forwarding: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, pipe = forwarding, forwarding.pipe
    room = asyncio.Event()

    async def drain() -> None:
        await room.wait()
        pipe.held = False
        pipe.flush()

    monkeypatch.setattr(pipe, "drain", drain)
    pipe.held = True
    rig.schedule(0, give(1))
    await turns()
    LOG.info("one")
    await turns()
    LOG.info("two")
    await turns()
    sent = pipe.waiting
    LOG.info("three")
    await turns()
    assert pipe.waiting == sent  # there are no log records in it
    room.set()
    await turns()
    *others, log = rig.take()
    assert [frame[0] for frame in others] == [Kind.ANNOUNCED, Kind.ENDED]
    assert messages(log) == ["one", "two", "three"]


async def test_any_thread_may_log_and_wakes_the_loop_once(
    forwarding: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = forwarding
    loop = asyncio.get_running_loop()
    calls: list[Any] = []
    wake = loop.call_soon_threadsafe

    def note(callback: Any, *args: Any) -> Any:
        calls.append(callback)
        return wake(callback, *args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", note)

    def log() -> None:
        for number in range(5):
            LOG.info("%d", number)

    thread = threading.Thread(target=log, name="other")
    thread.start()
    thread.join()
    assert len(calls) == 1
    await turns()
    (frame,) = rig.take()
    assert messages(frame) == list("01234")
    assert make_record(unpack_record(frame[1][0])).threadName == "other"


class Raced(workers_module("backlog").Backlog):  # type: ignore[misc]  # found by name
    """A backlog to which a thread adds at the very moment when the forwarder looks at it."""

    raced = False

    def __bool__(self) -> bool:
        found = bool(super().__bool__())
        if found and not self.raced:
            self.raced = True
            LOG.info("meanwhile")
        return found


@pytest.mark.parametrize("held", [False, True])
async def test_what_a_thread_adds_in_the_midst_of_a_write_breaks_no_window(
    forwarding: Rig, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    rig, pipe = forwarding, forwarding.pipe
    drains = 0

    async def drain() -> None:
        nonlocal drains
        drains += 1
        await turns()
        pipe.held = False
        pipe.flush()

    monkeypatch.setattr(pipe, "drain", drain)
    pipe.held = held
    if held:
        rig.schedule(0, give(1))
        await turns()
    rig.worker.forwarder.backlog = Raced()
    for number in range(3 * IN_FRAME):
        LOG.info("%d", number)
    await turns(40)
    assert drains == held
    assert [frame[0] for frame in rig.take()].count(Kind.LOG) == 1
    rig.send(Kind.LOGGED)
    await turns()
    assert [frame[0] for frame in rig.take()] == [Kind.LOG]


async def test_records_from_before_the_start_are_sent(forks: Forks, make: Any) -> None:
    rig = make()
    rig.worker.forwarder.install({"root": logging.INFO})
    LOG.info("early")
    await rig.start(boot=None)
    await turns()
    assert [messages(frame) for frame in rig.take()] == [["early"]]


class Logs:
    """Logs while it is formatted."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __str__(self) -> str:
        LOG.log(self.level, "%s", self)
        return "its text"


async def test_logging_while_a_record_is_formatted_goes_on_for_ever_nowhere(
    forwarding: Rig,
) -> None:
    rig = forwarding
    with alone(rig):
        LOG.info("%s", Logs(logging.DEBUG))
        LOG.info("%s", Logs(logging.INFO))
    await turns()
    (frame,) = rig.take()
    assert messages(frame) == ["its text", "its text"]
    assert frame[2] == 1


class Slow:
    """Blocks while it is formatted, until it is released."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __str__(self) -> str:
        self.begun.set()
        self.go_on.wait(20)
        return "slow"


async def test_slow_formatting_blocks_no_other_thread(forwarding: Rig) -> None:
    slow = Slow()
    with alone(forwarding):
        thread = threading.Thread(target=LOG.info, args=("%s", slow))
        thread.start()
        assert slow.begun.wait(20)
        LOG.info("quick")
        slow.go_on.set()
        thread.join()
    await turns()
    (frame,) = forwarding.take()
    assert (messages(frame), frame[2]) == (["quick", "slow"], 0)


async def test_the_filters_of_the_handler_apply(forwarding: Rig) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        record.seen = True
        return record.getMessage() != "refused"

    handler = forwarding.worker.forwarder._handler
    handler.addFilter(refuse)
    LOG.info("refused")
    LOG.info("passed")
    await turns()
    (frame,) = forwarding.take()
    assert messages(frame) == ["passed"]
    assert make_record(unpack_record(frame[1][0])).seen is True  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [MemoryError, RecursionError, SystemExit])
async def test_nothing_is_raised_into_the_code_that_logs(
    forwarding: Rig, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(workers_module("forwarder"), "pack_record", fail)
    LOG.info("one")
    await turns()
    assert forwarding.take() == [[Kind.LOG, [], 1]]
    monkeypatch.undo()
    forwarding.send(Kind.LOGGED)
    LOG.info("two")
    await turns()
    assert [messages(frame) for frame in forwarding.take()] == [["two"]]


async def test_records_that_cannot_be_sent_fail_the_worker(forwarding: Rig) -> None:
    forwarding.pipe.fails = MemoryError("no room")
    LOG.info("one")
    await turns()
    assert forwarding.worker._lifecycle.is_over


# ---- installation


async def test_the_levels_are_those_of_the_host_and_the_handler_is_kept(
    rig: Rig, forks: Forks
) -> None:
    forwarder = rig.worker.forwarder
    forwarder.install({"root": logging.ERROR, LOG.name: logging.DEBUG})
    assert (logging.root.level, LOG.level) == (logging.ERROR, logging.DEBUG)
    (handler,) = [each for each in logging.root.handlers if each is forwarder._handler]
    forwarder.keep()
    assert logging.root.handlers.count(handler) == 1
    logging.root.removeHandler(handler)
    forwarder.keep()
    LOG.debug("told")
    await turns()
    assert [messages(frame) for frame in rig.take()] == [["told"]]


def lose_handlers() -> None:
    """Do what a configuration of the root logger does."""
    for handler in logging.root.handlers[:]:
        logging.root.removeHandler(handler)


async def test_it_is_put_back_after_the_initializer(forks: Forks, make: Any) -> None:
    rig = make()
    rig.worker.forwarder.install({"root": logging.INFO})
    await rig.start(rig.shipper.take_call(lose_handlers, ()))
    assert rig.worker.forwarder._handler in logging.root.handlers


async def test_without_the_option_there_is_nothing(rig: Rig) -> None:
    handlers = logging.root.handlers[:]
    rig.worker.forwarder.keep()
    assert logging.root.handlers == handlers
    LOG.error("not forwarded")
    await turns()
    assert rig.take() == []


async def test_a_forked_child_logs_as_python_does(forwarding: Rig, forks: Forks) -> None:
    handler = forwarding.worker.forwarder._handler
    assert handler in logging.root.handlers
    (in_child,) = forks
    in_child()
    assert handler not in logging.root.handlers
    forwarding.worker.forwarder.keep()
    LOG.info("of the child")
    await turns()
    assert forwarding.take() == []


# ---- its end


def fill(rig: Rig) -> None:
    for number in range(MOST + 5):
        LOG.info("%d", number)


def check_all(frames: list[list[Any]]) -> None:
    assert {frame[0] for frame in frames} == {Kind.LOG}
    told = [message for frame in frames for message in messages(frame)]
    assert told == [str(n) for n in range(MOST)]
    assert sum(frame[2] for frame in frames) == 5


@pytest.mark.parametrize("how", ["close", "drain"])
async def test_at_an_orderly_end_all_records_follow_the_last_outcome(
    forwarding: Rig, how: str
) -> None:
    rig = forwarding
    rig.schedule(0, forever())
    await turns()
    rig.take()
    fill(rig)
    handler = rig.worker.forwarder._handler
    rig.send(Kind.CANCEL, 0, [0])
    if how == "close":
        rig.send(Kind.CLOSE, 5.0)
    else:
        rig.worker.drain()
    await rig.serving
    frames = rig.take()
    finished = [frame[0] for frame in frames].index(Kind.ENDED)
    assert {frame[0] for frame in frames[:finished]} <= {Kind.DRAINING, Kind.LOG}
    first = [frame for frame in frames[:finished] if frame[0] == Kind.LOG]
    assert len(first) <= 1  # the host has not handled it
    if how == "drain":
        assert frames.pop() == [Kind.DRAINED]
    check_all(first + frames[finished + 1 :])
    assert handler not in logging.root.handlers


async def test_a_worker_that_fails_says_why_and_then_what_it_has_logged(forwarding: Rig) -> None:
    rig = forwarding
    fill(rig)
    rig.worker._fail(LookupError("no database"))
    await rig.serving
    failed, *logs = rig.take()
    assert failed[0] == Kind.FATAL
    check_all(logs)


# ---- together with the host's side


async def test_what_is_logged_disturbs_no_task_and_arrives_in_order(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with clock.manager(2, workers=1, forward_logs=True) as manager:
        forwarder = worker_of(manager).forwarder
        for number in range(MOST + 3):
            made = LOG.makeRecord(LOG.name, logging.INFO, "a.py", 1, "%d", (number,), None)
            forwarder.backlog.add(pack_record(made, 1, "a worker"))
        forwarder.wake()
        assert await manager.map(end_as, map(str, range(100))) == [str(n) for n in range(100)]
        while forwarder.backlog:
            await asyncio.sleep(0)
        await turns()
        arrived = [record for record in caplog.records if record.name == LOG.name]
        assert [record.getMessage() for record in arrived] == [str(n) for n in range(MOST)]
        assert manager.stats().logs_dropped == 3
        caplog.clear()
        made = LOG.makeRecord(LOG.name, logging.INFO, "a.py", 1, "lost", (), None)
        forwarder.backlog.add(pack_record(made, 1, "a worker"))
        manager.kill()
        forwarder.wake()
        await clock.advance(0)
        assert "lost" not in [record.getMessage() for record in caplog.records]
        assert await manager.map(end_as, ["a"]) == ["a"]
    assert manager.stats().logs_dropped == 3


def worker_of(manager: Manager) -> Any:
    life: Any = manager._remotes[0].supervisor.process
    return life.worker
