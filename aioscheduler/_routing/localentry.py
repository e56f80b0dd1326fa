"""The entry of a task of this process in its engine, kept until the task ends.

    schedule(work(1))             ─► the given awaitable, which is awaited once
    schedule(work(1), retry=...)  ─► Attempts: work(1) is the first one; the function and its
                                     arguments are kept for more
    map(work, items, retry=...)   ─► Attempts; the first one, too, is made at its due time

The runner, and what it does after a failure, are unknown here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

from .._scheduling.coroutines import close_unstarted
from .._shipping.propagation import Captured
from ..options import Options
from ..outcomes import Part
from ..task import Task


class Attempts:
    """The attempts of a task with `retry`. Between two attempts it has no coroutine.

    Args:
        call: Make the awaitable of an attempt.
        first: The awaitable of the first attempt, if it exists already.

    Attributes:
        number: That of the running attempt, else of the next one; lost ones do not count.
        start: When the next one starts, if not at the task's due time; nanoseconds since the epoch.
        given: The due time given to the task in another host, if its own differs here.
        attempt: How many times the task has been started, the next attempt included.
        failure: Why the last attempt failed, in a line; "" if there was none. The exception itself
            is not kept, as its traceback holds much.
    """

    __slots__ = ("_call", "attempt", "failure", "first", "given", "number", "start")

    def __init__(
        self, call: Callable[[], Awaitable[Any]], first: Awaitable[Any] | None = None
    ) -> None:
        self._call = call
        self.first: Awaitable[Any] | None = first
        self.number: int = 1
        self.attempt: int = 1
        self.start: int | None = None
        self.given: int | None = None
        self.failure: str = ""

    def begin(self) -> Awaitable[Any]:
        """Return the awaitable of the attempt that begins."""
        first, self.first = self.first, None
        return self._call() if first is None else first

    def failed(self, line: str) -> None:
        """Note why an attempt has failed (`failure_line`); another one follows."""
        self.failure = line
        self.number += 1
        self.attempt += 1

    def restore(
        self, attempt: int, failed: int, start: int | None, given: int | None = None
    ) -> None:
        """Go on where another host stopped.

        Args:
            attempt: How many times the task has been started, the next attempt included.
            failed: How many attempts have failed.
            start: When it starts next, if not at its due time.
            given: The due time that it was given, if `start` is another.
        """
        self.attempt, self.number, self.start = attempt, failed + 1, start
        self.given = given


class Unreadable(Exception):
    """A stored call cannot be read, or does not fit its function; the cause says why.

    Attributes:
        unknown: Whether its function is unknown.
    """

    def __init__(self, unknown: bool) -> None:
        super().__init__(unknown)
        self.unknown = unknown


Work = Awaitable[Any] | Attempts
Entry = tuple["Task[Any] | Part", Work, Context, "Options | None", int, "Captured | None"]
"""The listener, the work, the context of the scheduling call (shared by a batch), the options, the
given due time (0 in a queue), and the values captured for the task, if any.

A bare tuple, as each `schedule()` makes one: with named fields that takes two to four times as
long.
"""


def name_of(entry: Entry) -> str:
    """Return the task's name."""
    return entry[0].name


def context_of(entry: Entry) -> Context:
    """Return a context for one attempt: a copy, as more may follow."""
    return entry[2].copy()


def attempt_of(entry: Entry) -> int:
    """Return how many times the task has been started, the next start included."""
    work = entry[1]
    return work.attempt if isinstance(work, Attempts) else 1


def start_of(entry: Entry) -> int:
    """Return when a pending task starts, in nanoseconds since the epoch; 0 in a queue."""
    work, due = entry[1], entry[4]
    return work.start if isinstance(work, Attempts) and work.start is not None else due


def begin(work: Work) -> Awaitable[Any]:
    """Return the awaitable of a task that begins."""
    return work.begin() if isinstance(work, Attempts) else work


def close(entry: Entry) -> None:
    """Close a coroutine that has not begun, and never will."""
    work = entry[1]
    close_unstarted(work.first if isinstance(work, Attempts) else work)


def move(entry: Entry, due: int) -> Entry:
    """Return the entry of a pending task with another due time."""
    if isinstance(entry[1], Attempts):
        entry[1].start = None
    return replace_due(entry, due)


def replace_due(entry: Entry, due: int) -> Entry:
    """Return an entry with another due time for its task to see; its start does not change."""
    listener, work, context, options, _, captured = entry
    return listener, work, context, options, due, captured
