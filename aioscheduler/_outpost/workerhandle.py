"""The host's handle of a worker process on another machine; implements `workerhandle.WorkerHandle`.

Its pipe's bytes travel as items of the connection to the outpost there, at most a window of them
at a time. So a caller that waits for room in the pipe (`flush`, `drain`) waits for that worker, as
with a pipe of the kernel, and a worker that does not read stops only itself.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from .._processes.budget import NOT_HAD
from .._processes.process import pack_loop_initializer
from .._processes.workerconfig import WorkerConfig
from .._processes.workerhandle import Ended
from .._transport import wire
from .._transport.pipe import Closed, Pipe, Receive
from .outgoing import PART, WINDOW

log: logging.Logger = logging.getLogger("aioscheduler")


class Carrier(Protocol):
    """A carrier of bytes to a node (`connection.Connection`)."""

    @property
    def has_room(self) -> bool:
        """Whether it is up, and has room for more."""

    @property
    def end(self) -> object:
        """An object that identifies its end for all workers that share it."""

    @property
    def node(self) -> str | None:
        """The node's name, once it is known."""

    def carry(self, worker: int, generation: int, data: bytes) -> None:
        """Send bytes to a worker."""

    def took(self, worker: int, generation: int, count: int, total: int) -> None:
        """Acknowledge `count` bytes of a worker, and `total` in all."""

    def add(self, process: OutpostWorkerHandle) -> None:
        """Start a process, as soon as that is possible."""

    def kill(self, process: OutpostWorkerHandle) -> None:
        """Kill a process."""


class OutpostPipe(Pipe):
    """The host's end of a worker's pipe, over a connection that many share.

    Args:
        receive: As for `Pipe`.
        closed: As for `Pipe`.
        process: The handle of its worker.
    """

    def __init__(self, receive: Receive, closed: Closed, process: OutpostWorkerHandle) -> None:
        super().__init__(receive, closed)
        self._process = process
        self._arrived = b""
        self._sent = self._acked = self._taken = 0  # bytes in all

    def open(self, loop: asyncio.AbstractEventLoop, reader: int = 0, writer: int = 0) -> None:
        """Begin; descriptors are not needed."""
        self._loop = loop
        self.descriptors[:] = 0, 0  # they only say that it is open
        self.flush()

    def close(self) -> None:
        """Stop to read and write."""
        self._has_ended = True
        self._stop_reading()
        self.descriptors[1] = -1
        self._drop()

    def arrive(self, data: bytes) -> None:
        """Receive bytes that the worker has written."""
        self._taken += len(data)
        self._process.took(len(data), self._taken)
        self._arrived = data
        if self.descriptors[0] >= 0:
            self._readable()

    def acknowledge(self, total: int) -> None:
        """Note how many bytes are in the worker's pipe, and go on if that makes room."""
        if total > self._acked:
            self._acked = total
            self.go_on()

    def go_on(self) -> None:
        """Write pending bytes, if there is room again."""
        if self._waits_for_room:
            self._waits_for_room = False
            self.flush()

    def read_rest(self) -> None:
        """Do nothing: bytes are read as they arrive."""

    def _read(self) -> bytes:
        data, self._arrived = self._arrived, b""
        if not data:
            raise BlockingIOError
        return data

    def _write(self, data: memoryview) -> int:
        room = WINDOW - (self._sent - self._acked)
        if room <= 0 or not self._process.has_room:
            raise BlockingIOError
        part = bytes(data[: min(room, PART)])
        self._sent += len(part)
        self._process.carry(part)
        return len(part)

    def _wait_for_room(self, wait: bool) -> None:
        self._waits_for_room = wait

    def _stop_reading(self) -> None:
        self.descriptors[0] = -1


