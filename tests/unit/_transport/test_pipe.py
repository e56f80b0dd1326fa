from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from spoiling import put_another

from aioscheduler._transport import pipe, wire
from aioscheduler._transport.pipe import Pipe
from aioscheduler._transport.wire import Kind


class End:
    """One end of a connection, with what it received."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.ends: list[Exception | None] = []
        self.refuse = False
        self.pipe = Pipe(self.receive, self.ends.append)

    def receive(self, frame: Any) -> None:
        if self.refuse:
            raise KeyError("what the frame speaks of")
        self.frames.append(frame)

    def say(self, number: int, **options: Any) -> None:
        self.pipe.send(wire.encode([Kind.CANCEL, [number]]), **options)
        self.pipe.flush()

    def heard(self) -> list[int]:
        return [frame[1][0] for frame in self.frames if frame[0] == Kind.CANCEL]


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    host, worker = End(), End()
    loop = asyncio.get_running_loop()
    down, up = os.pipe(), os.pipe()
    host.pipe.open(loop, up[0], down[1])
    worker.pipe.open(loop, down[0], up[1])
    yield host, worker
    host.pipe.close()
    worker.pipe.close()
    assert host.pipe.descriptors == worker.pipe.descriptors == [-1, -1]


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def test_frames_go_both_ways_in_order(ends: tuple[End, End]) -> None:
    host, worker = ends
    for number in range(500):
        host.say(number)
        worker.say(-number)
    await until(lambda: len(host.frames) == len(worker.frames) == 500)
    assert worker.heard() == list(range(500))
    assert host.heard() == [-n for n in range(500)]


async def test_what_the_pipe_does_not_take_waits(ends: tuple[End, End]) -> None:
    """And a frame counts as written only when the other side will certainly get it."""
    host, worker = ends
    down, idle = os.pipe(), os.pipe()
    host.pipe.close()
    host.pipe = Pipe(host.receive, host.ends.append)
    host.pipe.open(asyncio.get_running_loop(), idle[0], down[1])  # read by hand, below
    written: list[str] = []
    host.say(1, written=lambda: written.append("small"))
    assert written == ["small"]
    for _ in range(20):
        host.pipe.send(wire.encode([Kind.DEFINE, b"x" * 500_000, True]))
    host.say(2, written=lambda: written.append("behind"))
    assert written == ["small"]
    assert host.pipe.waiting > 5_000_000
    drained = asyncio.create_task(host.pipe.drain(1_000_000))
    decoder = wire.Decoder()
    frames: list[Any] = []
    os.set_blocking(down[0], False)
    while len(frames) < 22:
        await asyncio.sleep(0)
        try:
            frames += decoder.feed(os.read(down[0], 100_000))
        except BlockingIOError:
            assert not written[1:]
        if host.pipe.waiting > 1_000_000:
            assert not drained.done()
    await drained
    await until(lambda: written == ["small", "behind"])
    assert host.pipe.waiting == 0
    os.close(down[0])
    os.close(idle[1])


async def test_small_frames_pass_between_the_chunks_of_a_blob(ends: tuple[End, End]) -> None:
    host, worker = ends
    one, two = os.urandom(6_000_000), os.urandom(3_000_000)
    host.pipe.send_blob(1, one)
    host.pipe.send_blob(2, two, then=wire.encode([Kind.CANCEL, [222]]))
    host.pipe.flush()
    for number in range(50):
        host.say(number)
        await asyncio.sleep(0)
    await until(lambda: len(worker.frames) == 53)
    blobs = {frame[1]: frame[2] for frame in worker.frames if frame[0] == Kind.BLOB}
    assert blobs == {1: one, 2: two}
    kinds = [frame[0] for frame in worker.frames]
    assert kinds.index(Kind.BLOB) > 20  # most of the small ones came first
    assert worker.heard().index(222) > 20
    order = [f[1] if f[0] == Kind.BLOB else f[1][0] for f in worker.frames]
    assert order.index(222) > order.index(2)


async def test_a_blob_that_is_sent_again_arrives_whole_and_once(ends: tuple[End, End]) -> None:
    host, worker = ends
    large = os.urandom(6_000_000)
    host.pipe.send_blob(1, large)
    host.pipe.flush()
    assert 0 < host.pipe.waiting < 6_000_000  # it is being sent
    host.pipe.send_blob(1, large)
    host.say(5)
    await until(lambda: host.pipe.waiting == 0 and len(worker.frames) >= 2)
    assert [frame[2] for frame in worker.frames if frame[0] == Kind.BLOB] == [large]
    assert not worker.pipe._parts


async def test_half_a_frame_at_the_end_is_dropped(ends: tuple[End, End]) -> None:
    host, worker = ends
    whole = wire.encode([Kind.CANCEL, [1]])
    os.write(host.pipe.descriptors[1], whole + whole[:-1])
    host.pipe.close()
    await until(lambda: worker.ends)
    assert (worker.heard(), worker.ends) == ([1], [None])
    worker.pipe.read_rest()
    assert worker.ends == [None]


async def test_the_rest_is_read_up_to_what_is_there(ends: tuple[End, End]) -> None:
    host, worker = ends
    for number in range(100):
        host.say(number)
    worker.pipe.read_rest()
    assert worker.heard() == list(range(100))
    assert worker.ends == []


async def test_garbage_ends_the_stream_with_an_error(ends: tuple[End, End]) -> None:
    host, worker = ends
    os.write(host.pipe.descriptors[1], b"\xff" * 10)
    await until(lambda: worker.ends)
    assert isinstance(worker.ends[0], wire.WireError)


async def test_a_refused_frame_is_reported_once_and_the_rest_is_read(
    ends: tuple[End, End],
) -> None:
    """Because it says which tasks have begun, even after that frame."""
    host, worker = ends
    worker.refuse = True
    host.say(1)
    host.say(2)
    await until(lambda: worker.ends)
    worker.refuse = False
    host.say(3)
    await until(lambda: worker.frames)
    assert [type(end) for end in worker.ends] == [KeyError]
    assert worker.heard() == [3]


async def test_an_error_in_beginning_announced_tasks_is_reported(ends: tuple[End, End]) -> None:
    host, _ = ends

    def begin() -> None:
        raise MemoryError

    host.say(1, written=begin)
    assert [type(end) for end in host.ends] == [MemoryError]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_descriptor_that_other_code_closes_is_noticed(
    ends: tuple[End, End], index: int, replaced: bool
) -> None:
    host, _ = ends
    host.pipe.check()
    assert not host.ends
    fd = host.pipe.descriptors[index]
    os.close(fd)
    if replaced:
        put_another(fd)
    host.pipe.check()
    host.pipe.check()
    assert [type(end) for end in host.ends] == [OSError]
    host.pipe.close()
    if replaced:  # it was not ours to close
        os.fstat(fd)
        os.close(fd)


async def test_a_payload_that_memory_has_no_room_for_is_none(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(size: int) -> bytearray:
        raise MemoryError

    host, worker = ends
    monkeypatch.setattr(pipe, "bytearray", none_left, raising=False)
    host.pipe.send_blob(7, bytes(200_000))
    host.say(1)
    await until(lambda: len(worker.frames) == 2)
    assert [Kind.BLOB, 7, None] in worker.frames
    assert not worker.ends


async def test_nobody_reads_any_more(ends: tuple[End, End]) -> None:
    host, worker = ends
    worker.pipe.close()
    for number in range(10):
        host.say(number)
    assert host.pipe.waiting == 0
    assert host.ends == [None]
    await host.pipe.drain()
    await until(lambda: host.ends)
    assert host.ends == [None]
