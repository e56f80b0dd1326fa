"""A worker in the host's thread: the pipes in memory, its process, and its end."""

from __future__ import annotations

import asyncio
import decimal
import os
import signal
import time
from contextvars import Context, ContextVar
from typing import Any

import pytest
from turning import turns

from aioscheduler._processes.paired import Channel, PairedPipe, PairedWorkerHandle
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._transport import wire
from aioscheduler._transport.wire import Kind

CONFIG = WorkerConfig(manager="ab", order=Order.TIMED, layout=(2,), prefer_utc=True, host=0)
side: ContextVar[str] = ContextVar("side", default="nobody's")


# ---- pipes


def test_a_channel_is_a_pipe_without_a_limit() -> None:
    channel = Channel()
    with pytest.raises(BlockingIOError):
        channel.read()
    assert channel.write(memoryview(b"ab")) == 2
    assert channel.write(memoryview(b"c" * 1_000_000)) == 1_000_000
    assert channel.read() == b"ab" + b"c" * 1_000_000
    with pytest.raises(BlockingIOError):
        channel.read()
    channel.closed = True
    with pytest.raises(BrokenPipeError):
        channel.write(memoryview(b"d"))


class End:
    """One end of a pair, and what it received."""

    def __init__(self, inward: Channel, outward: Channel, name: str) -> None:
        self.frames: list[Any] = []
        self.ends: list[Exception | None] = []
        self.sides: list[str] = []
        context = Context()
        context.run(side.set, name)
        self.pipe = PairedPipe(inward, outward, context, self.receive, self.ends.append)

    def receive(self, frame: Any) -> None:
        self.frames.append(frame)
        self.sides.append(side.get())


@pytest.fixture
def ends() -> tuple[End, End]:
    one, other = Channel(), Channel()
    return End(one, other, "host"), End(other, one, "worker")


async def test_frames_arrive_as_copies_on_the_side_of_the_reader(ends: tuple[End, End]) -> None:
    host, worker = ends
    loop = asyncio.get_running_loop()
    host.pipe.open(loop)
    host.pipe.send(wire.encode([Kind.CANCEL, [1, 2]]))
    host.pipe.flush()  # bytes written before the other end opens are not lost
    worker.pipe.open(loop)
    worker.pipe.send(wire.encode([Kind.READY]))
    worker.pipe.flush()
    assert (host.frames, worker.frames) == ([], [])  # not from within the writer's call
    await turns(2)
    assert host.frames == [[Kind.READY]]
    assert worker.frames == [[Kind.CANCEL, [1, 2]]]
    assert (host.sides, worker.sides) == (["host"], ["worker"])


async def test_announcements_are_written_at_once(ends: tuple[End, End]) -> None:
    host, worker = ends
    host.pipe.open(asyncio.get_running_loop())
    worker.pipe.open(asyncio.get_running_loop())
    log: list[str] = []
    worker.pipe.send(wire.encode([Kind.READY]), lambda: log.append("written"))
    assert log == []
    worker.pipe.flush()
    assert log == ["written"]
    assert worker.pipe.waiting == 0


async def test_blobs_arrive_whole(ends: tuple[End, End]) -> None:
    host, worker = ends
    host.pipe.open(asyncio.get_running_loop())
    worker.pipe.open(asyncio.get_running_loop())
    payload = os.urandom(3 * wire.CHUNK + 1)
    host.pipe.send_blob(7, payload, then=wire.encode([Kind.CANCEL, [7]]))
    host.pipe.flush()
    await turns(2)
    assert worker.frames == [[Kind.BLOB, 7, payload], [Kind.CANCEL, [7]]]


async def test_nobody_hears_a_pipe_that_was_closed(ends: tuple[End, End]) -> None:
    host, worker = ends
    host.pipe.open(asyncio.get_running_loop())
    worker.pipe.open(asyncio.get_running_loop())
    host.pipe.send(wire.encode([Kind.CANCEL, [1]]))
    host.pipe.flush()
    worker.pipe.close()
    await turns(2)
    assert worker.frames == []
    host.pipe.send(wire.encode([Kind.CANCEL, [2]]))
    host.pipe.flush()
    assert host.ends == [None]
    assert worker.ends == []


