"""The sending side: a new process is brought up to date first; one write a turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from turning import turns

from aioscheduler._routing.sending import Sender
from aioscheduler._scheduling import holdback
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import DefinitionLog
from aioscheduler._transport.outbox import Outbox
from aioscheduler._transport.pipe import HIGH_WATER
from aioscheduler._transport.wire import Kind


class Pipe:
    """Accepts frames, and writes them on request."""

    def __init__(self) -> None:
        self.waiting = 0
        self.frames: list[bytes] = []
        self.blobs: list[int] = []
        self.flushes = 0
        self.raises: Exception | None = None
        self.room = asyncio.Event()

    def send(self, frame: bytes) -> None:
        if self.raises is not None:
            raise self.raises
        self.frames.append(frame)
        self.waiting += len(frame)

    def send_blob(self, number: int, payload: bytes) -> None:
        self.blobs.append(number)

    def flush(self) -> None:
        self.flushes += 1

    async def drain(self, level: int) -> None:
        if self.waiting > level:
            await self.room.wait()

    def kinds(self) -> list[Kind]:
        return [frame[0] for frame in wire.Decoder().feed(b"".join(self.frames))]


class Life:
    pid = 1
    node: None = None
    usage: None = None
    shared_end: None = None

    def __init__(self) -> None:
        self.pipe: Any = Pipe()
        self.killed: list[str] = []

    def blocked(self) -> None: ...

    def begun(self, scheduler: int) -> tuple[int, int]:
        return 0, 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None: ...

    def kill(self, cause: str = "") -> None:
        self.killed.append(cause)


@pytest.fixture
async def outbox() -> Outbox:
    return Outbox(DefinitionLog())


@pytest.fixture
async def sender(outbox: Outbox) -> Sender:
    made = Sender(outbox, b"")
    made.start(asyncio.get_running_loop())
    return made


async def told(sender: Sender, outbox: Outbox) -> Life:
    life = Life()
    sender.update(life, *outbox.restart())
    while sender._updating is not None:
        await asyncio.sleep(0)
    return life


async def test_a_process_is_sent_everything_and_then_boot(sender: Sender, outbox: Outbox) -> None:
    outbox.add(0, 5, 0, 1)
    outbox.add(0, 5, 0, b"x" * (wire.BLOB_LIMIT + 1))
    sender.soon()
    sender.now()  # there is no process
    life = await told(sender, outbox)
    assert life.pipe.kinds() == [Kind.SCHEDULE, Kind.BOOT]
    assert life.pipe.blobs == [1]


async def test_what_comes_in_one_turn_is_one_write(sender: Sender, outbox: Outbox) -> None:
    life = await told(sender, outbox)
    flushes = life.pipe.flushes
    for number in range(3):
        outbox.add(0, 5, 0, number)
        sender.soon()
    assert life.pipe.kinds() == [Kind.BOOT]
    await asyncio.sleep(0)
    assert life.pipe.kinds() == [Kind.BOOT, Kind.SCHEDULE]
    assert life.pipe.flushes == flushes + 1


async def test_enough_for_a_write_does_not_wait_for_the_end_of_the_turn(
    sender: Sender, outbox: Outbox
) -> None:
    life = await told(sender, outbox)
    outbox.add_many(0, 5, 0, [1, 2])
    sender.soon()
    assert life.pipe.kinds() == [Kind.BOOT, Kind.SCHEDULE]
    assert sender.turn is None


async def test_tasks_scheduled_during_an_update_follow_it(sender: Sender, outbox: Outbox) -> None:
    outbox.add(0, 5, 0, 1)
    life = Life()
    sender.update(life, *outbox.restart())
    outbox.add(0, 5, 0, 2)
    outbox.request(Kind.CANCEL, 0, 0)
    sender.soon()
    for _ in range(3):
        await asyncio.sleep(0)
    assert life.pipe.kinds() == [Kind.SCHEDULE, Kind.BOOT, Kind.SCHEDULE, Kind.CANCEL]


@pytest.mark.parametrize("when", ["told", "sent"])
async def test_a_process_that_cannot_be_updated_is_killed_and_gets_nothing_more(
    sender: Sender, outbox: Outbox, when: str
) -> None:
    life = Life()
    if when == "told":
        life.pipe.raises = MemoryError("none")
    sender.update(life, *outbox.restart())
    await asyncio.sleep(0)
    life.pipe.raises = MemoryError("none")
    outbox.add(0, 5, 0, 1)
    sender.now()
    sender.now()
    what = "brought up to date" if when == "told" else "sent its tasks"
    assert life.killed == [f"it cannot be {what}: MemoryError('none')"]
    sender.disconnect()
    assert (await told(sender, outbox)).pipe.kinds() == [Kind.SCHEDULE, Kind.BOOT]


async def test_a_process_that_ends_during_its_update_is_sent_no_more(
    sender: Sender, outbox: Outbox
) -> None:
    life = Life()
    sender.update(life, *outbox.restart())
    sender.disconnect()
    await asyncio.sleep(0)
    assert not life.pipe.frames


def fill(outbox: Outbox) -> None:
    while outbox.size <= HIGH_WATER:
        outbox.add_many(0, 5, 0, [b"x" * 30_000] * 3)


@pytest.mark.parametrize("after", [0, 1])
async def test_an_update_that_somebody_else_has_cancelled_goes_on_where_it_was(
    sender: Sender, outbox: Outbox, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdback, "LOOK_EVERY", 0)
    for _ in range(100):
        outbox.add_many(0, 5, 0, [b"x" * 30_000] * 3)
    life, other = Life(), Life()
    other.pipe.room.set()
    sender.update(life, *outbox.restart())
    for _ in range(3):
        await turns(after)  # before its first step, or while it waits for room
        assert sender._updating is not None
        sender._updating.cancel()
        await asyncio.sleep(0.001)
    assert Kind.BOOT not in life.pipe.kinds()
    life.pipe.room.set()
    await turns()
    sender.disconnect()
    sender.update(other, *outbox.restart())
    await turns()
    assert life.pipe.kinds()[-1] == Kind.BOOT
    assert life.pipe.frames == other.pipe.frames


async def test_an_update_that_was_cancelled_does_not_go_on_when_its_process_has_ended(
    sender: Sender, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdback, "LOOK_EVERY", 0)
    life = Life()
    sender.update(life, *outbox.restart())
    assert sender._updating is not None
    sender._updating.cancel()
    await turns(3)  # its restart is held back
    sender.disconnect()
    await asyncio.sleep(0.001)
    await turns()
    assert not life.pipe.frames


async def test_flush_waits_for_the_next_process_or_for_room(sender: Sender, outbox: Outbox) -> None:
    sender.disconnect()
    fill(outbox)
    flushing = asyncio.create_task(sender.flush())
    await asyncio.sleep(0)
    assert not flushing.done()
    for _ in range(2):  # the first one dies while it is updated
        sender.disconnect()
        life = Life()
        sender.update(life, *outbox.restart())
        await asyncio.sleep(0)
        assert not flushing.done()  # the pipe is full
    life.pipe.room.set()
    await asyncio.wait_for(flushing, 5)


async def test_flush_goes_on_when_nobody_will_come(sender: Sender, outbox: Outbox) -> None:
    while outbox.size <= HIGH_WATER:
        outbox.add(0, 5, 7, bytes(1 << 20))  # large payloads count, too
    flushing = asyncio.create_task(sender.flush())
    await asyncio.sleep(0)
    assert not flushing.done()
    sender.end()
    await asyncio.wait_for(flushing, 5)
