"""A worker in the host's own thread and loop: no process, and pipes in memory.

     host's context                      │ worker's context
                                         │
    Supervisor ─► PairedWorkerHandle     │
                    └ PairedPipe ─── Channel ──► PairedPipe ─► Worker
                                 ◄── Channel ───

Both ends are the real ones: everything is encoded, framed and decoded as between processes, and
arrives as copies. Each side's callbacks have context variables of their own; a worker begins
without any. Two things differ in one process: modules are shared, and with them the globals of
functions that travel by name; and a task cannot be killed: it is cancelled, and ignored from then
on.
"""

from __future__ import annotations

import asyncio
import os
import signal
from array import array
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import replace
from functools import partial
from typing import Any

from .._transport.pipe import Closed, Pipe, Receive
from .process import workers_module
from .workerconfig import WorkerConfig
from .workerhandle import Ended


class Channel:
    """Bytes under way in one direction: written now, read at the reader's next turn.

    Attributes:
        reader: The pipe to notify when there is something to read.
        closed: Whether nobody will read any more.
    """

    def __init__(self) -> None:
        self.reader: PairedPipe | None = None
        self.closed = False
        self._arrived = bytearray()

    def write(self, data: memoryview) -> int:
        """Accept bytes, as `os.write` does.

        Raises:
            BrokenPipeError: Nobody will read them.
        """
        if self.closed:
            raise BrokenPipeError
        self._arrived += data
        self.tell_reader()
        return len(data)

    def read(self) -> bytes:
        """Return what has arrived.

        Raises:
            BlockingIOError: There is nothing.
        """
        if not self._arrived:
            raise BlockingIOError
        data = bytes(self._arrived)
        self._arrived.clear()
        return data

    def tell_reader(self) -> None:
        """Notify the reader, if there is one yet."""
        if self.reader is not None:
            self.reader.read_soon()


class PairedPipe(Pipe):
    """The real framing over two channels.

    Args:
        inward: The channel that it reads.
        outward: The channel that it writes.
        context: The context in which its side runs.
        receive: As for `Pipe`.
        closed: As for `Pipe`.
    """

    def __init__(
        self,
        inward: Channel,
        outward: Channel,
        context: Context,
        receive: Receive,
        closed: Closed,
    ) -> None:
        super().__init__(receive, closed)
        self.context = context
        self._inward, self._outward = inward, outward

    def open(self, loop: asyncio.AbstractEventLoop, reader: int = 0, writer: int = 0) -> None:
        """Begin to read and write the channels; descriptors are not needed."""
        self._loop = loop
        self.descriptors[:] = 0, 0  # they only show that it is open
        self._inward.reader = self
        self.read_soon()
        self.flush()

    def close(self) -> None:
        """Stop reading and writing."""
        self._has_ended = True
        self._stop_reading()
        self.descriptors[1] = -1
        self._inward.closed = True
        self._drop()

    def read_soon(self) -> None:
        """Read at the next turn of the loop, as if the loop had found it readable."""
        assert self._loop is not None
        self._loop.call_soon(self.read_now, context=self.context)

    def read_now(self) -> None:
        """Read, if it is still open."""
        if self.descriptors[0] >= 0:
            self._readable()

    def _read(self) -> bytes:
        return self._inward.read()

    def _write(self, data: memoryview) -> int:
        return self._outward.write(data)

    def _stop_reading(self) -> None:
        self.descriptors[0] = -1
        self._inward.reader = None


class PairedWorkerHandle:
    """A worker (`workerhandle.WorkerHandle`) that shares the host's thread.

    Args:
        config: As for `LocalWorkerHandle`.
        clock: Returns the worker's present, in nanoseconds since the epoch.
        generation: Which process of its slot this is, from 0.
        receive: Called with each frame.
        ended: As for `workerhandle.MakeWorkerHandle`.
    """

    node: None = None
    usage: None = None
    shared_end: None = None
    _pipe_class: type[PairedPipe] = PairedPipe

    def __init__(
        self,
        config: WorkerConfig,
        clock: Callable[[], int],
        generation: int,
        receive: Receive,
        ended: Ended,
    ) -> None:
        self.pid: int | None = os.getpid()  # while it lives
        self.dead: bool = False
        self.context: Context = Context()
        to_worker, to_host = self._make_channel(), self._make_channel()
        self.pipe: PairedPipe = self._pipe_class(
            to_host, to_worker, copy_context(), receive, self._stream_ended
        )
        self._schedulers = config.schedulers
        self._begun = memoryview(array("Q", bytes(16 * config.schedulers)))
        self.worker: Any = workers_module("worker").Worker(
            replace(config, generation=generation),
            [],
            self._begun,
            clock,
            partial(self._pipe_class, to_worker, to_host, self.context),
        )
        self._ended = ended
        self._cause = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.Task[None] | None = None

    def _make_channel(self) -> Channel:
        return Channel()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; the worker sends READY when it is."""
        self._loop = loop
        self.pipe.open(loop)
        self._serve(loop)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        self._serving = self.context.run(loop.create_task, self.worker.serve(loop, 0, 0))
        self._serving.add_done_callback(lambda _: self._end(0))

    def begun(self, scheduler: int) -> tuple[int, int]:
        """Return the numbers of the tasks that a scheduler began last, plus one; 0 for none."""
        return self._begun[scheduler], self._begun[self._schedulers + scheduler]

    def blocked(self) -> None:
        """Return None: the loop is the host's, and nobody watches it."""

    def kill(self, cause: str = "") -> None:
        """End it at once: frames not written yet are lost, and its tasks are cancelled."""
        self._cause = self._cause or cause
        self._end(-signal.SIGKILL)

    def _stream_ended(self, error: Exception | None) -> None:
        if error is not None:
            self.kill(f"what it sends cannot be read: {error!r}")

    def _end(self, exitcode: int) -> None:
        if self.dead:
            return
        assert self._loop is not None
        self.dead = True
        if self._serving is not None:
            self._serving.cancel()
        self.worker.halt()
        self._loop.call_soon(self._reap, exitcode, context=self.pipe.context)

    def _reap(self, exitcode: int) -> None:
        self.pid = None
        self.pipe.read_rest()
        self.pipe.close()
        self._ended(exitcode, self._cause)
