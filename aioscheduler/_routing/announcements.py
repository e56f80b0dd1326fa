"""What the process in one worker's slot has announced, and which of those tasks have begun. Pure.

    ANNOUNCED ──────────────────────────────────► begins ──┐ in the order announced
    PROPOSED, of a queue's tasks ─► our CONFIRM ─► begins ─┘
    PROPOSED, of timed tasks ─────► our CONFIRM ─► begins ─── in the order confirmed

For each of the two orders the black box names the task that began last: those after it have not
begun. Neither have tasks that still wait for CONFIRM.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

from .._transport.outbox import Outbox

_REMEMBERED = 1024  # the last tasks of each order, which may turn out not to have begun

Announced = tuple[int, Sequence[int]]
"""A scheduler, and the numbers of its tasks that were announced together."""


class Announcements:
    """The announcements of one process after another.

    Args:
        schedulers: How many schedulers the worker has.
        timed: Whether tasks have due times; else they are in queues.
        outbox: Sends our CONFIRM.

    Attributes:
        heads: Queued tasks that begin again before those behind them.
        wake: Called when the outbox has a CONFIRM to send.
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
        """Note tasks that begin in the order in which they were announced."""
        if self.heads:
            again = self.heads.intersection(numbers)
            self.heads -= again
            numbers = [number for number in numbers if number not in again]
        self._started[scheduler].extend(numbers)

    def proposed(self, scheduler: int, numbers: Sequence[int]) -> Callable[[], None]:
        """Note tasks that begin on our CONFIRM.

        Returns:
            A function that confirms them, once; it does nothing if their process is gone.
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
        """The announcements that wait for CONFIRM."""
        return list(self._unconfirmed.values())

    def unbegun(
        self, scheduler: int, begun: tuple[int, int]
    ) -> Iterator[tuple[int, list[int] | None]]:
        """Yield, for each order, the task that began last and those after it.

        Args:
            scheduler: The scheduler.
            begun: The numbers of the tasks that it began last, plus one (`WorkerHandle.begun`).

        Yields:
            The number of the task that began last, -1 if none did, and those after it; None if
            these are unknown, as it was not announced, or too long ago.
        """
        orders = self._started[scheduler], self._confirmed[scheduler]
        for word, order in zip(begun, orders, strict=True):
            yield word - 1, _after(order, word - 1)

    def clear(self) -> None:
        """Forget everything: the process is gone."""
        self._unconfirmed.clear()  # functions returned by `proposed` still look there
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
    # A task may have been announced again for another attempt: its last announcement counts.
    after = list(reversed(order)).index(last)
    return list(islice(order, len(order) - after, None))
