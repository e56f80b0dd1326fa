"""When repeats are looked at: one heap and one alarm for all of them.

    set(repeat, wake) ─► heap ─► alarm ─► ring ─► look, for each whose time has come
                                            └─► the rest in another turn of the loop

It also knows since when somebody has looked whenever it was time: a clock that was set, or a
machine that has slept, has passed over times at which nobody did.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from contextvars import Context
from itertools import count

from .._repeating.policy import GRACE
from .._scheduling.alarm import Alarm, ManualClock
from .._scheduling.clock import SECOND
from ..repeat import Repeat

MOST_AT_ONCE = 32
"""Looks, and runs that come of them, in one turn of the loop: some milliseconds."""

_PRUNE_AT = 64  # entries that are of no use any more


class Agenda:
    """Has repeats looked at when it is time.

    Args:
        clock: Return the present in nanoseconds since the epoch.
        look: Look at one, given the present; return how many runs came of it. Must not raise.
        context: In which that is done.

    Attributes:
        watched: Since when somebody looks whenever it is time.
    """

    def __init__(
        self, clock: Callable[[], int], look: Callable[[Repeat, int], int], context: Context
    ) -> None:
        self.watched = 0
        self._clock = clock
        self._look = look
        self._context = context
        self._heap: list[tuple[int, int, Repeat]] = []
        self._numbers = count()  # so that of two entries for one time none is asked which is less
        self._useless = 0  # entries of the heap that do not count
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: Alarm | None = None
        self._ringing = False
        self._is_over = False
        self._offset: int | None = None  # of the clock from the loop's, which nobody sets

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look."""
        self._loop = loop
        now = self.watched = self._clock()
        if not isinstance(self._clock, ManualClock):  # whose jumps ring at each time on the way
            self._offset = now - int(loop.time() * SECOND)
        if self._heap:
            self._arm(loop)

    def stop(self) -> None:
        """Look at nothing more, for good."""
        self._is_over = True
        self._heap.clear()
        if self._alarm is not None:
            self._alarm.stop()

    def set(self, repeat: Repeat, wake: int | None) -> None:
        """Have a repeat looked at at some time, and at no other; None: not by the time."""
        heap = self._heap
        self._useless += repeat._wake is not None
        repeat._wake = wake
        if self._useless > _PRUNE_AT + len(heap) // 2:
            self._useless = 0
            heap[:] = {entry[2]: entry for entry in heap if entry[2]._wake == entry[0]}.values()
            heapq.heapify(heap)
        if wake is None or self._is_over:
            return
        heapq.heappush(heap, (wake, next(self._numbers), repeat))
        if self._loop is not None and not self._ringing and heap[0][2] is repeat:
            self._arm(self._loop)

    def soonest(self) -> Iterator[Repeat]:
        """Yield those that are looked at next, in order; what is not asked for costs nothing."""
        heap = self._heap
        places = [(heap[0], 0)] if heap else []
        while places:
            (wake, _, repeat), place = heapq.heappop(places)
            for child in (2 * place + 1, 2 * place + 2):
                if child < len(heap):
                    heapq.heappush(places, (heap[child], child))
            if repeat._wake == wake:
                yield repeat

    def notice(self, now: int) -> None:
        """See if the clock was set, or the machine has slept; called at least once a tick."""
        if self._offset is None or self._loop is None:
            return
        offset = now - int(self._loop.time() * SECOND)
        if abs(offset - self._offset) >= GRACE:
            self.watched = now
        self._offset = offset

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        # A copy, as it may be the one that runs.
        self._context.copy().run(self._arm_here, loop)

    def _arm_here(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._alarm is None:  # who has no repeats needs none
            self._alarm = Alarm(loop, self._clock)
        self._alarm.set(self._ring, self._heap[0][0] if self._heap else None)

    def _ring(self) -> None:
        if self._is_over:
            return
        assert self._loop is not None
        now = self._clock()
        self.notice(now)
        heap, left = self._heap, MOST_AT_ONCE
        self._ringing = True
        while left > 0 and heap and heap[0][0] <= now:
            wake, _, repeat = heapq.heappop(heap)
            if repeat._wake != wake:
                self._useless -= 1
                continue
            repeat._wake = None
            left -= 1 + self._look(repeat, now)
        self._ringing = False
        if left > 0:
            self._arm(self._loop)
        else:
            self._loop.call_soon(self._ring, context=self._context)
