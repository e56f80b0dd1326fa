"""The worker's core: frames in, tasks run, outcomes out.

    DEFINE ─► catalog                      ┌─ engine 0 ─┐
    SCHEDULE ─► entries, undecoded bytes ─►│     …      │─► a slice is due
    CANCEL ─► engine                       └─ engine n ─┘         │
                                                       STARTED, in one write
                                                                  │ written
    FINISHED, collected for a turn of the loop ◄── decode, import, run

A slice is announced before the first of its bytes is decoded, and only runs once the
announcement is in the pipe, where it survives this process. So what the host has not heard of
has not begun.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from itertools import repeat
from types import CoroutineType
from typing import Any

from aioscheduler import wire
from aioscheduler.alarm import Alarm
from aioscheduler.coroutines import close_unstarted
from aioscheduler.definitions import WorkerCatalog
from aioscheduler.engine import Engine, Order, due_time
from aioscheduler.errors import UnknownTask
from aioscheduler.inside import ManagerProxy, running
from aioscheduler.pickling import pack
from aioscheduler.pipe import Pipe
from aioscheduler.placement import Placement
from aioscheduler.shipping import Shipper, open_cargo, with_alias
from aioscheduler.task import TaskRef
from aioscheduler.timers import NUMBER_BITS
from aioscheduler.wire import Kind

MAX_OUTCOMES = 256  # tasks whose outcomes are sent together

# The function's number or pickle, and the payload or IN_BLOB.
_Entry = tuple["int | bytes", "bytes | int"]
_Outcomes = tuple[list[int], list[int], list["bytes | int | None"]]


class Worker:
    """The schedulers of one worker process.

    Args:
        manager: The manager's id.
        worker: The place of this worker, from 0.
        order: What each scheduler runs next.
        layout: How many schedulers each worker of the manager has.
        prefer_utc: What a naive datetime means, to tasks that schedule others.
        failures: What went wrong already, to be reported instead of READY.
    """

    def __init__(
        self,
        manager: str,
        worker: int,
        order: Order,
        layout: list[int],
        prefer_utc: bool,
        failures: list[BaseException],
    ) -> None:
        self._manager = manager
        self._worker = worker
        self._order = order
        self._prefer_utc = prefer_utc
        self._failures = failures
        self._catalog = WorkerCatalog()
        self._proxy = self._catalog.owner = ManagerProxy(self)
        self._shipper = Shipper(self._catalog)
        self._placement = Placement(layout, order is Order.TIMED)  # for keys
        self._next_alias = worker + 1 << NUMBER_BITS  # no number of the host's is as large
        self._definition = b""  # the parts of a line so far
        self._engines: list[Engine[_Entry]] = [
            Engine(index, order, self) for index in range(layout[worker])
        ]
        self._pipe = Pipe(self._receive, self._host_gone)
        self._blobs: dict[int, bytes] = {}
        self._late: dict[int, tuple[Engine[_Entry], _Entry]] = {}  # due before their blob came
        self._outcomes: list[_Outcomes] = [([], [], []) for _ in self._engines]
        self._turn: asyncio.Handle | None = None
        self._opened: tuple[bytes, Any] = (b"", None)  # the last function that came with a frame
        self._life: asyncio.Task[None] | None = None  # booting, then ending

    async def serve(self, loop: asyncio.AbstractEventLoop, reader: int, writer: int) -> None:
        """Works until the host says CLOSE or is gone, or the boot fails."""
        self._loop = loop
        self._alarm = Alarm(loop, time.time_ns)
        self._done = loop.create_future()
        self._pipe.open(loop, reader, writer)
        await self._done
        self._pipe.close()

    # ---- frames

    def _receive(self, frame: wire.Frame) -> None:
        kind, *fields = frame
        if kind == Kind.SCHEDULE:
            self._accept(*fields)
        elif kind == Kind.CANCEL:
            for number in fields[0]:
                any(engine.cancel(number) for engine in self._engines)
        elif kind == Kind.DEFINE:
            self._define(*fields)
        elif kind == Kind.BLOB:
            self._take_blob(*fields)
        elif kind == Kind.BOOT:
            self._life = self._loop.create_task(self._boot(fields[0]))
        elif kind == Kind.CLOSE:
            self._end(fields[0])
        else:
            raise wire.WireError(f"a host does not send {Kind(kind).name}")

    def _accept(
        self,
        first: int | list[int],
        schedulers: int | list[int],
        dues: int | list[int],
        functions: int | bytes | list[int | bytes],
        payloads: list[bytes | int],
    ) -> None:
        count = len(payloads)
        for number, scheduler, due, function, payload in zip(
            first if isinstance(first, list) else range(first, first + count),
            _column(schedulers, count),
            _column(dues, count),
            _column(functions, count),
            payloads,
            strict=True,
        ):
            self._engines[scheduler].add(number, due, (function, payload))

    def _define(self, part: bytes, last: bool) -> None:
        self._definition += part
        if last:
            line, self._definition = self._definition, b""
            self._catalog.read(line)

    def _take_blob(self, number: int, payload: bytes) -> None:
        if any(engine.is_pending(number) for engine in self._engines):
            self._blobs[number] = payload
        if number in self._late:
            engine, entry = self._late.pop(number)
            self._announce(engine, [(number, entry)])

    def _host_gone(self, error: Exception | None) -> None:
        self._end(0)

    # ---- life

    async def _boot(self, call: bytes | None) -> None:
        """Runs the initializer, then starts the schedulers and says READY."""
        try:
            if self._failures:
                raise self._failures[0]
            if call is not None:
                initializer, args = self._catalog.decode(call)
                result = initializer(*args)
                if inspect.isawaitable(result):
                    await result
        except asyncio.CancelledError:
            raise
        except BaseException:  # noqa: BLE001  told to the host; main must not raise
            self._pipe.send(wire.encode([Kind.FAILED, traceback.format_exc()[-wire.CHUNK :]]))
            self._end(0)
            return
        self._pipe.send(wire.encode([Kind.READY]))
        self._pipe.flush()
        for engine in self._engines:
            engine.start(self._loop, self._alarm)

    def _end(self, timeout: float | None) -> None:
        if self._life is not None:
            self._life.cancel()
        self._life = self._loop.create_task(self._close(timeout))

    async def _close(self, timeout: float | None) -> None:
        """Starts nothing more, ends what runs, and writes the last outcomes.

        The host counts what was not announced as cancelled.
        """
        for engine in self._engines:
            launched, _ = engine.stop()
            for number, entry in launched.items():
                self.withdrawn(engine, number, entry)
        self._alarm.stop()
        running = {task for engine in self._engines for task, _ in engine.running.values()}
        if running and timeout != 0:
            _, running = await asyncio.wait(running, timeout=timeout)
        if running:
            for engine in self._engines:
                for number in list(engine.running):
                    engine.cancel(number)
            await asyncio.wait(running)
            await asyncio.sleep(0)  # tasks cancelled before their first step report here
        self._take_turn()
        await self._pipe.drain()
        if not self._done.done():
            self._done.set_result(None)

    # ---- the crew of the engines

    def launch(self, engine: Engine[_Entry], batch: list[tuple[int, _Entry]]) -> None:
        """Announces a slice, without the tasks whose blobs are not here yet."""
        here = batch
        if any(isinstance(entry[1], int) for _, entry in batch):
            here = []
            for number, entry in batch:
                if isinstance(entry[1], int) and number not in self._blobs:
                    self._late[number] = (engine, entry)
                else:
                    here.append((number, entry))
        self._announce(engine, here)

    def _announce(self, engine: Engine[_Entry], batch: list[tuple[int, _Entry]]) -> None:
        if not batch:
            engine.run(batch)
            return
        numbers = [number for number, _ in batch]
        started = wire.encode([Kind.STARTED, engine.index, numbers])
        self._pipe.send(started, lambda: engine.run(batch))
        self._write_soon()

    async def execute(self, engine: Engine[_Entry], number: int, entry: _Entry) -> None:
        """Runs one task from its bytes to its outcome."""
        ending, outcome = wire.RETURNED, None
        try:
            function, payload = entry
            if isinstance(payload, int):
                payload = self._blobs.pop(number)
            called, args, kwargs, alias = open_cargo(
                self._catalog,
                self._open_function(function) if isinstance(function, bytes) else function,
                payload,
            )
            running.set((self._proxy, self._manager, self._worker, engine.index, alias or number))
            value = called(*args, **kwargs)
            if type(value) is CoroutineType or isinstance(value, Awaitable):
                value = await value
            if value is not None:
                returned, outcome = self._catalog.encode_result(value)
                ending = wire.RETURNED if returned else wire.RAISED
        except asyncio.CancelledError:
            ending = wire.DROPPED
        except BaseException as error:  # noqa: BLE001  SystemExit, too, belongs to the awaiter
            if error.__traceback__ is not None:
                error.__traceback__ = error.__traceback__.tb_next  # without this frame
            ending, outcome = wire.RAISED, self._catalog.encode_failure(error)
        engine.ended(number)
        self._report(engine, number, ending, outcome)

    def withdrawn(self, engine: Engine[_Entry], number: int, entry: _Entry) -> None:
        """Reports a task that was cancelled before its first step."""
        if isinstance(entry[1], int):
            self._blobs.pop(number, None)
            self._late.pop(number, None)
        self._report(engine, number, wire.DROPPED, None)

    def _open_function(self, pickled: bytes) -> Callable[..., Any]:
        """Decodes a function that came with its frame; once for the tasks of a frame."""
        if self._opened[0] != pickled:
            self._opened = pickled, self._catalog.decode(pickled)
        function: Callable[..., Any] = self._opened[1]
        return function

    # ---- the desk of tasks that ask for their manager

    def schedule_inside(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        origin: TaskRef | None,
    ) -> TaskRef:
        """Sends the host a task to route, ahead of the outcome of the one that asks."""
        placement = self._placement
        try:
            due = due_time(self._order, when, time.time_ns(), self._prefer_utc)
            scheduler = 0 if origin is None else origin.scheduler
            place = placement.place_near(key, self._worker, scheduler)
            function, payload = self._shipper.take(coro)
        except BaseException:
            close_unstarted(coro)
            raise
        alias = self._next_alias
        self._next_alias += 1
        self._ask("schedule", place, due, function, with_alias(payload, alias), alias)
        worker, scheduler = placement.worker_of[place], placement.scheduler_of[place]
        return TaskRef(self._manager, worker, scheduler, alias)

    def cancel_inside(self, ref: TaskRef) -> bool:
        """Sends the host the request; whether it comes in time is not known here."""
        if ref.manager != self._manager:
            raise UnknownTask(f"{ref} is a task of another manager; ask that one")
        self._ask("cancel", *ref[1:])
        return True

    def _ask(self, *request: object) -> None:
        """Sends a request to the host, in parts if it is large, ahead of all outcomes to come."""
        body = pack(request)
        for start in range(0, len(body), wire.CHUNK):
            part, last = body[start : start + wire.CHUNK], start + wire.CHUNK >= len(body)
            self._pipe.send(wire.encode([Kind.INSIDE, part, last]))
        self._write_soon()

    # ---- outcomes

    def _report(
        self, engine: Engine[_Entry], number: int, ending: int, payload: bytes | int | None
    ) -> None:
        if payload and isinstance(payload, bytes) and len(payload) > wire.BLOB_LIMIT:
            outcome = [Kind.FINISHED, engine.index, [number], [ending], [wire.IN_BLOB]]
            self._pipe.send_blob(number, payload, then=wire.encode(outcome))
        else:
            numbers, endings, payloads = self._outcomes[engine.index]
            numbers.append(number)
            endings.append(ending)
            payloads.append(payload)
            if len(numbers) >= MAX_OUTCOMES:
                self._pack(engine.index)
        if self._turn is None:
            self._write_soon()

    def _write_soon(self) -> None:
        """Has all that this turn of the loop brings forth written together."""
        if self._turn is None:
            self._turn = self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Writes what one turn of the loop has collected."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        for index, outcomes in enumerate(self._outcomes):
            if outcomes[0]:
                self._pack(index)
        self._pipe.flush()

    def _pack(self, index: int) -> None:
        outcomes: Any = self._outcomes[index]
        self._pipe.send(wire.encode([Kind.FINISHED, index, *outcomes]))
        for column in outcomes:
            column.clear()


def _column(field: Any, count: int) -> Any:
    """Gives a column's item for each task."""
    return field if isinstance(field, list) else repeat(field, count)
