"""When repeats are looked at: grouped by minute, with one alarm for all of them.

    set(repeat, wake) ─┬─► far: a dict for each minute ──(its minute is next)──┐ some at a turn
                       └─► near: one heap ◄────────────────────────────────────┘
                               └─► alarm ─► ring ─► look, for each whose time has come
                                                     └─► the rest in another turn of the loop

A repeat that is far off takes only its entry in the dict of its minute; in the heap it takes twice
as much. The agenda also knows since when every look has come on time: a clock that was set, or a
machine that slept, has skipped times at which nobody looked.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from contextvars import Context
from itertools import count, islice

from .._repeating.policy import GRACE
from .._scheduling.alarm import Alarm, ManualClock
from .._scheduling.clock import SECOND
from ..repeat import Repeat

MOST_AT_ONCE = 32
"""Looks, and the runs they start, in one turn of the loop: a few milliseconds."""

MOST_OPENED = 1024
"""Repeats moved from far to near in one turn of the loop: a millisecond."""

MOST_SHOWN = 1000
"""Repeats of a far-off minute that are compared to find those that come next."""

_MINUTE = 36  # 2 ** 36 ns are 69 s
_PRUNE_AT = 64  # stale entries


class Agenda:
    """The times at which repeats are looked at.

    Args:
        clock: Return the present in nanoseconds since the epoch.
        look: Look at a repeat, given the present; return its further cost in looks, a run counting
            as one. Must not raise.
        context: The context in which repeats are looked at.

    Attributes:
        watched: Since when every look has come on time, in nanoseconds since the epoch.
    """

    def __init__(
        self, clock: Callable[[], int], look: Callable[[Repeat, int], int], context: Context
    ) -> None:
        self.watched = 0
        self._clock = clock
        self._look = look
        self._context = context
        self._far: dict[int, dict[Repeat, None]] = {}
        self._minutes: list[int] = []  # a heap of its keys, stale ones included
        self._opened = -1  # all up to this minute are near
        self._opening: Iterator[Repeat] = iter(())  # those being moved to near
        self._near: list[tuple[int, int, Repeat]] = []
        self._numbers = count()  # a tie-break: repeats cannot be compared
        self._useless = 0  # stale entries of the heap
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: Alarm | None = None
        self._ringing = False
        self._is_over = False
        self._offset: int | None = None  # of the clock from the loop's, which cannot be set

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look; times before this, or before a jump is noticed, are missed."""
        self._loop = loop
        if not self.watched:
            self.watched = self._clock()
        if not isinstance(self._clock, ManualClock):  # it rings at each time it jumps over
            self._offset = self._clock() - int(loop.time() * SECOND)
        if self._near or self._far:
            self._arm(loop)

    def stop(self) -> None:
        """Stop looking for good."""
        self._is_over = True
        self._far.clear()
        self._near.clear()
        self._opening = iter(())
        if self._alarm is not None:
            self._alarm.stop()

    def set(self, repeat: Repeat, wake: int | None) -> None:
        """Set the one time at which a repeat is looked at; None: at no time."""
        before, repeat._wake = repeat._wake, wake
        if self._is_over:
            return
        if before is not None:
            self._forget(repeat, before >> _MINUTE)
        if wake is None:
            return
        minute = wake >> _MINUTE
        if minute <= self._opened:
            heapq.heappush(self._near, (wake, next(self._numbers), repeat))
            is_first = self._near[0][2] is repeat
        else:
            there = self._far.get(minute)
            if there is None:
                there = self._far[minute] = {}
                heapq.heappush(self._minutes, minute)
            there[repeat] = None
            is_first = not self._near and self._minutes[0] == minute and len(there) == 1
        if is_first and self._loop is not None and not self._ringing:
            self._arm(self._loop)

    def _forget(self, repeat: Repeat, minute: int) -> None:
        """Remove a repeat; in the heap its entry stays for a while, stale."""
        if minute > self._opened:
            there = self._far[minute]
            del there[repeat]
            if not there:
                del self._far[minute]
            if len(self._minutes) > _PRUNE_AT + 2 * len(self._far):
                self._minutes[:] = sorted(self._far)
            return
        near = self._near
        self._useless += 1
        if self._useless > _PRUNE_AT + len(near) // 2:
            self._useless = 0
            near[:] = {entry[2]: entry for entry in near if entry[2]._wake == entry[0]}.values()
            heapq.heapify(near)

    def soonest(self) -> Iterator[Repeat]:
        """Yield repeats lazily, each once, in the order in which they are looked at.

        Of a far-off minute only the first `MOST_SHOWN` are considered.
        """
        near = self._near
        # One set anew for the same time has an entry more, which looks as valid as the other.
        found: set[Repeat] = set()
        frontier = [(near[0], 0)] if near else []
        while frontier:
            (wake, _, repeat), index = heapq.heappop(frontier)
            for child in (2 * index + 1, 2 * index + 2):
                if child < len(near):
                    heapq.heappush(frontier, (near[child], child))
            if repeat._wake == wake and repeat not in found:
                found.add(repeat)
                yield repeat
        for minute in sorted(self._far):
            yield from sorted(islice(self._far[minute], MOST_SHOWN), key=lambda r: r._wake or 0)

    def notice(self, now: int) -> None:
        """Check whether the clock was set or the machine slept; called at least once a tick."""
        if self._offset is None or self._loop is None:
            return
        offset = now - int(self._loop.time() * SECOND)
        if abs(offset - self._offset) >= GRACE:
            self.watched = now
        self._offset = offset

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        # A copy, as the context may be entered already.
        self._context.copy().run(self._arm_here, loop)

    def _arm_here(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._alarm is None:  # a manager without repeats needs none
            self._alarm = Alarm(loop, self._clock)
        times = [self._near[0][0]] if self._near else []
        if (minute := self._next_minute()) is not None:
            times.append(minute - 1 << _MINUTE)
        self._alarm.set(self._ring, min(times, default=None))

    def _next_minute(self) -> int | None:
        """Return the first far-off minute, if there is one."""
        minutes = self._minutes
        while minutes and minutes[0] not in self._far:
            heapq.heappop(minutes)
        return minutes[0] if minutes else None

    def _open(self, now: int) -> bool:
        """Move repeats of this minute and the next to near; return whether all are."""
        left = MOST_OPENED
        while True:
            for repeat in islice(self._opening, left):
                left -= 1
                if repeat._wake is not None and repeat._wake >> _MINUTE == self._opened:
                    heapq.heappush(self._near, (repeat._wake, next(self._numbers), repeat))
            minute = self._next_minute()
            if left and (minute is None or minute - 1 << _MINUTE > now):
                return True
            if not left:
                return False
            assert minute is not None
            self._opened = heapq.heappop(self._minutes)
            self._opening = iter(list(self._far.pop(minute)))

    def _ring(self) -> None:
        if self._is_over:
            return
        assert self._loop is not None
        now = self._clock()
        self.notice(now)
        near, left = self._near, MOST_AT_ONCE
        self._ringing = True
        are_here = self._open(now)
        while are_here and left > 0 and near and near[0][0] <= now:
            wake, _, repeat = heapq.heappop(near)
            if repeat._wake != wake:
                self._useless -= 1
                continue
            repeat._wake = None
            left -= 1 + self._look(repeat, now)
        self._ringing = False
        if are_here and left > 0:
            self._arm(self._loop)
        else:
            self._loop.call_soon(self._ring, context=self._context)
