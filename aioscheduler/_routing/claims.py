"""New tasks that want an id, until the file has said which task has it.

claim ─► Lookups ─► answered ─┬─► none: it goes into the file, or memory up to the horizon
                              ├─► another, to be replaced: that ends first, then the same
                              └─► another: handles of the new task follow that one
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from .._durable.group import Kept
from .._durable.records import Row
from ..task import State
from .ids import Address
from .lookups import Lookups
from .restoring import Admission, Early
from .shelfcounter import ShelfCounter
from .shelfhandles import ShelfHandles


@dataclass(slots=True)
class Claim:
    """A new task that wants an id.

    Attributes:
        row: Its row, as it will be in the file.
        kept: What is kept of it.
        replace: Whether it takes the id from another task.
        moved: Whether it was rescheduled meanwhile; `kept` has the new time.
        ended: Whether it was cancelled, or has lost its id to another task.
        cancelled: Whether it was cancelled; so is the holder of its id, which is the same task.
    """

    row: Row
    kept: Kept
    replace: bool
    moved: bool = False
    ended: bool = False
    cancelled: bool = False


class ClaimsShelf(Protocol):
    """What claims need of the shelf."""

    held: ShelfHandles
    counter: ShelfCounter

    def strike(self, row: Row) -> None:
        """End a task in the file."""

    def move(self, row: Row, kept: Kept, due: int) -> None:
        """Reschedule a task in the file."""

    def enter(self, row: Row, kept: Kept) -> None:
        """Put a new task into the file, and into memory if it is within the horizon."""

    def settle(self, row: int, state: State, value: Any) -> None:
        """Notify the listeners of a task of its end."""


class Claims:
    """The claims of one shelf.

    Args:
        shelf: The shelf.
        lookups: Ask the file.
    """

    def __init__(self, shelf: ClaimsShelf, lookups: Lookups) -> None:
        self._shelf = shelf
        self._lookups = lookups
        self._claims: dict[int, Claim] = {}  # by row
        self._admission: Admission  # unset until the store is open

    def open(self, admission: Admission) -> None:
        """Begin, as the store is open."""
        self._admission = admission

    def __len__(self) -> int:
        return sum(not claim.ended for claim in self._claims.values())

    def __contains__(self, row: int) -> bool:
        return row in self._claims

    def claim(self, row: Row, kept: Kept, replace: bool) -> None:
        """Ask the file who has the id of a new task."""
        assert row.id is not None
        self._claims[row.row] = Claim(row, kept, replace)
        self._lookups.by_id(row.id, partial(self._answered, row.row))

    def find(self, row: int) -> Claim | None:
        """Return the claim of a task."""
        return self._claims.get(row)

    def rows(self) -> list[Row]:
        """Return the rows of claims that have not ended."""
        return [claim.row for claim in self._claims.values() if not claim.ended]

    def cancel(self, claim: Claim) -> None:
        """End a cancelled task, and the task of the file with its id if that is in memory."""
        claim.cancelled = True
        self._end(claim)
        self._end_near(claim)

    def dispossess(self, claim: Claim) -> None:
        """End a task that has lost its id; so has the task of the file if it is in memory."""
        self._end(claim)
        self._end_near(claim)

    def came(self, row: Row) -> None:
        """End a task that came into memory, if a claim to its id has ended."""
        for claim in self._claims.values():
            if claim.ended and claim.row.id == row.id:
                self._end_near(claim)

    def _end(self, claim: Claim) -> None:
        if not claim.ended:
            claim.ended = True
            self._shelf.counter.add(-1)
            self._shelf.settle(claim.row.row, State.CANCELLED, None)

    def _near(self, claim: Claim) -> Address | None:
        """Return the task of the file that has the id, if it is in memory."""
        assert claim.row.id is not None
        return self._admission.find(claim.row.id, claim.row.row)

    def _end_near(self, claim: Claim) -> None:
        known = self._near(claim)
        if known is not None and claim.cancelled:
            self._admission.links[known[0]].cancel(*known[1:])
        elif known is not None:
            self._admission.dispossess(known)

    def clear(self) -> None:
        """Forget all claims: the store is closed."""
        self._claims.clear()

    def _answered(self, number: int, found: Row | None) -> None:
        """Go on with a claim, given the task that has its id in the file."""
        claim = self._claims.pop(number, None)
        if claim is None:
            return
        # It may be in memory by now; a task scheduled later has the id by right.
        known = self._near(claim)
        if (found is not None or known is not None) and not (claim.ended or claim.replace):
            self._merge(claim, found, known)
            return
        if found is not None:
            self._shelf.strike(found)
        else:
            self._end_near(claim)
        if not claim.ended:
            self._shelf.enter(claim.row._replace(due=claim.kept.due), claim.kept)

    def _merge(self, claim: Claim, found: Row | None, known: Address | None) -> None:
        """Make handles and aliases of a claim lead to the task that has its id."""
        held = self._shelf.held
        task = held.take(claim.row.row)
        alias = held.forget_alias(claim.row.row)
        self._shelf.counter.add(-1)
        if found is not None:
            kept = held.kept_of(found)
            if task is not None:
                held.put(task, found, kept)
            if alias is not None:
                held.lead(alias, found.row)
            if claim.moved:
                self._shelf.move(found, kept, claim.kept.due)
        elif known is not None:
            link = self._admission.links[known[0]]
            other = link.find(*known[1:])
            if task is not None and other is not None:
                task._follow(other)
            if alias is not None:
                self._admission.lead(alias, known)
            if claim.moved:
                link.reschedule(*known[1:], claim.kept.due)

    def join(self, early: Early, row: Row) -> None:
        """Merge an early task at a link with the one that is only in the file."""
        kept = self._shelf.held.kept_of(row)
        task = self._admission.leave_out(early)
        if task is not None:
            self._shelf.held.put(task, row, kept)
        if early.kept.due != early.due:
            self._shelf.move(row, kept, early.kept.due)
