"""Sends the outbox to the process in a worker's slot.

    outbox ─┬─► Sender ─(the end of the loop's turn, or enough)─► pipe of the present process
            └─► restart ─► a new process, which gets nothing else before it is up to date

An exception while sending ends the process: the next one is sent everything. Cancelling all tasks
of the loop also cancels the update of a new process, which then goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial

from .._processes.workerhandle import WorkerHandle
from .._scheduling.holdback import HoldBack
from .._transport import wire
from .._transport.outbox import Outbox
from .._transport.pipe import HIGH_WATER, Pipe
from .._transport.wire import Kind

Blobs = Iterable[tuple[int, bytes]]


class Sender:
    """The sending side of one worker's slot.

    Args:
        outbox: The outbox to send.
        boot: The BOOT payload: the initializer, and what propagates; b"": neither.

    Attributes:
        turn: Sends at the end of this turn of the loop, if there is something to send.
    """

    def __init__(self, outbox: Outbox, boot: bytes) -> None:
        self.turn: asyncio.Handle | None = None
        self._outbox = outbox
        self._boot = boot
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process: WorkerHandle | None = None  # the process, once it is up to date
        self._updating: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None  # done while a process is up to date

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Prepare for the first process."""
        self._loop, self._ready = loop, loop.create_future()

    def update(self, process: WorkerHandle, frames: Iterator[bytes], blobs: Blobs) -> None:
        """Bring a new process up to date, and then send BOOT."""
        assert self._loop is not None
        self._updating = self._loop.create_task(self._update(process, frames, blobs))
        self._updating.add_done_callback(partial(self._was_updated, process, frames, blobs))

    def _was_updated(
        self,
        process: WorkerHandle,
        frames: Iterator[bytes],
        blobs: Blobs,
        updating: asyncio.Task[None],
    ) -> None:
        """Go on if somebody else cancelled the update: the process would wait for ever."""

        def go_on() -> None:
            if updating is self._updating:  # else the process has ended, or must
                self.update(process, frames, blobs)

        if updating is self._updating and self._loop is not None:
            HoldBack(go_on).begin(self._loop)

    async def _update(self, process: WorkerHandle, frames: Iterator[bytes], blobs: Blobs) -> None:
        """Send the frames of unfinished tasks, as fast as they are read."""
        try:
            for frame in frames:
                process.pipe.send(frame)
                if process.pipe.waiting > HIGH_WATER:
                    process.pipe.flush()
                    await process.pipe.drain(HIGH_WATER)
            boot = (wire.encode([Kind.BOOT, *part]) for part in wire.cut(self._boot))
            _send(process.pipe, boot, blobs)
        except Exception as error:  # noqa: BLE001  whatever it is, this process is not up to date
            process.kill(f"it cannot be brought up to date: {error!r}")
            return
        self._process, self._updating = process, None
        self._release()
        self.now()

    def disconnect(self) -> None:
        """Stop sending to the present process; `flush` waits for the next one."""
        self.stop_updating()
        self._process = None
        if self._ready is not None and self._ready.done() and self._loop is not None:
            self._ready = self._loop.create_future()

    def end(self) -> None:
        """Stop sending for good; `flush` returns."""
        self.disconnect()
        self._release()

    def stop_updating(self) -> None:
        """Stop bringing a new process up to date: it must end."""
        if self._updating is not None:
            self._updating.cancel()
            self._updating = None

    def _release(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def soon(self) -> None:
        """Send at the end of this turn of the loop, or now if there is enough for a write."""
        if self._outbox.full:
            self.now()
        elif self.turn is None and self._loop is not None:
            self.turn = self._loop.call_soon(self.now)

    def now(self) -> None:
        """Send what has been collected, in one write."""
        if self.turn is not None:
            self.turn.cancel()
            self.turn = None
        if self._process is None:
            return
        try:
            _send(self._process.pipe, *self._outbox.take())
            self._process.pipe.flush()
        except Exception as error:  # noqa: BLE001  the next process is sent everything again
            process, self._process = self._process, None
            process.kill(f"it cannot be sent its tasks: {error!r}")

    async def flush(self) -> None:
        """Wait until fewer than `pipe.HIGH_WATER` bytes are unwritten.

        While a process is replaced, wait until the next one is up to date.
        """
        self.now()
        if self._process is None and self._ready is not None and self._outbox.size > HIGH_WATER:
            await asyncio.shield(self._ready)
        if self._process is not None:
            await self._process.pipe.drain(HIGH_WATER)


def _send(pipe: Pipe, frames: Iterable[bytes], blobs: Blobs) -> None:
    for frame in frames:
        pipe.send(frame)
    for number, payload in blobs:
        pipe.send_blob(number, payload)
