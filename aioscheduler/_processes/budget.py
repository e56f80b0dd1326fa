"""How many workers a manager may replace. Pure.

The rule, so many in so many seconds, is that of Erlang's supervisors (`intensity` and `period`).
Workers that end together, by one cause, are one: the loss of a machine with eight of them is no
more than one bad event. What could not be had at all costs nothing: it is asked for again, later
each time.
"""

from __future__ import annotations

from collections import deque

NOT_HAD: object = object()
"""The cause of an end before there was a process."""


class RestartBudget:
    """How many replacements a manager may have.

    Args:
        most: How many.
        period: In how many seconds.
    """

    def __init__(self, most: int, period: float) -> None:
        self.most = most
        self.period = period
        self._spent: deque[tuple[float, object]] = deque()  # when, and for what

    def spend(self, now: float, cause: object = None) -> bool:
        """Note a replacement; return False if it is one too many.

        Args:
            now: The time, in seconds.
            cause: What has ended the worker, and others with it, each of which names this very
                object; None: it has ended alone; NOT_HAD: it was none.
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
