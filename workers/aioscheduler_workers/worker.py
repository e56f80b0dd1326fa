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
import contextlib
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from itertools import repeat
from types import CoroutineType, TracebackType
from typing import Any, NoReturn

from aioscheduler._processes.supervisor import DRAIN_TIME
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._routing.placement import Placement
from aioscheduler._scheduling.alarm import Alarm, next_tick
from aioscheduler._scheduling.coroutines import close_refused, name_of
from aioscheduler._scheduling.ending import end_running
from aioscheduler._scheduling.engine import Engine, Order, due_time
from aioscheduler._scheduling.lateness import Recorder
from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler._scheduling.timers import NUMBER_BITS
from aioscheduler._shipping.classgarbage import ClassGarbage
from aioscheduler._shipping.failures import text_of, traceback_of
from aioscheduler._shipping.shipping import Shipper, open_call
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import Leased
from aioscheduler._transport.pipe import MakePipe, Pipe
from aioscheduler._transport.wire import Kind, Payload
from aioscheduler.inside import ManagerProxy, Place, running
from aioscheduler.options import Options, TaskOptions, read_options, run_with
from aioscheduler.task import TaskRef, check_ref

from .outcome import encode_failure, encode_refusal, encode_unopened

log: logging.Logger = logging.getLogger("aioscheduler")

LAST_WORDS = 1.0  # seconds that a process which has failed has to say why
ALIAS_BITS = 36  # of the number of a task that a process gives
MAX_OUTCOMES = 256  # tasks whose outcomes are sent together

# The function's number or pickle, the payload or IN_BLOB, and the record.
_Entry = tuple["int | bytes", Payload, wire.Record]
_Outcomes = tuple[list[int], list[Payload]]
_PLAIN = (None, None, 1)  # a task without a record


