"""The host's end of one worker process.

       host loop                                           │ process border
                                                           │
    schedule ─► columns ─(turn of the loop, or a page)─► SCHEDULE frame ═══► worker
                                     │                     │
                                   ledger ◄── STARTED, FINISHED frames ◄═══ worker
                                     │                     │
    handles (weak) ◄── outcomes ─────┘                     │

The host is dull: it runs no user code here, leaves results as bytes until somebody asks, and
never waits for a worker. Numbers are given in `schedule`, so a task can be addressed before it
has been sent.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing.connection
import os
import secrets
import weakref
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from . import wire
from .engine import Order
from .errors import WorkerLost, WorkerStartError, describe_exit
from .ledger import PAGE, Ledger
from .link import Tally
from .pipe import HIGH_WATER, Pipe
from .process import WorkerProcess
from .shipping import Cargo, Shipper
from .task import State, Task, TaskRef, report
from .wire import Kind

log = logging.getLogger("aioscheduler")

KILL_AFTER = 0.5  # seconds a worker has to end what it was told to cancel
EOF_GRACE = 1.0  # seconds from the end of the stream to the end of the process

_ENDINGS = {wire.RETURNED: State.FINISHED, wire.RAISED: State.FAILED, wire.DROPPED: State.CANCELLED}


class RemoteLink:
    """One worker process with its schedulers; keeps the contract of `link.Link`.

    Args:
        worker: Its place, from 0.
        order: What its schedulers run next.
        schedulers: How many it has.
        shipper: Shared by all workers of the manager.
        tally: Told of every start and end.
        manager: The manager's id.
        boot: The payload of the initializer's call, or None.
        loop_initializer: Makes the worker's event loop; None for asyncio's own.
        lost: Called with the reason once the process is gone without having been asked to go.
    """

    def __init__(
        self,
        worker: int,
        order: Order,
        schedulers: int,
        shipper: Shipper,
        tally: Tally,
        manager: str,
        boot: bytes | None,
        loop_initializer: Callable[[], Any] | None,
        lost: Callable[[RemoteLink, Exception], None],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.identity = secrets.randbits(64) << 64
        self.process: WorkerProcess | None = None
        self._worker = worker
        self._config = {"order": order.value, "schedulers": schedulers, "host": os.getpid()}
        self._shipper = shipper
        self._tally = tally
        self._manager = manager
        self._boot = boot
        self._loop_initializer = loop_initializer
        self._lost = lost
        self._ready: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._closing = False
        self._broken = False  # its unfinished tasks are lost, not cancelled
        self._failure: str | None = None  # the traceback of a worker that could not begin

        self.pipe = Pipe(self._receive, self._stream_ended)
        self._defined = 0  # lines of the catalog's log that were sent
        self._turn: asyncio.Handle | None = None
        self._next = 0
        self._first = 0  # the number of the first task in the columns
        self._columns: tuple[list[int], list[int], list[int], list[bytes | int]] = ([], [], [], [])
        self._cancels: list[int] = []

        self.ledger = Ledger()
        self._asked: set[int] = set()  # pending tasks that were asked to cancel
        self._blobs: dict[int, bytes] = {}  # large outcomes, ahead of their FINISHED
        self._handles: dict[int, _Handle] = {}
        self._held: dict[int, Task[Any]] = {}

    # ---- life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Spawns the process.

        Raises:
            OSError: The system has no room for it.
        """
        self.loop = loop
        self._ready, self._gone = loop.create_future(), loop.create_future()
        # Its failure is told by `lost` as well, so it need not be awaited here.
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        reader, worker_writer = multiprocessing.connection.Pipe(duplex=False)
        worker_reader, writer = multiprocessing.connection.Pipe(duplex=False)
        with reader, writer, worker_reader, worker_writer:
            self.process = WorkerProcess(
                f"aioscheduler-{self._manager}-{self._worker}",
                worker_reader,
                worker_writer,
                self._config,
                self._loop_initializer,
            )
            self.process.start()
            self.pipe.open(loop, os.dup(reader.fileno()), os.dup(writer.fileno()))
        loop.add_reader(self.process.sentinel, self._process_ended)
        self._define()
        self.pipe.send(wire.encode([Kind.BOOT, self._boot]))
        self._take_turn()

    async def ready(self) -> None:
        """Returns when the worker answers.

        Raises:
            WorkerStartError: It could not begin.
        """
        if self._ready is not None:
            await asyncio.shield(self._ready)

    async def close(self, timeout: float | None) -> None:
        """Ends the process: politely, then not; settles every task."""
        self._closing = True
        if self.loop is None or self.process is None or self._gone is None:
            self._pack()
            self._settle_rest(None)
            return
        if not self._gone.done():
            self._take_turn()
            self.pipe.send(wire.encode([Kind.CLOSE, timeout]))
            self.pipe.flush()
            patience = None if timeout is None else timeout + KILL_AFTER
            await asyncio.wait([self._gone], timeout=patience)
        if not self._gone.done():
            self.process.kill()
            await self._gone

    def kill(self) -> None:
        """Ends the process at once, as when another worker broke the manager."""
        self._closing = self._broken = True
        self._kill_if_alive()

    # ---- tasks

    def take(self, awaitable: Awaitable[Any]) -> Cargo:
        """Takes a coroutine apart.

        Raises:
            NotShippable: It cannot travel.
        """
        return self._shipper.take(awaitable)

    def schedule(self, scheduler: int, due: int, when: datetime | int, cargo: Cargo) -> Task[Any]:
        """Gives a task its number and puts it into the next frame."""
        number = self._next
        self._next = number + 1
        function, payload = cargo
        schedulers, dues, functions, payloads = self._columns
        schedulers.append(scheduler)
        dues.append(due)
        functions.append(function)
        if len(payload) <= wire.BLOB_LIMIT:
            payloads.append(payload)
        else:
            payloads.append(wire.IN_BLOB)
            self.ledger.blobs[number] = payload
            self.pipe.send_blob(number, payload)
        if number % PAGE == PAGE - 1:
            self._pack()
            self.pipe.flush()
        elif self._turn is None:
            self._turn_soon()
        task: Task[Any] = Task(self, scheduler, number, when)
        handle = self._handles[number] = _Handle(task, self._forget)
        handle.number = number
        return task

    def cancel(self, scheduler: int, number: int) -> bool:
        """Sends the request, if the task is not known to have ended."""
        if number < self._first and number not in self.ledger:
            return False
        if number not in self.ledger.started and number not in self._asked:
            self._asked.add(number)
            self._tally.started(self._worker, scheduler, 1)
        self._cancels.append(number)
        self._turn_soon()
        return True

    def state(self, number: int) -> State:
        """PENDING or RUNNING: a task that has ended has told its handle."""
        return State.RUNNING if number in self.ledger.started else State.PENDING

    def ref(self, scheduler: int, number: int) -> TaskRef:
        return TaskRef(self._manager, self._worker, scheduler, number)

    def hold(self, task: Task[Any]) -> None:
        self._held[task._number] = task

    async def flush(self) -> None:
        """Returns when less than `pipe.HIGH_WATER` bytes wait to be written."""
        self._take_turn()
        await self.pipe.drain(HIGH_WATER)

    # ---- sending

    def _turn_soon(self) -> None:
        if self._turn is None and self.loop is not None:
            self._turn = self.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Sends what one turn of the loop has collected, in one write."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._pack()
        if self._cancels:
            for start in range(0, len(self._cancels), PAGE):
                self.pipe.send(wire.encode([Kind.CANCEL, self._cancels[start : start + PAGE]]))
            self._cancels.clear()
        self.pipe.flush()

    def _pack(self) -> None:
        """Makes a frame of the columns and enters it in the ledger."""
        count = self._next - self._first
        if count:
            self._define()
            frame = wire.encode([Kind.SCHEDULE, self._first, *self._columns])
            self.ledger.record(self._first, count, frame)
            self.pipe.send(frame)
            self._first = self._next
            for column in self._columns:
                column.clear()

    def _define(self) -> None:
        """Sends the definitions that came since the last time."""
        lines = self._shipper.catalog.log
        for line in lines[self._defined :]:
            for start in range(0, len(line), wire.CHUNK):
                part, last = line[start : start + wire.CHUNK], start + wire.CHUNK >= len(line)
                self.pipe.send(wire.encode([Kind.DEFINE, part, last]))
        self._defined = len(lines)

    # ---- receiving

    def _receive(self, frame: wire.Frame) -> None:
        kind, *fields = frame
        if kind == Kind.FINISHED:
            self._finished(*fields)
        elif kind == Kind.STARTED:
            self._started(*fields)
        elif kind == Kind.BLOB:
            self._blobs[fields[0]] = fields[1]
        elif kind == Kind.READY:
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif kind == Kind.FAILED:
            self._failure = fields[0]
        else:
            raise wire.WireError(f"a worker does not send {Kind(kind).name}")

    def _started(self, scheduler: int, numbers: list[int]) -> None:
        self.ledger.start(numbers)
        count = len(numbers)
        if self._asked:  # these do not count as waiting any more
            count -= len(self._asked.intersection(numbers))
        self._tally.started(self._worker, scheduler, count)

    def _finished(
        self,
        scheduler: int,
        numbers: list[int],
        endings: list[int],
        payloads: list[bytes | int | None],
    ) -> None:
        never_started = 0
        for number, ending, payload in zip(numbers, endings, payloads, strict=True):
            if not self.ledger.end(number) and number not in self._asked:
                never_started += 1
            self._asked.discard(number)
            handle = self._handles.pop(number, None)
            task = handle() if handle is not None else None
            if self._held:
                self._held.pop(number, None)
            outcome = self._blobs.pop(number) if isinstance(payload, int) else payload
            if task is not None:
                self._settle(task, ending, outcome)
            elif ending == wire.RAISED:
                who = f"task {self.ref(scheduler, number)}"
                report(self.loop, who, outcome, self._shipper.catalog.decode_failure)
        if never_started:
            self._tally.started(self._worker, scheduler, never_started)
        self._tally.ended(self._worker, scheduler, len(numbers))

    def _settle(self, task: Task[Any], ending: int, payload: bytes | None) -> None:
        catalog = self._shipper.catalog
        if ending == wire.RAISED:
            task._settle(State.FAILED, payload, catalog.decode_failure)
        elif ending == wire.RETURNED and payload is not None:
            task._settle(State.FINISHED, payload, catalog.decode_result)
        else:
            task._settle(_ENDINGS[ending], None)

    def _forget(self, handle: _Handle) -> None:
        self._handles.pop(handle.number, None)

    # ---- the end

    def _stream_ended(self, error: Exception | None) -> None:
        """Nothing more will come: the process has ended, is about to, or cannot be trusted."""
        process = self.process
        if process is None or self.loop is None:
            return
        if error is not None:
            log.error("worker %d sent what cannot be read, and is killed: %r", self._worker, error)
            process.kill()
        else:
            self.loop.call_later(EOF_GRACE, self._kill_if_alive)

    def _kill_if_alive(self) -> None:
        if self.process is not None and self._gone is not None and not self._gone.done():
            self.process.kill()

    def _process_ended(self) -> None:
        assert self.loop is not None
        assert self.process is not None
        assert self._gone is not None
        assert self._ready is not None
        self.loop.remove_reader(self.process.sentinel)
        self.process.aio_process.join()  # it has ended: this only reaps it
        exitcode = self.process.exitcode
        self.pipe.read_rest()
        self.pipe.close()
        self.process.close()
        self._gone.set_result(None)
        if not self._ready.done():
            reason: Exception = self._start_error(exitcode)
            self._ready.set_exception(reason)
        else:
            reason = WorkerLost(self._worker, exitcode, started=False)
        if not self._closing:
            self._closing = self._broken = True
            self._lost(self, reason)
        self._settle_rest(exitcode)

    def _start_error(self, exitcode: int | None) -> WorkerStartError:
        if self._failure is not None:
            return WorkerStartError(f"worker {self._worker} could not begin:\n\n{self._failure}")
        return WorkerStartError(
            f"worker {self._worker} {describe_exit(exitcode)} before it was ready; "
            "look at its output above"
        )

    def _settle_rest(self, exitcode: int | None) -> None:
        """Ends every task for which no outcome came."""
        self._pack()
        for number in list(self.ledger):
            started = self.ledger.end(number)
            handle = self._handles.pop(number, None)
            task = handle() if handle is not None else None
            if task is None:
                continue
            if number in self._asked or not (started or self._broken):
                task._settle(State.CANCELLED, None)
            else:
                task._settle(State.LOST, WorkerLost(self._worker, exitcode, started))
        self._asked.clear()
        self._blobs.clear()
        self._held.clear()
        self._tally.emptied(self._worker)


class _Handle(weakref.ref[Task[Any]]):
    """A weak reference that knows which task its handle was for."""

    __slots__ = ("number",)
    number: int
