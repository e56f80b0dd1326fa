"""The handle of a process on another machine: its pipe, and its one end."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from aioscheduler._outpost.outgoing import PART, WINDOW
from aioscheduler._outpost.workerhandle import OutpostWorkerHandle
from aioscheduler._processes.budget import NOT_HAD
from aioscheduler._processes.process import make_loop
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.order import Order
from aioscheduler._transport import wire
from aioscheduler._transport.wire import Kind

CONFIG = WorkerConfig(
    manager="m", order=Order.TIMED, layout=(3, 2), prefer_utc=True, host=0, worker=1
)


class Carrier:
    """A fake carrier, which fails on request."""

    def __init__(self) -> None:
        self.end = object()
        self.node: str | None = "n1"
        self.has_room = True
        self.carried: list[bytes] = []
        self.acks: list[tuple[int, int]] = []
        self.added: list[OutpostWorkerHandle] = []
        self.killed: list[OutpostWorkerHandle] = []
        self.fails = False

    def connect(self, rig: int, loop: Any) -> Carrier:
        if self.fails:
            raise OSError("no launcher")
        return self

    def carry(self, rig: int, process: int, data: bytes) -> None:
        assert (rig, process) == (1, 7)
        self.carried.append(data)

    def took(self, rig: int, process: int, count: int, total: int) -> None:
        self.acks.append((count, total))

    def add(self, process: OutpostWorkerHandle) -> None:
        self.added.append(process)

    def kill(self, process: OutpostWorkerHandle) -> None:
        self.killed.append(process)


class Rig:
    def __init__(self, loop_initializer: Any = None) -> None:
        self.carrier = Carrier()
        self.frames: list[Any] = []
        self.ends: list[tuple[int | None, str]] = []
        self.process = OutpostWorkerHandle(
            CONFIG,
            loop_initializer,
            lambda: {"root": 20},
            self.carrier.connect,
            7,
            self.frames.append,
            lambda exitcode, cause: self.ends.append((exitcode, cause)),
        )

    def start(self) -> OutpostWorkerHandle:
        self.process.start(asyncio.get_running_loop())
        return self.process


@pytest.fixture
async def rig() -> Rig:
    made = Rig()
    made.start()
    return made


def frame(size: int = 10) -> bytes:
    return wire.encode([Kind.DEFINE, b"x" * size, True])


async def test_frames_go_by_the_connection_and_are_whole_at_the_end(rig: Rig) -> None:
    pipe = rig.process.pipe
    pipe.send(frame())
    pipe.send(frame(200_000))
    pipe.flush()
    assert b"".join(rig.carrier.carried) == frame() + frame(200_000)
    assert max(map(len, rig.carrier.carried)) <= PART
    assert pipe.waiting == 0


async def test_what_a_worker_has_not_taken_is_a_window_at_most(rig: Rig) -> None:
    pipe, carrier = rig.process.pipe, rig.carrier
    for _ in range(60):
        pipe.send(frame(100_000))
    pipe.flush()
    sent = sum(map(len, carrier.carried))
    assert sent == WINDOW
    assert pipe.waiting == 60 * len(frame(100_000)) - WINDOW
    waiter = asyncio.ensure_future(pipe.drain())
    pipe.acknowledge(1_000_000)
    assert sum(map(len, carrier.carried)) == WINDOW + 1_000_000
    pipe.acknowledge(900_000)  # late, and nothing new
    pipe.acknowledge(10**9)
    await waiter
    assert b"".join(carrier.carried) == 60 * frame(100_000)


async def test_before_there_is_a_connection_frames_wait(rig: Rig) -> None:
    rig.carrier.has_room = False
    pipe = rig.process.pipe
    pipe.send(frame())
    pipe.flush()
    pipe.go_on()
    assert not rig.carrier.carried
    rig.carrier.has_room = True
    pipe.go_on()
    assert rig.carrier.carried == [frame()]


async def test_arriving_bytes_are_read_and_acknowledged(rig: Rig) -> None:
    data = wire.encode([Kind.READY]) + wire.encode([Kind.DRAINING])
    for byte in data:
        rig.process.pipe.arrive(bytes([byte]))
    assert [found[0] for found in rig.frames] == [Kind.READY, Kind.DRAINING]
    assert rig.carrier.acks[-1] == (1, len(data))
    rig.process.pipe.read_rest()


async def test_a_worker_that_writes_nonsense_is_killed(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.process.pipe.arrive(b"\xff" * 100)
    assert rig.carrier.killed == [rig.process]
    assert "what it sends cannot be read" in caplog.text
    rig.process.pipe.arrive(wire.encode([Kind.READY]))  # and is no longer read
    assert not rig.frames
    rig.process.finish(-9, "it says", [], None)
    assert rig.ends[0][0] == -9
    assert "cannot be read" in rig.ends[0][1]


async def test_its_end_is_reported_once_with_its_details(rig: Rig) -> None:
    process = rig.process
    process.pid = 12
    assert not rig.ends
    process.finish(-11, "Segmentation fault", [[3, 0], [0, 5]], [1, 4])
    process.finish(None, "its node is gone", shared=object())
    assert rig.ends == [(-11, "Segmentation fault")]
    assert (process.begun(0), process.begun(1)) == ((3, 0), (0, 5))
    assert process.blocked() == (1, 4)
    assert process.shared_end is None
    assert process.pid is None
    process.pipe.send(frame())
    process.pipe.flush()
    assert not rig.carrier.carried
    process.kill("it is late")
    assert not rig.carrier.killed


async def test_what_was_never_there_was_not_had(rig: Rig) -> None:
    rig.process.finish(None, "gone", shared=rig.carrier.end)
    assert rig.process.shared_end is NOT_HAD


async def test_on_a_lost_node_begun_is_unknown(rig: Rig) -> None:
    rig.process.pid = 12
    rig.process.finish(None, "gone", shared=rig.carrier.end)
    assert rig.process.begun(0) is None
    assert rig.process.blocked() is None
    assert rig.process.shared_end is rig.carrier.end


async def test_without_a_launcher_start_raises_and_reports_nothing() -> None:
    rig = Rig()
    rig.carrier.fails = True
    with pytest.raises(OSError, match="no launcher"):
        rig.start()
    assert (rig.process.node, rig.process.has_room) == (None, False)
    rig.process.kill()
    assert not rig.ends


async def test_a_loop_that_cannot_travel_is_refused() -> None:
    lock = __import__("threading").Lock()
    rig = Rig(lambda: lock)
    with pytest.raises(OSError, match="cannot travel"):
        rig.start()
    assert not rig.carrier.added


async def test_the_order_has_lead_node_and_levels() -> None:
    rig = Rig(lambda: "a loop")
    process = rig.start()
    packed, loop = process.order(123)
    config = pickle.loads(packed)
    assert (config.generation, config.clock_lead, config.node) == (7, 123, "n1")
    assert config.log_levels == {"root": 20}
    assert loop is not None
    assert make_loop(loop) == "a loop"
    assert Rig().start().order(1)[1] is None


async def test_a_new_lead_is_a_frame_among_the_others(rig: Rig) -> None:
    rig.process.pipe.send(frame())
    rig.process.set_lead(99)
    decoder = wire.Decoder()
    (first, second) = decoder.feed(b"".join(rig.carrier.carried))
    assert first[0] == Kind.DEFINE
    assert second == [Kind.CLOCK, 99]
