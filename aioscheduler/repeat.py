"""What a user holds of what repeats: `manager.repeat(...)` gives it, `manager.repeats()` lists it.

It is no task: what it enters at each of its times is one. The handle may be dropped; a repeat goes
on until it is cancelled. What is done about it is done by its owner (`_routing.repeats`).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, NoReturn, Protocol

from ._repeating.policy import Progress
from ._repeating.terms import Terms
from ._scheduling.clock import to_datetime
from .task import Task

NOBODY: frozenset[Task[Any]] = frozenset()
"""In the place of runs, while there is none, as for most of the time."""


class Owner(Protocol):
    """Who looks after repeats."""

    async def pause(self, repeat: Repeat) -> None: ...
    async def resume(self, repeat: Repeat) -> None: ...
    async def cancel(self, repeat: Repeat) -> None: ...


class Repeat:
    """A handle on what repeats. Made by `Manager.repeat`, never by hand."""

    # There may be a hundred thousand of them, and so there are no objects for their parts.
    __slots__ = (
        "__weakref__",
        "_free",
        "_held",
        "_id",
        "_is_over",
        "_kept",
        "_last",
        "_next",
        "_own",
        "_owner",
        "_paused",
        "_ran",
        "_runs",
        "_since",
        "_skipped",
        "_terms",
        "_wake",
        "_work",
    )

    def __init__(
        self, owner: Owner, id_: str, terms: Terms, progress: Progress, work: Any, own: Any
    ) -> None:
        self._owner = owner
        self._id = id_
        self._terms = terms
        self._work = work  # makes its runs
        self._own = own  # what of that is not as in others that do the same
        self._runs: Collection[Task[Any]] = NOBODY  # that have not ended
        self._since: int | None = (
            0  # when its rule was given, if a file does not have it; None: yet
        )
        self._free = 0  # since when there is none, if there is none
        self._held = False  # whether it waits for their end
        self._wake: int | None = None  # when it is looked at next
        self._kept = False  # whether the file of a store has it
        self._is_over = False
        self._progress = progress

    @property
    def _progress(self) -> Progress:
        """How far it is."""
        paused = self._paused
        reason = paused if isinstance(paused, str) else None
        return Progress(
            self._next, self._last, self._ran, self._skipped, paused is not False, reason
        )

    @_progress.setter
    def _progress(self, progress: Progress) -> None:
        self._next, self._last, self._ran, self._skipped, paused, reason = progress
        self._paused: bool | str = paused if reason is None else reason

    @property
    def _rule_known(self) -> bool:
        """Whether it is not in a file that cannot keep its rule, which is to be given yet."""
        return self._since is not None

    @property
    def id(self) -> str:
        """Its id: no other repeat of its manager has it, though a task may."""
        return self._id

    @property
    def rule(self) -> str:
        """Its rule, as a text."""
        return self._terms.text

    @property
    def name(self) -> str:
        """What its runs are called: the option `name`, or their function's `module:qualname`."""
        return str(self._work.name)

    @property
    def next(self) -> datetime | None:
        """Its next nominal time, in aware UTC; None if there is none, or if its rule has failed.

        The run itself starts up to `jitter` later.
        """
        return _shown(None if self._is_over else self._next)

    @property
    def last(self) -> datetime | None:
        """The last nominal time for which a run was entered; None: there was none."""
        return _shown(self._last)

    @property
    def ran(self) -> int:
        """How many runs were entered."""
        return self._ran

    @property
    def skipped(self) -> int:
        """How many nominal times were not run."""
        return self._skipped

    @property
    def running(self) -> int:
        """How many of its runs have been entered and have not ended."""
        return len(self._runs)

    @property
    def paused(self) -> bool:
        """Whether it stands still, because somebody asked for that or its rule has failed."""
        return self._paused is not False

    @property
    def reason(self) -> str | None:
        """Why it stands still, if nobody asked for that."""
        if not self._rule_known:
            return (
                "the file does not have its rule, which is an object of the program's: it goes on "
                "when manager.repeat() is called with its id"
            )
        return self._paused if isinstance(self._paused, str) else None

    async def pause(self) -> None:
        """Let it stand still, over restarts, too; nominal times that pass meanwhile are skipped.

        Runs that were entered go on. On a manager with a store a durable one is on disk as paused
        when this returns, and so with the others.

        Raises:
            RuntimeError: It was cancelled, or this is another loop or thread.
            ManagerClosed: Its manager was closed, or has failed.
            StoreError: It cannot be written.
        """
        await self._owner.pause(self)

    async def resume(self) -> None:
        """Have it go on, with its first nominal time from now on.

        Raises:
            RuntimeError: As `pause`; or its rule is not known yet, see `reason`.
            ManagerClosed: As `pause`.
            StoreError: As `pause`.
        """
        await self._owner.resume(self)

    async def cancel(self) -> None:
        """End it for good. A run that has begun goes on, one that waits to start is cancelled.

        Its id is free at once. May be called again.

        Raises:
            RuntimeError: This is another loop or thread.
            ManagerClosed: As `pause`.
            StoreError: As `pause`.
        """
        await self._owner.cancel(self)

    def __repr__(self) -> str:
        if self._is_over:
            how = "cancelled"
        elif self.reason is not None or self.paused:
            how = "paused" if self.reason is None else f"paused: {self.reason}"
        else:
            how = "ended" if self.next is None else f"next {self.next}"
        return f"<Repeat {self.id!r} {self.rule} {how}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Repeat stays where it was made; pass its id instead")


def _shown(time: int | None) -> datetime | None:
    return None if time is None else to_datetime(time)
