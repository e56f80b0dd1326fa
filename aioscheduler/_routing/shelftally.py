"""How many tasks are only in the file, and how many of them have ended there. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..task import State


class ShelfTally:
    """Counts the tasks of one shelf.

    Attributes:
        count: How many there are.
        ended: How many have ended there, by the names of `stats.COUNTS`.
        told: Is told by how much `count` has grown.
    """

    def __init__(self) -> None:
        self.count = 0
        self.ended: Counter[str] = Counter()
        self.told: Callable[[int], object] = lambda change: None

    def add(self, change: int) -> None:
        """Count so many more tasks; less than 0: so many fewer."""
        self.count += change
        self.told(change)

    def take(self, count: int) -> None:
        """Note that so many tasks have come into memory."""
        self.add(-count)

    def figures(self) -> Counter[str]:
        """Return what is counted, by the names of `stats.COUNTS`; any thread may ask."""
        return self.ended + Counter(pending=self.count)

    def close(self, gone: int, how: State) -> None:
        """Note that all stay for the next host but so many, which have ended."""
        self.ended[how.value] += gone
        self.ended[State.KEPT.value] += max(self.count - gone, 0)
        self.add(-self.count)
