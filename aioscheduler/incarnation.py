"""One life of a worker: a process with its pipes, from its start to its exit code.

    spawn ─► frames both ways ─► the process ends (sentinel), or closes its pipe, or is killed
                                     └► what it had written is read ─► reaped ─► `ended`

A death is seen by the sentinel, which a grandchild cannot hold open as it can a pipe. A process
that closes its pipe and stays, or writes what cannot be read, is killed.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing.connection
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from .blackbox import BlackBox
from .pipe import Pipe, Receive
from .process import WorkerProcess

log = logging.getLogger("aioscheduler")

EOF_GRACE = 1.0  # seconds from the end of the stream to the end of the process


class Life(Protocol):
    """What a worker's place needs of the process in it; simulated in tests."""

    @property
    def pid(self) -> int | None: ...
    @property
    def pipe(self) -> Pipe: ...
    def start(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def begun(self, scheduler: int) -> int: ...
    def kill(self) -> None: ...


Ended = Callable[["int | None", str], None]

Launch = Callable[[int, Receive, Ended], Life]
"""Makes a life: its number, from 0; who takes its frames; who is told, once, when it has ended
and all it wrote has been taken: the exit code, and what is known of the cause."""


class Incarnation:
    """A worker process and the host's ends of its pipes.

    Args:
        name: The name of the process.
        config: Keyword arguments of the worker's main function: plain values.
        loop_initializer: Makes the worker's event loop; None for asyncio's own.
        schedulers: How many schedulers it has.
        alive: Has every process that runs, with the descriptors of its pipe.
        number: Which life of its place this is, from 0.
        receive: Called with each frame.
        ended: As for `Launch`.

    Attributes:
        pid: Its process id, which any thread may read; None before the start and after the end.
        pipe: For frames to it.
        process: Its process.
    """

    def __init__(
        self,
        name: str,
        config: dict[str, Any],
        loop_initializer: Callable[[], Any] | None,
        schedulers: int,
        alive: dict[WorkerProcess, list[int]],
        number: int,
        receive: Receive,
        ended: Ended,
    ) -> None:
        self.pipe = Pipe(receive, self._stream_ended)
        self.pid: int | None = None
        self.process: WorkerProcess | None = None
        self._name = name
        self._config = {**config, "incarnation": number}
        self._alive = alive
        self._loop_initializer = loop_initializer
        self._schedulers = schedulers
        self._ended = ended
        self._box: BlackBox | None = None
        self._cause = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Spawns the process.

        Raises:
            OSError: The system has no room for it; nothing is left open.
        """
        self._loop = loop
        with ExitStack() as theirs, ExitStack() as ours:
            descriptors, connections = [], []
            for own, other in ((0, 1), (1, 0)):  # to read from, to write to
                pair = multiprocessing.connection.Pipe(duplex=False)
                for connection in pair:
                    theirs.enter_context(connection)
                # The pipe owns copies: a Connection closes its descriptor.
                descriptors.append(os.dup(pair[own].fileno()))
                ours.callback(os.close, descriptors[-1])
                connections.append(pair[other])
            box = BlackBox(self._schedulers)
            ours.callback(box.close)
            worker_writer, worker_reader = connections
            process = WorkerProcess(
                self._name,
                worker_reader,
                worker_writer,
                {**self._config, "box": box},
                self._loop_initializer,
            )
            process.start()
            ours.pop_all()
        self._box, self.process, self.pid = box, process, process.pid
        self._alive[process] = self.pipe.descriptors
        reader, writer = descriptors
        self.pipe.open(loop, reader, writer)
        loop.add_reader(process.watch, self.bury)

    def begun(self, scheduler: int) -> int:
        """Gives the number of the task that a scheduler began last, plus one; 0 for none."""
        return 0 if self._box is None else self._box.begun[scheduler]

    def kill(self) -> None:
        """Ends the process at once, if it has not ended."""
        if self.process is not None and self.process.watch >= 0:
            self.process.kill()

    def _stream_ended(self, error: Exception | None) -> None:
        if self.process is None or self._loop is None or self.process.watch < 0:
            return
        if error is None:
            self._loop.call_later(EOF_GRACE, self.kill)
        else:
            self._cause = f"it sent what cannot be read: {error!r}"
            log.error("%s is killed, because %s", self._name, self._cause)
            self.kill()

    def bury(self) -> None:
        """Take what it has written and free what it took; called when it has ended."""
        assert self._loop is not None
        assert self.process is not None
        self._loop.remove_reader(self.process.watch)
        self.pid = None
        exitcode = self.process.reap()
        del self._alive[self.process]
        self.pipe.read_rest()
        self.pipe.close()
        cause = self._cause
        if self._box is not None:
            cause = cause or self._box.last_words()
        self._ended(exitcode, cause)
        if self._box is not None:
            self._box.close()
