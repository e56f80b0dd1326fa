"""A fake clock for testing programs that schedule tasks: days pass in milliseconds.

    from datetime import timedelta
    from aioscheduler.testing import FakeClock

    async def remind(user: int) -> str:
        return f"reminded {user}"

    async def test_reminder_comes_after_three_days() -> None:
        clock = FakeClock()
        async with clock.manager(workers=2) as manager:
            task = manager.schedule(remind(7), timedelta(days=3))
            await clock.advance(timedelta(days=3) - timedelta(seconds=1))
            assert not task.done()
            await clock.advance(1)
            assert await task == "reminded 7"

`FakeClock.manager` accepts the arguments of `Manager`; the manager's workers live in the test's
thread and loop. They are real workers: coroutines are shipped, so that whatever is `NotShippable`
is refused, and arguments and results are copies. Differences from worker processes:

- Only due times are fake. `asyncio.sleep` in a task, timeouts, and the time that a worker has to
  end are real.
- `join()`, and awaiting a task, hang while the task is due in the fake future: advance first.
- The test and its workers share modules and their globals; a blocking task blocks the test, too.
  `loop_initializer` is not called.
- `max_rss_per_worker` measures the test's process, which is far larger than a worker.
  `block_timeout` ends nothing, and `forward_logs` has nothing to forward: what tasks log is
  handled where they run.
- An `engine` starts nothing: its workers are in the test's thread, too.
- Killing a worker cancels its running tasks; in a real process they would notice nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import Context, copy_context
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from ._durable.writer import InlineWriter
from ._processes.paired import PairedWorkerHandle
from ._routing.assembly import Seams
from ._routing.layout import check_flag
from ._scheduling.alarm import ManualClock
from ._scheduling.clock import SECOND, to_datetime, to_ns
from .manager import Manager
from .scheduler import TimedScheduler

__all__ = ["FakeClock", "FakeManager", "FakeTimedScheduler"]

CALM = 2  # idle turns of the loop in a row: the first may have polled, or woken a timer
PATIENCE = 100  # turns in a row in which no scheduler reads the clock


class FakeClock(ManualClock):
    """A clock that stands still until it is advanced.

    Several managers and schedulers may share one. As an argument of a task it is passed as
    itself, not copied.

    Args:
        start: The first time; a naive datetime is UTC. By default the present.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = to_ns(datetime.now(UTC) if start is None else start, 0)
        self._dues: dict[_Timer, int] = {}  # due times of the timers that are set
        self._looks = 0  # how often it was read
        self._advancing = False
        self._number = next(_numbers)
        _clocks[self._number] = self

    def now(self) -> datetime:
        """Return the fake present, in aware UTC."""
        return to_datetime(self._now)

    def manager(self, *args: Any, **kwargs: Any) -> FakeManager:
        """Return a manager on this clock; the arguments are those of `Manager`."""
        return FakeManager(self, *args, **kwargs)

    def timed_scheduler(
        self, max_tasks: int | None = None, prefer_utc: bool = True
    ) -> FakeTimedScheduler:
        """Return a `TimedScheduler` on this clock. Queues need no clock."""
        return FakeTimedScheduler(self, max_tasks, prefer_utc)

    async def advance(self, delay: float | timedelta) -> None:
        """Move time forward, and run each task due on the way at its own time.

        Time moves from one due time to the next, once nothing is left to do without real waiting:
        handles have their outcomes, and tasks scheduled by other tasks are at their schedulers, to
        be run by this call if they fall due within it. A task that really waits (`asyncio.sleep`,
        a socket, a thread) is left running: await it. So is one that keeps yielding to the loop,
        after a hundred turns.

        Args:
            delay: Seconds (0 or more) or a timedelta; 0 runs what is due now.

        Raises:
            ValueError: It is negative or not finite.
            TypeError: It is neither a number nor a timedelta.
            RuntimeError: Time is already being advanced, by another task or further up the stack.
        """
        until = self._now + _to_span(delay)
        if self._advancing:
            raise RuntimeError("advance() is already under way; await one before the next")
        self._advancing = True
        try:
            await self._settle()
            while self._ring_next(until):
                await self._settle()
            self._now = until
        finally:
            self._advancing = False

    # The clock's interface for schedulers.

    def __call__(self) -> int:
        """Return the fake present, in nanoseconds since the epoch."""
        self._looks += 1
        return self._now

    def timer(self, ring: Callable[[], None]) -> _Timer:
        """Return a timer for a scheduler's alarm."""
        return _Timer(self._dues, ring)

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_clock, (self._number,)

    # ---- inside

    def _ring_next(self, until: int) -> bool:
        """Go to the next due time and ring its timer; return False if none is due by `until`."""
        timer = min(self._dues, key=self._dues.__getitem__, default=None)
        if timer is None or self._dues[timer] > until:
            return False
        self._now = max(self._now, self._dues.pop(timer))
        # From the loop, as a real timer would, and not from inside the test.
        asyncio.get_running_loop().call_soon(timer.ring, context=timer.context)
        return True

    async def _settle(self) -> None:
        """Wait until the loop has nothing to do but wait, or nothing that concerns schedulers."""
        loop = asyncio.get_running_loop()
        calm = unasked = 0
        while calm < CALM and unasked < PATIENCE:
            looks = self._looks
            await asyncio.sleep(0)
            # asyncio has no public API for this, and other loops none at all: there it takes
            # PATIENCE.
            calm = 0 if getattr(loop, "_ready", True) else calm + 1
            unasked = unasked + 1 if looks == self._looks else 0


