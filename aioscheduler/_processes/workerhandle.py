"""One process of a worker, with its pipes, from its start to its exit code.

    spawn ─► frames both ways ─► the process ends (sentinel), or closes its pipe, or is killed
                                     └► the rest of its frames is read ─► reaped ─► `ended`

Its end is reported once, whatever happens: only this module is responsible for that.

- A death is noticed by the sentinel. A grandchild cannot hold that open, as it can a pipe; without
  pidfds it can, and so the process is also checked once a tick.
- A process that closes its pipe or its sentinel and stays, or writes invalid frames, is killed.
- A killed process has `REAP_TIME`. If it cannot be reaped by then, because a debugger holds it or
  the kernel is still busy with it, it counts as ended: it will not run any code of its own. Its
  exit code is then not known.
- Errors at its end are logged, and do not keep it from ending.
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
SOON = 0.01  # seconds between two checks of a process that is about to end


class WorkerHandle(Protocol):
    """The host's view of one process of a worker; simulated in tests.

    Its end is reported (`MakeWorkerHandle`) once: never from within `start` or `kill`, and in
    bounded time after the process has ended or was killed, whatever else fails.
    """

    @property
    def pid(self) -> int | None:
        """Its process id; None before the start and after the end."""

    @property
    def pipe(self) -> Pipe:
        """The pipe to it, from `start` on; read to its end before the end is reported."""

    @property
    def node(self) -> str | None:
        """Its machine, once known; None for this one."""

    @property
    def usage(self) -> tuple[float, int] | None:
        """CPU in per cent of a core, and resident bytes, as measured by its node.

        None for a process of this machine, which is measured here.
        """

    @property
    def shared_end(self) -> object:
        """What ended it and others with it: the same object for each; None if it ended alone.

        `budget.NOT_HAD` if there was no process. Read when its end is reported.
        """

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin.

        Raises:
            Exception: There can be no process, for whatever reason. Nothing is left open, and its
                end is not reported.
        """

    def begun(self, scheduler: int) -> tuple[int, int] | None:
        """Return the numbers of the tasks that a scheduler began last, plus one; 0 for none.

        The first is for all tasks except the timed ones that begin on CONFIRM, the second for
        those. Called when its end is reported. With None, or an exception, nobody knows, and all
        announced tasks count as begun.
        """

    def blocked(self) -> tuple[int, int] | None:
        """Return scheduler and number of the task that has blocked it for too long, if one has.

        Called when its end is reported; the task may have ended. The number may be the one that
        the worker has given it (`Book.number_of`).
        """

    def kill(self, cause: str = "") -> None:
        """End it at once, unless it has ended.

        Args:
            cause: What is wrong with it, if anything; reported with its end.
        """


Ended = Callable[["int | None", str], None]

MakeWorkerHandle = Callable[[int, Receive, Ended], WorkerHandle]
"""Makes a handle from a generation (from 0) and two callbacks: one for its frames, and one that is
called once, when it has ended and all its frames have been received, with the exit code (None if
not known) and the cause as far as it is known."""


class LocalWorkerHandle:
    """A worker process and the host's ends of its pipes.

    Args:
        config: The worker's configuration.
        loop_initializer: Makes the worker's event loop; None for asyncio's own.
        alive: The table of all running processes.
        generation: Which process of its slot this is, from 0.
        receive: Called with each frame.
        ended: As for `MakeWorkerHandle`.
        make_pipe: Makes the host's end of the connection, over the descriptors.

    Attributes:
        pid: Its process id, which any thread may read; None before the start and after the end.
        pipe: The pipe to it.
        process: Its process.
    """

    # It runs on this machine, and its end is its own.
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
        self._deadline = math.inf  # when it counts as ended, by the loop's clock
        self._next_look: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Spawn the process.

        Raises:
            OSError: It cannot be started; nothing is left open.
        """
        with ExitStack() as theirs, ExitStack() as ours:
            descriptors, connections = [], []
            for own, other in ((0, 1), (1, 0)):  # one pipe to read from, one to write to
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
        # If the loop ends first, nothing here runs any more: then the box goes with this object.
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
        """The number of its schedulers."""
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
        """End the process at once, unless it has ended; `ended` is called later.

        Args:
            cause: What is wrong with it, if anything; logged, and passed to `ended`.
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
        self.kill()  # if it lives, it has closed the sentinel, and cannot be trusted

    def _look(self) -> None:
        """Report the end if the process has ended; else check again later."""
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
                "is busy with it; it counts as ended",
                self._name,
                pid,
            )
        exitcode = process.known_exitcode
        try:
            with ExitStack() as steps:  # all run, the last first, whatever the others raise
                steps.callback(self._reap)
                steps.callback(self._read_box)
                steps.callback(self.pipe.close)
                steps.callback(self.pipe.read_rest)
                steps.callback(self._unwatch)
                if self._next_look is not None:
                    self._next_look.cancel()
        except Exception:
            log.exception("%s has ended, but could not be cleaned up completely", self._name)
        finally:
            try:
                self._ended(exitcode, self._cause)
            finally:
                if self._box is not None:
                    self._box.close()

    def bury(self) -> None:
        """Close what it has open, after the loop was closed and `end_workers` ended its process."""
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
        """Release the process, now or when it can be reaped."""
        assert self._loop is not None
        assert self.process is not None
        process = self.process.aio_process
        process.release()
        if not process.has_ended:
            self._loop.call_later(TICK, self._reap)


def _tell_nobody(exitcode: int | None, cause: str) -> None:
    """Ignore the end of a process whose start was not reported."""
