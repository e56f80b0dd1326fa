"""A user's handle on a repeat: `manager.repeat(...)` returns it, `manager.repeats()` lists it.

A repeat is not a task: at each of its times it enters one, a run. The handle may be dropped; a
repeat goes on until it is cancelled. Its owner does the work (`_routing.repeats`).
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
"""The runs of a repeat that has none, as it does most of the time."""


class Owner(Protocol):
    """The keeper of repeats."""

    async def pause(self, repeat: Repeat) -> None: ...
    async def resume(self, repeat: Repeat) -> None: ...
    async def cancel(self, repeat: Repeat) -> None: ...


class Repeat:
    """A handle on a repeat. Made by `Manager.repeat`, never by hand."""

    # There may be a hundred thousand of them, so no part has an object of its own.
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
        self._own = own  # the part of the work not shared with other repeats
        self._runs: Collection[Task[Any]] = NOBODY  # those that have not ended
        # When its rule was given, if the file cannot keep it; None: not yet.
        self._since: int | None = 0
        self._free = 0  # since when no run is left, if none is
        self._held = False  # whether it waits for its runs to end
        self._wake: int | None = None  # when to look at it next
        self._kept = False  # whether it is in the file of a store
        self._is_over = False
        self._progress = progress

    @property
    def _progress(self) -> Progress:
        """The part of its state that changes, as one value."""
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
        """Whether its rule is known; False if its file cannot keep it and nobody gave it yet."""
        return self._since is not None

    @property
    def _end(self) -> str | None:
        """Why it cannot go on, and what to do; None: it can."""
        if self._is_over:
            how, again = "was cancelled", ""
        elif self._next is not None or self.reason is not None:
            return None
        elif self._terms.times is not None and self._ran >= self._terms.times:
            how = f"has ended, as its times={self._terms.times} are used up"
            again = " and more times"
        elif self._terms.until is not None:
            how = f"has ended, as its rule has no more times until {_shown(self._terms.until)}"
            again = " and a later until"
        else:
            how, again = "has ended, as its rule has no more times", " and another rule"
        return f"the repeat {self.id!r} {how}; start it again with manager.repeat(){again}"

    @property
    def id(self) -> str:
        """Its id, unique among the repeats of its manager; a task may have the same."""
        return self._id

    @property
    def rule(self) -> str:
        """Its rule as text."""
        return self._terms.text

    @property
    def name(self) -> str:
        """The name of its runs: the option `name`; by default the function's `module:qualname`."""
        return str(self._work.name)

    @property
    def next(self) -> datetime | None:
        """Its next nominal time, aware UTC; None if there is none or its rule has failed.

        The run itself starts up to `jitter` later.
        """
        return _shown(None if self._is_over else self._next)

    @property
    def last(self) -> datetime | None:
        """The last nominal time for which a run was entered, aware UTC; None before the first."""
        return _shown(self._last)

    @property
    def ran(self) -> int:
        """The number of runs entered so far."""
        return self._ran

    @property
    def skipped(self) -> int:
        """The number of nominal times that were skipped."""
        return self._skipped

    @property
    def running(self) -> int:
        """The number of its runs that have been entered and have not ended."""
        return len(self._runs)

    @property
    def paused(self) -> bool:
        """Whether it is paused, by request or because its rule has failed."""
        return self._paused is not False

    @property
    def reason(self) -> str | None:
        """Why it is paused, if not by request; else None."""
        if not self._rule_known:
            return (
                "its rule is an object of the program, which the file cannot keep: it goes on when "
                "manager.repeat() is called with its id"
            )
        return self._paused if isinstance(self._paused, str) else None

    async def pause(self) -> None:
        """Pause it, across restarts, too; nominal times that pass meanwhile are skipped.

        Runs already entered go on. If it is kept in a store, the pause is on disk when this
        returns; the same holds for `resume` and `cancel`.

        Raises:
            RuntimeError: It was cancelled or has ended (its `times` are used up, its `until` has
                passed, or its rule has no more times), or this is another loop or thread.
            ManagerClosed: Its manager was closed, or has failed.
            StoreError: The change cannot be written.
        """
        await self._owner.pause(self)

    async def resume(self) -> None:
        """Resume it, from its first nominal time after now.

        Raises:
            RuntimeError: As for `pause`; or its rule is not known yet, see `reason`.
            ManagerClosed: As for `pause`.
            StoreError: As for `pause`.
        """
        await self._owner.resume(self)

    async def cancel(self) -> None:
        """End it for good. Runs that have begun go on, pending ones are cancelled.

        Its id is free at once. Cancelling it again does no harm.

        Raises:
            RuntimeError: This is another loop or thread.
            ManagerClosed: As for `pause`.
            StoreError: As for `pause`.
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
