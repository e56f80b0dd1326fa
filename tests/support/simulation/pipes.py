"""Pipes whose bytes are delayed, cut anywhere, and may be lost."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from aioscheduler._processes.paired import Channel, PairedPipe
from aioscheduler._transport import wire
from aioscheduler._transport.pipe import Closed, Receive
from aioscheduler._transport.wire import Kind

if TYPE_CHECKING:
    from .lives import Life

CAPACITIES = (4096, 20_000, 1 << 20)
# These must be read: their tasks have begun, and nothing else says so.
_BINDING = frozenset((Kind.ANNOUNCED,))
_KIND_AT = 5  # of an encoded frame: after its length and the head of a short array
_SAID = frozenset((Kind.ANNOUNCED, Kind.PROPOSED, Kind.RETRY))  # sent by the worker


class SimulatedChannel(Channel):
    """A stream of delayed bytes.

    Attributes:
        life: The life it belongs to.
        cut: Whether written bytes are lost silently.
        writer: The writer that waits for room.
    """

    def __init__(
        self, life: Life, loop: asyncio.AbstractEventLoop, generator: random.Random
    ) -> None:
        super().__init__()
        self.life = life
        self.cut = False
        self.writer: SimulatedPipe | None = None
        self._loop = loop
        self._random = generator
        self._capacity = generator.choice(CAPACITIES)
        self._slowness = generator.choice((0.0, 0.001, 0.3))
        self._under_way: deque[bytes] = deque()
        self._held = 0  # bytes written and not read
        self._frozen_until = 0.0

    def write(self, data: memoryview) -> int:
        if self.cut:
            return len(data)
        if self.closed:
            raise BrokenPipeError
        room = self._capacity - self._held
        if room < min(len(data), self._capacity // 4):  # as a real pipe, else bytes come singly
            raise BlockingIOError
        count = min(room, len(data))
        if self._random.random() < 0.2:
            count = self._random.randint(1, count)
        self._under_way.append(bytes(data[:count]))
        self._held += count
        self._loop.call_later(self._random.random() * self._slowness, self._arrive)
        return count

    def freeze(self, seconds: float) -> None:
        self._frozen_until = self._loop.time() + seconds

    def _arrive(self) -> None:
        left = self._frozen_until - self._loop.time()
        if left > 0:
            self._loop.call_later(left, self._arrive)
        elif self._under_way:
            self._arrived += self._under_way.popleft()
            self.tell_reader()

    def arrive_at_once(self) -> None:
        """Close it; written bytes survive the writer."""
        self._arrived += b"".join(self._under_way)
        self._under_way.clear()

    def lose(self) -> None:
        """Lose all unread bytes, and all that will be written."""
        self.cut = True
        self._under_way.clear()
        self._arrived.clear()

    def read(self) -> bytes:
        data = super().read()
        if self._random.random() < 0.2:
            count = self._random.randint(1, len(data))
            data, self._arrived[:0] = data[:count], data[count:]
            self.tell_reader()
        self._held -= len(data)
        if self.writer is not None:
            self._loop.call_soon(self.writer.room_now, context=self.writer.context)
        return data


class SimulatedPipe(PairedPipe):
    """A pipe that has to wait for room, refuses some frames, and lets the model listen."""

    def __init__(
        self,
        inward: SimulatedChannel,
        outward: SimulatedChannel,
        context: contextvars.Context,
        receive: Receive,
        closed: Closed,
    ) -> None:
        super().__init__(inward, outward, context, self._receive_or_refuse, closed)
        outward.writer = self
        self._life = inward.life
        self._hosts = inward is inward.life.to_host
        self._take = receive

    def _receive_or_refuse(self, frame: list[Any]) -> None:
        life = self._life
        if self._hosts:
            if frame[0] not in _BINDING:
                life.suffer(0.002)
            life.world.model.host_is_told(life, frame)
            self._take(frame)
            if frame[0] in _BINDING:
                life.suffer(0.002)
        else:
            life.suffer(0.002)
            life.is_told(frame)
            self._take(frame)

    def send(self, frame: bytes, written: Callable[[], None] | None = None) -> None:
        self._life.suffer(0.001)
        kind, life = frame[_KIND_AT], self._life
        if self._hosts and kind == Kind.DRAIN:
            life.world.recycled.tells_to_go(life)
        if not self._hosts and kind in _SAID:
            numbers = wire.unpack(frame[4:])[2]
            life.tells(kind, numbers)
            if kind != Kind.RETRY:
                super().send(frame, partial(life.has_written, numbers, written))
                return
        super().send(frame, written)

    def room_now(self) -> None:
        if self._waits_for_room and self.descriptors[1] >= 0:
            self._waits_for_room = False
            self.flush()

    def _wait_for_room(self, wait: bool) -> None:
        self._waits_for_room = wait
