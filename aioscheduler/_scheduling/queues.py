"""The two plain queues, with the interface of the timer queue. Pure.

Entries of a queue are due at once, so `next_look` returns 0, and times are ignored. Discarded
numbers stay until they surface; `alive` decides which ones still count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from typing import Protocol


class Queue(Protocol):
    """The interface of a queue to its engine: these two, and `timers.TimerQueue`."""

    def __len__(self) -> int: ...
    def push(self, due: int, number: int) -> None: ...
    def push_many(self, dues: int | Sequence[int], numbers: Sequence[int]) -> None: ...
    def push_again(self, dues: int | Sequence[int], numbers: Sequence[int]) -> None: ...
    def pop_due(self, now: int, limit: int) -> tuple[list[int], list[int]]: ...
    def next_look(self) -> int | None: ...
    def discard(self) -> None: ...


class FifoQueue:
    """First in, first out.

    Args:
        alive: The numbers that still count, as for `TimerQueue`.
    """

    def __init__(self, alive: Container[int]) -> None:
        self._alive = alive
        self._numbers: deque[int] = deque()
        self._dead = 0

    def __len__(self) -> int:
        """Return how many numbers it holds, discarded ones not counted."""
        return len(self._numbers) - self._dead

    def push(self, due: int, number: int) -> None:
        """Add a number; `due` is ignored."""
        self._numbers.append(number)

    def push_many(self, dues: int | Sequence[int], numbers: Sequence[int]) -> None:
        """Add numbers; `dues` is ignored."""
        self._numbers.extend(numbers)

    def push_again(self, dues: int | Sequence[int], numbers: Sequence[int]) -> None:
        """Add numbers that were here before and are not alive now; they count as new."""
        self._drop_dead()
        self._numbers.extend(numbers)

    def pop_due(self, now: int, limit: int) -> tuple[list[int], list[int]]:
        """Remove and return up to `limit` living numbers, all due at 0; `now` is ignored."""
        found: list[int] = []
        while self._numbers and len(found) < limit:
            number = self._take()
            if number in self._alive:
                found.append(number)
            else:
                self._dead -= 1
        self._sweep()
        return found, [0] * len(found)

    def next_look(self) -> int | None:
        """Return 0 (at once), or None for an empty queue."""
        return 0 if len(self) else None

    def discard(self) -> None:
        """Note that one number of the queue is no longer alive. Amortised O(1)."""
        self._dead += 1
        self._sweep()

    def _sweep(self) -> None:
        if self._dead * 2 > len(self._numbers):
            self._drop_dead()

    def _drop_dead(self) -> None:
        self._numbers = deque(n for n in self._numbers if n in self._alive)
        self._dead = 0

    def _take(self) -> int:
        return self._numbers.popleft()


class LifoQueue(FifoQueue):
    """Last in, first out."""

    def _take(self) -> int:
        return self._numbers.pop()
