"""The life of a worker: it boots, ticks, and ends in one of four ways.

    boot ─► ready ─┬─ close: pending tasks are dropped, running ones have time, then are cancelled
                   ├─ drain: pending tasks go to the next process, running ones have `DRAIN_TIME`
                   ├─ fail: the same, at once: something that must not fail has failed
                   └─ halt: nothing more is done or written

A task whose cancellation nobody requested does not end as cancelled: one that still runs after
`DRAIN_TIME` is lost with the process, and its end is not reported. For durable tasks that applies
whatever they do when cancelled, unless they return.

Close and drain leave the lifespan, what the initializer has opened, when no task runs any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextvars import copy_context
from enum import Enum, auto
from typing import Any

from aioscheduler._processes.draining import DRAIN_TIME
from aioscheduler._scheduling.alarm import Alarm, next_tick
from aioscheduler._scheduling.ending import end_running
from aioscheduler._scheduling.engine import Engine
from aioscheduler._scheduling.lateness import Recorder
from aioscheduler._scheduling.lifespan import Lifespan, time_to_leave
from aioscheduler._scheduling.running import Running
from aioscheduler._shipping.failures import text_of
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.pipe import Pipe
from aioscheduler._transport.wire import Kind

from .announcer import Announcer, Entry
from .forwarder import Forwarder
from .runner import WorkerRunner
from .turn import Turn

LAST_WORDS = 1.0  # seconds that a failed process has to report why


class _Phase(Enum):
    """The phase of a life; it never goes back.

    Attributes:
        BOOTING: The schedulers have not been started.
        READY: The schedulers run.
        ENDING: No more tasks are started, and running ones may finish.
        OVER: It has failed or was halted: no frame is accepted, and only outcomes are written.
    """

    BOOTING = auto()
    READY = auto()
    ENDING = auto()
    OVER = auto()


class Lifecycle:
    """Starts the engines of a worker, and stops them.

    Args:
        engines: The schedulers.
        runner: Notified of tasks that will not begin.
        announcer: Knows which tasks were not announced.
        turn: Writes outcomes.
        pipe: The pipe to the host.
        catalog: Decodes the initializer.
        recorder: Holds the lateness to report.
        clock: Returns the present in nanoseconds since the epoch.
        failures: Errors before the boot, to be reported instead of READY.
        forwarder: Sends log records to the host, if it was installed.
        measure: Returns the resident bytes of this process; None: the host does not need them.

    Attributes:
        ticked: When the loop last ticked, by its own clock; 0 before it is ready.
        part: The asyncio task of the current part of its life (boot, drain, ...), if any.
        lifespan: What the initializer has opened; None if there is none.
    """

    def __init__(
        self,
        engines: Sequence[Engine[Entry]],
        runner: WorkerRunner,
        announcer: Announcer,
        turn: Turn,
        pipe: Pipe,
        catalog: WorkerCatalog,
        recorder: Recorder,
        clock: Callable[[], int],
        failures: list[BaseException],
        forwarder: Forwarder,
        measure: Callable[[], int] | None,
    ) -> None:
        self.ticked: float = 0.0
        self.part: asyncio.Task[None] | None = None
        self.lifespan: Lifespan | None = None
        self._engines = engines
        self._runner = runner
        self._announcer = announcer
        self._turn = turn
        self._pipe = pipe
        self._catalog = catalog
        self._recorder = recorder
        self._clock = clock
        self._failures = failures
        self._forwarder = forwarder
        self._measure = measure
        self._alarm: Alarm | None = None
        self._phase = _Phase.BOOTING
        self._is_alone = False
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has failed or was halted, and accepts no more frames."""
        return self._phase is _Phase.OVER

    async def live(self, loop: asyncio.AbstractEventLoop, begin: Callable[[], None]) -> None:
        """Live until the end; `begin` opens the pipe, by which frames of the host arrive."""
        self._loop = loop
        self._done = loop.create_future()
        begin()
        await self._done
        if self._ticker is not None:
            self._ticker.cancel()

    def boot(self, call: bytes) -> None:
        """Call the initializer (b"": there is none), start the schedulers, and send READY."""
        if self._phase is _Phase.BOOTING:  # otherwise its end was requested meanwhile
            self._go_on(self._boot(call))

    def drain(self) -> None:
        """Start no more tasks, give running ones `DRAIN_TIME`, and end."""
        if self._phase is _Phase.BOOTING:
            self.close(0)
        elif self._phase is _Phase.READY:
            self._phase = _Phase.ENDING
            self._go_on(self._drain())

    def close(self, timeout: float | None) -> None:
        """Start no more tasks, give running ones `timeout` seconds (None: no limit), and end."""
        if self._phase is not _Phase.OVER:
            self._phase = _Phase.ENDING
            self._go_on(self._close(timeout))

    def host_gone(self) -> None:
        """End as by `close`, at once; no host is left to kill tasks that swallow cancellation."""
        self._is_alone = True
        self.close(0)

    def fail(self, error: BaseException) -> None:
        """End this process, because something in it that must not fail has failed.

        Tasks that had not begun go to the next process, and running ones are lost: they are not
        reported as cancelled, because nobody requested that.
        """
        if self._phase is _Phase.OVER:
            return
        self._phase = _Phase.OVER
        for engine in self._engines:
            engine.stop()
            engine.running.lose()
        self._announcer.stop()
        with contextlib.suppress(Exception):  # if this fails, its end is all that is reported
            self._turn.pack()
        with contextlib.suppress(Exception):
            self._pipe.send(wire.encode([Kind.FATAL, wire.text(text_of(error))]))
            self._forwarder.finish()
            self._pipe.flush()
        self._go_on(self._leave())

    def halt(self) -> None:
        """Stop at once, and write nothing more: a crash, for workers without a process."""
        self._phase = _Phase.OVER
        if self.part is not None:
            self.part.cancel()
        if self._ticker is not None:
            self._ticker.cancel()
        self._turn.stop()
        if self._alarm is not None:
            self._alarm.stop()
        for engine in self._engines:
            engine.stop()
            for task, _ in engine.running.values():
                task.cancel()
        if self.lifespan is not None:
            self.lifespan.cancel()

    def _go_on(self, part: Coroutine[Any, Any, None]) -> None:
        """Begin the next part of this life."""
        if self.part is not None:
            self.part.cancel()
        self.part = self._loop.create_task(part)
        self.part.add_done_callback(self._part_ended)

    def _part_ended(self, part: asyncio.Task[None]) -> None:
        if not part.cancelled() and (error := part.exception()) is not None:
            self.fail(error)

    async def _leave(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._pipe.drain()
        self._leave_now()

    def _leave_now(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    async def _boot(self, call: bytes) -> None:
        try:
            if self._failures:
                raise self._failures[0]
            if call:
                initializer, args, self._catalog.propagation = self._catalog.decode(call)
                if initializer is not None:
                    self.lifespan = Lifespan(initializer, args, self.fail)
                    await self.lifespan.enter()
        except BaseException as error:  # noqa: BLE001  a user's code may raise anything
            if self._phase is _Phase.BOOTING:
                self.fail(error)
        if self._phase is not _Phase.BOOTING:  # an initializer may swallow its cancellation
            return
        self._forwarder.keep()
        self._pipe.send(wire.encode([Kind.READY]))
        self._phase = _Phase.READY
        self._tick()
        self._alarm = Alarm(self._loop, self._clock)
        context = copy_context() if self.lifespan is None else self.lifespan.context
        for engine in self._engines:
            context.run(engine.start, self._loop, self._alarm)

    def _tick(self) -> None:
        """Report to the host that this loop runs, and how late it was."""
        try:
            self._send_tick()
        except Exception as error:  # noqa: BLE001  the host would take it for silent
            self.fail(error)

    def _send_tick(self) -> None:
        planned = self._ticker.when() if self._ticker is not None else self._loop.time()
        self.ticked = self._loop.time()
        self._send_load(max(0.0, self.ticked - planned))
        self._pipe.flush()
        self._pipe.check()
        # At the same moment as the alarm, so that both share one wake-up.
        self._ticker = self._loop.call_at(next_tick(self.ticked), self._tick)

    def _send_load(self, lag: float) -> None:
        size = 0 if self._measure is None else self._measure()
        report = *self._recorder.take(), self._catalog.confirmed, size
        self._pipe.send(wire.encode([Kind.TICK, lag, *report]))

    async def _close(self, timeout: float | None) -> None:
        """Drop tasks that were announced and have not begun; the host cancels the pending ones.

        UNBEGUN is sent first: it decides the fate of durable tasks.
        """
        for engine in self._engines:
            launched, _ = engine.stop()
            self._send_unbegun(engine, launched)
            for number, entry in launched.items():
                self._runner.withdrawn(engine, number, entry)
        self._announcer.stop()
        await self._finish(timeout, drains=False)

    async def _drain(self) -> None:
        """Notify the host of the drain, and return tasks that were announced and have not begun.

        Pending tasks need no report: the host has them, and sends them to the next process.
        """
        self._pipe.send(wire.encode([Kind.DRAINING]))
        for engine in self._engines:
            launched, _ = engine.stop()
            self._send_unbegun(engine, launched)
        self._announcer.stop()
        await self._finish(DRAIN_TIME, drains=True)

    def _send_unbegun(self, engine: Engine[Entry], launched: Iterable[int]) -> None:
        """Report to the host which tasks were announced and have not begun."""
        held_back = self._announcer.is_held_back
        unbegun = [number for number in launched if not held_back(number)]
        if unbegun:
            self._pipe.send(wire.encode([Kind.UNBEGUN, engine.index, unbegun]))

    async def _finish(self, timeout: float | None, drains: bool) -> None:
        """End running tasks, leave the lifespan, and write the last outcomes."""
        cancel = Running.give_up if drains else Running.stop
        began = self._loop.time()
        if self._alarm is not None:
            self._alarm.stop()
        self._turn.write_soon()
        given_up = await end_running(self._engines, timeout, cancel=cancel)
        if self.lifespan is not None:
            await self.lifespan.leave(time_to_leave(began, timeout, self._loop.time()))
        self._send_load(0.0)
        self._turn.write()
        self._forwarder.finish()
        if drains and not given_up:
            self._pipe.send(wire.encode([Kind.DRAINED]))
            self._pipe.flush()
        await self._pipe.drain()
        if given_up and not self._is_alone:
            # The host ends this process, and reports the tasks that swallowed their cancellation.
            await self._loop.create_future()
        self._leave_now()
