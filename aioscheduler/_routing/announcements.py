"""What the process in one worker's slot has announced, and what of that has begun. Pure.

    ANNOUNCED ──────────────────────────────────► begins ──┐ as they were announced
    PROPOSED, of a queue's tasks ─► our CONFIRM ─► begins ─┘
    PROPOSED, of timed tasks ─────► our CONFIRM ─► begins ─── as they were confirmed

The black box says of each of the two orders which task has begun last: those after it have not.
What waits for our word has not begun in any case.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

from .._transport.outbox import Outbox

_REMEMBERED = 1024  # tasks of each order that may turn out not to have begun

Announced = tuple[int, Sequence[int]]
"""A scheduler, and the numbers of its tasks that were announced together."""


class Announcements:
    """The announcements of one process after another.

    Args:
        schedulers: How many schedulers the worker has.
        timed: Whether tasks have due times; else they are in queues.
        outbox: Takes our word.

    Attributes:
        heads: Tasks of queues that begin again before what comes after them.
        wake: Called when the outbox has our word, which is to be sent soon.
    """

    def __init__(self, schedulers: int, timed: bool, outbox: Outbox) -> None:
        self.heads: set[int] = set()
        self.wake: Callable[[], None] = lambda: None
        self._outbox = outbox
        self._timed = timed
        self._started: list[deque[int]] = [_last_ones() for _ in range(schedulers)]
        self._confirmed: list[deque[int]] = [_last_ones() for _ in range(schedulers)]
        self._unconfirmed: dict[int, Announced] = {}  # by index, of the present process
        self._next = 0  # index

    def announced(self, scheduler: int, numbers: Sequence[int]) -> None:
        """Note tasks that were announced, and begin in the order in which they were."""
        if self.heads:
            again = self.heads.intersection(numbers)
            self.heads -= again
            numbers = [number for number in numbers if number not in again]
        self._started[scheduler].extend(numbers)

    def proposed(self, scheduler: int, numbers: Sequence[int]) -> Callable[[], None]:
        """Note tasks that were announced, and begin when they have our word.

        Returns:
            Gives it to them, once; does nothing if their process is gone.
        """
        if not self._timed:
            self.announced(scheduler, numbers)
        index, unconfirmed = self._next, self._unconfirmed
        unconfirmed[index] = scheduler, numbers
        self._next += 1
        return partial(self._confirm, unconfirmed, index)

    def _confirm(self, unconfirmed: dict[int, Announced], index: int) -> None:
        announced = unconfirmed.pop(index, None)
        if announced is None:
            return
        if self._timed:
            scheduler, numbers = announced
            self._confirmed[scheduler].extend(numbers)
        self._outbox.confirm(index)
        self.wake()

    @property
    def unconfirmed(self) -> list[Announced]:
        """What waits for our word."""
        return list(self._unconfirmed.values())

    def unbegun(
        self, scheduler: int, begun: tuple[int, int]
    ) -> Iterator[tuple[int, list[int] | None]]:
        """Yield, of each order, the task that has begun last, and those after it.

        Args:
            scheduler: Of this one.
            begun: The numbers of the tasks that it began last, plus one, as of `begun`.

        Yields:
            The number of the one, -1 for none, and those of the others; None: that is not known,
            as it was not announced, or too long ago.
        """
        orders = self._started[scheduler], self._confirmed[scheduler]
        for word, order in zip(begun, orders, strict=True):
            yield word - 1, _after(order, word - 1)

    def clear(self) -> None:
        """Forget it all: the process is gone."""
        self._unconfirmed.clear()  # what was returned looks there
        self._unconfirmed = {}
        self._next = 0
        self.heads.clear()
        for order in (*self._started, *self._confirmed):
            order.clear()


def _last_ones() -> deque[int]:
    return deque(maxlen=_REMEMBERED)


def _after(order: deque[int], last: int) -> list[int] | None:
    if last < 0:
        return list(order)
    if last not in order:
        return None
    # Of one that was announced again for its next attempt, the last time counts.
    after = list(reversed(order)).index(last)
    return list(islice(order, len(order) - after, None))
