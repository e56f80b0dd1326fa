"""The scheduler core: takes what is due from a queue and runs it, in slices.

It serves in the user's process and inside a worker, and so knows nothing of coroutines, handles
or frames: an entry is opaque, and its crew (`Crew`) says how to run it.

    add ─► waiting + queue ─(due)─► crew.launch(slice) ─► run ─► running ─► crew.execute ends
                 │                        a worker announces the slice here
                 └─ cancel: withdrawn, never started

A slice is what is started without giving the loop a turn. It is made longer or shorter so that
it takes about `SLICE_TIME`: a million no-ops due together run in slices of hundreds, tasks that
compute for a millisecond in slices of a few, and I/O is answered in between.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Container, Coroutine, Iterable, Sequence
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from .alarm import Alarm
from .clock import to_ns
from .lateness import Recorder
from .queues import FifoQueue, LifoQueue
from .timers import TimerQueue

E = TypeVar("E")

CLEANUP_TIME = 0.4  # seconds that a cancelled task has; then it is cancelled once more
LAST_WORDS = 0.05  # seconds after that; together less than `supervisor.KILL_AFTER`
HOLD_BACK = 0.1  # seconds from one look at a loop that seems to be ending to the next
SLICE_TIME = 4_000_000  # nanoseconds
MAX_SLICE = 256  # tasks


class Queue(Protocol):
    """What an engine needs of a queue; see `timers` and `queues`."""

    def __len__(self) -> int: ...
    def push(self, due: int, number: int) -> None: ...
    def push_many(self, dues: int | Sequence[int], numbers: Sequence[int]) -> None: ...
    def pop_due(self, now: int, limit: int) -> tuple[list[int], list[int]]: ...
    def next_look(self) -> int | None: ...
    def discard(self) -> None: ...


class Crew(Protocol[E]):
    """Who knows what the entries are."""

    def launch(self, engine: Engine[E], numbers: list[int], dues: list[int]) -> None:
        """Calls `engine.run` when the slice has been announced, which may be at once.

        Entries that are not ready are left out, and run by a later call.
        """

    def execute(
        self, engine: Engine[E], number: int, entry: E, due: int
    ) -> Coroutine[Any, Any, None]:
        """Runs an entry that was due at `due`, and reports its end. Never raises."""

    def withdrawn(self, engine: Engine[E], number: int, entry: E) -> None:
        """Reports the end of an entry that was cancelled before its first step."""

    def broken(self, engine: Engine[E], error: Exception, launched: dict[int, E]) -> None:
        """Take what the engine had launched, and could not begin because of an error of its own."""


class Order(Enum):
    """In which order an engine runs its entries, and how many at a time."""

    TIMED = "timed"
    FIFO = "fifo"
    LIFO = "lifo"

    def make_queue(self, alive: Container[int]) -> Queue:
        """Makes the queue of this order; `alive` is as for `TimerQueue`."""
        if self is Order.TIMED:
            return TimerQueue(alive)
        return FifoQueue(alive) if self is Order.FIFO else LifoQueue(alive)

    @property
    def concurrency(self) -> int | None:
        """How many entries run at a time; None for any number."""
        return None if self is Order.TIMED else 1


def due_time(order: Order, when: datetime | timedelta | None, now: int, prefer_utc: bool) -> int:
    """Gives the due time of a task, `now` if no time is given; 0 in a queue.

    Raises:
        ValueError: As `clock.to_ns`.
        TypeError: As `clock.to_ns`, and if a queue is given a time.
    """
    if order is not Order.TIMED:
        if when is not None:
            raise TypeError("a queue runs tasks in turn and takes no time: leave out when")
        return 0
    return now if when is None else to_ns(when, now, prefer_utc)


class Engine(Generic[E]):
    """Runs entries at their due times on one loop.

    Args:
        index: Which scheduler of its worker this is.
        order: What is run next.
        crew: Runs the entries.
        recorder: Told how late timed entries start.
        clock: Gives the present in nanoseconds since the epoch.
        context_of: Gives the context that an entry's task takes for its own; None: each takes a
            copy of the one in which the engine was started.
    """

    def __init__(
        self,
        index: int,
        order: Order,
        crew: Crew[E],
        recorder: Recorder,
        clock: Callable[[], int] = time.time_ns,
        context_of: Callable[[E], Context] | None = None,
    ) -> None:
        self.index = index
        self.waiting: dict[int, E] = {}
        self.running: dict[int, tuple[asyncio.Task[None], E]] = {}
        self._launched: dict[int, E] = {}  # handed to the crew, not yet run
        self._launching = False  # a slice is between `launch` and the end of its `run`
        self._to_run: deque[tuple[int, int]] = deque()  # announced, with due times, in order
        self._runner: asyncio.Handle | None = None
        self._order = order
        self._concurrency = order.concurrency
        self._queue = order.make_queue(self.waiting)
        self._crew = crew
        self._recorder = recorder
        self._clock = clock
        self._context_of = context_of
        self._base = Context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: Alarm | None = None  # None: not started, or stopped
        self._sleeper = self._wake  # one object, as the alarm's key
        self._waking = False
        self._asked: set[int] = set()  # running, and asked to cancel by whoever may
        self._held_back = False  # the loop seems to be ending
        self._looks_at: int | None = None  # when the alarm wakes us; None: it does not
        self._slice = 16
        self._slice_began: int | None = None  # when the last slice was taken, if more was due

    @property
    def pending(self) -> int:
        """How many entries have not started and were not cancelled."""
        return len(self.waiting) + len(self._launched)

    def find(self, number: int) -> E | None:
        """Gives an entry that has not ended, else None."""
        if number in self.running:
            return self.running[number][1]
        return self.waiting.get(number) or self._launched.get(number)

    def start(self, loop: asyncio.AbstractEventLoop, alarm: Alarm) -> None:
        """Begins to run what is due."""
        self._loop, self._alarm = loop, alarm
        self._base = copy_context()
        self.wake_soon()

    def stop(self) -> tuple[dict[int, E], dict[int, E]]:
        """Starts nothing more; what runs goes on.

        Returns:
            What had been launched and not run, and what was waiting.
        """
        if self._alarm is not None:
            self._alarm.set(self._sleeper, None)
            self._alarm = None
        dropped = self._launched, self.waiting
        self._launched, self.waiting = {}, {}
        self._queue = self._order.make_queue(self.waiting)
        return dropped

    def drop_slice(self) -> None:
        """Start nothing more of the slice that is being run: this is a copy, in a forked child."""
        self._to_run.clear()

    def add(self, number: int, due: int, entry: E) -> None:
        """Accepts an entry.

        Args:
            number: Counts up from entry to entry.
            due: Nanoseconds since the epoch.
            entry: Handed to the crew when it is due.
        """
        self.waiting[number] = entry
        self._queue.push(due, number)
        if not self._waking and (self._looks_at is None or due < self._looks_at):
            self._look_again()

    def add_many(
        self, numbers: Sequence[int], dues: int | Sequence[int], entries: Iterable[E]
    ) -> None:
        """Accepts entries with ascending numbers, and a due time each or one for all.

        A third of the cost of adding them singly (`benchmarks/bench_throughput.py`).
        """
        self.waiting.update(zip(numbers, entries, strict=True))
        try:
            self._queue.push_many(dues, numbers)
        except BaseException:
            for number in numbers:  # which the queue does not have
                self.waiting.pop(number, None)
            raise
        earliest = dues if isinstance(dues, int) else min(dues)
        if not self._waking and (self._looks_at is None or earliest < self._looks_at):
            self._look_again()

    def cancel(self, number: int) -> bool:
        """Withdraws a waiting entry or cancels a running one; False if it is neither."""
        if (waiting := self.withdraw(number)) is not None:
            self._crew.withdrawn(self, number, waiting)
        elif number in self._launched:
            self._crew.withdrawn(self, number, self._launched.pop(number))
            if self._concurrency is not None:  # its place is free, though it may never run
                self.wake_soon()
        elif number in self.running:
            task, entry = self.running[number]
            self._asked.add(number)
            if task.cancel():
                task.add_done_callback(lambda _: self._report_unbegun(number, entry))
        else:
            return False
        return True

    def withdraw(self, number: int) -> E | None:
        """Take back an entry that has not been launched, unreported; None: there is none."""
        entry = self.waiting.pop(number, None)
        if entry is not None:
            self._queue.discard()
        return entry

    def run(self, numbers: list[int], dues: list[int]) -> None:
        """Starts the entries of a launched slice, in this order and after those of earlier calls.

        Those that were cancelled meanwhile are left out.
        """
        self._to_run.extend(zip(numbers, dues, strict=True))
        if self._runner is None:
            self._run_some()

    def _run_some(self) -> None:
        # We may be called from a task's step, or by a callback that it left: what it has set is
        # its own. A new task copies the context it is made in, so this costs nothing a task.
        self._guard(partial(self._base.copy().run, self._run_slice))

    def _guard(self, step: Callable[[], None]) -> None:
        """Take a step; if it raises, for want of memory say, what was launched has an end."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  whatever it is
            broken, self._launched = self._launched, {}
            self._to_run.clear()
            self._launching = False
            self._crew.broken(self, error, broken)

    def _run_slice(self) -> None:
        context_of = self._context_of
        clock, loop, launched, execute = self._clock, self._loop, self._launched, self._crew.execute
        self._runner = None
        to_run = self._to_run
        started: list[int] = []  # due times
        first = last = now = clock()
        while to_run:
            number, due = to_run.popleft()
            entry = launched.pop(number, None)
            if entry is None:
                continue
            started.append(due)
            last = now
            coro = execute(self, number, entry, due)
            try:
                if context_of is None:
                    task = _spawn(coro, loop=loop)
                else:
                    task = _spawn(coro, loop=loop, context=context_of(entry))
            except Exception:
                coro.close()
                launched[number] = entry
                raise
            if not task.done():
                self.running[number] = (task, entry)
            now = clock()
            if now - first > SLICE_TIME:
                break
        # What an eager task has raised holds this frame by its traceback, and an entry its handle.
        entry = None
        if started and self._order is Order.TIMED:
            if _EAGER or loop is None:
                self._recorder.record(started, first, last)
            else:  # their first steps come with the loop's next turn, just before this call
                loop.call_soon(self._record_steps, started, now)
        if to_run and loop is not None:
            self._runner = loop.call_soon(self._run_some)
        else:
            self._launching = False
            self._look_again()

    def _record_steps(self, started: list[int], first: int) -> None:
        """Records the starts of a slice whose first steps have just been taken."""
        now = self._clock()
        self._recorder.record(started, first, now - (now - first) // len(started))

    def ended(self, number: int) -> None:
        """The crew's word that an entry has ended; makes room for the next."""
        self.running.pop(number, None)
        if self._asked:
            self._asked.discard(number)
        if self._concurrency is not None:
            self.wake_soon()

    def was_cancelled(self, number: int) -> None:
        """The crew's word that a running entry ends by a cancellation, in a loop of the user's.

        If it was not asked for here, nothing is started until it is clear that the loop goes on:
        when main() has returned, `asyncio.run` cancels all there is, and what began then would be
        left in the middle.
        """
        if number not in self._asked:
            self._hold_back()

    def _hold_back(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._held_back = True
            self._loop.call_later(HOLD_BACK, self._go_on)

    def _go_on(self) -> None:
        assert self._loop is not None
        others = asyncio.all_tasks(self._loop)
        # asyncio has no public word for the second; loops of another make lack it.
        ending = bool(others) and all(task.cancelling() for task in others)
        if ending or getattr(self._loop, "_asyncgens_shutdown_called", False):
            self._hold_back()
        else:
            self._held_back = False
            self.wake_soon()

    def _report_unbegun(self, number: int, entry: E) -> None:
        # A plain asyncio task that is cancelled before its first step never enters its
        # coroutine, so that `execute` could not report.
        if number in self.running:
            self._crew.withdrawn(self, number, entry)
            self.ended(number)

    def wake_soon(self) -> None:
        """Look for what is due, in the loop's next turn."""
        if self._alarm is not None and not self._waking and self._loop is not None:
            self._waking = True
            self._loop.call_soon(self._wake)

    def _look_again(self) -> None:
        """Sleeps until the queue is worth a look, or wakes at the next turn of the loop."""
        if self._alarm is None:
            return
        self._looks_at = self._queue.next_look()
        if self._looks_at is not None and self._looks_at <= self._clock():
            self.wake_soon()
        else:
            self._slice_began = None
            self._alarm.set(self._sleeper, self._looks_at)

    def _wake(self) -> None:
        self._waking = False
        self._guard(self._launch_due)

    def _launch_due(self) -> None:
        if self._alarm is None or self._launching:  # `run` looks again
            return
        if self._held_back:  # `_go_on` looks again
            return
        now = self._clock()
        concurrency = self._concurrency
        if concurrency is None:
            room = self._adapted_slice(now)
        else:
            room = concurrency - len(self.running) - len(self._launched)
        if room > 0:
            numbers, dues = self._queue.pop_due(now, room)
            if numbers:
                self._launched.update(zip(numbers, map(self.waiting.pop, numbers), strict=True))
                self._launching = True
                self._crew.launch(self, numbers, dues)
            else:
                self._look_again()

    def _adapted_slice(self, now: int) -> int:
        if self._slice_began is not None:
            took = now - self._slice_began
            if took > SLICE_TIME:
                self._slice = max(1, self._slice // 2)
            elif took < SLICE_TIME // 2:
                self._slice = min(MAX_SLICE, self._slice * 2)
        self._slice_began = now
        return self._slice


async def end_running(
    engines: Sequence[Engine[Any]], timeout: float | None, caller: tuple[int, int] | None = None
) -> list[tuple[int, int]]:
    """Lets what runs finish, then cancels it, and gives up what swallows that twice.

    The caller's own task is left alone: it waits for this.

    Args:
        engines: Stopped ones.
        timeout: Seconds that tasks have before they are cancelled; None for all the time.
        caller: Scheduler and number of the task that waits for this, if it is known.

    Returns:
        Scheduler and number of each task that was given up.
    """
    own = asyncio.current_task()

    def left() -> dict[asyncio.Task[None], tuple[Engine[Any], int]]:
        return {
            task: (engine, number)
            for engine in engines
            for number, (task, _) in engine.running.items()
            if task is not own and (engine.index, number) != caller
        }

    if timeout != 0 and (running := left()):
        await asyncio.wait(running, timeout=timeout)
    for patience in (CLEANUP_TIME, LAST_WORDS):
        for engine, number in left().values():
            engine.cancel(number)
        if running := left():
            await asyncio.wait(running, timeout=patience)
            await asyncio.sleep(0)  # tasks cancelled before their first step report here
    return [(engine.index, number) for engine, number in left().values()]


# A task takes its first step at once where it can: a coroutine that never waits then costs no
# turn of the loop. Before 3.12 the first step comes with the next turn.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_spawn: Callable[..., asyncio.Task[None]] = partial(asyncio.Task, **_EAGER)
