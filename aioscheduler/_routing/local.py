"""The link to schedulers in this process and loop: no frames, no copies, the same contract.

It is the home of `TimedScheduler` and its sisters, and of a manager with `workers=0`.
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

_CANCELLED = "its initializer was cancelled, as by who cancels all tasks of the loop"


class LocalLink(LocalHome):
    """Schedulers of one order in the running loop.

    Args:
        order: What each scheduler runs next.
        schedulers: How many.
        counter: Told of every start and end.
        loop_thread: Of the manager or the scheduler.
        new_due: Reads the time to which a task is rescheduled.
        clock: Gives the present in nanoseconds since the epoch.
        manager: The manager's id, if there is one.
        boot: The initializer and its arguments, if there is one.
        upstream: Takes what tasks schedule, if there is a manager.
        failed: Called if the initializer raises, or what it has opened ends.
        max_running: How many timed tasks may run at a time on each scheduler; None for any number.
        ids: Of the manager's tasks, if there is one.
        propagation: What goes with each task besides the context of its call, if anything does.
        keeping: Keeps the durable ones among the tasks; None: there is no store.

    Attributes:
        proxy: The manager as its tasks see it, if there is one.
        lifespan: Calls the initializer, and has what that has opened; None if there is none.
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
        """Begin to run what is due, once the initializer is through."""
        self.loop = self._runner.loop = loop
        if self.lifespan is None:
            self._start_engines()
        else:
            self._booting = loop.create_task(self._initialize(self.lifespan))
            self._booting.add_done_callback(self._was_booted)

    async def ready(self) -> None:
        """Return when the initializer is through.

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
                raise  # it is who waits that is cancelled
            reason = "the manager was closed before its initializer was through"
            raise WorkerStartError(reason if self._runner.stopped else _CANCELLED) from None

    def _was_booted(self, booting: asyncio.Task[None]) -> None:
        """Fail if somebody else has cancelled it: no task would ever begin."""
        if not booting.cancelled():
            booting.exception()  # `failed` tells it as well, so it need not be awaited
        else:
            self._fail_unless_over(WorkerStartError(_CANCELLED))

    def _start_engines(self) -> None:
        if self.loop is None or self._state is WorkerState.STOPPED:
            return  # an initializer that was not to be stopped
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
        """Fail: what tasks share is gone."""
        lost = WorkerLost(0, None, started=None, cause=str(reason))
        lost.__cause__ = reason
        if isinstance(reason.__cause__, asyncio.CancelledError):
            self._fail_unless_over(lost)
        else:
            self._failed(lost)

    def _fail_unless_over(self, reason: Exception) -> None:
        """Fail, unless the loop ends, or we are closed: all that there is may be cancelled then."""
        assert self.loop is not None
        HoldBack(lambda: None if self._runner.stopped else self._failed(reason)).begin(self.loop)

    def schedule(
        self, scheduler: int, due: int, when: datetime | int, call: LocalCall
    ) -> Task[Any]:
        """Accept what `take` gave."""
        work, record = call
        options, context, captured = record or (None, copy_context(), None)
        number, self._next = self._next, self._next + 1
        name, told = None, due
        if options is not None:
            name = options.name
            if isinstance(work, Attempts):
                name = name or name_of(work.first)
                told = due if work.given is None else work.given
        task: Task[Any] = Task(self, scheduler, number, when, name or name_of(work))
        entry = task, work, context, options, told, captured
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
        """Accept calls of one function."""
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
        """How many calls `schedule_many` takes at a time."""
        return MAX_SLICE

    async def flush(self) -> None:
        """Return at once: nothing is between here and the schedulers."""

    def look_after(self, lag: float) -> None:
        """Is called once a tick: the tick of its schedulers is that of the loop."""
        if self.loop is not None:
            self._history.add(self.loop.time(), lag, self._recorder.take())

    def stats(self) -> LinkStats:
        """Return what `Manager.stats()` needs to know."""
        running = sum(len(engine.running) for engine in self.engines)
        counts = self._runner.counts
        return LinkStats(self._state, False, os.getpid(), running, counts, self._history)

    async def close(self, timeout: float | None) -> None:
        """Cancel what waits and let what runs finish.

        Args:
            timeout: Seconds until what still runs is cancelled; None: never.
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
        caller = running.get(None)  # a task of ours that closes its manager, itself or by a child
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
        if self.loop is None or self.loop.is_closed():  # nothing that runs will end
            self._counter.count_emptied(0)
            return
        for engine in self.engines:
            for number in tuple(engine.running):
                engine.running.give_up(number)
        if self.lifespan is not None:
            self.lifespan.cancel()

    def withdraw(self, scheduler: int, number: int) -> bool:
        """End a task that has not begun as cancelled; False if it has, or has ended.

        Unlike a cancellation it never touches what has begun. What waits for its next attempt has
        not.
        """
        engine = self.engines[scheduler]
        entry = engine.withdraw(number, launched=True)
        if entry is None:
            return False
        self._runner.withdrawn(engine, number, entry)
        return True

    def dispossess(self, scheduler: int, number: int) -> None:
        """Withdraw a task whose id another takes; what has begun goes on without it."""
        task = self.find(scheduler, number)
        assert task is not None  # it has an id, and so has not ended
        task._id = None
        if self._keeping is not None:
            self._keeping.dispossess(number, self.state(number) is State.RUNNING)
        self.withdraw(scheduler, number)

    def adopt(self, scheduler: int, due: int, call: LocalCall, alias: int | None) -> int:
        """Accept a task of which nobody has a handle; see `link.Link`."""
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
        """Accept calls of one function of which nobody has a handle; see `link.Link`."""
        first = self._next
        for due, args in zip(dues, calls, strict=True):
            self.adopt(scheduler, due, (Attempts(partial(function, *args)), record), None)
        return first

    def detach(self, scheduler: int, number: int) -> Task[Any] | None:
        """Take the handle from a task that has one; its end is told to nobody."""
        task = self.find(scheduler, number)
        if task is not None:
            self.attach(Task(self, scheduler, number, task._when, task._label), scheduler, number)
            self._runner.held.discard(task)
        return task

    def attach(self, task: Task[Any], scheduler: int, number: int) -> None:
        """Make a handle that of another task, of which nobody has one."""
        task._home, task._scheduler, task._number = self, scheduler, number
        self._hold(task, scheduler, number)
        if task._callbacks:
            self.hold(task)

    def attach_part(self, part: Part) -> None:
        """Have a batch be told the end of a task of which nobody has a handle."""
        self._hold(part, part.scheduler, part.first)

    def _hold(self, listener: Task[Any] | Part, scheduler: int, number: int) -> None:
        engine = self.engines[scheduler]
        entry = engine.find(number)
        assert entry is not None  # it has been accepted
        engine.replace(number, (listener, *entry[1:]))

    def reschedule(self, scheduler: int, number: int, due: int) -> bool:
        """Have a timed task start at another time, in nanoseconds since the epoch.

        False if it has begun or has ended. It starts in the order of the new time, and that is its
        due time from now on, whichever attempt it waits for.
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
        """Yield what is known of the tasks that have not ended, a slice at a time."""
        return list_engines(self.engines, wanted, self._ids.of[0], self.ref)

    def cancel(self, scheduler: int, number: int) -> bool:
        asked = self.engines[scheduler].cancel(number)  # before others have their turn by that
        if asked and self._keeping is not None:
            self._keeping.withdrawn(number)
        return asked
