"""The link to schedulers in this process and loop: no frames, no copies, the same contract.

It is used by `TimedScheduler` and its siblings, and by a manager with `workers=0`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import partial
from itertools import repeat
from typing import Any

from .._scheduling.alarm import Alarm
from .._scheduling.coroutines import name_of
from .._scheduling.ending import end_running
from .._scheduling.engine import Engine
from .._scheduling.holdback import HoldBack
from .._scheduling.lateness import History, Recorder
from .._scheduling.lifespan import Lifespan, time_to_leave
from .._scheduling.loopthread import LoopThread
from .._scheduling.order import Order
from .._scheduling.pace import MAX_SLICE
from .._shipping.failures import describe
from .._shipping.propagation import Propagation
from ..errors import WorkerLost, WorkerStartError
from ..inside import ManagerProxy, SchedulerContext, Upstream, running
from ..inspection import TaskInfo, Wanted
from ..outcomes import Outcomes, Part
from ..stats import WorkerState
from ..task import State, Task
from .ids import Ids
from .keeping import Keeping
from .link import LinkStats, LoadCounter
from .listing import list_engines
from .localentry import Attempts, Entry, Work, context_of, move
from .localentry import name_of as name_of_entry
from .localhome import LocalHome
from .localrunner import LocalRunner
from .localshipper import LocalCall, LocalRecord, LocalShipper, call_function

log: logging.Logger = logging.getLogger("aioscheduler")

_CANCELLED = "its initializer was cancelled, as when all tasks of the loop are cancelled"


class LocalLink(LocalHome):
    """The schedulers of one order in the running loop.

    Args:
        order: The order of the schedulers.
        schedulers: How many there are.
        counter: Notified of every start and end.
        loop_thread: That of the manager or the scheduler.
        new_due: Return the due time for a reschedule.
        clock: Return the present in nanoseconds since the epoch.
        manager: The manager's id, if there is one.
        boot: The initializer and its arguments, if there is one.
        upstream: Schedules for tasks, if there is a manager.
        failed: Called if the initializer raises, or its lifespan ends early.
        max_running: How many timed tasks may run at a time on each scheduler; None: any number.
        ids: The ids of the manager's tasks, if there is one.
        propagation: Values that travel with each task besides the context of its call, if any.
        keeping: Keeps the durable tasks; None: there is no store.

    Attributes:
        proxy: The manager as its tasks see it, if there is one.
        lifespan: Runs the initializer, and keeps what it opens; None if there is none.
    """

    def __init__(
        self,
        order: Order,
        schedulers: int,
        counter: LoadCounter,
        loop_thread: LoopThread,
        new_due: Callable[[datetime | timedelta | None], int],
        clock: Callable[[], int] = time.time_ns,
        manager: str | None = None,
        boot: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
        upstream: Upstream | None = None,
        failed: Callable[[Exception], None] = lambda reason: None,
        max_running: int | None = None,
        ids: Ids | None = None,
        propagation: Propagation | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.loop_thread = loop_thread
        self.identity: int = secrets.randbits(128)
        self.new_due: Callable[[datetime | timedelta | None], int] = new_due
        self._recorder = Recorder()
        self._history = History()
        self._state = WorkerState.STARTING
        self.shipper = LocalShipper()
        self.proxy: ManagerProxy | None = None
        if upstream is not None:
            self.proxy = ManagerProxy(upstream, loop_thread)
        self._contexts: list[SchedulerContext] = [
            (self.proxy, manager or "", 0, index, clock) for index in range(schedulers)
        ]
        self._ids = ids or Ids(1)
        self._keeping = keeping
        shared = order, counter, self._contexts, clock, manager, self._ids, propagation, keeping
        self._runner = LocalRunner(*shared)
        self.engines: list[Engine[Entry]] = [
            Engine(index, order, self._runner, self._recorder, clock, context_of, max_running)
            for index in range(schedulers)
        ]
        self._counter = counter
        self._clock = clock
        self._alarm: Alarm | None = None
        self.lifespan: Lifespan | None = None
        if boot is not None:
            self.lifespan = Lifespan(*boot, self._lifespan_ended)
        self._failed = failed
        self._booting: asyncio.Task[None] | None = None
        self._next = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to run due tasks, once the initializer has finished."""
        self.loop = self._runner.loop = loop
        if self.lifespan is None:
            self._start_engines()
        else:
            self._booting = loop.create_task(self._initialize(self.lifespan))
            self._booting.add_done_callback(self._was_booted)

    async def ready(self) -> None:
        """Wait until the initializer has finished.

        Raises:
            WorkerStartError: It raised, or was ended by a close.
        """
        if self._booting is None:
            return
        try:
            await asyncio.shield(self._booting)
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if not self._booting.cancelled() or (own and own.cancelling()):
                raise  # the caller was cancelled
            reason = "the manager was closed before its initializer had finished"
            raise WorkerStartError(reason if self._runner.stopped else _CANCELLED) from None

    def _was_booted(self, booting: asyncio.Task[None]) -> None:
        """Fail if somebody else cancelled the initializer: no task would ever begin."""
        if not booting.cancelled():
            booting.exception()  # mark it as retrieved: `failed` reports it
        else:
            self._fail_unless_over(WorkerStartError(_CANCELLED))

    def _start_engines(self) -> None:
        if self.loop is None or self._state is WorkerState.STOPPED:
            return  # the initializer ignored its cancellation
        self._alarm = Alarm(self.loop, self._clock)
        self._state = WorkerState.READY
        for engine in self.engines:
            engine.start(self.loop, self._alarm)

    async def _initialize(self, lifespan: Lifespan) -> None:
        try:
            await lifespan.enter()
        except BaseException as error:
            own = asyncio.current_task()
            if isinstance(error, KeyboardInterrupt | GeneratorExit) or (own and own.cancelling()):
                raise
            failure = WorkerStartError(f"the initializer raised {describe(repr, error)}")
            failure.__cause__ = error
            self._failed(failure)
            raise failure from error
        self._start_engines()

    def _lifespan_ended(self, reason: Exception) -> None:
        """Fail, as what the tasks share is gone."""
        lost = WorkerLost(0, None, started=None, cause=str(reason))
        lost.__cause__ = reason
        if isinstance(reason.__cause__, asyncio.CancelledError):
            self._fail_unless_over(lost)
        else:
            self._failed(lost)

    def _fail_unless_over(self, reason: Exception) -> None:
        """Fail, unless the loop ends or this link is closed, when everything may be cancelled."""
        assert self.loop is not None
        HoldBack(lambda: None if self._runner.stopped else self._failed(reason)).begin(self.loop)

    def schedule(
        self, scheduler: int, due: int, when: datetime | int, call: LocalCall
    ) -> Task[Any]:
        """Accept a task; see `link.Link`."""
        work, record = call
        options, context, captured = record or (None, copy_context(), None)
        number, self._next = self._next, self._next + 1
        name, given = None, due
        if options is not None:
            name = options.name
            if isinstance(work, Attempts):
                name = name or name_of(work.first)
                given = due if work.given is None else work.given
        task: Task[Any] = Task(self, scheduler, number, when, name or name_of(work))
        entry = task, work, context, options, given, captured
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
        record: LocalRecord,
    ) -> int:
        """Accept calls of one function; see `link.Link`."""
        first, count = self._next, len(calls)
        self._next += count
        part = Part(outcomes, offset, self, scheduler, first, count, dues)
        engine = self.engines[scheduler]
        options, context, captured = record or (None, copy_context(), None)
        each = repeat(dues, count) if isinstance(dues, int) else dues
        works: Iterable[Work] = map(call_function, repeat(function), calls)
        if options is not None and options.retry is not None:
            works = (Attempts(partial(call_function, function, args)) for args in calls)
        entries = (
            (part, work, context, options, due, captured)
            for work, due in zip(works, each, strict=True)
        )
        engine.add_many(range(first, first + count), dues, entries)
        return first

    def room(self) -> int:
        """Return how many calls `schedule_many` accepts at a time."""
        return MAX_SLICE

    async def flush(self) -> None:
        """Return at once: nothing is buffered."""

    def look_after(self, lag: float) -> None:
        """Record the lateness of the last tick; called once a tick."""
        if self.loop is not None:
            self._history.add(self.loop.time(), lag, self._recorder.take())

    def stats(self) -> LinkStats:
        """Return the figures for `Manager.stats()`."""
        running = sum(len(engine.running) for engine in self.engines)
        counts = self._runner.counts
        return LinkStats(self._state, False, os.getpid(), running, counts, self._history)

    async def close(self, timeout: float | None) -> None:
        """Cancel pending tasks, and let running ones finish.

        Args:
            timeout: Seconds until tasks still running are cancelled; None: never.
        """
        began = asyncio.get_running_loop().time()
        if self._booting is not None:
            self._booting.cancel()
        self._runner.stopped = True
        for engine in self.engines:
            for entries in engine.stop():
                for number, entry in entries.items():
                    self._runner.withdrawn(engine, number, entry)
        if self._alarm is not None:
            self._alarm.stop()
        caller = running.get(None)  # a task of ours, or its child, may close its manager
        spared = None
        if caller is not None and any(caller[0] is context for context in self._contexts):
            spared = caller[0][3], caller[1]
        for scheduler, number in await end_running(self.engines, timeout, spared):
            log.warning(
                "%s: task %s swallows its cancellation; it runs on",
                name_of_entry(self.engines[scheduler].running[number][1]),
                self.ref(scheduler, number) or number,
            )
        if self.lifespan is not None:
            now = asyncio.get_running_loop().time()
            await self.lifespan.leave(time_to_leave(began, timeout, now))
        self._state = WorkerState.STOPPED
        self.look_after(0.0)

    def kill(self, reason: Exception) -> None:
        """End every task as lost: initializer or lifespan have failed, or the loop is closed."""
        if self._alarm is not None:
            self._alarm.stop()
        self._runner.stopped, self._runner.reason = True, reason
        for engine in self.engines:
            for entries in engine.stop():
                for number, entry in entries.items():
                    self._runner.withdrawn(engine, number, entry)
        self._state = WorkerState.STOPPED
        if self.loop is None or self.loop.is_closed():  # no running task will end
            self._counter.count_emptied(0)
            return
        for engine in self.engines:
            for number in tuple(engine.running):
                engine.running.give_up(number)
        if self.lifespan is not None:
            self.lifespan.cancel()

    def withdraw(self, scheduler: int, number: int) -> bool:
        """Cancel a task that has not begun; False if it has begun or ended.

        A task that waits for another attempt has not begun.
        """
        engine = self.engines[scheduler]
        entry = engine.withdraw(number, launched=True)
        if entry is None:
            return False
        self._runner.withdrawn(engine, number, entry)
        return True

    def dispossess(self, scheduler: int, number: int) -> None:
        """Withdraw a task that loses its id to another; if it has begun it goes on without it."""
        task = self.find(scheduler, number)
        assert task is not None  # it has an id, and so has not ended
        task._id = None
        if self._keeping is not None:
            self._keeping.dispossess(number, self.state(number) is State.RUNNING)
        self.withdraw(scheduler, number)

    def adopt(self, scheduler: int, due: int, call: LocalCall, alias: int | None) -> int:
        """Accept a task that has no handle; see `link.Link`."""
        given = call[0].given if isinstance(call[0], Attempts) else None
        task = self.schedule(scheduler, due, due if given is None else given, call)
        task._kept = True
        return task._number

    def adopt_many(
        self,
        scheduler: int,
        dues: list[int],
        function: Callable[..., Any],
        calls: list[tuple[Any, ...]],
        record: LocalRecord,
    ) -> int:
        """Accept calls of one function that have no handles; see `link.Link`."""
        first = self._next
        for due, args in zip(dues, calls, strict=True):
            self.adopt(scheduler, due, (Attempts(partial(function, *args)), record), None)
        return first

    def detach(self, scheduler: int, number: int) -> Task[Any] | None:
        """Remove and return the handle of a task, if any; nobody is notified of its end."""
        task = self.find(scheduler, number)
        if task is not None:
            self.attach(Task(self, scheduler, number, task._when, task._label), scheduler, number)
            self._runner.held.discard(task)
        return task

    def attach(self, task: Task[Any], scheduler: int, number: int) -> None:
        """Make a handle that of another task, which has none."""
        task._home, task._scheduler, task._number = self, scheduler, number
        self._hold(task, scheduler, number)
        if task._callbacks:
            self.hold(task)

    def attach_part(self, part: Part) -> None:
        """Make a batch the listener of a task that has no handle."""
        self._hold(part, part.scheduler, part.first)

    def _hold(self, listener: Task[Any] | Part, scheduler: int, number: int) -> None:
        engine = self.engines[scheduler]
        entry = engine.find(number)
        assert entry is not None  # it has just been accepted
        engine.replace(number, (listener, *entry[1:]))

    def reschedule(self, scheduler: int, number: int, due: int) -> bool:
        """Move a timed task to another due time, in nanoseconds since the epoch.

        False if it has begun or ended. It starts in the order of the new time, which is its due
        time from now on, even if it waits for another attempt.
        """
        engine = self.engines[scheduler]
        entry = engine.withdraw(number, launched=True)
        if entry is None:
            return False
        engine.add_again([number], due, [move(entry, due)])
        self._runner.few.forget(number)
        if self._keeping is not None:
            self._keeping.moved(number, due)
        return True

    def infos(self, wanted: Wanted) -> Iterator[list[TaskInfo]]:
        """Yield information on unfinished tasks, a slice at a time."""
        return list_engines(self.engines, wanted, self._ids.of[0], self.ref)

    def cancel(self, scheduler: int, number: int) -> bool:
        asked = self.engines[scheduler].cancel(number)  # first: others may have their turn by that
        if asked and self._keeping is not None:
            self._keeping.withdrawn(number)
        return asked
