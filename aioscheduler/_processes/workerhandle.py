"""One process of a worker, with its pipes, from its start to its exit code.

    spawn ─► frames both ways ─► the process ends (sentinel), or closes its pipe, or is killed
                                     └► what it had written is read ─► reaped ─► `ended`

Its end is reported once, whatever happens: this module alone sees to that.

- A death is seen by the sentinel, which a grandchild cannot hold open as it can a pipe; where
  the system has no pidfds it can, and so the process is looked at once a tick as well.
- A process that closes its pipe or its sentinel and stays, or writes what cannot be read, is
  killed.
- From a kill there is `REAP_TIME`. A process that cannot be reaped by then, because a debugger
  holds it or the kernel is still busy with it, has ended nevertheless: it will run none of its
  own code any more. Its exit code is then not known.
- What goes wrong at its end is logged, and does not keep it from ending.
"""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing.connection
import os
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

from .._scheduling.alarm import TICK, next_tick
from .._transport.pipe import MakePipe, Pipe, Receive
from .blackbox import BlackBox
from .process import REAP_TIME, Alive, WorkerProcess
from .spawn import FROZEN_HINT, is_frozen, starting
from .workerconfig import WorkerConfig

log: logging.Logger = logging.getLogger("aioscheduler")

EOF_GRACE = 1.0  # seconds from the end of the stream to the end of the process
SOON = 0.01  # seconds between two looks at a process that is about to end


