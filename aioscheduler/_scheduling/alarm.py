"""One timer for all schedulers of a loop, set to wall-clock time.

Due times are wall-clock times, and a loop's own timers are not. Linux has a wall-clock timer: it
rings on time even after the clock was set or the machine has slept, and is 0.05 ms late, where a
loop's timer, which epoll rounds up to whole milliseconds, is half a millisecond late
(`benchmarks/bench_lateness.py`). Elsewhere the loop's timer is used, and never sleeps longer than
a tick: after a jump, tasks are at most that late. A clock that is moved by hand, in tests, has its
own timer.

The kernel's timer is a file descriptor, which a faulty library may close. So it is checked once a
tick while it is set, and replaced with the loop's timer if it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from .clock import SECOND
from .shiftedclock import ShiftedClock

log: logging.Logger = logging.getLogger("aioscheduler")

TICK = 1.0
"""Seconds between two checks for what no event reports: clocks that were set, silent workers,
processes and descriptors that are gone. Workers report their lateness at the same interval. What
the documents promise by it is pinned by `tests/unit/test_tick.py`."""


def next_tick(now: float) -> float:
    """Return the next multiple of `TICK`, so that the checks of a process share one wake-up.

    A loop may call up to its clock's resolution early: that tick counts as past.

    Args:
        now: The loop's time, in seconds.
    """
    return (math.floor((now + 0.001) / TICK) + 1) * TICK


class Alarm:
    """Calls each sleeper once, when it is due.

    Args:
        loop: The running loop.
        clock: Returns the present in nanoseconds since the epoch.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], int]) -> None:
        self._loop = loop
        self._clock = clock
        self._sleepers: dict[Callable[[], None], int] = {}
        self._rings_at: int | None = None
        self._timer: Timer
        if isinstance(clock, ManualClock):
            self._timer = clock.timer(self._ring)
            return
        self._timer = _LoopTimer(loop, clock, self._ring)
        shifted = clock if isinstance(clock, ShiftedClock) else None
        if shifted is not None:
            shifted.changed = self._arm
        if sys.platform == "linux" and (shifted is not None or clock is time.time_ns):
            with suppress(OSError, AttributeError, ImportError):  # a sandbox, another C library
                self._timer = _KernelTimer(loop, self._ring, self._lose, shifted)

    def set(self, sleeper: Callable[[], None], due: int | None) -> None:
        """Call `sleeper` once at `due`, in place of its previous due time; None: never."""
        if due is None:
            self._sleepers.pop(sleeper, None)
        else:
            self._sleepers[sleeper] = due
            if self._rings_at is None or due < self._rings_at:
                self._arm()

    def stop(self) -> None:
        """Forget all sleepers, for good."""
        self._sleepers.clear()
        self._timer.close()

    def _arm(self) -> None:
        self._rings_at = min(self._sleepers.values(), default=None)
        self._timer.set(self._rings_at)

    def _lose(self) -> None:
        """Replace the lost timer with the loop's."""
        log.warning(
            "a timer's file descriptor was closed by something else in process %d; tasks go on, "
            "each half a millisecond later; look for code that closes a descriptor twice",
            os.getpid(),
        )
        self._timer.close()
        self._timer = _LoopTimer(self._loop, self._clock, self._ring)
        self._timer.set(self._rings_at)

    def _ring(self) -> None:
        now = self._clock()
        woken = [sleeper for sleeper, due in self._sleepers.items() if due <= now]
        for sleeper in woken:
            del self._sleepers[sleeper]
        self._rings_at = now  # so that no woken sleeper sets the timer: it is set below
        for sleeper in woken:
            sleeper()
        self._arm()


class Timer(Protocol):
    """A timer that rings at or after a time; if it rings earlier, it is set again."""

    def set(self, due: int | None) -> None: ...
    def close(self) -> None: ...


class ManualClock(ABC):
    """A clock that is moved by hand and rings its own timers: no loop or kernel knows its time."""

    @abstractmethod
    def __call__(self) -> int:
        """Return the present in nanoseconds since the epoch."""

    @abstractmethod
    def timer(self, ring: Callable[[], None]) -> Timer:
        """Make a timer for an alarm; `ring` is called in the context of the caller."""


class _LoopTimer:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], int], ring: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._ring = ring
        self.handle: asyncio.TimerHandle | None = None

    def set(self, due: int | None) -> None:
        self.close()
        if due is not None:
            now = self._loop.time()
            at = now + max(0, due - self._clock()) / SECOND
            self.handle = self._loop.call_at(min(at, next_tick(now)), self._ring)

    def close(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None


class _KernelTimer:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ring: Callable[[], None],
        lost: Callable[[], None],
        shifted: ShiftedClock | None,
    ) -> None:
        from .timerfd import TimerFd  # it may need ctypes, which some builds of Python lack

        self._shifted = shifted
        self._loop = loop
        self._ring = ring
        self._lost = lost
        self._timer = TimerFd(monotonic=shifted is not None)
        self._due: int | None = None
        self._next_look: asyncio.TimerHandle | None = None
        loop.add_reader(self._timer.fd, self._readable)

    def set(self, due: int | None) -> None:
        if self._timer.fd < 0:
            return
        self._due = due
        if due is not None and self._shifted is not None:
            due -= self._shifted.lead
        try:
            self._timer.set(due)
        except OSError:
            self._lost()
        else:
            if due is not None and self._next_look is None:
                self._look_later()

    def close(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        if self._timer.fd >= 0:
            self._loop.remove_reader(self._timer.fd)
            self._timer.close()

    def _readable(self) -> None:
        if self._timer.read():
            self._ring()

    def _look_later(self) -> None:
        at = next_tick(self._loop.time())
        self._next_look = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._next_look = None
        if self._due is None:
            return
        if self._timer.is_there():
            self._look_later()
        else:
            self._lost()
