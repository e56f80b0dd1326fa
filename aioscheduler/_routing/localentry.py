"""What is kept of a task of this process until it ends: its entry in an engine.

    schedule(work(1))             ─► the awaitable that was given, which is awaited once
    schedule(work(1), retry=...)  ─► Attempts: work(1) is the first one, and the function and its
                                     arguments are kept for more
    map(work, items, retry=...)   ─► Attempts, whose first one is called when its time has come

Who runs it, and what follows when it fails, is not known here.
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
    """The attempts of a task that is retried. While it waits for one there is no coroutine of it.

    Args:
        call: Makes what is awaited, anew for each attempt.
        first: What is awaited in the first one, if there is such a thing yet.

    Attributes:
        number: Of the attempt that runs, or of the next one if none does; lost ones do not count.
        start: When that starts, if not at the task's due time; nanoseconds since the epoch.
        given: The due time that another host has given the task, if that is not its own here.
        attempt: How many times the task has been started, or will have been by that.
        failure: Why the one before has failed, in a line; "" if there was none. The exception
            itself, which holds much by its traceback, is not kept.
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
        """Return what is awaited in the attempt that begins."""
        first, self.first = self.first, None
        return self._call() if first is None else first

    def failed(self, line: str) -> None:
        """Note why an attempt has failed (`failure_line`); the next one is to follow."""
        self.failure = line
        self.number += 1
        self.attempt += 1

    def restore(
        self, attempt: int, failed: int, start: int | None, given: int | None = None
    ) -> None:
        """Go on where another host has ended.

        Args:
            attempt: How many times the task has been started when it starts next.
            failed: How many attempts have failed.
            start: When it starts next, if not at its due time.
            given: The due time that it was given, if `start` is another.
        """
        self.attempt, self.number, self.start = attempt, failed + 1, start
        self.given = given


class Unreadable(Exception):
    """What is stored of a task cannot be read, or does not fit its function; the cause says why.

    Attributes:
        unknown: Whether it has no function.
    """

    def __init__(self, unknown: bool) -> None:
        super().__init__(unknown)
        self.unknown = unknown


Work = Awaitable[Any] | Attempts
Entry = tuple["Task[Any] | Part", Work, Context, "Options | None", int, "Captured | None"]
"""Who is told its end, what is awaited, the context of the call that has scheduled it (the calls of
a batch share one), its options, the due time that was given, 0 in a queue, and what was captured
for it, if anything was.

A bare tuple, as one is made in each `schedule()`: with named fields that takes twice to four times
as long.
"""


def name_of(entry: Entry) -> str:
    """Return the task's name."""
    return entry[0].name


def context_of(entry: Entry) -> Context:
    """Return a context for one attempt: a copy, as another may follow."""
    return entry[2].copy()


def attempt_of(entry: Entry) -> int:
    """Return how many times the task has been started, or will have been once it has begun."""
    work = entry[1]
    return work.attempt if isinstance(work, Attempts) else 1


def start_of(entry: Entry) -> int:
    """Return when a task that waits is to start: nanoseconds since the epoch, 0 in a queue."""
    work, due = entry[1], entry[4]
    return work.start if isinstance(work, Attempts) and work.start is not None else due


def begin(work: Work) -> Awaitable[Any]:
    """Return what is awaited of a task that begins."""
    return work.begin() if isinstance(work, Attempts) else work


def close(entry: Entry) -> None:
    """Close what has not begun, and never will."""
    work = entry[1]
    close_unstarted(work.first if isinstance(work, Attempts) else work)


def move(entry: Entry, due: int) -> Entry:
    """Return the entry of a task that waits, with another due time."""
    if isinstance(entry[1], Attempts):
        entry[1].start = None
    return replace_due(entry, due)


def replace_due(entry: Entry, due: int) -> Entry:
    """Return an entry with another due time that its task is told, to start when it was to."""
    listener, work, context, options, _, captured = entry
    return listener, work, context, options, due, captured
