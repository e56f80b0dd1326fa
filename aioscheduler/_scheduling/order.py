"""The order in which a scheduler runs its tasks, and what a time means in it."""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime, timedelta
from enum import Enum

from .clock import to_ns
from .queues import FifoQueue, LifoQueue, Queue
from .timers import TimerQueue


class Order(Enum):
    """The order in which an engine runs its entries, and how many at a time."""

    TIMED = "timed"
    FIFO = "fifo"
    LIFO = "lifo"

    def make_queue(self, alive: Container[int]) -> Queue:
        """Make the queue of this order; `alive` is as for `TimerQueue`."""
        if self is Order.TIMED:
            return TimerQueue(alive)
        return FifoQueue(alive) if self is Order.FIFO else LifoQueue(alive)

    @property
    def concurrency(self) -> int | None:
        """The number of entries that may run at a time; None for any number."""
        return None if self is Order.TIMED else 1


def due_time(order: Order, when: datetime | timedelta | None, now: int, prefer_utc: bool) -> int:
    """Return the due time of a task, `now` if no time is given; 0 in a queue.

    Raises:
        ValueError: As for `clock.to_ns`.
        TypeError: As for `clock.to_ns`, and if a time is given for a queue.
    """
    if order is not Order.TIMED:
        if when is not None:
            raise TypeError("a queue runs tasks in turn and takes no time: leave out when")
        return 0
    return now if when is None else to_ns(when, now, prefer_utc)


def new_due_time(
    order: Order, when: datetime | timedelta | None, now: int, prefer_utc: bool
) -> int:
    """Return the due time to which a task is rescheduled, `now` if no time is given.

    Raises:
        ValueError: As for `clock.to_ns`.
        TypeError: As for `clock.to_ns`, and for a queue.
    """
    if order is not Order.TIMED:
        raise TypeError("a queue runs tasks in turn: they have no due times to change")
    return due_time(order, when, now, prefer_utc)
