"""The limit on how many workers a manager may replace. Pure.

The rule, a number per period, is that of Erlang's supervisors (`intensity` and `period`). Workers
that end together, by one cause, count once: the loss of a machine with eight of them is one event.
A process that could not be obtained at all costs nothing: it is requested again, after longer and
longer waits.
"""

from __future__ import annotations

from collections import deque

NOT_HAD: object = object()
"""The cause of an end before there was a process."""


class RestartBudget:
    """The replacements that a manager may make.

    Args:
        most: How many in a period.
        period: The period in seconds.
    """

    def __init__(self, most: int, period: float) -> None:
        self.most = most
        self.period = period
        self._spent: deque[tuple[float, object]] = deque()  # times and causes

    def spend(self, now: float, cause: object = None) -> bool:
        """Note a replacement; return False if it is one too many.

        Args:
            now: The time, in seconds.
            cause: What ended the worker: the same object for all workers that it ended. None if it
                ended alone, NOT_HAD if there was no process.
        """
        if cause is NOT_HAD:
            return True
        while self._spent and self._spent[0][0] <= now - self.period:
            self._spent.popleft()
        if cause is not None and any(paid is cause for _, paid in self._spent):
            return True
        if len(self._spent) >= self.most:
            return False
        self._spent.append((now, cause))
        return True
