"""Counts the tasks that are only in the file, and those that have ended there. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..task import State


class ShelfCounter:
    """Counts the tasks of one shelf.

    Attributes:
        count: How many there are.
        ended: How many have ended there, by the names of `stats.COUNTS`.
        changed: Called with each change of `count`.
    """

    def __init__(self) -> None:
        self.count = 0
        self.ended: Counter[str] = Counter()
        self.changed: Callable[[int], object] = lambda change: None

    def add(self, change: int) -> None:
        """Change the count."""
        self.count += change
        self.changed(change)

    def take(self, count: int) -> None:
        """Note that tasks have come into memory."""
        self.add(-count)

    def figures(self) -> Counter[str]:
        """Return the counters, by the names of `stats.COUNTS`; any thread may ask."""
        return self.ended + Counter(pending=self.count)

    def close(self, gone: int, how: State) -> None:
        """Note that all stay for the next host, but for `gone` tasks that have ended as `how`."""
        self.ended[how.value] += gone
        self.ended[State.KEPT.value] += max(self.count - gone, 0)
        self.add(-self.count)
