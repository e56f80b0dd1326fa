"""What has begun and not ended, and who wants it to end."""

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
of the loop. If not, that step comes with the next turn."""


class _Cause(Enum):
    """Why an entry is cancelled: somebody asked for it, its manager closes, its process ends."""

    ASKED = auto()
    STOPPED = auto()
    GIVEN_UP = auto()


class Running(dict[int, tuple[asyncio.Task[None], E]], Generic[E]):
    """Entries by number, with their asyncio tasks.

    Args:
        unbegun: Called with number and entry if a task was cancelled before its first step.

    Attributes:
        coming: Entries whose first step comes with the loop's next turn; who takes it says so.
    """

    def __init__(self, unbegun: Callable[[int, E], None]) -> None:
        super().__init__()
        self._unbegun = unbegun
        self.coming: set[int] = set()
        self._new: list[int] = []  # begun in this turn of the loop
        self._first: tuple[int, E] | None = None  # takes its first step, and is not here yet
        self._causes: dict[int, _Cause] = {}  # of what was cancelled

    def begin(
        self,
        number: int,
        entry: E,
        coro: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop | None,
        context: Context,
    ) -> None:
        """Make an entry's task; what has ended in its first step is not kept."""
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
            if number in self._causes:  # by itself, in its first step
                task.cancel()
        # What the first step has raised holds this frame by its traceback, and an entry its handle.
        del entry, coro, context, task

    def _look_soon(self) -> None:
        some, self._new = self._new, []
        asyncio.get_running_loop().call_soon(self._look, some)  # behind all their first steps

    def _look(self, some: list[int]) -> None:
        """Report what others have cancelled before its first step: it never enters its coroutine.

        As who cancels all tasks of the loop does.
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
        """Return what has begun and not ended, what takes its first step now included."""
        first = () if self._first is None else (self._first[0],)
        return [*first, *self]

    def cancel(self, number: int) -> None:
        """Cancel an entry, because somebody asked for it."""
        self._causes[number] = _Cause.ASKED
        if number in self:  # else it is in its first step
            self._interrupt(number)

    def stop(self, number: int) -> None:
        """Cancel an entry because its manager closes, which nobody asked of it."""
        if self._causes.get(number) is not _Cause.ASKED:
            self._causes[number] = _Cause.STOPPED
        self._interrupt(number)

    def give_up(self, number: int) -> None:
        """Cancel an entry because its process is to end, which nobody asked of it."""
        self._causes.setdefault(number, _Cause.GIVEN_UP)
        self._interrupt(number)

    def lose(self) -> None:
        """Take all that runs as given up; it will be cancelled with its process."""
        for number in self:
            self._causes.setdefault(number, _Cause.GIVEN_UP)

    def was_cancelled(self, number: int) -> bool:
        """Whether an entry that runs was cancelled here, for whatever reason."""
        return number in self._causes

    def was_asked(self, number: int) -> bool:
        """Whether somebody, or who closes its manager, has had an entry that runs cancelled."""
        return self._causes.get(number, _Cause.GIVEN_UP) is not _Cause.GIVEN_UP

    def was_interrupted(self, number: int) -> bool:
        """Whether an entry that runs was cancelled, and nobody has asked for it."""
        return self._causes.get(number, _Cause.ASKED) is not _Cause.ASKED

    def was_given_up(self, number: int) -> bool:
        """Whether it was, because its process is to end."""
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
            # coroutine, which could not report.
            task.add_done_callback(lambda _: number in self and self._unbegun(number, entry))
