"""How many workers a manager may replace. Pure.

The rule, so many in so many seconds, is that of Erlang's supervisors (`intensity` and `period`).
"""

from __future__ import annotations

from collections import deque


class RestartBudget:
    """How many replacements a manager may have.

    Args:
        most: How many.
        period: In how many seconds.
    """

    def __init__(self, most: int, period: float) -> None:
        self.most = most
        self.period = period
        self._times: deque[float] = deque()

    def spend(self, now: float) -> bool:
        """Notes a replacement; False if it is one too many."""
        while self._times and self._times[0] <= now - self.period:
            self._times.popleft()
        if len(self._times) >= self.most:
            return False
        self._times.append(now)
        return True
