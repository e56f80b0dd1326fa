"""The life of a worker: it boots, ticks, and ends in one of four ways.

    boot ─► ready ─┬─ close: what waits is dropped, what runs has its time and is then cancelled
                   ├─ drain: what waits goes to the next process, what runs has `DRAIN_TIME`
                   ├─ fail: the same, at once: something that must not fail has failed
                   └─ halt: nothing more is done or written

What nobody has asked to cancel does not end as cancelled: what still runs when a drain has had its
time is lost with the process, and told of by nobody. Of durable tasks that holds for whatever they
make of their cancellation, but to return.

What the initializer has opened (`lifespan`) is left when nothing runs any more, by close and drain.
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

LAST_WORDS = 1.0  # seconds that a process which has failed has to say why


class _Phase(Enum):
    """How far a life has come; it never goes back.

    Attributes:
        BOOTING: The schedulers have not been started.
        READY: They have.
        ENDING: Nothing more is started, and what runs is let finish.
        OVER: It has failed or was halted: no frame is taken, and only outcomes are written.
    """

    BOOTING = auto()
    READY = auto()
    ENDING = auto()
    OVER = auto()


class Lifecycle:
    """Starts the engines of a worker, and stops them.

    Args:
        engines: The schedulers.
        runner: Told of what will not begin.
        announcer: Knows what was not announced.
        turn: Writes outcomes.
        pipe: To the host.
        catalog: Reads the initializer.
        recorder: Has the lateness to be told.
        clock: Gives the present in nanoseconds since the epoch.
        failures: What went wrong already, to be reported instead of READY.
        forwarder: Tells the host what is logged, if it is to.
        measure: Gives the resident bytes of this process; None: the host does not want them.

    Attributes:
        ticked: When the loop turned last, by its own clock.
        part: What it does now, if that takes its time.
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
        """Whether it has failed or was halted, and takes no frames any more."""
        return self._phase is _Phase.OVER

    async def live(self, loop: asyncio.AbstractEventLoop, begin: Callable[[], None]) -> None:
        """Return when it has ended; `begin` opens the pipe, from where it is told what to do."""
        self._loop = loop
        self._done = loop.create_future()
        begin()
        await self._done
        if self._ticker is not None:
            self._ticker.cancel()

    def boot(self, call: bytes) -> None:
        """Call the initializer (b"": there is none), then start the schedulers and say READY."""
        if self._phase is _Phase.BOOTING:  # else it was told to go meanwhile
            self._go_on(self._boot(call))

    def drain(self) -> None:
        """Start nothing more, give what runs `DRAIN_TIME`, and end: the process is to go."""
        if self._phase is _Phase.BOOTING:
            self.close(0)
        elif self._phase is _Phase.READY:
            self._phase = _Phase.ENDING
            self._go_on(self._drain())

    def close(self, timeout: float | None) -> None:
        """Start nothing more, give what runs so many seconds, and end."""
        if self._phase is not _Phase.OVER:
            self._phase = _Phase.ENDING
            self._go_on(self._close(timeout))

    def host_gone(self) -> None:
        """End as by `close`, at once; nobody is left to end what swallows its cancellation."""
        self._is_alone = True
        self.close(0)

    def fail(self, error: BaseException) -> None:
        """End this process, because something in it that must not fail has failed.

        What had not begun goes to the next process, and what runs is lost: it is not reported as
        cancelled, which nobody asked for.
        """
        if self._phase is _Phase.OVER:
            return
        self._phase = _Phase.OVER
        for engine in self._engines:
            engine.stop()
            engine.running.lose()
        self._announcer.stop()
        with contextlib.suppress(Exception):  # it is known by its end, if it cannot say more
            self._turn.pack()
        with contextlib.suppress(Exception):
            self._pipe.send(wire.encode([Kind.FATAL, wire.text(text_of(error))]))
            self._forwarder.finish()
            self._pipe.flush()
        self._go_on(self._leave())

    def halt(self) -> None:
        """Stop where it is, with nothing more written: how one dies that has no process."""
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
        """Tell the host that this loop turns, and how late it was."""
        try:
            self._tell_tick()
        except Exception as error:  # noqa: BLE001  it would be taken for silent
            self.fail(error)

    def _tell_tick(self) -> None:
        planned = self._ticker.when() if self._ticker is not None else self._loop.time()
        self.ticked = self._loop.time()
        self._tell_load(max(0.0, self.ticked - planned))
        self._pipe.flush()
        self._pipe.check()
        # At the same moment as the alarm, so that both take one wake-up.
        self._ticker = self._loop.call_at(next_tick(self.ticked), self._tick)

    def _tell_load(self, lag: float) -> None:
        size = 0 if self._measure is None else self._measure()
        report = *self._recorder.take(), self._catalog.confirmed, size
        self._pipe.send(wire.encode([Kind.TICK, lag, *report]))

    async def _close(self, timeout: float | None) -> None:
        """Drop what was announced and has not begun; the host counts the rest as cancelled.

        It is told first that it has not begun: of what is durable that decides its fate.
        """
        for engine in self._engines:
            launched, _ = engine.stop()
            self._tell_unbegun(engine, launched)
            for number, entry in launched.items():
                self._runner.withdrawn(engine, number, entry)
        self._announcer.stop()
        await self._finish(timeout, drains=False)

    async def _drain(self) -> None:
        """Give back what was announced and has not begun, and tell the host that it will end.

        What waits is not told of: the host has it, and hands it to the next process.
        """
        self._pipe.send(wire.encode([Kind.DRAINING]))
        for engine in self._engines:
            launched, _ = engine.stop()
            self._tell_unbegun(engine, launched)
        self._announcer.stop()
        await self._finish(DRAIN_TIME, drains=True)

    def _tell_unbegun(self, engine: Engine[Entry], launched: Iterable[int]) -> None:
        """Tell the host which tasks were announced and have not begun."""
        held_back = self._announcer.is_held_back
        unbegun = [number for number in launched if not held_back(number)]
        if unbegun:
            self._pipe.send(wire.encode([Kind.UNBEGUN, engine.index, unbegun]))

    async def _finish(self, timeout: float | None, drains: bool) -> None:
        """End what runs, leave what it has shared, and write the last outcomes."""
        cancel = Running.give_up if drains else Running.stop
        began = self._loop.time()
        if self._alarm is not None:
            self._alarm.stop()
        self._turn.write_soon()
        given_up = await end_running(self._engines, timeout, cancel=cancel)
        if self.lifespan is not None:
            await self.lifespan.leave(time_to_leave(began, timeout, self._loop.time()))
        self._tell_load(0.0)
        self._turn.write()
        self._forwarder.finish()
        if drains and not given_up:
            self._pipe.send(wire.encode([Kind.DRAINED]))
            self._pipe.flush()
        await self._pipe.drain()
        if given_up and not self._is_alone:
            # The host ends this process, and tells what swallows its cancellation.
            await self._loop.create_future()
        self._leave_now()
