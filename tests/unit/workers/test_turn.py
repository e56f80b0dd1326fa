"""The outcomes of one turn of the loop are written together."""

from __future__ import annotations

import asyncio
from typing import Any

from solo import Rig
from turning import turns

from aioscheduler._processes.process import workers_module
from aioscheduler._transport import wire
from aioscheduler._transport.wire import CANCELLED, FAILED, FINISHED, Kind

turn_module = workers_module("turn")


async def test_outcomes_of_a_turn_are_one_frame_for_each_ending(rig: Rig) -> None:
    function = rig.shipper.take_function(int)
    rig.tell_definitions()
    payloads = ["1", "no number", "3", "4"]
    rig.send(Kind.SCHEDULE, 7, 0, 0, function, None, payloads)
    await turns()
    started, returned, raised = rig.take()
    assert started == [Kind.ANNOUNCED, 0, [7, 8, 9, 10]]
    assert returned == [Kind.ENDED, 0, [7, 9, 10], FINISHED, [1, 3, 4]]
    assert raised[:4] == [Kind.ENDED, 0, [8], FAILED]
    assert isinstance(rig.failure(raised[4][0]), ValueError)


class Pipe:
    """Records the frames sent, decoded, and the number of flushes."""

    def __init__(self) -> None:
        self.frames: list[list[Any]] = []
        self.flushed = 0
        self.fails = False

    def send(self, data: bytes) -> None:
        if self.fails:
            raise MemoryError("no room")
        self.frames += wire.Decoder().feed(data)

    def send_blob(self, number: int, payload: bytes, then: bytes) -> None:
        self.send(wire.encode([Kind.BLOB, number, b"", len(payload)]))
        self.send(then)

    def flush(self) -> None:
        self.flushed += 1


def make_turn(schedulers: int = 2) -> tuple[Any, Pipe, list[BaseException]]:
    pipe: Any = Pipe()
    failures: list[BaseException] = []
    turn = turn_module.Turn(pipe, schedulers, failures.append)
    return turn, pipe, failures


async def test_all_that_comes_within_a_turn_is_written_at_its_end() -> None:
    turn, pipe, _ = make_turn()
    turn.begin(asyncio.get_running_loop())
    turn.report(1, 5, FINISHED, "a")
    turn.report(0, 6, CANCELLED, None)
    turn.retry(1, 7, 50, "why")
    turn.report(1, 8, FINISHED, 2.5)
    turn.retry(1, 9, 60, "so")
    assert (pipe.frames, pipe.flushed) == ([], 0)
    await asyncio.sleep(0)
    assert pipe.flushed == 1
    assert pipe.frames == [
        [Kind.ENDED, 0, [6], CANCELLED, [None]],
        [Kind.ENDED, 1, [5, 8], FINISHED, ["a", 2.5]],
        [Kind.RETRY, 1, [7, 9], [50, 60], ["why", "so"]],
    ]
    await asyncio.sleep(0)
    assert pipe.flushed == 1  # nothing new


def test_frames_are_no_longer_than_they_may_be() -> None:
    turn, pipe, _ = make_turn(1)
    count = 3 * turn_module.MAX_OUTCOMES // 2
    for number in range(count):
        turn.report(0, number, FINISHED, number)
    for number in range(40):
        turn.report(0, number, FAILED, b"x" * wire.BLOB_LIMIT)
    for number in range(count):
        turn.retry(0, number, 1, "é" * 10**6)
    turn.report(0, 1, FAILED, b"x" * (wire.BLOB_LIMIT + 1))
    turn.pack()
    kinds = [frame[0] for frame in pipe.frames]
    told = [n for frame in pipe.frames if frame[3] == FINISHED for n in frame[2]]
    assert told == list(range(count))
    assert [n for frame in pipe.frames if frame[0] == Kind.RETRY for n in frame[2]] == told
    assert max(len(wire.encode(frame)) for frame in pipe.frames) < wire.MAX_FRAME // 2
    large = kinds.index(Kind.BLOB)
    assert pipe.frames[large + 1] == [Kind.ENDED, 0, [1], FAILED, [wire.IN_BLOB]]


async def test_outcomes_that_cannot_be_sent_fail_the_worker() -> None:
    turn, pipe, failures = make_turn()
    turn.begin(asyncio.get_running_loop())
    pipe.fails = True
    turn.report(0, 1, FINISHED, 1)
    await asyncio.sleep(0)
    (error,) = failures
    assert isinstance(error, MemoryError)


async def test_after_its_stop_nothing_is_written() -> None:
    turn, pipe, _ = make_turn()
    turn.begin(asyncio.get_running_loop())
    turn.report(0, 1, FINISHED, 1)
    turn.stop()
    turn.report(0, 2, FINISHED, 1)
    await asyncio.sleep(0)
    assert (pipe.frames, pipe.flushed) == ([], 0)