class Worker:
    """The schedulers of one worker process.

    Args:
        config: What the manager tells it.
        failures: What went wrong already, to be reported instead of READY.
        begun: Where to store the number of the task that each scheduler began last, plus one.
        clock: Gives the present in nanoseconds since the epoch.
        make_pipe: Makes the worker's end of the connection.
    """

    def __init__(
        self,
        config: WorkerConfig,
        failures: list[BaseException],
        begun: memoryview[int] | list[int],
        clock: Callable[[], int] = time.time_ns,
        make_pipe: MakePipe = Pipe,
    ) -> None:
        order, layout = config.order, config.layout
        self._manager = config.manager
        self._worker = config.worker
        self._order = order
        self._prefer_utc = config.prefer_utc
        self._failures = failures
        self._catalog = WorkerCatalog()
        self._catalog.handed = list(config.handed)
        self._loop_thread = LoopThread("task's manager")
        self._proxy = self._catalog.owner = ManagerProxy(self, self._loop_thread)
        self._shipper = Shipper(self._catalog)
        self._placement = Placement(layout, order is Order.TIMED)  # for keys
        # No number of the host's is as large, and no other process of the manager gives the same.
        process = config.generation * len(layout) + config.worker
        self._next_alias = (1 << NUMBER_BITS) + (process << ALIAS_BITS)
        self._begun = begun
        self._clock = clock
        self._definition = b""  # the parts of a line so far
        self._garbage = ClassGarbage()
        self._recorder = Recorder()
        self._engines: list[Engine[_Entry]] = [
            Engine(index, order, self, self._recorder, clock) for index in range(config.schedulers)
        ]
        self._places: list[Place] = [
            (self._proxy, config.manager, config.worker, index, clock)
            for index in range(config.schedulers)
        ]
        self._pipe = make_pipe(self._receive, self._host_gone)
        self._blobs: dict[int, bytes | None] = {}  # None: there was no memory for it
        self._expected: set[int] = set()  # tasks whose blob is not here yet
        self._late: dict[int, tuple[Engine[_Entry], int]] = {}  # those of them that are due
        self._outcomes: list[dict[int, _Outcomes]] = [  # of each engine, by ending
            {ending: ([], []) for ending in (wire.RETURNED, wire.RAISED, wire.DROPPED)}
            for _ in self._engines
        ]
        self._outcome_bytes = 0
        self.ticked = 0.0  # by the loop's clock
        self._alarm: Alarm | None = None
        self._turn: asyncio.Handle | None = None
        self._opened: tuple[bytes, Any] = (b"", None)  # the last function that came with a frame
        self._life: asyncio.Task[None] | None = None  # booting, then ending
        self._boot_call = b""  # the parts so far
        self._ready = self._ending = self._has_failed = False
        self._end_child: Callable[[BaseException | None], NoReturn] | None = None
        self._ticker: asyncio.TimerHandle | None = None

    async def serve(self, loop: asyncio.AbstractEventLoop, reader: int, writer: int) -> None:
        """Works until the host says CLOSE or is gone, or the boot fails."""
        self._loop = loop
        self._loop_thread.enter(loop)
        self._done = loop.create_future()
        self._pipe.open(loop, reader, writer)
        await self._done
        if self._ticker is not None:
            self._ticker.cancel()
        self._pipe.close()

    def drain(self) -> None:
        """Starts nothing more, gives what runs `DRAIN_TIME`, and ends: the process is to go."""
        if not self._ready:
            self._end(0)
        elif not self._ending:
            self._ending = True
            self._live(self._drain())

    def halt(self) -> None:
        """Stops where it is, with nothing more written: how one dies that has no process."""
        if self._life is not None:
            self._life.cancel()
        for handle in (self._ticker, self._turn):
            if handle is not None:
                handle.cancel()
        if self._alarm is not None:
            self._alarm.stop()
        for engine in self._engines:
            engine.stop()
            for task, _ in engine.running.values():
                task.cancel()
        self._pipe.close()

    def disown(self, end: Callable[[BaseException | None], NoReturn]) -> None:
        """Run nothing more, in a forked child; the end of the task that forked it is its own.

        Args:
            end: Ends the process; given what the task raised, if it did.
        """
        self._end_child = end
        self._report = lambda *_: end(None)  # type: ignore[method-assign]
        for engine in self._engines:
            engine.drop_slice()

    def describe_current(self, loop: asyncio.AbstractEventLoop) -> str:
        """Names what is in its step now; may be called from another thread."""
        current = asyncio.current_task(loop)
        if current is None:
            return "a callback of the loop"
        if current is self._life:
            return "the initializer"
        coro = current.get_coro()
        frame = getattr(coro, "cr_frame", None)
        if frame is None or frame.f_code is not EXECUTE:
            return f"{name_of(coro)}(), which a task has begun,"
        own = frame.f_locals  # `engine.running` does not have a task in its first step
        where = TaskRef(self._manager, self._worker, own["engine"].index, own["number"])
        called, options = own.get("called"), own.get("options")
        if called is None:  # its arguments are read
            return f"task {where}"
        return f"task {(options and options.name) or name_of(called)} {where}"

    # ---- frames

    def _receive(self, frame: wire.Frame) -> None:
        kind, *fields = frame
        if self._has_failed:
            return
        if kind == Kind.SCHEDULE:
            try:
                self._accept(*fields)
            except Exception as error:  # noqa: BLE001  whatever is wrong with it
                self._refuse(error, *fields)
        elif kind == Kind.CANCEL:
            scheduler, numbers = fields
            for number in numbers:
                self._engines[scheduler].cancel(number)
        elif kind == Kind.DEFINE:
            self._define(*fields)
        elif kind == Kind.BLOB:
            self._take_blob(*fields)
        elif kind == Kind.BOOT:
            part, last = fields
            self._boot_call += part
            if last:
                call, self._boot_call = self._boot_call, b""
                self._live(self._boot(call))
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
        records: wire.Record | list[wire.Record],
        payloads: list[Payload],
    ) -> None:
        count = len(payloads)
        numbers = first if isinstance(first, list) else range(first, first + count)
        if wire.IN_BLOB in payloads:
            self._expected.update(
                number
                for number, payload in zip(numbers, payloads, strict=True)
                if isinstance(payload, list)
            )
        entries = zip(_column(functions, count), payloads, _column(records, count), strict=True)
        if isinstance(schedulers, int):
            self._engines[schedulers].add_many(numbers, dues, entries)
            return
        engines = self._engines
        for number, scheduler, due, entry in zip(
            numbers, schedulers, _column(dues, count), entries, strict=True
        ):
            engines[scheduler].add(number, due, entry)

    def _refuse(
        self,
        error: Exception,
        first: int | list[int],
        schedulers: int | list[int],
        dues: object,
        functions: object,
        records: object,
        payloads: list[Payload],
    ) -> None:
        """Fail the tasks of a frame that cannot be taken: no other process could take it, either.

        Raises:
            Exception: It does not even say which tasks it is about.
        """
        count = len(payloads)
        numbers = first if isinstance(first, list) else range(first, first + count)
        failure = encode_failure(self._catalog, error)
        log.error("%d tasks cannot be taken by this worker, and fail: %r", count, error)
        for number, scheduler in zip(numbers, _column(schedulers, count), strict=True):
            engine = self._engines[scheduler]
            if engine.withdraw(number) is not None:
                self._expected.discard(number)
            self._pipe.send(wire.encode([Kind.STARTED, scheduler, [number]]))
            self._report(engine, number, wire.RAISED, failure)

    def _define(self, part: bytes, last: bool) -> None:
        self._definition += part
        if last:
            line, self._definition = self._definition, b""
            known = self._catalog.confirmed
            self._catalog.read(line)
            if self._catalog.confirmed != known:
                self._shipper.forget()
            self._garbage.note(self._catalog.forgotten)

    def _take_blob(self, number: int, payload: bytes | None) -> None:
        """Take a large payload, or the word that there is no memory for it."""
        if number in self._expected:
            self._expected.remove(number)
            self._blobs[number] = payload
        if number in self._late:
            engine, due = self._late.pop(number)
            self._announce(engine, [number], [due])

    def _host_gone(self, error: Exception | None) -> None:
        if error is None:
            self._end(0)
        else:
            self._fail(error)

    # ---- life

    def _live(self, part: Coroutine[Any, Any, None]) -> None:
        """Begin the next part of this life."""
        if self._life is not None:
            self._life.cancel()
        self._life = self._loop.create_task(part)
        self._life.add_done_callback(self._part_ended)

    def _part_ended(self, part: asyncio.Task[None]) -> None:
        if not part.cancelled() and (error := part.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End this process, because something in it that must not fail has failed.

        What had not begun goes to the next process, and what runs is lost: it is not reported as
        cancelled, which nobody asked for.
        """
        if self._has_failed:
            return
        self._has_failed = self._ending = True
        for engine in self._engines:
            engine.stop()
        with contextlib.suppress(Exception):  # it is known by its end, if it cannot say more
            self._pack()
        with contextlib.suppress(Exception):
            self._pipe.send(wire.encode([Kind.FAILED, wire.text(text_of(error))]))
            self._pipe.flush()
        self._live(self._leave())

    async def _leave(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._pipe.drain()
        if not self._done.done():
            self._done.set_result(None)

    async def _boot(self, call: bytes) -> None:
        """Runs the initializer, then starts the schedulers and says READY."""
        try:
            if self._failures:
                raise self._failures[0]
            if call:
                initializer, args = self._catalog.decode(call)
                result = initializer(*args)
                if inspect.isawaitable(result):
                    await result
        except BaseException as error:
            if self._ending and isinstance(error, asyncio.CancelledError):
                raise
            self._fail(error)
            return
        self._pipe.send(wire.encode([Kind.READY]))
        self._ready = True
        self._tick()
        self._alarm = Alarm(self._loop, self._clock)
        for engine in self._engines:
            engine.start(self._loop, self._alarm)

    def _tick(self) -> None:
        """Tells the host that this loop turns, and how late it was."""
        try:
            self._tell_tick()
        except Exception as error:  # noqa: BLE001  it would be taken for silent
            self._fail(error)

    def _tell_tick(self) -> None:
        planned = self._ticker.when() if self._ticker is not None else self._loop.time()
        self.ticked = self._loop.time()
        self._tell_load(max(0.0, self.ticked - planned))
        self._pipe.flush()
        self._pipe.check()
        # At the same moment as the alarm, so that both take one wake-up.
        self._ticker = self._loop.call_at(next_tick(self.ticked), self._tick)

    def _tell_load(self, lag: float) -> None:
        report = *self._recorder.take(), self._catalog.confirmed
        self._pipe.send(wire.encode([Kind.TICK, lag, *report]))

    def _end(self, timeout: float | None) -> None:
        self._ending = True
        self._live(self._close(timeout))

    async def _close(self, timeout: float | None) -> None:
        """Starts nothing more, ends what runs, and writes the last outcomes.

        The host counts what was not announced as cancelled.
        """
        for engine in self._engines:
            launched, _ = engine.stop()
            for number, entry in launched.items():
                self.withdrawn(engine, number, entry)
        await self._finish(timeout)

    async def _drain(self) -> None:
        """Gives back what was announced and has not begun, and tells the host that it will end.

        What waits is not told of: the host has it, and hands it to the next process.
        """
        self._pipe.send(wire.encode([Kind.DRAINING]))
        for engine in self._engines:
            launched, _ = engine.stop()
            unbegun = [number for number in launched if number not in self._late]
            if unbegun:
                self._pipe.send(wire.encode([Kind.UNSTARTED, engine.index, unbegun]))
        await self._finish(DRAIN_TIME)

    async def _finish(self, timeout: float | None) -> None:
        """Ends what runs, and writes the last outcomes."""
        if self._alarm is not None:
            self._alarm.stop()
        self._write_soon()
        given_up = await end_running(self._engines, timeout)
        self._tell_load(0.0)
        self._take_turn()
        await self._pipe.drain()
        if given_up:  # the host ends this process, and tells what swallows its cancellation
            await self._loop.create_future()
        if not self._done.done():
            self._done.set_result(None)

    # ---- the crew of the engines

    def launch(self, engine: Engine[_Entry], numbers: list[int], dues: list[int]) -> None:
        """Announces a slice, without the tasks whose blobs are not here yet."""
        if self._expected and not self._expected.isdisjoint(numbers):
            slice_ = dict(zip(numbers, dues, strict=True))
            for number in self._expected.intersection(numbers):
                self._late[number] = engine, slice_.pop(number)
            numbers, dues = list(slice_), list(slice_.values())
        self._announce(engine, numbers, dues)

    def _announce(self, engine: Engine[_Entry], numbers: list[int], dues: list[int]) -> None:
        if not numbers:
            engine.run(numbers, dues)
            return
        started = wire.encode([Kind.STARTED, engine.index, numbers])
        self._pipe.send(started, lambda: engine.run(numbers, dues))
        self._write_soon()

    async def execute(self, engine: Engine[_Entry], number: int, entry: _Entry, due: int) -> None:
        """Runs one task from its bytes to its outcome."""
        catalog = self._catalog
        ending = wire.RETURNED
        outcome: Payload
        self._begun[engine.index] = number + 1
        try:
            function, payload, record = entry
            options, alias, attempt = _PLAIN if record is None else self._read_record(record)
            if isinstance(payload, list):
                payload = self._blobs.pop(number)
                if payload is None:
                    raise MemoryError("this worker has no memory for the task's arguments")
            called, args, kwargs = open_call(
                catalog,
                self._open_function(function) if isinstance(function, bytes) else function,
                payload,
            )
        except BaseException as error:  # noqa: BLE001  a sys.exit() in a module, for example
            ending, outcome = wire.RAISED, encode_unopened(catalog, error)
        else:
            running.set((self._places[engine.index], alias or number, due, attempt))
            try:
                if options is None:
                    value = called(*args, **kwargs)
                    if type(value) is CoroutineType or isinstance(value, Awaitable):
                        value = await value
                else:
                    name = options.name or name_of(called)
                    call = partial(called, *args, **kwargs)
                    value = await run_with(options, name, due, attempt, self._clock, call)
                try:
                    outcome = catalog.encode(value)
                except BaseException as error:  # noqa: BLE001  a user's class may raise anything
                    ending, outcome = wire.RAISED, encode_refusal(value, error)
            except asyncio.CancelledError:
                ending, outcome = wire.DROPPED, None
            except BaseException as error:  # noqa: BLE001  SystemExit, too, belongs to the awaiter
                if self._end_child is not None:
                    self._end_child(error)
                BaseException.with_traceback(error, _of_task(traceback_of(error)))
                ending, outcome = wire.RAISED, encode_failure(catalog, error)
        try:
            if number in engine.running:  # it did not end in its first step
                engine.ended(number)
            self._report(engine, number, ending, outcome)
        except Exception as error:  # noqa: BLE001  it would have no end
            self._fail(error)

    def withdrawn(self, engine: Engine[_Entry], number: int, entry: _Entry) -> None:
        """Reports a task that was cancelled before its first step."""
        if isinstance(entry[1], list):
            self._expected.discard(number)
            self._blobs.pop(number, None)
            self._late.pop(number, None)
        self._report(engine, number, wire.DROPPED, None)

    def broken(self, engine: Engine[_Entry], error: Exception, launched: dict[int, _Entry]) -> None:
        """End this process; what it had launched and not begun goes to the next."""
        self._fail(error)

    def _read_record(self, record: wire.Record) -> tuple[Options | None, int | None, int]:
        """Gives the options of a task, its alias and its attempt."""
        number, alias, attempt, _ = wire.read_record(record)
        return None if number is None else self._catalog.options[number], alias, attempt

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
        options: TaskOptions,
    ) -> TaskRef:
        """Sends the host a task to route, ahead of the outcome of the one that asks."""
        placement = self._placement
        try:
            due = due_time(self._order, when, self._clock(), self._prefer_utc)
            scheduler = 0 if origin is None else origin.scheduler
            place = placement.place_near(key, self._worker, scheduler)
            read = read_options(options, self._order) if options else None
            function, payload, _ = self._shipper.take(coro)
        except BaseException as refusal:
            close_refused(coro, refusal)
            raise
        alias = self._next_alias
        self._next_alias += 1
        lines = payload.leases if isinstance(payload, Leased) else ()
        self._ask("schedule", place, due, function, payload, read, alias, lines)
        worker, scheduler = placement.worker_of[place], placement.scheduler_of[place]
        return TaskRef(self._manager, worker, scheduler, alias)

    def cancel_inside(self, ref: TaskRef) -> bool:
        """Sends the host the request; whether it comes in time is not known here."""
        check_ref(ref, self._manager, self._placement)
        self._ask("cancel", *ref[1:])
        return True

    def _ask(self, *request: object) -> None:
        """Sends a request to the host, in parts if it is large, ahead of all outcomes to come."""
        try:
            for part, last in wire.cut(wire.pack(request)):
                self._pipe.send(wire.encode([Kind.INSIDE, part, last]))
        except Exception as error:
            self._fail(error)  # what was sent of it must not be taken for the whole
            raise
        self._write_soon()

    # ---- outcomes

    def _report(self, engine: Engine[_Entry], number: int, ending: int, payload: Payload) -> None:
        if type(payload) is bytes:
            if len(payload) > wire.BLOB_LIMIT:
                outcome = [Kind.FINISHED, engine.index, [number], ending, [wire.IN_BLOB]]
                self._pipe.send_blob(number, payload, then=wire.encode(outcome))
                self._write_soon()
                return
            self._outcome_bytes += len(payload)
        numbers, payloads = self._outcomes[engine.index][ending]
        numbers.append(number)
        payloads.append(payload)
        if len(numbers) >= MAX_OUTCOMES or self._outcome_bytes > wire.FRAME_BYTES:
            self._pack()
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
        try:
            self._pack()
            self._pipe.flush()
        except Exception as error:  # noqa: BLE001  what it was to tell would never be known
            self._fail(error)

    def _pack(self) -> None:
        """Makes frames of the outcomes."""
        self._outcome_bytes = 0
        for index, outcomes in enumerate(self._outcomes):
            for ending, (numbers, payloads) in outcomes.items():
                if numbers:
                    self._pipe.send(wire.encode([Kind.FINISHED, index, numbers, ending, payloads]))
                    numbers.clear()
                    payloads.clear()


EXECUTE = Worker.execute.__code__
BOOT = Worker._boot.__code__


def _of_task(trace: TracebackType | None) -> TracebackType | None:
    """Give the part of a traceback that is the task's own, if there is one."""
    while trace is not None and trace.tb_frame.f_code in (EXECUTE, run_with.__code__):
        trace = trace.tb_next
    return trace


def _column(field: Any, count: int) -> Any:
    """Gives a column's item for each task."""
    return field if isinstance(field, list) else repeat(field, count)