class WorkerHandle(Protocol):
    """What the host needs of one process of a worker; simulated in tests.

    Its end is reported (`MakeWorkerHandle`) once: never from within `start` or `kill`, and in
    bounded time after the process has ended or was killed, whatever else fails.
    """

    @property
    def pid(self) -> int | None:
        """Its process id; None before the start and after the end."""

    @property
    def pipe(self) -> Pipe:
        """For frames to it, from `start` on; it has been read to its end when that is told."""

    @property
    def node(self) -> str | None:
        """The machine that it runs on, as soon as that is known; None: this one."""

    @property
    def usage(self) -> tuple[float, int] | None:
        """CPU in per cent of a core, and resident bytes, as its node measures them.

        None: it is a process of this machine, which is measured here.
        """

    @property
    def shared_end(self) -> object:
        """What has ended it and others with it: the same object for each. None: it ended alone.

        `budget.NOT_HAD` if there was no process. Asked when its end is told.
        """

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin.

        Raises:
            Exception: It cannot be had, whatever the reason. Nothing is left open, and its end is
                not told.
        """

    def begun(self, scheduler: int) -> tuple[int, int] | None:
        """Return the numbers of the tasks that a scheduler began last, plus one; 0 for none.

        The first is of all tasks but the timed ones that begin on the host's word, the second of
        those. Asked when its end is told. None, or an exception: nobody knows, and what was
        announced is taken as begun.
        """

    def blocked(self) -> tuple[int, int] | None:
        """Return scheduler and number of the task that has blocked it for too long, if one has.

        Asked when its end is told; the task may have ended. The number may be the one that the
        worker has given it (`Book.number_of`).
        """

    def kill(self, cause: str = "") -> None:
        """End it at once; nothing if it has ended.

        Args:
            cause: What is wrong with it, if something is: told with its end.
        """


Ended = Callable[["int | None", str], None]

MakeWorkerHandle = Callable[[int, Receive, Ended], WorkerHandle]
"""Makes a handle, of a generation (from 0) and two callbacks: one for its frames, and one that is
called once, when it has ended and all it wrote has been taken, with the exit code (None if it is
not known) and what is known of the cause."""


class LocalWorkerHandle:
    """A worker process and the host's ends of its pipes.

    Args:
        config: For the worker.
        loop_initializer: Makes the worker's event loop; None for asyncio's own.
        alive: Has every process that runs.
        generation: Which process of its slot this is, from 0.
        receive: Called with each frame.
        ended: As for `MakeWorkerHandle`.
        make_pipe: Makes its end of the connection, over the descriptors.

    Attributes:
        pid: Its process id, which any thread may read; None before the start and after the end.
        pipe: For frames to it.
        process: Its process.
    """

    # Its machine is this one, and what ends it ends no other.
    node: None = None
    usage: None = None
    shared_end: None = None

    def __init__(
        self,
        config: WorkerConfig,
        loop_initializer: Callable[[], Any] | None,
        alive: Alive,
        generation: int,
        receive: Receive,
        ended: Ended,
        make_pipe: MakePipe = Pipe,
    ) -> None:
        self.pipe: Pipe = make_pipe(receive, self._stream_ended)
        self.pid: int | None = None
        self.process: WorkerProcess | None = None
        self._name = config.process_name
        self._config = replace(config, generation=generation)
        self._alive = alive
        self._loop_initializer = loop_initializer
        self._ended = ended
        self._box: BlackBox | None = None
        self._cause = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sentinel = -1
        self._deadline = math.inf  # from which on it has ended, by the loop's clock
        self._next_look: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Spawn the process.

        Raises:
            OSError: It cannot be had; nothing is left open.
        """
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
            box = BlackBox(self._config.schedulers)
            ours.callback(box.close)
            worker_writer, worker_reader = connections
            process = WorkerProcess(
                self._name,
                worker_reader,
                worker_writer,
                box,
                self._config,
                self._loop_initializer,
            )
            with starting:
                process.start()
                self._alive[process] = self.pipe.descriptors
            ours.pop_all()
        # If the loop ends first, nothing here will run: then the file goes with this object.
        weakref.finalize(self, box.close).atexit = False
        self._loop, self._box, self.process, self.pid = loop, box, process, process.pid
        reader, writer = descriptors
        try:
            self.pipe.open(loop, reader, writer)
            self._sentinel = process.aio_process.watch
            loop.add_reader(self._sentinel, self._sentinel_rang)
            self._look_at(next_tick(loop.time()))
        except BaseException as error:
            self._ended = _tell_nobody
            self.kill()
            if isinstance(error, OSError) or not isinstance(error, Exception):
                raise
            raise OSError(f"{type(error).__name__}: {error}") from error

    @property
    def schedulers(self) -> int:
        """How many schedulers it has."""
        return self._config.schedulers

    def begun(self, scheduler: int) -> tuple[int, int]:
        """Return the numbers of the tasks that a scheduler began last, plus one; 0 for none."""
        if self._box is None:
            return 0, 0
        return self._box.begun[scheduler], self._box.begun[self._config.schedulers + scheduler]

    def blocked(self) -> tuple[int, int] | None:
        """Return scheduler and number of the task that has blocked it for too long, if one has."""
        return None if self._box is None else self._box.blamed

    def kill(self, cause: str = "") -> None:
        """End the process at once, if it has not ended; `ended` is called later.

        Args:
            cause: What is wrong with it, if something is: told to the log and to `ended`.
        """
        if self._loop is None or self.process not in self._alive:
            return
        if cause and not self._cause:
            self._cause = cause
            log.error("%s is killed, because %s", self._name, cause)
        self.process.kill()
        if self._deadline == math.inf:
            now = self._loop.time()
            self._deadline = now + REAP_TIME
            self._look_at(now + SOON)

    def _stream_ended(self, error: Exception | None) -> None:
        if self._loop is None:
            return
        if error is None:
            self._loop.call_later(EOF_GRACE, self.kill)
            return
        self.kill(f"what it sends cannot be read: {error!r}")

    def _sentinel_rang(self) -> None:
        self._unwatch()
        self._look()
        self.kill()  # if it lives: it has closed the sentinel, and is not to be trusted

    def _look(self) -> None:
        """Report the end if the process has ended; else look again, in time."""
        assert self._loop is not None
        assert self.process is not None
        now = self._loop.time()
        if self.process not in self._alive:
            return
        if self.process.aio_process.has_ended or now >= self._deadline:
            if self._alive.pop(self.process, None) is not None:
                self._end()
        else:
            self._look_at(next_tick(now) if self._deadline == math.inf else now + SOON)

    def _look_at(self, when: float) -> None:
        assert self._loop is not None
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = self._loop.call_at(when, self._look)

    def _end(self) -> None:
        assert self.process is not None
        process, pid, self.pid = self.process.aio_process, self.pid, None
        if not process.has_ended:
            log.error(
                "%s (pid %d) was killed and cannot be reaped: a debugger holds it, or the system "
                "is busy with it; it is given up",
                self._name,
                pid,
            )
        exitcode = process.known_exitcode
        try:
            with ExitStack() as steps:  # all are done, the last first, whatever the others raise
                steps.callback(self._reap)
                steps.callback(self._read_box)
                steps.callback(self.pipe.close)
                steps.callback(self.pipe.read_rest)
                steps.callback(self._unwatch)
                if self._next_look is not None:
                    self._next_look.cancel()
        except Exception:
            log.exception("%s has ended, but not everything of it could be cleared", self._name)
        finally:
            try:
                self._ended(exitcode, self._cause)
            finally:
                if self._box is not None:
                    self._box.close()

    def bury(self) -> None:
        """Free what it took, if the loop is closed and its process was ended by `end_workers`."""
        self.pipe.close()
        if self._box is not None:
            self._box.close()

    def _unwatch(self) -> None:
        assert self._loop is not None
        if self._sentinel >= 0:
            self._loop.remove_reader(self._sentinel)
            self._sentinel = -1

    def _read_box(self) -> None:
        if self._box is not None:
            self._cause = self._cause or self._box.last_words()
            if is_frozen() and not self._box.was_opened:
                self._cause = FROZEN_HINT

    def _reap(self) -> None:
        """Give back what the process took, now or when it can be reaped."""
        assert self._loop is not None
        assert self.process is not None
        process = self.process.aio_process
        process.release()
        if not process.has_ended:
            self._loop.call_later(TICK, self._reap)


def _tell_nobody(exitcode: int | None, cause: str) -> None:
    """Ignore the end of a process that nobody was told of."""
