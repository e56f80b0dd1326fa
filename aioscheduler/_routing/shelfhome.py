"""The home of handles whose tasks are only in the file (`home.Home`).

Cancelling and rescheduling are left to the shelf, its subclass (`shelf`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from .._durable.group import Kept
from ..errors import StoreError
from ..task import State, Task, TaskRef
from .claims import Claims
from .commits import Commits
from .lookups import Lookups
from .restoring import Restoring
from .shelfhandles import ShelfHandles
from .shelflisting import ShelfListing
from .whereabouts import Whereabouts

log: logging.Logger = logging.getLogger("aioscheduler")

CANCEL = -1
"""Stands for a due time in a request to cancel."""


class ShelfHome:
    """The home of the handles on tasks that are only in the file.

    Attributes:
        held: The handles, batches, ids and aliases of tasks.
        requests: Requests that wait for the file's answer: due times, or CANCEL.
    """

    held: ShelfHandles
    requests: dict[int, int]
    _listings: list[ShelfListing]
    _timed: bool
    _commits: Commits
    _where: Whereabouts
    _lookups: Lookups
    claims: Claims
    _restoring: Restoring | None
    _wait_stored: Callable[[Kept], Awaitable[None]]

    def held_among(self, rows: Sequence[int]) -> Collection[int]:
        """Return those of the tasks that have listeners, aliases or requests."""
        if self._listings:
            return rows
        if not self.requests and not self.held:
            return ()
        return {row for row in rows if row in self.requests or self.held.holds(row)}

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Return a handle, of a task that may not exist; None: it certainly does not.

        Awaiting the handle of a missing task raises UnknownTask.
        """
        task = self.held.find(number)
        if task is not None:
            return task
        claim, unwritten = self.claims.find(number), self._where.horizon.find(number)
        if claim is not None and claim.ended:
            return None
        if claim is None and unwritten is None and not self._may_be_here(number):
            return None
        task = self.held.hand_out(number)
        if claim is not None:
            self.held.fill(task, claim.row, claim.kept)
        elif unwritten is not None and unwritten.row is not None:
            self.held.fill(task, unwritten.row, self.held.kept_of(unwritten.row))
        else:
            self._ask(number, 0)
        return task

    def _ask(self, number: int, due: int) -> None:
        """Look up a task in the file, by its row and last known due time."""
        raise NotImplementedError

    def _missed(self, number: int, error: StoreError) -> None:
        """Settle the holders of a task where the file cannot be read; else log the error."""
        asked = self.requests.pop(number, None)
        if asked is not None and self.held.find(number) is None:
            log.error("%s; the request to its task %d is not carried out", error, number)
        self.held.settle(number, State.LOST, error)  # reported, but not counted as lost

    def _may_be_here(self, number: int) -> bool:
        assert self._restoring is not None
        return not self._where.horizon.is_whole or self._restoring.waits(number)

    def state(self, number: int) -> State:
        return State.PENDING

    def ref(self, scheduler: int, number: int, kept: Any = None) -> TaskRef | None:
        return self._where.ref(number)

    def due(self, scheduler: int, number: int) -> int | None:
        if not self._timed:
            return None
        requested = self.requests.get(number, CANCEL)
        return self.held.due(number) if requested == CANCEL else requested

    def name_of(self, label: Any) -> str:
        return str(label)

    def hold(self, task: Task[Any]) -> None:
        self.held.hold(task)

    def release(self, task: Task[Any]) -> None:
        self.held.release(task)

    async def stored(self, number: int, kept: Any) -> None:
        if not isinstance(kept, Kept) or number in self.claims:
            await self._lookups.settle()
        unwritten = self._where.horizon.find(number)
        if isinstance(kept, Kept):
            await self._wait_stored(kept)
        elif unwritten is not None:
            await self._commits.wait(unwritten.stamp)
