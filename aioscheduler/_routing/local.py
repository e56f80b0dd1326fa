"""The link to schedulers in this process and loop: no frames, no copies, the same contract.

It is the home of `TimedScheduler` and its sisters, and of a manager with `workers=0`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from datetime import datetime
from itertools import repeat
from typing import Any

from .._scheduling.alarm import TICK, Alarm
from .._scheduling.coroutines import check_awaitable, close_unstarted, name_of
from .._scheduling.ending import end_running
from .._scheduling.engine import Engine
from .._scheduling.lateness import History, Recorder
from .._scheduling.loopthread import LoopThread
from .._scheduling.order import Order
from .._scheduling.pace import MAX_SLICE
from .._scheduling.unheard import tell_unheard
from ..batch import Outcomes, Part
from ..errors import WorkerStartError
from ..inside import Desk, ManagerProxy, Place, running
from ..options import Options, run_with
from ..stats import WorkerState
from ..task import State, Task, TaskRef
from .link import LoadCounter, Vitals

log: logging.Logger = logging.getLogger("aioscheduler")

# The context is that of the call that scheduled it; the calls of a batch share one. Last comes the
# due time, for who asks.
_Call = tuple[Awaitable[Any], "Options | None"]
_Entry = tuple["Task[Any] | Part", Awaitable[Any], Context, "Options | None", int]


class LocalShipper:
    """Takes what users call as it is: it does not travel."""

    def take_options(self, options: Options) -> Options:
        return options

    def take(self, coro: Awaitable[Any], options: Options | None = None) -> _Call:
        """Check that something can be scheduled here.

        Raises:
            TypeError: It is no awaitable, or has started.
        """
        check_awaitable(coro)
        return coro, options

    def take_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def take_arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args

    def take_plain(self, calls: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return calls


class LocalLink:
    """Schedulers of one order in the running loop.

    Args:
        order: What each scheduler runs next.
        schedulers: How many.
        counter: Told of every start and end.
        loop_thread: Of the manager or the scheduler.
        clock: Gives the present in nanoseconds since the epoch.
        manager: The manager's id, if there is one.
        boot: The initializer and its arguments, if there is one.
        desk: Takes what tasks schedule, if there is a manager.
        failed: Called if the initializer raises.
        max_running: How many timed tasks may run at a time on each scheduler; None for any number.
    """

    def __init__(
        self,
        order: Order,
        schedulers: int,
        counter: LoadCounter,
        loop_thread: LoopThread,
        clock: Callable[[], int] = time.time_ns,
        manager: str | None = None,
        boot: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
        desk: Desk | None = None,
        failed: Callable[[Exception], None] = lambda reason: None,
        max_running: int | None = None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.loop_thread = loop_thread
        self.identity: int = secrets.randbits(128)
        self._recorder = Recorder()
        self._history = History()
        self._counts: Counter[str] = Counter()
        self._state = WorkerState.STARTING
        self.engines: list[Engine[_Entry]] = [
            Engine(index, order, self, self._recorder, clock, _context_of, max_running)
            for index in range(schedulers)
        ]
        self.shipper = LocalShipper()
        self._counter = counter
        self._clock = clock
        self._manager = manager
        proxy = ManagerProxy(desk, loop_thread) if desk is not None else None
        self._places: list[Place] = [
            (proxy, manager or "", 0, index, clock) for index in range(schedulers)
        ]
        self._held: dict[int, Task[Any]] = {}  # whose callbacks somebody waits for
        self._alarm: Alarm | None = None
        self._boot = boot
        self._failed = failed
        self._booting: asyncio.Task[None] | None = None
        self._next = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to run what is due, once the initializer is through."""
        self.loop = loop
        if self._boot is None:
            self._start_engines()
        else:
            self._booting = loop.create_task(self._initialize(*self._boot))
            # `failed` tells it as well, so it need not be awaited.
            self._booting.add_done_callback(lambda boot: boot.cancelled() or boot.exception())

    async def ready(self) -> None:
        """Returns when the initializer is through.

        Raises:
            WorkerStartError: It raised.
        """
        if self._booting is not None:
            await asyncio.shield(self._booting)

    def _start_engines(self) -> None:
        assert self.loop is not None
        if self._state is WorkerState.STOPPED:  # an initializer that was not to be stopped
            return
        self._alarm = Alarm(self.loop, self._clock)
        self._state = WorkerState.READY
        for engine in self.engines:
            engine.start(self.loop, self._alarm)

    async def _initialize(self, initializer: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            result = initializer(*args)
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            own = asyncio.current_task()
            if isinstance(error, KeyboardInterrupt | GeneratorExit) or (own and own.cancelling()):
                raise
            failure = WorkerStartError(f"the initializer raised {error!r}")
            failure.__cause__ = error
            self._failed(failure)
            raise failure from error
        self._start_engines()

    def schedule(self, scheduler: int, due: int, when: datetime | int, call: _Call) -> Task[Any]:
        """Accepts what `take` gave."""
        awaitable, options = call
        number = self._next
        self._next = number + 1
        name = options.name if options is not None else None
        task: Task[Any] = Task(self, scheduler, number, when, name or name_of(awaitable))
        entry = task, awaitable, copy_context(), options, due
        self.engines[scheduler].add(number, due, entry)
        return task

    def schedule_many(
        self,
        outcomes: Outcomes,
        offset: int,
        scheduler: int,
        dues: int | list[int],
        function: Callable[..., Any],
        calls: list[tuple[Any, ...]],
        options: Options | None,
    ) -> None:
        """Accepts calls of one function."""
        first, count = self._next, len(calls)
        self._next += count
        part = Part(outcomes, offset, self, scheduler, first, count, dues)
        engine = self.engines[scheduler]
        context = copy_context()
        each = repeat(dues, count) if isinstance(dues, int) else dues
        entries = (
            (part, _call(function, args), context, options, due)
            for args, due in zip(calls, each, strict=True)
        )
        engine.add_many(range(first, first + count), dues, entries)

    def room(self) -> int:
        """How many calls `schedule_many` takes at a time."""
        return MAX_SLICE

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Gives a handle on a task that has not ended, else None."""
        entry = self.engines[scheduler].find(number)
        if entry is None:
            return None
        holder = entry[0]
        return holder if isinstance(holder, Task) else holder.task(number)

    async def flush(self) -> None:
        """Returns at once: there is nothing between here and the schedulers."""

    def look_after(self, lag: float) -> None:
        """Is called once a tick: the tick of its schedulers is that of the loop."""
        if self.loop is not None:
            self._history.add(self.loop.time(), lag, self._recorder.take())

    def vitals(self) -> Vitals:
        """Gives what `Manager.stats()` needs to know."""
        running = sum(len(engine.running) for engine in self.engines)
        return Vitals(self._state, False, os.getpid(), running, self._counts, self._history)

    async def close(self, timeout: float | None) -> None:
        """Cancels what waits and lets what runs finish.

        Args:
            timeout: Seconds until what still runs is cancelled; None: never.
        """
        if self._booting is not None:
            self._booting.cancel()
        for engine in self.engines:
            for entries in engine.stop():
                for number, entry in entries.items():
                    self.withdrawn(engine, number, entry)
        if self._alarm is not None:
            self._alarm.stop()
        caller = running.get(None)  # a task of ours that closes its manager, itself or by a child
        spared = None
        if caller is not None and any(caller[0] is place for place in self._places):
            spared = caller[0][3], caller[1]
        for scheduler, number in await end_running(self.engines, timeout, spared):
            log.warning(
                "%s: task %s swallows its cancellation; it runs on",
                _name(self.engines[scheduler].running[number][1]),
                self.ref(scheduler, number) or number,
            )
        self._state = WorkerState.STOPPED
        self.look_after(0.0)

    def kill(self, reason: Exception) -> None:
        """Ends every task as lost: the initializer has failed, or the loop is closed."""
        if self._alarm is not None:
            self._alarm.stop()
        for engine in self.engines:
            for entries in engine.stop():
                for number, entry in entries.items():
                    close_unstarted(entry[1])
                    self._end(engine, number, entry, State.LOST, reason)
        self._state = WorkerState.STOPPED
        self._counter.count_emptied(0)

    # The home of its tasks' handles.

    def cancel(self, scheduler: int, number: int) -> bool:
        return self.engines[scheduler].cancel(number)

    def state(self, number: int) -> State:
        if any(engine.running.find(number) is not None for engine in self.engines):
            return State.RUNNING
        return State.PENDING

    def ref(self, scheduler: int, number: int) -> TaskRef | None:
        if self._manager is None:
            return None
        return TaskRef(self._manager, 0, scheduler, number)

    def due(self, scheduler: int, number: int) -> int | None:
        engine = self.engines[scheduler]
        entry = engine.find(number)
        begun = engine.running.find(number) is not None
        return None if entry is None or begun else entry[4] or None

    def name_of(self, label: Any) -> str:
        return str(label)

    def hold(self, task: Task[Any]) -> None:
        self._held[task._number] = task

    def release(self, task: Task[Any]) -> None:
        self._held.pop(task._number, None)

    # The crew of its engines.

    def launch(self, engine: Engine[_Entry], numbers: list[int], dues: list[int]) -> None:
        engine.run(numbers, dues)

    async def execute(self, engine: Engine[_Entry], number: int, entry: _Entry, due: int) -> None:
        # Here, and not when it is launched: it may be cancelled in between.
        self._counter.count_waiting(0, engine.index, -1)
        _, awaitable, _, options, _ = entry
        value: Any = None
        running.set((self._places[engine.index], number, due, 1))
        try:
            if options is None:
                value = await awaitable
            else:
                value = await run_with(
                    options, _name(entry), due, 1, self._clock, lambda: awaitable
                )
            state = State.FINISHED
        except asyncio.CancelledError:
            close_unstarted(awaitable)  # if it had not come to that
            state = State.CANCELLED
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                engine.was_cancelled(number)
        except BaseException as error:
            close_unstarted(awaitable)  # if it was too late to start, say
            if issubclass(type(error), GeneratorExit) and self.loop and self.loop.is_closed():
                raise  # nobody is left to tell: the coroutine is being collected
            value, state = error, State.FAILED
        self._end(engine, number, entry, state, value)
        del value, entry  # an exception holds this frame by its traceback, and a handle it

    def withdrawn(self, engine: Engine[_Entry], number: int, entry: _Entry) -> None:
        close_unstarted(entry[1])
        self._counter.count_waiting(0, engine.index, -1)
        self._end(engine, number, entry, State.CANCELLED, None)

    def broken(self, engine: Engine[_Entry], error: Exception, launched: dict[int, _Entry]) -> None:
        assert self.loop is not None
        self.loop.call_later(TICK, engine.wake_soon)
        self._counter.count_waiting(0, engine.index, -len(launched))
        for number, entry in launched.items():
            close_unstarted(entry[1])
            self._end(engine, number, entry, State.FAILED, error)
        tell_unheard(self.loop, "a scheduler could not start what was due", error, None)

    def _end(
        self, engine: Engine[_Entry], number: int, entry: _Entry, state: State, value: Any
    ) -> None:
        holder = entry[0]
        engine.ended(number)
        self._counts[state.value] += 1
        try:
            if isinstance(holder, Task):
                holder._settle(state, value)
            else:
                holder.settle(number, state, value, None)
        finally:  # whatever raises, it counts as ended
            if self._held:
                self._held.pop(number, None)
            self._counter.count_ended(0, engine.index, 1)


def _name(entry: _Entry) -> str:
    return entry[0].name


def _context_of(entry: _Entry) -> Context:
    return entry[2].copy()


async def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Calls a function, plain or async, when its time has come."""
    value = function(*args)
    return await value if isinstance(value, Awaitable) else value
