"""The host's end of one worker process.

       host loop                                           │ process border
                                                           │
    schedule ─► outbox ─(a turn of the loop, or enough)─► SCHEDULE frame ══► worker
                  │                                        │
                ledger ◄──────────── STARTED, FINISHED frames ◄═════════════ worker
                  │                                        │
    handles (weak), batches ◄── outcomes                   │

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
from .batch import Decode, Outcomes, Part
from .errors import WorkerLost, WorkerStartError, describe_exit
from .ledger import PAGE, end_of_row
from .link import Tally
from .outbox import Outbox
from .pipe import HIGH_WATER, Pipe
from .process import WorkerProcess
from .shipping import Cargo, HostShipper
from .task import State, Task, TaskRef, report
from .wire import Kind, Payload

log = logging.getLogger("aioscheduler")

KILL_AFTER = 0.5  # seconds a worker has to end what it was told to cancel
EOF_GRACE = 1.0  # seconds from the end of the stream to the end of the process

_ENDINGS = {wire.RETURNED: State.FINISHED, wire.RAISED: State.FAILED, wire.DROPPED: State.CANCELLED}


class RemoteLink:
    """One worker process with its schedulers; keeps the contract of `link.Link`.

    Args:
        worker: Its place, from 0.
        config: Arguments of the worker's main function.
        shipper: Shared by all workers of the manager.
        tally: Told of every start and end.
        manager: The manager's id.
        boot: The payload of the initializer's call, or None.
        loop_initializer: Makes the worker's event loop; None for asyncio's own.
        lost: Called with the reason once the process is gone without having been asked to go.
        asked_inside: Called with the fields of each request that a task makes of its manager.
    """

    def __init__(
        self,
        worker: int,
        config: dict[str, Any],
        shipper: HostShipper,
        tally: Tally,
        manager: str,
        boot: bytes | None,
        loop_initializer: Callable[[], Any] | None,
        lost: Callable[[Exception], None],
        asked_inside: Callable[..., None],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.identity = secrets.randbits(64) << 64
        self.process: WorkerProcess | None = None
        self._worker = worker
        self._config = config
        self._shipper = shipper
        self._tally = tally
        self._manager = manager
        self._boot = boot
        self._loop_initializer = loop_initializer
        self._lost = lost
        self._asked_inside = asked_inside
        self._ready: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._closing = False
        self._broken = False  # its unfinished tasks are lost, not cancelled
        self._failure: str | None = None  # the traceback of a worker that could not begin

        self.pipe = Pipe(self._receive, self._stream_ended)
        self.outbox = Outbox(shipper.catalog.log)
        self._turn: asyncio.Handle | None = None
        self._decodes: tuple[Decode, Decode, None] = (
            shipper.catalog.decode_result,
            shipper.catalog.decode_failure,
            None,
        )
        self._asked: set[int] = set()  # pending tasks that were asked to cancel
        self._blobs: dict[int, bytes] = {}  # large outcomes, ahead of their FINISHED
        self._inside = b""  # the parts of a request so far
        self._handles: dict[int, _Handle] = {}
        self._held: dict[int, Task[Any]] = {}  # whose callbacks somebody waits for
        self._parts: dict[int, list[Part]] = {}  # of batches, by page
        self._numbers: dict[int, int] = {}  # of tasks that were scheduled inside, by alias
        self._aliases: dict[int, int] = {}  # the other way round

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
        loop.add_reader(self.process.watch, self._process_ended)
        self.outbox.boot(self._boot)
        self._send()

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
            self._settle_rest(None)
            return
        if not self._gone.done():
            self._send()
            self.pipe.send(wire.encode([Kind.CLOSE, timeout]))
            self.pipe.flush()
            patience = None if timeout is None else timeout + KILL_AFTER
            await asyncio.wait([self._gone], timeout=patience)
        if not self._gone.done():
            self.process.kill()
            await self._gone

    def kill(self, reason: Exception) -> None:
        """Ends the process at once: the manager has failed."""
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
        number = self.outbox.add(scheduler, due, *cargo)
        self._send_soon()
        return self._hand_out(scheduler, number, when)

    def take_function(self, function: Callable[..., Any]) -> int | bytes:
        """Turns what `map` calls into what travels of it."""
        return self._shipper.take_function(function)

    def take_arguments(self, args: tuple[Any, ...]) -> Payload:
        """Turns the arguments of one call into what travels of them."""
        return self._shipper.take_arguments(args)

    def schedule_many(
        self,
        outcomes: Outcomes,
        offset: int,
        scheduler: int,
        dues: int | list[int],
        function: int | bytes,
        payloads: list[Payload],
    ) -> None:
        """Sends calls of one function as one frame."""
        first = self.outbox.add_many(scheduler, dues, function, payloads)
        part = Part(outcomes, offset, self, scheduler, first, len(payloads), dues)
        self._parts.setdefault(first // PAGE, []).append(part)
        self._send_soon()

    def room(self) -> int:
        """How many calls `schedule_many` takes at a time."""
        return PAGE

    def adopt(self, scheduler: int, due: int, function: int, payload: bytes, alias: int) -> None:
        """Takes a task that was scheduled inside a worker, which gave it a number: its alias."""
        number = self.outbox.add(scheduler, due, function, payload)
        self._numbers[alias] = number
        self._aliases[number] = alias
        self._send_soon()

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Gives a handle on a task that has not ended, else None."""
        number = self._numbers.get(number, number)
        self.outbox.pack()
        found = self.outbox.ledger.find(number)
        if found is None or found[0] != scheduler:
            return None
        part = self._part_of(number)
        if part is not None:
            return part.task(number)
        handle = self._handles.get(number)
        task = handle() if handle is not None else None
        return self._hand_out(scheduler, number, found[1]) if task is None else task

    def cancel(self, scheduler: int, number: int) -> bool:
        """Sends the request, if the task is not known to have ended."""
        number = self._numbers.get(number, number)
        if number not in self.outbox:
            return False
        if not self.outbox.ledger.has_started(number) and number not in self._asked:
            self._asked.add(number)
            self._tally.started(self._worker, scheduler, 1)
        self.outbox.cancel(number)
        self._send_soon()
        return True

    def state(self, number: int) -> State:
        """PENDING or RUNNING: a task that has ended has told its handle."""
        return State.RUNNING if self.outbox.ledger.has_started(number) else State.PENDING

    def ref(self, scheduler: int, number: int) -> TaskRef:
        alias = self._aliases.get(number, number)
        return TaskRef(self._manager, self._worker, scheduler, alias)

    def hold(self, task: Task[Any]) -> None:
        self._held[task._number] = task

    async def flush(self) -> None:
        """Returns when less than `pipe.HIGH_WATER` bytes wait to be written."""
        self._send()
        await self.pipe.drain(HIGH_WATER)

    # ---- sending

    def _send_soon(self) -> None:
        """Sends at the end of this turn of the loop, or now if there is enough for a write."""
        if self.outbox.full:
            self._send()
        elif self._turn is None and self.loop is not None:
            self._turn = self.loop.call_soon(self._send)

    def _send(self) -> None:
        """Sends what has been collected, in one write."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        frames, blobs = self.outbox.take()
        for frame in frames:
            self.pipe.send(frame)
        for number, payload in blobs:
            self.pipe.send_blob(number, payload)
        self.pipe.flush()

    # ---- receiving

    def _receive(self, frame: wire.Frame) -> None:
        kind, *fields = frame
        if kind == Kind.FINISHED:
            self._finished(*fields)
        elif kind == Kind.STARTED:
            self._started(*fields)
        elif kind == Kind.BLOB:
            self._blobs[fields[0]] = fields[1]
        elif kind == Kind.INSIDE:
            self._take_inside(*fields)
        elif kind == Kind.READY:
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif kind == Kind.FAILED:
            self._failure = fields[0]
        else:
            raise wire.WireError(f"a worker does not send {Kind(kind).name}")

    def _started(self, scheduler: int, numbers: list[int]) -> None:
        self.outbox.ledger.start(numbers)
        count = len(numbers)
        if self._asked:  # these do not count as waiting any more
            count -= len(self._asked.intersection(numbers))
        self._tally.started(self._worker, scheduler, count)

    def _finished(
        self,
        scheduler: int,
        numbers: list[int],
        ending: int,
        payloads: list[Payload],
    ) -> None:
        state, decode = _ENDINGS[ending], self._decodes[ending]
        if ending == wire.DROPPED:
            ended = [(self.outbox.ledger.end(number), number) for number in numbers]
            waited = sum(not started and n not in self._asked for started, n in ended)
            self._tally.started(self._worker, scheduler, waited)
        else:
            self.outbox.ledger.end_started(numbers)
        in_rows = ending == wire.RETURNED and self._parts and wire.IN_BLOB not in payloads
        start = 0
        while start < len(numbers):
            stop = end_of_row(numbers, start) if in_rows else start + 1
            if stop - start == 1 or not self._settle_row(numbers[start], payloads[start:stop]):
                for number, payload in zip(numbers[start:stop], payloads[start:stop], strict=True):
                    outcome = self._blobs.pop(number) if isinstance(payload, list) else payload
                    self._settle(scheduler, number, state, outcome, decode)
            start = stop
        self._tally.ended(self._worker, scheduler, len(numbers))

    def _settle_row(self, first: int, payloads: list[Payload]) -> bool:
        """Settles results of a batch with numbers in a row: the common case, at a tenth the cost.

        False: they are not all of one batch, or somebody waits for a single one.
        """
        count = len(payloads)
        part = self._part_of(first)
        if part is None or first + count - 1 not in part or self._asked or self._held:
            return False
        if self._handles and any(n in self._handles for n in range(first, first + count)):
            return False
        if not part.settle_row(first, payloads, self._shipper.catalog.decode_result):
            return False
        self._tidy_part(part)
        return True

    def _settle(
        self, scheduler: int, number: int, state: State, value: Any, decode: Decode | None
    ) -> None:
        """Tells a task's end to whoever holds it, and forgets the task."""
        handle = self._handles.pop(number, None)
        task = handle() if handle is not None else None
        part = self._part_of(number) if self._parts else None
        if task is not None:
            task._settle(state, value, decode)
        if part is not None:
            part.settle(number, state, value, decode)
            self._tidy_part(part)
        elif task is None and state is State.FAILED:
            report(self.loop, f"task {self.ref(scheduler, number)}", value, decode)
        self._asked.discard(number)
        if self._held:
            self._held.pop(number, None)
        if self._aliases and number in self._aliases:
            del self._numbers[self._aliases.pop(number)]

    def _part_of(self, number: int) -> Part | None:
        """Gives the part of a batch that a task belongs to, if it does."""
        for part in self._parts.get(number // PAGE, ()):
            if number in part:
                return part
        return None

    def _tidy_part(self, part: Part) -> None:
        """Forgets a part of a batch whose tasks have all ended."""
        if not part.left:
            page = part.first // PAGE
            self._parts[page].remove(part)
            if not self._parts[page]:
                del self._parts[page]

    def _hand_out(self, scheduler: int, number: int, when: datetime | int) -> Task[Any]:
        """Makes a handle, and remembers it as long as somebody else does."""
        task: Task[Any] = Task(self, scheduler, number, when)
        handle = self._handles[number] = _Handle(task, self._forget)
        handle.number = number
        return task

    def _take_inside(self, part: bytes, last: bool) -> None:
        """Collects a request that a task made of its manager."""
        self._inside += part
        if last:
            request, self._inside = wire.unpack(self._inside), b""
            self._asked_inside(*request)

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
        self.loop.remove_reader(self.process.watch)
        exitcode = self.process.reap()
        self.pipe.read_rest()
        self.pipe.close()
        self._gone.set_result(None)
        if not self._ready.done():
            reason: Exception = self._start_error(exitcode)
            self._ready.set_exception(reason)
        else:
            reason = WorkerLost(self._worker, exitcode, started=False)
        if not self._closing:
            self._closing = self._broken = True
            self._lost(reason)
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
        self.outbox.pack()
        ledger = self.outbox.ledger
        for number in list(ledger):
            started = ledger.end(number)
            if number in self._asked or not (started or self._broken):
                self._settle(0, number, State.CANCELLED, None, None)
            else:
                error = WorkerLost(self._worker, exitcode, started)
                self._settle(0, number, State.LOST, error, None)
        self._blobs.clear()
        self._tally.emptied(self._worker)


class _Handle(weakref.ref[Task[Any]]):
    """A weak reference that knows which task its handle was for."""

    __slots__ = ("number",)
    number: int