class FakeManager(Manager):
    """A manager on a fake clock, with its workers in this thread. Made by `FakeClock.manager`."""

    def __init__(self, clock: FakeClock, *args: Any, **kwargs: Any) -> None:
        seams = Seams(
            clock,
            lambda config, loop_initializer, alive: partial(PairedWorkerHandle, config, clock),
            InlineWriter,
        )
        super().__init__(*args, **kwargs | {"_seams": seams})

    def kill(self, worker: int = 0) -> None:
        """Kill a worker, as a crash of its process would; `await clock.advance(0)` replaces it.

        Args:
            worker: Its slot, from 0.

        Raises:
            ValueError: There is no such worker.
        """
        if not 0 <= worker < len(self._remotes):
            raise ValueError(f"there is no worker {worker}: this manager has {len(self._remotes)}")
        process = self._remotes[worker].supervisor.process
        if process is not None:
            process.kill()


class FakeTimedScheduler(TimedScheduler):
    """A scheduler on a fake clock. Made by `FakeClock.timed_scheduler`."""

    def __init__(self, clock: FakeClock, max_tasks: int | None, prefer_utc: bool) -> None:
        # Skips TimedScheduler.__init__, which does not accept a clock.
        super(TimedScheduler, self).__init__(max_tasks, clock)
        check_flag("prefer_utc", prefer_utc)
        self.prefer_utc = prefer_utc


class _Timer:
    """An alarm's substitute for the kernel's timer; it rings in its worker's context."""

    def __init__(self, dues: dict[_Timer, int], ring: Callable[[], None]) -> None:
        self.ring = ring
        self.context: Context = copy_context()
        self._dues = dues

    def set(self, due: int | None) -> None:
        if due is None:
            self._dues.pop(self, None)
        else:
            self._dues[self] = due

    def close(self) -> None:
        self.set(None)


_numbers = count()
_clocks: WeakValueDictionary[int, FakeClock] = WeakValueDictionary()


def _find_clock(number: int) -> FakeClock:
    clock = _clocks.get(number)
    if clock is None:
        raise LookupError("a FakeClock cannot leave its process; only tasks run there can have it")
    return clock


def _to_span(delay: float | timedelta) -> int:
    """Return a delay in nanoseconds."""
    if isinstance(delay, timedelta):
        span = delay // timedelta(microseconds=1) * 1000
    elif not isinstance(delay, int | float) or isinstance(delay, bool):
        raise TypeError(f"advance() takes seconds or a timedelta, not {type(delay).__name__}")
    elif not math.isfinite(delay):
        raise ValueError(f"advance() takes a finite time, not {delay!r}")
    else:
        span = round(delay * SECOND)
    if span < 0:
        raise ValueError(
            f"time only moves forward: advance() takes 0 seconds or more, not {delay!r}"
        )
    return span
