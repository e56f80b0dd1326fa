"""A fake clock, for the tests of programs that schedule: days pass in milliseconds.

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

`FakeClock.manager` takes what `Manager` takes, and gives one whose workers live in the test's
thread and loop. They are the real ones: coroutines are shipped, so that what is `NotShippable` is
refused, and arguments and results are copies. What is not as it is with processes:

- Only due times are fake. `asyncio.sleep` in a task, timeouts, and what a worker is given for its
  end are real.
- `join()`, and awaiting a task, wait for what nobody brings about while it is due in the fake
  future: advance first.
- Modules are shared by the test and its workers, and so are the globals of what they define; a
  blocking task blocks the test, too. `loop_initializer` is not called.
- A worker is as large as the test's process, which has loaded far more: that is what
  `max_rss_per_worker` looks at. `block_timeout` ends nothing, and `forward_logs` has nothing to
  forward: what tasks log is handled where they run.
- An `engine` starts nothing: as many workers as it has are in the test's thread, too.
- A worker that is killed has its running tasks cancelled; in a process they would notice nothing.
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

CALM = 2  # turns of the loop in a row with nothing to do: one may have polled, or woken a timer
PATIENCE = 100  # turns in a row in which no scheduler looks at the clock


class FakeClock(ManualClock):
    """A clock that stands still until it is advanced.

    Several managers and schedulers may share one. It may be an argument of a task, which is
    given this very clock and not a copy.

    Args:
        start: Its first time; a naive datetime is UTC. By default the present.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = to_ns(datetime.now(UTC) if start is None else start, 0)
        self._dues: dict[_Timer, int] = {}  # of the timers that are set
        self._looks = 0  # how often it was looked at
        self._advancing = False
        self._number = next(_numbers)
        _clocks[self._number] = self

    def now(self) -> datetime:
        """Return the fake present, as an aware UTC datetime."""
        return to_datetime(self._now)

    def manager(self, *args: Any, **kwargs: Any) -> FakeManager:
        """Make a manager on this clock; the arguments are those of `Manager`."""
        return FakeManager(self, *args, **kwargs)

    def timed_scheduler(
        self, max_tasks: int | None = None, prefer_utc: bool = True
    ) -> FakeTimedScheduler:
        """Make a `TimedScheduler` on this clock. Queues have no clock, and no need of one."""
        return FakeTimedScheduler(self, max_tasks, prefer_utc)

    async def advance(self, delay: float | timedelta) -> None:
        """Move time forward, and run what is due on the way, each at its own time.

        It goes from due time to due time, and on when nothing is left to do there without real
        waiting: outcomes are at their handles, and what tasks have scheduled is at its scheduler,
        to be run by this call if it is due within it. A task that really waits (`asyncio.sleep`,
        a socket, a thread) is left running: await it. So is one that gives way again and again,
        a hundred turns of the loop long.

        Args:
            delay: Seconds, or a timedelta; 0 runs what is due now.

        Raises:
            ValueError: It is negative, or not finite.
            TypeError: It is no time.
            RuntimeError: Time is being advanced already, by another task or by the caller's own
                caller.
        """
        until = self._now + _to_span(delay)
        if self._advancing:
            raise RuntimeError("advance() is under way already; await one before the next")
        self._advancing = True
        try:
            await self._settle()
            while self._ring_next(until):
                await self._settle()
            self._now = until
        finally:
            self._advancing = False

    # What schedulers ask of it.

    def __call__(self) -> int:
        """Return the fake present, in nanoseconds since the epoch."""
        self._looks += 1
        return self._now

    def timer(self, ring: Callable[[], None]) -> _Timer:
        """Make a timer for an alarm of a scheduler's."""
        return _Timer(self._dues, ring)

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_clock, (self._number,)

    # ---- inside

    def _ring_next(self, until: int) -> bool:
        """Go to the next due time and have its timer ring; False if there is none by `until`."""
        timer = min(self._dues, key=self._dues.__getitem__, default=None)
        if timer is None or self._dues[timer] > until:
            return False
        self._now = max(self._now, self._dues.pop(timer))
        # From the loop, as a timer of its own does, and not from inside the test.
        asyncio.get_running_loop().call_soon(timer.ring, context=timer.context)
        return True

    async def _settle(self) -> None:
        """Return when the loop has nothing to do but to wait, or only what is not ours."""
        loop = asyncio.get_running_loop()
        calm = unasked = 0
        while calm < CALM and unasked < PATIENCE:
            looks = self._looks
            await asyncio.sleep(0)
            # asyncio has no public word for it, and a loop of another make none at all: there it
            # takes PATIENCE.
            calm = 0 if getattr(loop, "_ready", True) else calm + 1
            unasked = unasked + 1 if looks == self._looks else 0


class FakeManager(Manager):
    """A manager on a fake clock, with its workers in the calling thread: `FakeClock.manager`."""

    def __init__(self, clock: FakeClock, *args: Any, **kwargs: Any) -> None:
        seams = Seams(
            clock,
            lambda config, loop_initializer, alive: partial(PairedWorkerHandle, config, clock),
            InlineWriter,
        )
        super().__init__(*args, **kwargs | {"_seams": seams})

    def kill(self, worker: int = 0) -> None:
        """End a worker, as a crash of its process would; `await clock.advance(0)` replaces it.

        Args:
            worker: Its slot, from 0.

        Raises:
            ValueError: There is no such worker.
        """
        if not 0 <= worker < len(self._remotes):
            raise ValueError(f"there is no worker {worker}: it has {len(self._remotes)}")
        process = self._remotes[worker].supervisor.process
        if process is not None:
            process.kill()


class FakeTimedScheduler(TimedScheduler):
    """A scheduler on a fake clock: `FakeClock.timed_scheduler`."""

    def __init__(self, clock: FakeClock, max_tasks: int | None, prefer_utc: bool) -> None:
        # Past TimedScheduler, whose arguments are for users.
        super(TimedScheduler, self).__init__(max_tasks, clock)
        check_flag("prefer_utc", prefer_utc)
        self.prefer_utc = prefer_utc


class _Timer:
    """What an alarm has in place of the kernel's timer; it rings in its worker's context."""

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
        raise LookupError("a FakeClock does not leave its process; only its own tasks can have it")
    return clock


def _to_span(delay: float | timedelta) -> int:
    """Return nanoseconds."""
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
            f"time goes only forward: advance() takes 0 seconds or more, not {delay!r}"
        )
    return span
