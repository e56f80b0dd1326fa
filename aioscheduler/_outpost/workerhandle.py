"""A worker's process on another machine, as the host has it; keeps `workerhandle.WorkerHandle`.

Its pipe's bytes go as items of the connection to the outpost there. No more of them are under way
than a window, so who waits for room in the pipe (`flush`, `drain`) waits for that worker, as with
a pipe of the kernel's, and a worker that does not read stops only itself.
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
    """What carries bytes to the node (`connection.Connection`)."""

    @property
    def has_room(self) -> bool:
        """Whether it is there, and takes more."""

    @property
    def end(self) -> object:
        """The same for all that end with it."""

    @property
    def node(self) -> str | None:
        """The node's name, once it is known."""

    def carry(self, worker: int, generation: int, data: bytes) -> None:
        """Send bytes to a worker."""

    def took(self, worker: int, generation: int, count: int, total: int) -> None:
        """Bytes of a worker have arrived, and were taken."""

    def add(self, process: OutpostWorkerHandle) -> None:
        """Have a process started, as soon as that is possible."""

    def kill(self, process: OutpostWorkerHandle) -> None:
        """Have a process ended at once."""


class OutpostPipe(Pipe):
    """The host's end of a worker's pipe, over a connection that many share.

    Args:
        receive: As for `Pipe`.
        closed: As for `Pipe`.
        process: Whose it is.
    """

    def __init__(self, receive: Receive, closed: Closed, process: OutpostWorkerHandle) -> None:
        super().__init__(receive, closed)
        self._process = process
        self._arrived = b""
        self._sent = self._acked = self._taken = 0  # bytes in all

    def open(self, loop: asyncio.AbstractEventLoop, reader: int = 0, writer: int = 0) -> None:
        """Begin; descriptors are not needed."""
        self._loop = loop
        self.descriptors[:] = 0, 0  # of no use but to say that it is open
        self.flush()

    def close(self) -> None:
        """Read and write nothing any more."""
        self._has_ended = True
        self._stop_reading()
        self.descriptors[1] = -1
        self._drop()

    def arrive(self, data: bytes) -> None:
        """Take what the worker has written."""
        self._taken += len(data)
        self._process.took(len(data), self._taken)
        self._arrived = data
        if self.descriptors[0] >= 0:
            self._readable()

    def acknowledge(self, total: int) -> None:
        """Note how much is in the worker's pipe, and go on if that makes room."""
        if total > self._acked:
            self._acked = total
            self.go_on()

    def go_on(self) -> None:
        """Write what waits for room, if there is some again."""
        if self._waits_for_room:
            self._waits_for_room = False
            self.flush()

    def read_rest(self) -> None:
        """Nothing: what arrives is read at once."""

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
    """One process, from when it is asked for to its end.

    Args:
        config: For the worker.
        loop_initializer: Makes the worker's event loop; None for asyncio's own.
        levels: Returns the levels of the loggers, as they are when the process is started.
        connect: Returns what carries bytes to the worker's slot; may raise an OSError.
        generation: Which process of its slot this is, from 0.
        receive: Called with each frame.
        ended: As for `workerhandle.MakeWorkerHandle`.

    Attributes:
        pid: On its node; None before it is there, and after the end.
        pipe: For frames to it.
        worker: Its number.
        generation: As given.
        usage: What it takes, as its node has measured.
        shared_end: What has ended it with others.
        is_over: Whether its end has been told.
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
        """The machine that it is on, once that is known."""
        return None if self._carrier is None else self._carrier.node

    @property
    def has_room(self) -> bool:
        """Whether there is what takes its bytes."""
        return self._carrier is not None and self._carrier.has_room

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask for the process.

        Raises:
            OSError: Nobody can be asked, or the loop_initializer cannot travel.
        """
        if self._loop_initializer is not None:
            self._packed = pack_loop_initializer(self._loop_initializer)
        self._carrier = self._connect(self.worker, loop)
        self.pipe.open(loop)
        self._carrier.add(self)

    def order(self, lead: int) -> tuple[bytes, bytes | None]:
        """Return what the outpost is to be told to start it: its configuration, and its loop.

        Args:
            lead: How far the host's clock is ahead of the node's.
        """
        config = replace(self._config, clock_lead=lead, node=self.node, log_levels=self._levels())
        return pickle.dumps(config), self._packed

    def set_lead(self, lead: int) -> None:
        """Tell the worker how far the host's clock is ahead of its own by now."""
        self.pipe.send(wire.encode([wire.Kind.CLOCK, lead]))
        self.pipe.flush()

    def carry(self, data: bytes) -> None:
        """Send bytes to the worker."""
        assert self._carrier is not None
        self._carrier.carry(self.worker, self.generation, data)

    def took(self, count: int, total: int) -> None:
        """Have the worker know that its bytes were taken."""
        assert self._carrier is not None
        self._carrier.took(self.worker, self.generation, count, total)

    def begun(self, scheduler: int) -> tuple[int, int] | None:
        """Return the numbers of the tasks begun last, plus one; None: nobody knows."""
        if self._begun is None:
            return None
        timed_or_not, on_word = self._begun[scheduler]
        return timed_or_not, on_word

    def blocked(self) -> tuple[int, int] | None:
        """Return scheduler and number of the task that has blocked it for too long, if one has."""
        return self._blocked

    def kill(self, cause: str = "") -> None:
        """End it at once, or ask for it no more; its end is told later."""
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
        """Tell the end, once.

        Args:
            exitcode: None if it is not known.
            cause: What is known of it.
            begun: For each scheduler what `begun` is to return; None: nobody knows.
            blocked: What `blocked` is to return.
            shared: What has ended it with others.
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
