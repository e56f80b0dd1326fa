"""Log records of a worker go to the logging of the host (`Manager(forward_logs=True)`).

    any thread: logger ─► Handler, of the root logger ─► Backlog     full: dropped, and counted
                                                            │
    the loop: LOGGED ─► Forwarder, behind the outcomes ◄────┘
                           └─► LOG ══► host

A frame is written only when the pipe is empty and the host has handled the previous one: no outcome
waits for more than one of them, and neither pipe nor host ever holds more.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from aioscheduler._scheduling.loopthread import call_in_loop
from aioscheduler._transport import wire
from aioscheduler._transport.logrecords import pack_record
from aioscheduler._transport.pipe import Pipe
from aioscheduler._transport.wire import Kind

from .backlog import Backlog
from .turn import Turn


class Forwarder:
    """Sends log records to the host, if `install` was called.

    Args:
        pipe: The pipe to the host.
        turn: Holds the outcomes, which go first.
        fail: Ends the worker, because it cannot write to the host.

    Attributes:
        backlog: The records that wait to be sent.
    """

    def __init__(self, pipe: Pipe, turn: Turn, fail: Callable[[BaseException], None]) -> None:
        self.backlog: Backlog = Backlog()
        self._pipe = pipe
        self._turn = turn
        self._fail = fail
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handler: Handler | None = None
        self._woken = False  # since the last look at the backlog
        self._unanswered = False  # the host has not handled the last frame yet
        self._room: asyncio.Task[None] | None = None

    def install(self, levels: Mapping[str, int]) -> None:
        """Make the root logger forward its records.

        Args:
            levels: The levels of the host's loggers, by name, so that records which the host would
                not handle are not made.
        """
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        self._handler = Handler(self)
        self.keep()
        # A child that a task forks logs as Python does by default.
        os.register_at_fork(after_in_child=self.uninstall)

    def keep(self) -> None:
        """Add the handler again if the user's logging configuration has removed it."""
        if self._handler is not None and self._handler not in logging.root.handlers:
            logging.root.addHandler(self._handler)

    def uninstall(self) -> None:
        """Forward no new records."""
        handler, self._handler = self._handler, None
        if handler is not None:
            logging.root.removeHandler(handler)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write from this loop from now on."""
        self._loop = loop
        if self.backlog:
            self.wake()

    def wake(self) -> None:
        """Make the loop write the backlog, in a turn of its own; may be called in any thread."""
        if not self._woken and self._loop is not None:
            self._woken = True
            call_in_loop(self._loop, self._write)

    def answered(self) -> None:
        """Go on: the host has handled the last frame."""
        self._unanswered = False
        self._write()

    def finish(self) -> None:
        """Forward no new records, and send the backlog: the worker has no more outcomes."""
        self.uninstall()
        while self.backlog:
            self._send()
        self._pipe.flush()

    def stop(self) -> None:
        """Write no more records."""
        self._loop = None
        if self._room is not None:
            self._room.cancel()

    def _write(self) -> None:
        if self._loop is None or self._unanswered or self._room is not None:
            return  # called again when there is an answer, or room
        try:
            self._turn.write()
            self._woken = False  # before the look: a record added after it wakes the loop again
            if not self.backlog:
                return
            if self._pipe.waiting:
                self._wait_for_room(self._loop)
                return
            self._unanswered = True
            self._send()
            self._pipe.flush()
        except Exception as error:  # noqa: BLE001  the worker cannot report to the host
            self._fail(error)

    def _send(self) -> None:
        self._pipe.send(wire.encode([Kind.LOG, *self.backlog.take()]))

    def _wait_for_room(self, loop: asyncio.AbstractEventLoop) -> None:
        self._room = loop.create_task(self._pipe.drain())
        self._room.add_done_callback(self._has_room)

    def _has_room(self, room: asyncio.Task[None]) -> None:
        self._room = None
        self._write()


class Handler(logging.Handler):
    """Packs records at once, in the thread that logs. Never raises.

    Args:
        forwarder: The owner of the backlog.
    """

    def __init__(self, forwarder: Forwarder) -> None:
        super().__init__()
        self._forwarder = forwarder
        self._packing = threading.local()

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep a record for the host if it passes the filters.

        Without the lock that `logging` holds while a handler formats: slow formatting would block
        the loop, and the thread that watches it.
        """
        passed: Any = self.filter(record)  # from Python 3.12 on, possibly another record
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record for the host if there is room."""
        packed = None if self._forwarder.backlog.is_full else self._pack(record)
        self.acquire()  # one at a time adds
        try:
            if packed is None:
                self._forwarder.backlog.drop()
            else:
                self._forwarder.backlog.add(packed)
            self._forwarder.wake()
        finally:
            self.release()

    def _pack(self, record: logging.LogRecord) -> bytes | None:
        if vars(self._packing):  # formatting may log, and so recurse without end
            return None
        self._packing.now = True
        try:
            return pack_record(record, os.getpid(), multiprocessing.current_process().name)
        except BaseException:  # noqa: BLE001  no record may raise in the code that logs it
            return None
        finally:
            del self._packing.now
