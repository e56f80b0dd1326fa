"""The tasks that are only in the file: like a link, but none of its tasks runs.

schedule, map, a task's own ─► put ─► Group, Horizon            due behind the horizon
find, task(ref) ─► a handle ─► Lookups ─► it is filled in
cancel, reschedule ─► at once if the task is known, else when the file has answered
the horizon reaches it ─► left ─► its handle moves to the link
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from .._durable.group import Group, Kept
from .._durable.records import Reason, Row, headline_of
from .._scheduling.loopthread import LoopThread
from ..errors import RemoteError, UnknownTask
from ..inspection import Wanted
from ..outcomes import Outcomes
from ..task import State, Task
from .claims import Claims
from .commits import Commits
from .drafts import Draft, Drafts
from .ids import Address
from .lookups import Lookups
from .restoring import Admission, Restoring
from .shelfcounter import ShelfCounter
from .shelfhandles import ShelfHandles
from .shelfhome import CANCEL, ShelfHome
from .shelflisting import ShelfListing
from .whereabouts import Whereabouts

SHELF = -1
"""Stands for the worker of a task that is at none."""


class Shelf(ShelfHome):
    """The home of the handles on tasks that are only in the file (`home.Home`).

    Args:
        timed: Whether tasks have due times.
        group: Gathers changes.
        commits: Writes them.
        where: Where other tasks are, and the horizon.
        lookups: Ask the file.
        drafts: Makes rows, and knows the names of tasks.
        wait_stored: Wait until a task is on disk.
        loop_thread: The thread in which calls are allowed.
        new_due: Return the due time for a reschedule.
        make_listing: Make a listing of the tasks in the file.

    Attributes:
        held: The handles, batches, ids and aliases of tasks.
        counter: Counts the tasks.
        claims: New tasks whose ids may be taken, which is not known yet.
        requests: Requests that wait for the file's answer: due times, or CANCEL.
    """

    def __init__(
        self,
        timed: bool,
        group: Group,
        commits: Commits,
        where: Whereabouts,
        lookups: Lookups,
        drafts: Drafts,
        wait_stored: Callable[[Kept], Awaitable[None]],
        loop_thread: LoopThread,
        new_due: Callable[[datetime | timedelta | None], int],
        make_listing: Callable[[Wanted, Callable[[int], bool]], ShelfListing],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.loop_thread = loop_thread
        self.identity: int = secrets.randbits(128)
        self.new_due: Callable[[datetime | timedelta | None], int] = new_due
        self.held = ShelfHandles(self, timed, where, drafts, self._is_known)
        self.counter = ShelfCounter()
        self._timed = timed
        self._group = group
        self._commits = commits
        self._where = where
        self._lookups = lookups
        self._drafts = drafts
        self._wait_stored: Callable[[Kept], Awaitable[None]] = wait_stored
        self.claims: Claims = Claims(self, lookups)
        self.requests: dict[int, int] = {}  # due times, or CANCEL, by row
        self._make_listing = make_listing
        self._listings: list[ShelfListing] = []
        self._admission: Admission | None = None
        self._restoring: Restoring | None = None
        self._is_closed = False

    def open(
        self,
        loop: asyncio.AbstractEventLoop,
        admission: Admission,
        restoring: Restoring,
        count: int,
    ) -> None:
        """Begin, as the store is open with `count` tasks."""
        self.loop, self._admission, self._restoring = loop, admission, restoring
        self._commits.written = self._written
        self.claims.open(admission)
        self.counter.changed = admission.count_shelved
        self.counter.add(count)

    def recount(self) -> None:
        """Correct the count, as no task of the file is behind the horizon."""
        self.counter.add(self._where.horizon.count() + len(self.claims) - self.counter.count)

    # ---- new tasks

    def schedule(
        self, due: int, when: datetime | int, draft: Draft, replace: bool, sure: bool
    ) -> Task[Any]:
        """Accept a task that is due behind the horizon.

        Args:
            due: Its due time, in nanoseconds since the epoch.
            when: Its due time, as the user gave it.
            draft: Its draft.
            replace: Whether it takes its id from another task.
            sure: Whether it is known that no other task has its id.
        """
        return self.held.make(*self._accept(due, draft, replace, sure), when)

    def adopt(self, due: int, draft: Draft, alias: int, replace: bool, sure: bool) -> None:
        """Accept such a task without a handle; see `link.Link`."""
        row, _ = self._accept(due, draft, replace, sure)
        self.held.lead(alias, row.row)

    def _accept(self, due: int, draft: Draft, replace: bool, sure: bool) -> tuple[Row, Kept]:
        row = self._drafts.row(self._group.new_row(), due, draft)
        kept = Kept.of(row)
        self.counter.add(1)
        if row.id is None or sure or self._where.horizon.is_whole:
            self.enter(row, kept)
        else:
            self.claims.claim(row, kept, replace)
        if row.id is not None:
            self.held.note_id(row.id, row.row)
        return row, kept

    def schedule_many(
        self,
        outcomes: Outcomes,
        offset: int,
        dues: int | list[int],
        payloads: Sequence[bytes],
        draft: Draft,
    ) -> None:
        """Accept calls of one function, all of them due behind the horizon."""
        alike = self._drafts.row(0, 0, draft)
        made = self._group.put_many(alike, dues, payloads)
        put = self._where.horizon.put
        for kept in made:
            assert kept.new is not None
            put(kept.new, kept, kept.stamp)
        self.held.add(outcomes, offset, made[0].row, len(made), dues)
        self.counter.add(len(made))
        self._commits.soon()

    def _written(self, stamp: int) -> None:
        """Note which tasks are in the file by now; those that it refused are lost."""
        horizon, refused = self._where.horizon, self._commits.refused
        if refused:
            for row in [each.row for each in horizon.unwritten() if each.row in refused]:
                horizon.strike(row, self._group.stamp)
                self.counter.add(-1)
                self.settle(row, State.LOST, refused[row])
        horizon.written(stamp)

    # ---- ids

    def address(self, id_: str) -> Address | None:
        """Return the address of the task that has an id, if anything is kept of it here."""
        row = self.held.row_of(id_)
        return None if row is None else (SHELF, 0, row)

    def _is_known(self, row: int) -> bool | None:
        claim = self.claims.find(row)
        if claim is not None:
            return not claim.ended
        return False if self.requests.get(row) == CANCEL else None

    async def find_id(self, id_: str) -> Task[Any] | None:
        """Return a handle on the task in the file that has an id."""

        def read(row: Row | None) -> Task[Any] | None:
            if row is None or row.row in self._where or self._is_known(row.row) is False:
                return None
            task = self.held.hand_out(row.row)
            self.held.fill(task, row, self.held.kept_of(row))
            return task

        return await self._lookups.find(id_, read)

    def enter(self, row: Row, kept: Kept) -> None:
        """Put a task into the file, and into memory if the horizon has reached it meanwhile."""
        self._group.put(kept, row)
        if self._where.horizon.is_near(*row.position):
            self._take(row, kept)
        else:
            self._where.horizon.put(row, kept, self._group.stamp)
            self._commits.soon()

    def _take(self, row: Row, kept: Kept, doubted: bool = False) -> None:
        assert self._restoring is not None
        self.counter.add(-1)
        self._restoring.take(row, {}, kept, doubted)
        self._commits.soon()

    # ---- requests to tasks

    def cancel(self, scheduler: int, number: int) -> bool:
        """Ask for a task's cancellation; False if it is known that there is no such task."""
        claim = self.claims.find(number)
        if claim is not None:
            self.claims.cancel(claim)
            return True
        return self._request(number, CANCEL)

    def dispossess(self, scheduler: int, number: int) -> None:
        """End a task that loses its id to another."""
        task = self.held.find(number)
        if task is not None:
            task._id = None
        claim = self.claims.find(number)
        if claim is not None:
            self.claims.dispossess(claim)
        else:
            self._request(number, CANCEL)

    def reschedule(self, scheduler: int, number: int, due: int) -> bool:
        """Reschedule a task; False if there is no such task, or it was asked to end."""
        if self._is_known(number) is False:
            return False
        claim = self.claims.find(number)
        if claim is not None:
            claim.kept.due, claim.moved = due, True
            return True
        return self._request(number, due)

    def _request(self, number: int, what: int) -> bool:
        """Carry out a request, now if the task is known, else when it is."""
        assert self._restoring is not None
        unwritten = self._where.horizon.find(number)
        if unwritten is not None and unwritten.row is not None:
            self._do(unwritten.row, what)
            return True
        if self._restoring.waits(number):
            self._ask_of_waiting(number, what)
            return True
        task = self.held.find(number)
        if what == CANCEL and task is not None and isinstance(task._kept, Kept):
            self._strike(number, task._kept)  # before another task takes its id
            return True
        if not self._may_be_here(number):
            return False
        asks = number not in self.requests
        due = self.due(0, number) or 0
        self.requests[number] = what
        if asks:
            self._ask(number, due)
        return True

    def _ask(self, number: int, due: int) -> None:
        then = partial(self._found, number), partial(self._missed, number)
        self._lookups.by_row(number, due, *then)

    def _ask_of_waiting(self, number: int, what: int) -> None:
        """Carry out a request to a task that waits for its function to be defined."""
        assert self._restoring is not None
        if what == CANCEL:
            self._restoring.withdraw(number)
        else:
            before = self._restoring.move(number, what)
            for listing in self._listings:
                listing.goes(before, before._replace(due=what))
        self._commits.soon()

    def _found(self, number: int, row: Row | None) -> None:
        """Go on with a request to a task, given its row."""
        assert self._restoring is not None
        what = self.requests.pop(number, None)
        if row is not None:
            task = self.held.find(number)
            if task is not None and what != CANCEL:  # else it may have lost its id
                self.held.fill(task, row, self.held.kept_of(row))
            if what is not None:
                self._do(row, what)
        elif self._restoring.waits(number):
            if what is not None:
                self._ask_of_waiting(number, what)
        elif number not in self._where:  # else it has left, with its request
            error = UnknownTask(f"{self._where.ref(number)} has ended, or never was")
            self.held.settle(number, State.LOST, error)  # reported, but not counted as lost

    def _do(self, row: Row, what: int) -> None:
        if what == CANCEL:
            self.strike(row)
        else:
            self.move(row, self.held.kept_of(row), what)

    def strike(self, row: Row) -> None:
        """End a task that was cancelled, or is replaced by another."""
        self._strike(row.row, self.held.kept_of(row))

    def _strike(self, row: int, kept: Kept) -> None:
        self._group.strike(kept)
        self._where.horizon.strike(row, self._group.stamp)
        self.counter.add(-1)
        self.settle(row, State.CANCELLED, None)
        self._commits.soon()

    def move(self, row: Row, kept: Kept, due: int) -> None:
        assert self._restoring is not None
        kept.due, kept.given = due, None
        self._group.change(kept)
        moved = row._replace(due=due, given=None)
        doubted = self._restoring.doubts(row)  # the file will not show this
        near = doubted or self._where.horizon.is_near(*moved.position)
        for listing in self._listings:
            listing.goes(row, None if near else moved)
        if near:
            self._where.horizon.strike(row.row, self._group.stamp)  # at its old position
            self._take(moved, kept, doubted)
        else:
            self._where.horizon.put(moved, kept, self._group.stamp)
            self._commits.soon()

    @contextmanager
    def listing(self, wanted: Wanted) -> Iterator[ShelfListing]:
        """Provide a listing of tasks, which is notified of tasks that leave meanwhile."""
        restoring = self._restoring
        listing = self._make_listing(wanted, restoring.waits if restoring else lambda _: False)
        if not self._is_closed:  # after that, tasks not in the file are lost
            listing.unwritten = self.claims.rows() + self._where.horizon.unwritten()
        self._listings.append(listing)
        try:
            yield listing
        finally:
            self._listings.remove(listing)

    # ---- ends

    def left(self, row: Row, kept: Kept, worker: int, number: int) -> bool:
        """Move a task's listeners to the link that has it now; return whether it has a handle."""
        assert self._admission is not None
        for listing in self._listings:
            listing.goes(row)
        link, scheduler = self._admission.locate(worker, number)
        is_held = self.held.give(row.row, kept, link, scheduler, number)
        alias = self.held.forget_alias(row.row)
        if alias is not None:
            self._admission.lead(alias, (worker, scheduler, number))
        if row.id is not None:
            self.claims.came(row)
        what = self.requests.pop(row.row, None)
        if what == CANCEL:
            link.cancel(scheduler, number)
        elif what is not None:
            link.reschedule(scheduler, number, what)
        return is_held

    def buried(self, row: int, reason: Reason, text: str) -> None:
        """Settle a task that is a dead letter, and goes to no link."""
        headline = headline_of(text)
        self.settle(row, State.FAILED, RemoteError(reason.value, headline, text))

    def withdrawn(self, row: int) -> None:
        """Settle a task that was struck, as another has its id, or it was cancelled."""
        self.settle(row, State.CANCELLED, None)

    def settle(self, row: int, state: State, value: Any) -> None:
        self.counter.ended[state.value] += 1
        self.requests.pop(row, None)
        self.held.settle(row, state, value)

    def close(self, reason: Exception | None) -> int:
        """Settle all tasks: they stay for the next host if they are in the file.

        Returns:
            How many are not.
        """
        self._is_closed = True
        lost = {row.row for row in self.claims.rows()}
        for row in self._where.horizon.unwritten():
            if not self._commits.has(self.held.kept_of(row).stamp):
                lost.add(row.row)
        self.held.close(reason, lost)
        self.counter.close(len(lost), State.CANCELLED if reason is None else State.LOST)
        self.claims.clear()
        return len(lost)
