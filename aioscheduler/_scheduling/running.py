"""Entries that have begun and not ended, and why they are cancelled."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from enum import Enum, auto
from typing import Any, Generic, TypeVar

E = TypeVar("E")

EAGER: bool = sys.version_info >= (3, 12)
"""Whether a task takes its first step at once, so that a coroutine that never waits costs no turn
of the loop. Otherwise, that step comes in the next turn."""


class _Cause(Enum):
    """Why an entry is cancelled: it was asked for, its manager closes, or its process ends."""

    ASKED = auto()
    STOPPED = auto()
    GIVEN_UP = auto()


class Running(dict[int, tuple[asyncio.Task[None], E]], Generic[E]):
    """Entries by number, with their asyncio tasks.

    Args:
        unbegun: Called with number and entry if a task was cancelled before its first step.

    Attributes:
        coming: Entries whose first step comes in the loop's next turn; the runner removes them.
    """

    def __init__(self, unbegun: Callable[[int, E], None]) -> None:
        super().__init__()
        self._unbegun = unbegun
        self.coming: set[int] = set()
        self._new: list[int] = []  # begun in this turn of the loop
        self._first: tuple[int, E] | None = None  # takes its first step; not in the dict yet
        self._causes: dict[int, _Cause] = {}  # of cancelled entries

    def begin(
        self,
        number: int,
        entry: E,
        coro: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop | None,
        context: Context,
    ) -> None:
        """Make an entry's task; one that has ended in its first step is not kept."""
        self._first = number, entry
        try:
            if sys.version_info >= (3, 12):
                task = asyncio.Task(coro, loop=loop, context=context, eager_start=True)
            else:
                task = asyncio.Task(coro, loop=loop, context=context)
                self.coming.add(number)
                if not self._new:
                    task.get_loop().call_soon(self._look_soon)
                self._new.append(number)
        finally:
            self._first = None
        if not task.done():
            self[number] = (task, entry)
            if number in self._causes:  # it cancelled itself in its first step
                task.cancel()
        # An error of the first step holds this frame by its traceback, and an entry its handle.
        del entry, coro, context, task

    def _look_soon(self) -> None:
        some, self._new = self._new, []
        asyncio.get_running_loop().call_soon(self._look, some)  # behind all their first steps

    def _look(self, some: list[int]) -> None:
        """Report tasks that others cancelled before their first step: no coroutine was entered.

        Code that cancels all tasks of the loop does so.
        """
        for number in some:
            if number in self and self[number][0].done():
                self._unbegun(number, self[number][1])

    def find(self, number: int) -> E | None:
        """Return an entry that has begun and not ended, else None."""
        if self._first is not None and self._first[0] == number:
            return self._first[1]
        return self[number][1] if number in self else None

    def numbers(self) -> list[int]:
        """Return the numbers of all entries, one that takes its first step now included."""
        first = () if self._first is None else (self._first[0],)
        return [*first, *self]

    def cancel(self, number: int) -> None:
        """Cancel an entry because somebody asked for it."""
        self._causes[number] = _Cause.ASKED
        if number in self:  # otherwise it is in its first step
            self._interrupt(number)

    def stop(self, number: int) -> None:
        """Cancel an entry because its manager closes; an earlier request stays its cause."""
        if self._causes.get(number) is not _Cause.ASKED:
            self._causes[number] = _Cause.STOPPED
        self._interrupt(number)

    def give_up(self, number: int) -> None:
        """Cancel an entry because its process ends; an earlier cause stays."""
        self._causes.setdefault(number, _Cause.GIVEN_UP)
        self._interrupt(number)

    def lose(self) -> None:
        """Mark all running entries as given up: they will be cancelled with their process."""
        for number in self:
            self._causes.setdefault(number, _Cause.GIVEN_UP)

    def was_cancelled(self, number: int) -> bool:
        """Return whether a running entry was cancelled here, for whatever reason."""
        return number in self._causes

    def was_asked(self, number: int) -> bool:
        """Return whether a running entry was cancelled on request, or by its manager's close."""
        return self._causes.get(number, _Cause.GIVEN_UP) is not _Cause.GIVEN_UP

    def was_interrupted(self, number: int) -> bool:
        """Return whether a running entry was cancelled without a request."""
        return self._causes.get(number, _Cause.ASKED) is not _Cause.ASKED

    def was_given_up(self, number: int) -> bool:
        """Return whether a running entry was cancelled because its process ends."""
        return self._causes.get(number) is _Cause.GIVEN_UP

    def end(self, number: int) -> None:
        """Forget an entry, if it is here."""
        self.pop(number, None)
        self.coming.discard(number)
        if self._causes:
            self._causes.pop(number, None)

    def _interrupt(self, number: int) -> None:
        task, entry = self[number]
        if task.cancel():
            # A plain asyncio task that is cancelled before its first step never enters its
            # coroutine, so that cannot report the end.
            task.add_done_callback(lambda _: number in self and self._unbegun(number, entry))