# ---- processes


class Rig:
    """The occupant of one process, with all that was reported to it."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.ends: list[tuple[int | None, str]] = []
        self.process = PairedWorkerHandle(
            CONFIG,
            time.time_ns,
            3,
            self.frames.append,
            lambda exitcode, cause: self.ends.append((exitcode, cause)),
        )

    def send(self, *frame: Any) -> None:
        self.process.pipe.send(wire.encode(list(frame)))
        self.process.pipe.flush()

    def kinds(self) -> list[Kind]:
        return [Kind(frame[0]) for frame in self.frames]


@pytest.fixture
async def rig(no_tasks_left: None) -> Rig:
    """A rig whose worker is ready."""
    rig = Rig()
    assert rig.process.pid == os.getpid()
    rig.process.start(asyncio.get_running_loop())
    rig.send(Kind.BOOT, b"", True)
    await turns()
    assert rig.kinds() == [Kind.READY, Kind.TICK]
    rig.frames.clear()
    return rig


async def test_it_ends_by_itself_when_it_is_told_to(rig: Rig) -> None:
    rig.send(Kind.CLOSE, 0.0)
    await turns()
    assert rig.ends == [(0, "")]
    assert rig.kinds() == [Kind.TICK]  # its last words
    assert (rig.process.pid, rig.process.dead) == (None, True)


async def test_one_that_is_killed_ends_once_and_like_by_the_signal(rig: Rig) -> None:
    rig.process.kill("it was silent")
    rig.process.kill("for another reason")
    assert rig.ends == []  # never from within `kill`
    await turns()
    assert rig.ends == [(-signal.SIGKILL, "it was silent")]
    assert rig.process.pid is None
    rig.process.kill()
    await turns()
    assert len(rig.ends) == 1


async def test_what_it_had_written_is_read_before_its_end(rig: Rig) -> None:
    rig.process.worker._pipe.send(wire.encode([Kind.DRAINING]))
    rig.process.worker._pipe.flush()
    rig.process.worker._pipe.send(wire.encode([Kind.FATAL, "not written yet"]))
    rig.process.kill()
    await turns()
    assert rig.kinds() == [Kind.DRAINING]
    assert len(rig.ends) == 1


async def test_what_cannot_be_read_is_the_cause(rig: Rig) -> None:
    rig.process.worker._pipe.send(b"no frame of ours")
    rig.process.worker._pipe.flush()
    await turns()
    ((exitcode, cause),) = rig.ends
    assert exitcode == -signal.SIGKILL
    assert cause.startswith("what it sends cannot be read: WireError")


async def test_it_knows_which_tasks_have_begun(rig: Rig) -> None:
    assert [rig.process.begun(scheduler) for scheduler in (0, 1)] == [(0, 0), (0, 0)]
    rig.process.worker._runner._begun[1] = 8
    rig.process.worker._runner._begun_on_word[0] = 9
    assert [rig.process.begun(scheduler) for scheduler in (0, 1)] == [(0, 9), (8, 0)]
    rig.process.kill()
    await turns()


async def test_a_worker_begins_without_the_hosts_context(no_tasks_left: None) -> None:
    decimal.setcontext(decimal.Context(prec=7))  # only in this context
    rig, shipper = Rig(), HostShipper(HostCatalog())
    rig.process.start(asyncio.get_running_loop())
    function, payload = shipper.take_function(decimal.getcontext), shipper.take_arguments(())
    for line in shipper.catalog.log.lines.values():
        rig.send(Kind.DEFINE, line, True)
    rig.send(Kind.BOOT, b"", True)
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, None, [payload])
    await turns(20)
    _, _, numbers, ending, (outcome,) = rig.frames[-1]
    assert (numbers, ending) == ([0], wire.FINISHED)
    assert shipper.catalog.decode_result(outcome).prec == 28
    assert rig.process.begun(0) == (1, 0)
    rig.process.kill()
    await turns()
