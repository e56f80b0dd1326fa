"""The worker's core: frames in, tasks run, outcomes out.

DEFINE ─► catalog                      ┌─ engine 0 ─┐
SCHEDULE ─► entries, undecoded bytes ─►│     …      │─► a slice is due ─► Announcer
CANCEL, WITHDRAW ─► engine             └─ engine n ─┘                         │
BOOT, DRAIN, CLOSE ─► Lifecycle                                           announced
CONFIRM, BLOB ─► Announcer                                                    │
ENDED, RETRY ◄── Turn, a turn of the loop ◄── WorkerRunner: decode, import, run
INSIDE ◄── WorkerUpstream ◄── a task asks its manager
LOG ◄── Forwarder ◄── log records, with forward_logs; LOGGED ─► Forwarder
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import Any, NoReturn

from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.engine import Engine
from aioscheduler._scheduling.lateness import Recorder
from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler._scheduling.order import Order
from aioscheduler._scheduling.shiftedclock import ShiftedClock
from aioscheduler._shipping.classgarbage import ClassGarbage
from aioscheduler._shipping.shipping import Shipper
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.pipe import MakePipe, Pipe
from aioscheduler._transport.wire import Kind, Payload
from aioscheduler.inside import ManagerProxy
from aioscheduler.registry import check_plain

from .announcer import Announcer, Entry
from .forwarder import Forwarder
from .lifecycle import Lifecycle
from .outcome import encode_failure
from .runner import WorkerRunner
from .size import resident_bytes
from .turn import Turn
from .upstream import WorkerUpstream

log: logging.Logger = logging.getLogger("aioscheduler")


class Worker:
    """The schedulers of one worker process.

    Args:
        config: The worker's configuration.
        failures: Errors before the boot, to be reported instead of READY.
        begun: Where to store which tasks have begun, as `BlackBox.begun`.
        clock: Returns the present in nanoseconds since the epoch.
        make_pipe: Makes the worker's end of the connection.

    Attributes:
        forwarder: Sends log records to the host, once it is installed.
    """

    def __init__(
        self,
        config: WorkerConfig,
        failures: list[BaseException],
        begun: memoryview[int],
        clock: Callable[[], int] = time.time_ns,
        make_pipe: MakePipe = Pipe,
    ) -> None:
        self._clock = clock
        self._catalog = WorkerCatalog()
        self._catalog.handed = list(config.handed)
        self._catalog.node = config.node
        self._shipper = Shipper(self._catalog)
        if config.has_store:
            self._shipper.inspect = check_plain
        self._loop_thread = LoopThread("task's manager")
        self._pipe = make_pipe(self._receive, self._host_gone)
        self._turn = Turn(self._pipe, config.schedulers, self._fail)
        self.forwarder: Forwarder = Forwarder(self._pipe, self._turn, self._fail)
        write_soon = self._turn.write_soon
        self._upstream = WorkerUpstream(
            config, self._shipper, self._pipe, clock, write_soon, self._fail
        )
        proxy = self._catalog.owner = ManagerProxy(self._upstream, self._loop_thread)
        self._announcer = Announcer(self._pipe, self._turn, config.order, config.confirmed)
        self._runner = WorkerRunner(
            config,
            self._catalog,
            self._announcer,
            self._turn,
            proxy,
            begun,
            clock,
            self._fail,
        )
        recorder = Recorder()
        self._engines: list[Engine[Entry]] = [
            Engine(
                *(index, config.order, self._runner, recorder, clock),
                max_running=config.max_running,
            )
            for index in range(config.schedulers)
        ]
        self._announcer.engines = self._engines
        self._lifecycle = Lifecycle(
            self._engines,
            self._runner,
            self._announcer,
            self._turn,
            self._pipe,
            self._catalog,
            recorder,
            clock,
            failures,
            self.forwarder,
            resident_bytes if config.measured else None,
        )
        self._garbage = ClassGarbage()
        self._is_queue = config.order is not Order.TIMED
        self._largest = -1  # number seen so far
        self._definition = wire.Parts()
        self._boot_call = wire.Parts()

    @property
    def ticked(self) -> float:
        """When the loop last ticked, by its own clock; 0 if it has not begun."""
        return self._lifecycle.ticked

    async def serve(self, loop: asyncio.AbstractEventLoop, reader: int, writer: int) -> None:
        """Serve until the worker's life has ended: CLOSE or DRAIN, no host, or a failure."""
        self._loop_thread.enter(loop)
        self._turn.begin(loop)
        self.forwarder.begin(loop)
        await self._lifecycle.live(loop, lambda: self._pipe.open(loop, reader, writer))
        self._pipe.close()

    def drain(self) -> None:
        """Start no more tasks, give running ones `DRAIN_TIME`, and end."""
        self._lifecycle.drain()

    def halt(self) -> None:
        """Stop at once, and write nothing more: a crash, for workers without a process."""
        self._lifecycle.halt()
        self.forwarder.stop()
        self._pipe.close()

    def disown(self, end: Callable[[BaseException | None], NoReturn]) -> None:
        """Run no more tasks, in a forked child, which ends with the task that forked it.

        Args:
            end: Ends the process; its argument is the error that the task raised, or None.
        """
        self._runner.disown(end)
        for engine in self._engines:
            engine.drop_slice()

    @property
    def thread(self) -> int:
        """The id of the thread in which its loop runs; 0 if unknown."""
        return self._loop_thread.ident or 0

    def name_own(self, task: asyncio.Task[Any] | None) -> str:
        """Return the name of the worker's own part that a task of asyncio runs; "" if none."""
        if task is None:
            return ""
        lifespan = self._lifecycle.lifespan
        if lifespan is not None and lifespan.runs_in(task):
            return lifespan.describe()
        return "the worker's own end" if task is self._lifecycle.part else ""

    def _fail(self, error: BaseException) -> None:
        self._lifecycle.fail(error)

    def _host_gone(self, error: Exception | None) -> None:
        if error is None:
            self._lifecycle.host_gone()
        else:
            self._fail(error)

    # ---- frames

    def _receive(self, frame: wire.Frame) -> None:
        kind, *fields = frame
        if self._lifecycle.is_over:
            return
        if kind == Kind.SCHEDULE:
            try:
                self._accept(*fields)
            except wire.WireError:
                raise
            except Exception as error:  # noqa: BLE001  whatever is wrong with the frame
                self._refuse(error, *fields)
        elif kind == Kind.CANCEL:
            scheduler, numbers = fields
            for number in numbers:
                self._engines[scheduler].cancel(number)
        elif kind == Kind.WITHDRAW:
            self._withdraw(*fields)
        elif kind == Kind.CONFIRM:
            self._announcer.confirm(*fields)
        elif kind == Kind.DEFINE:
            self._define(*fields)
        elif kind == Kind.BLOB:
            self._announcer.take_blob(*fields)
        elif kind == Kind.BOOT:
            call = self._boot_call.add(*fields)
            if call is not None:
                self._lifecycle.boot(call)
        elif kind == Kind.LOGGED:
            self.forwarder.answered()
        elif kind == Kind.DRAIN:
            self._lifecycle.drain()
        elif kind == Kind.CLOSE:
            self._lifecycle.close(fields[0])
        elif kind == Kind.CLOCK and isinstance(self._clock, ShiftedClock):
            self._clock.shift(fields[0])
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
        numbers = _numbers(first, count)
        again = bool(numbers) and numbers[0] <= self._largest
        self._announcer.expect(numbers, records, payloads)
        rows = wire.column(functions, count), payloads, wire.column(records, count)
        entries = zip(*rows, strict=True)
        if isinstance(schedulers, int):
            self._add(schedulers, numbers, dues, list(entries), again)
        else:
            kept = list(entries)
            for scheduler in sorted(set(schedulers)):
                own = [other == scheduler for other in schedulers]
                own_dues = dues if isinstance(dues, int) else list(compress(dues, own))
                own_numbers = list(compress(numbers, own))
                self._add(scheduler, own_numbers, own_dues, list(compress(kept, own)), again)
        if not again and numbers:
            self._largest = max(numbers) if isinstance(first, list) else numbers[-1]

    def _add(
        self,
        scheduler: int,
        numbers: Sequence[int],
        dues: int | list[int],
        entries: list[Entry],
        again: bool,
    ) -> None:
        engine = self._engines[scheduler]
        if not again:
            if self._is_queue and dues and (isinstance(dues, int) or any(dues)):
                self._add_head(engine, numbers, wire.column(dues, len(numbers)), entries)
                return
            engine.add_many(numbers, dues, entries)
            return
        for number in numbers:
            if engine.find(number) is not None:
                raise wire.WireError(f"task {number} was sent again, and is still here")
        engine.add_again(numbers, dues, entries)

    def _add_head(
        self,
        engine: Engine[Entry],
        numbers: Sequence[int],
        dues: Iterable[int],
        entries: list[Entry],
    ) -> None:
        """Accept a queue's tasks; the one with a due time waits for another attempt."""
        rows = list(zip(numbers, dues, entries, strict=True))
        rest = [(number, entry) for number, due, entry in rows if not due]
        engine.add_many([number for number, _ in rest], 0, [entry for _, entry in rest])
        for number, due, entry in rows:
            if due:
                engine.rest(number, entry, due)

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
        """Fail the tasks of a frame that cannot be read: no other process could read it, either.

        Raises:
            Exception: Not even the numbers of its tasks can be read.
        """
        count = len(payloads)
        numbers = _numbers(first, count)
        failure = encode_failure(self._catalog, error)
        log.error("%d tasks cannot be accepted by this worker, and fail: %r", count, error)
        for number, scheduler in zip(numbers, wire.column(schedulers, count), strict=True):
            self._engines[scheduler].withdraw(number)
            self._announcer.forget(number)
            self._pipe.send(wire.encode([Kind.ANNOUNCED, scheduler, [number]]))
            self._turn.report(scheduler, number, wire.FAILED, failure)
        self._largest = max(self._largest, *numbers)

    def _withdraw(self, scheduler: int, numbers: list[int]) -> None:
        """Drop tasks that were not announced; the others are left alone, without a report."""
        engine = self._engines[scheduler]
        for number in numbers:
            if number in engine.waiting or self._announcer.is_held_back(number):
                engine.cancel(number)

    def _define(self, part: bytes, last: bool) -> None:
        line = self._definition.add(part, last)
        if line is not None:
            known = self._catalog.confirmed
            self._catalog.read(line)
            if self._catalog.confirmed != known:
                self._shipper.forget()
                self._runner.forget()
            self._garbage.note(self._catalog.forgotten)


def _numbers(first: int | list[int], count: int) -> Sequence[int]:
    return first if isinstance(first, list) else range(first, first + count)