class OutpostWorkerHandle:
    """One process, from the request to its end.

    Args:
        config: The worker's configuration.
        loop_initializer: Makes the worker's event loop; None for asyncio's own.
        levels: Returns the current levels of the loggers; called when the process is started.
        connect: Returns the carrier for the worker's slot; may raise an OSError.
        generation: Which process of its slot this is, from 0.
        receive: Called with each frame.
        ended: As for `workerhandle.MakeWorkerHandle`.

    Attributes:
        pid: Its process id on its node; None before it has started, and after the end.
        pipe: The pipe to it.
        worker: Its number.
        generation: As passed.
        usage: Its CPU in per cent and resident bytes, as its node has measured.
        shared_end: The end that it shares with other workers; None: it is its own.
        is_over: Whether its end has been reported.
    """

    def __init__(
        self,
        config: WorkerConfig,
        loop_initializer: Callable[[], Any] | None,
        levels: Callable[[], dict[str, int]],
        connect: Callable[[int, asyncio.AbstractEventLoop], Carrier],
        generation: int,
        receive: Receive,
        ended: Ended,
    ) -> None:
        self.pid: int | None = None
        self.pipe: OutpostPipe = OutpostPipe(receive, self._stream_ended, self)
        self.worker: int = config.worker
        self.generation: int = generation
        self.usage: tuple[float, int] | None = (0.0, 0)
        self.shared_end: object = None
        self.is_over: bool = False
        self._config = replace(config, generation=generation)
        self._loop_initializer = loop_initializer
        self._levels = levels
        self._connect = connect
        self._ended = ended
        self._carrier: Carrier | None = None
        self._packed: bytes | None = None
        self._cause = ""
        self._begun: Sequence[Sequence[int]] | None = None
        self._blocked: tuple[int, int] | None = None

    @property
    def node(self) -> str | None:
        """The name of its node, once that is known."""
        return None if self._carrier is None else self._carrier.node

    @property
    def has_room(self) -> bool:
        """Whether its carrier is up, and has room for more."""
        return self._carrier is not None and self._carrier.has_room

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Request the process.

        Raises:
            OSError: The launcher cannot be started, or the loop_initializer cannot travel.
        """
        if self._loop_initializer is not None:
            self._packed = pack_loop_initializer(self._loop_initializer)
        self._carrier = self._connect(self.worker, loop)
        self.pipe.open(loop)
        self._carrier.add(self)

    def order(self, lead: int) -> tuple[bytes, bytes | None]:
        """Return its configuration and loop_initializer, pickled, for the outpost to start it.

        Args:
            lead: How far the host's clock is ahead of the node's, in nanoseconds.
        """
        config = replace(self._config, clock_lead=lead, node=self.node, log_levels=self._levels())
        return pickle.dumps(config), self._packed

    def set_lead(self, lead: int) -> None:
        """Send the worker how far the host's clock is ahead of its own, in nanoseconds."""
        self.pipe.send(wire.encode([wire.Kind.CLOCK, lead]))
        self.pipe.flush()

    def carry(self, data: bytes) -> None:
        """Send bytes to the worker."""
        assert self._carrier is not None
        self._carrier.carry(self.worker, self.generation, data)

    def took(self, count: int, total: int) -> None:
        """Acknowledge bytes of the worker."""
        assert self._carrier is not None
        self._carrier.took(self.worker, self.generation, count, total)

    def begun(self, scheduler: int) -> tuple[int, int] | None:
        """Return the numbers of the last tasks begun, plus one; None: they are not known."""
        if self._begun is None:
            return None
        timed_or_not, on_word = self._begun[scheduler]
        return timed_or_not, on_word

    def blocked(self) -> tuple[int, int] | None:
        """Return scheduler and number of the task that has blocked it for too long, if one has."""
        return self._blocked

    def kill(self, cause: str = "") -> None:
        """Kill it, or withdraw the request for it; its end is reported later."""
        if self._carrier is None or self.is_over:
            return
        if cause and not self._cause:
            self._cause = cause
            log.error("%s is killed, because %s", self._config.process_name, cause)
        self._carrier.kill(self)

    def finish(
        self,
        exitcode: int | None,
        cause: str,
        begun: Sequence[Sequence[int]] | None = None,
        blocked: Sequence[int] | None = None,
        shared: object = None,
    ) -> None:
        """Report the end, once.

        Args:
            exitcode: Its exit code; None if that is not known.
            cause: The cause, as far as it is known; "": it is not.
            begun: The results of `begun`, by scheduler; None: they are not known.
            blocked: The result of `blocked`.
            shared: The end that it shares with other workers.
        """
        if self.is_over:
            return
        self.is_over = True
        self.shared_end = NOT_HAD if self.pid is None else shared
        self.pid = None
        self._begun = begun
        self._blocked = None if blocked is None else (blocked[0], blocked[1])
        self.pipe.close()
        self._ended(exitcode, self._cause or cause)

    def _stream_ended(self, error: Exception | None) -> None:
        if error is not None:
            self.kill(f"what it sends cannot be read: {error!r}")
