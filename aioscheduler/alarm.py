"""One loop timer for all schedulers of a loop, set to wall-clock time.

Due times are wall-clock and a loop's timers are not, so an alarm never sleeps longer than
`CHECK`: after the clock has been set, or the machine has slept, tasks are at most that late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .clock import SECOND

CHECK = SECOND  # nanoseconds


class Alarm:
    """Calls each sleeper once its time has come.

    Args:
        loop: The running loop.
        clock: Gives the present in nanoseconds since the epoch.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], int]) -> None:
        self._loop = loop
        self._clock = clock
        self._sleepers: dict[Callable[[], None], int] = {}
        self._rings_at: int | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, sleeper: Callable[[], None], due: int | None) -> None:
        """Has `sleeper` called once at `due`, instead of at its earlier due time; None: never."""
        if due is None:
            self._sleepers.pop(sleeper, None)
        else:
            self._sleepers[sleeper] = due
            if self._rings_at is None or due < self._rings_at:
                self._arm()

    def stop(self) -> None:
        """Forgets all sleepers."""
        self._sleepers.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = self._rings_at = None

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = self._rings_at = None
        if self._sleepers:
            now = self._clock()
            self._rings_at = min(*self._sleepers.values(), now + CHECK)
            # A delay is measured on the loop's clock; should it ring early, it is set again.
            delay = max(0, self._rings_at - now) / SECOND
            self._handle = self._loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        self._handle = self._rings_at = None
        now = self._clock()
        woken = [sleeper for sleeper, due in self._sleepers.items() if due <= now]
        for sleeper in woken:
            del self._sleepers[sleeper]
        for sleeper in woken:
            sleeper()
        if self._handle is None:
            self._arm()
