"""The tasks that are only in the file, and those who hold one: a place as a link is, without calls.

    schedule, map, a task's own ─► put ─► Group, Horizon            due behind the horizon
    find, task(ref) ─► a handle ─► Lookups ─► what it is of
    cancel, reschedule ─► at once if all is known, or when the file has answered
    the horizon comes ─► left ─► the handle is the link's from now on

Nothing is kept of a task that is on disk and of which nobody holds a handle.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from .._durable.group import Group, Kept
from .._durable.records import Reason, Row
from .._scheduling.loopthread import LoopThread
from ..batch import Outcomes
from ..errors import RemoteError, UnknownTask
from ..inspection import Wanted
from ..task import State, Task, TaskRef
from .commits import Commits
from .drafts import Draft, Drafts
from .endings import kept_error
from .holders import Holders
from .ids import Address
from .lookups import Lookups
from .restoring import Admission, Early, Restoring
from .shelflisting import ShelfListing
from .shelvedparts import ShelvedParts
from .whereabouts import Whereabouts

SHELF = -1
"""In the place of a worker: it is at none."""

MOST_ALIASES = 1 << 16
"""Of tasks that tasks have scheduled; references to those before lead nowhere."""

_CANCEL = -1  # in the place of a due time


@dataclass(slots=True)
class Asked:
    """A task that is to have an id, and is not in the file before it is known who has that.

    Attributes:
        row: As it is to be in the file.
        kept: Of it.
        replace: Whether it takes the id from another.
        moved: Whether it was given another time meanwhile.
        ended: Whether it was cancelled, or has lost its id to another one.
        cancelled: Whether it was cancelled.
    """

    row: Row
    kept: Kept
    replace: bool
    moved: bool = False
    ended: bool = False
    cancelled: bool = False


class Shelf:
    """The home of the handles on tasks that are only in the file (`task.Home`).

    Args:
        timed: Whether tasks have due times.
        group: Takes what changes.
        commits: Has it written.
        where: Where other tasks are, and where memory ends.
        lookups: Asks the file.
        drafts: Makes rows, and knows the names of tasks.
        wait_stored: Return when a task is on disk.
        loop_thread: Where calls are right.
        new_due: Reads the time to which a task is rescheduled.
        make_listing: Makes a list of the tasks in the file.
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
        make_listing: Callable[[Wanted], ShelfListing],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.loop_thread = loop_thread
        self.identity: int = secrets.randbits(128)
        self.new_due: Callable[[datetime | timedelta | None], int] = new_due
        self.aliases: OrderedDict[int, int] = OrderedDict()  # rows
        self.count = 0
        self._counts: Counter[str] = Counter()
        self._aliases_of: dict[int, int] = {}
        self._timed = timed
        self._group = group
        self._commits = commits
        self._where = where
        self._lookups = lookups
        self._drafts = drafts
        self._wait_stored: Callable[[Kept], Awaitable[None]] = wait_stored
        self._holders = Holders(self)
        self._parts = ShelvedParts()
        self._asked: dict[int, Asked] = {}  # by row
        self._requests: dict[int, int] = {}  # due times, or _CANCEL, by row
        self._rows: dict[str, int] = {}  # by id, of those of which something is kept here, and more
        self._swept = 0
        self._make_listing = make_listing
        self._listings: list[ShelfListing] = []
        self._admission: Admission | None = None
        self._restoring: Restoring | None = None

    def open(
        self,
        loop: asyncio.AbstractEventLoop,
        admission: Admission,
        restoring: Restoring,
        count: int,
    ) -> None:
        """Begin: the store is open, and has so many tasks."""
        self.loop, self._admission, self._restoring = loop, admission, restoring
        self._counted(count)

    def taken(self, count: int) -> None:
        """Note that so many tasks have come into memory."""
        self._counted(-count)

    # ---- new tasks

    def schedule(
        self, due: int, when: datetime | int, draft: Draft, replace: bool, sure: bool
    ) -> Task[Any]:
        """Accept a task that is due behind the horizon.

        Args:
            due: When.
            when: As it was given.
            draft: What it is.
            replace: Whether it takes its id from another.
            sure: Whether it is known that no other has it.
        """
        row, kept = self._accept(due, draft, replace, sure)
        name = self._drafts.name(row, draft.stored.function)
        task = self._holders.hand_out(0, row.row, when, name)
        task._kept = kept
        if draft.id is not None:
            task._id = draft.id
        return task

    def adopt(self, due: int, draft: Draft, alias: int, replace: bool) -> None:
        """Accept such a task of which nobody has a handle; see `link.Link`."""
        row, _ = self._accept(due, draft, replace, sure=False)
        self.lead(alias, row.row)

    def lead(self, alias: int, row: int) -> None:
        """Have an alias lead to a task."""
        self.aliases[alias] = row
        self._aliases_of[row] = alias
        if len(self.aliases) > MOST_ALIASES:
            _, row = self.aliases.popitem(last=False)
            self._aliases_of.pop(row, None)

    def _accept(self, due: int, draft: Draft, replace: bool, sure: bool) -> tuple[Row, Kept]:
        row = self._drafts.row(self._group.new_row(), due, draft)
        kept = Kept.of(row)
        self._counted(1)
        if row.id is None or sure or self._where.horizon.is_whole:
            self._put(row, kept)
        else:
            self._asked[row.row] = Asked(row, kept, replace)
            self._lookups.by_id(row.id, partial(self._answered, row.row))
        if row.id is not None:
            self._rows[row.id] = row.row
            self._sweep()
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
        self._parts.add(outcomes, offset, self, made[0].row, len(made), dues)
        self._counted(len(made))
        self._commits.soon()

    def _put(self, row: Row, kept: Kept) -> None:
        self._group.put(kept, row)
        self._where.horizon.put(row, kept, self._group.stamp)
        self._commits.soon()

    def _counted(self, change: int) -> None:
        assert self._admission is not None
        self.count += change
        self._admission.count_shelved(change)

    def recount(self) -> None:
        """Count anew: nothing of the file is behind the horizon."""
        self._counted(self._where.horizon.count() + len(self._asked) - self.count)

    # ---- who has an id

    def address(self, id_: str) -> Address | None:
        """Return where a task is that has an id, if something is kept of it here."""
        row = self._rows.get(id_)
        if row is None:
            return None
        if not self._is_kept(row):
            del self._rows[id_]
            return None
        return SHELF, 0, row

    def _is_kept(self, row: int) -> bool:
        asked, unwritten = self._asked.get(row), self._where.horizon.find(row)
        if asked is not None:
            return not asked.ended
        if unwritten is not None:
            return unwritten.row is not None
        return self._holders.handle_of(row) is not None

    def _sweep(self) -> None:
        """Forget ids of which nothing is kept, if they are many."""
        if len(self._rows) > 2 * self._swept + 1024:
            self._rows = {id_: row for id_, row in self._rows.items() if self._is_kept(row)}
            self._swept = len(self._rows)

    async def find_id(self, id_: str) -> Task[Any] | None:
        """Return a handle on the task in the file that has an id."""
        row = await self._lookups.find(id_)
        if row is None or self._where.find(row.row) is not None:
            return None
        return self._handle(row)

    def _handle(self, row: Row) -> Task[Any]:
        task = self._holders.handle_of(row.row) or self._hand_out(row.row)
        self._tell_handle(task, row, self._kept_of(row))
        return task

    def _hand_out(self, row: int) -> Task[Any]:
        """Make a handle that does not know yet what it is of."""
        task = self._holders.hand_out(0, row, 0, "")
        task._kept = True
        return task

    def _tell_handle(self, task: Task[Any], row: Row, kept: Kept) -> None:
        """Have a handle know what it is of."""
        task._kept, task._label = kept, self._drafts.name(row)
        task._when = (row.due if row.given is None else row.given) if self._timed else 0
        task._id = row.id
        if row.id is not None:
            self._rows[row.id] = row.row
            self._sweep()

    def _kept_of(self, row: Row) -> Kept:
        """Return what is kept of a task, which is one thing for all who change it."""
        task, unwritten = self._holders.handle_of(row.row), self._where.horizon.find(row.row)
        if task is not None and isinstance(task._kept, Kept):
            return task._kept
        if unwritten is not None and unwritten.more is not None:
            return unwritten.more
        return Kept.of(row)

    def _answered(self, number: int, found: Row | None) -> None:
        """Go on with a task that was to have an id: here is the task of the file that has it."""
        assert self._admission is not None
        asked = self._asked.pop(number)
        assert asked.row.id is not None
        known = self._admission.find(asked.row.id)  # which came into memory meanwhile
        if found is not None or known is not None:
            if not (asked.ended or asked.replace):
                self._merge(asked, found, known)
                return
            if found is not None:
                self._strike(found, self._kept_of(found))
            elif known is not None and asked.cancelled:
                self._admission.links[known[0]].cancel(*known[1:])
            elif known is not None:
                self._admission.dispossess(known)
        if not asked.ended:
            self._enter(asked.row._replace(due=asked.kept.due), asked.kept)

    def _merge(self, asked: Asked, found: Row | None, known: Address | None) -> None:
        """Have who holds a task hold the one instead that has its id."""
        assert self._admission is not None
        task = self._holders.take(asked.row.row)
        alias = self._forget(asked.row.row)
        self._counted(-1)
        if found is not None:
            if task is not None and (other := self._holders.handle_of(found.row)) is not None:
                task._follow(other)
            elif task is not None:
                self._holders.put(task, 0, found.row)
                self._tell_handle(task, found, Kept.of(found))
            if alias is not None:
                self.lead(alias, found.row)
            if asked.moved:
                self._move(found, self._kept_of(found), asked.kept.due)
        elif known is not None:
            link = self._admission.links[known[0]]
            other = link.find(*known[1:])
            if task is not None and other is not None:
                task._follow(other)
            if asked.moved:
                link.reschedule(*known[1:], asked.kept.due)

    def join(self, early: Early, row: Row) -> None:
        """Have a task at a link be one that is only in the file."""
        assert self._admission is not None
        kept = self._kept_of(row)
        task = self._admission.leave_out(early)
        if task is not None and (other := self._holders.handle_of(row.row)) is not None:
            task._follow(other)
        elif task is not None:
            self._holders.put(task, 0, row.row)
            self._tell_handle(task, row, kept)
        if early.kept.due != early.due:
            self._move(row, kept, early.kept.due)

    def strike(self, row: Row) -> None:
        """End a task that another one takes the place of, or that was cancelled."""
        self._strike(row, self._kept_of(row))

    def _enter(self, row: Row, kept: Kept) -> None:
        """Have a task be in the file, and in memory if the horizon has come meanwhile."""
        if self._where.horizon.is_near(*row.position):
            self._group.put(kept, row)
            self._take(row, kept)
        else:
            self._put(row, kept)

    def _take(self, row: Row, kept: Kept, doubted: bool = False) -> None:
        assert self._restoring is not None
        self._counted(-1)
        self._restoring.take(row, {}, kept, doubted)
        self._commits.soon()

    # ---- what handles ask (`task.Home`)

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Return a handle, of which it turns out whether there is such a task; None: there is none.

        Awaiting one that is of none raises UnknownTask.
        """
        task = self._holders.handle_of(number) or self._parts.task(number)
        if task is None:
            asked, unwritten = self._asked.get(number), self._where.horizon.find(number)
            if asked is not None or (unwritten is not None and unwritten.row is not None):
                row = asked.row if asked is not None else unwritten.row  # type: ignore[union-attr]
                task = self._hand_out(number)
                assert row is not None
                kept = self._kept_of(row) if asked is None else asked.kept
                self._tell_handle(task, row, kept)
            elif self._may_be_here(number):
                task = self._hand_out(number)
                self._lookups.by_row(number, 0, partial(self._found, number))
        return task

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
        requested = self._requests.get(number, _CANCEL)
        if requested != _CANCEL:
            return requested
        task = self._holders.handle_of(number)
        if task is not None and isinstance(task._kept, Kept):
            return task._kept.due
        return self._parts.due(number)

    def name_of(self, label: Any) -> str:
        return str(label)

    def hold(self, task: Task[Any]) -> None:
        self._holders.hold(task)

    def release(self, task: Task[Any]) -> None:
        self._holders.release(task)

    async def stored(self, number: int, kept: Any) -> None:
        if not isinstance(kept, Kept) or number in self._asked:
            await self._lookups.settle()
        unwritten = self._where.horizon.find(number)
        if not isinstance(kept, Kept) and unwritten is not None:
            kept = unwritten.more
        if isinstance(kept, Kept):
            await self._wait_stored(kept)

    def cancel(self, scheduler: int, number: int) -> bool:
        """Ask for a task's cancellation; False if it is known that there is none such."""
        asked = self._asked.get(number)
        if asked is not None:
            asked.cancelled = True
            self._end_asked(asked)
            return True
        return self._request(number, _CANCEL)

    def dispossess(self, scheduler: int, number: int) -> None:
        """End a task whose id another takes."""
        task = self._holders.handle_of(number)
        if task is not None:
            task._id = None
        asked = self._asked.get(number)
        if asked is not None:
            self._end_asked(asked)
        else:
            self._request(number, _CANCEL)

    def _end_asked(self, asked: Asked) -> None:
        if not asked.ended:
            asked.ended = True
            self._counted(-1)
            self._settle(asked.row.row, State.CANCELLED, None)

    def reschedule(self, scheduler: int, number: int, due: int) -> bool:
        """Ask that a task start at another time; False if there is none, or it is to end."""
        asked = self._asked.get(number)
        if asked is not None:
            asked.kept.due, asked.moved = due, True
            return not asked.ended
        if self._requests.get(number) == _CANCEL:
            return False
        return self._request(number, due)

    def _request(self, number: int, what: int) -> bool:
        """Do what is asked at once, if all is known of the task, or when it is."""
        assert self._restoring is not None
        unwritten = self._where.horizon.find(number)
        if unwritten is not None and unwritten.row is not None:
            self._do(unwritten.row, self._kept_of(unwritten.row), what)
            return True
        if self._restoring.waits(number):
            return self._ask_of_waiting(number, what)
        if not self._may_be_here(number):
            return False
        asks = number not in self._requests
        self._requests[number] = what
        if asks:
            due = self.due(0, number) if what == _CANCEL else None
            self._lookups.by_row(number, due or 0, partial(self._found, number))
        return True

    def _ask_of_waiting(self, number: int, what: int) -> bool:
        """Ask something of a task that waits for its function to be defined."""
        assert self._restoring is not None
        if what != _CANCEL:
            self._restoring.move(number, what)
        else:
            self._restoring.withdraw(number)
            self._settle(number, State.CANCELLED, None)
        self._commits.soon()
        return True

    def _found(self, number: int, row: Row | None) -> None:
        """Go on with what was asked of a task: here it is."""
        assert self._restoring is not None
        what = self._requests.pop(number, None)
        if row is not None:
            kept = self._kept_of(row)
            task = self._holders.handle_of(number)
            if task is not None and what != _CANCEL:  # which has lost its id, maybe
                self._tell_handle(task, row, kept)
            if what is not None:
                self._do(row, kept, what)
        elif self._restoring.waits(number):
            if what is not None:
                self._ask_of_waiting(number, what)
        elif number not in self._where:  # else it has left, and was told what was asked
            ref = self._where.ref(number)
            self._settle(number, State.LOST, UnknownTask(f"{ref} has ended, or never was"))

    def _do(self, row: Row, kept: Kept, what: int) -> None:
        if what == _CANCEL:
            self._strike(row, kept)
        else:
            self._move(row, kept, what)

    def _strike(self, row: Row, kept: Kept) -> None:
        self._group.strike(kept)
        self._where.horizon.strike(row.row, self._group.stamp)
        self._counted(-1)
        self._settle(row.row, State.CANCELLED, None)
        self._commits.soon()

    def _move(self, row: Row, kept: Kept, due: int) -> None:
        kept.due, kept.given = due, None
        self._group.change(kept)
        before, row = row, row._replace(due=due, given=None)
        assert self._restoring is not None
        doubted = self._restoring.doubts(before)  # of which the file will say nothing
        near = doubted or self._where.horizon.is_near(*row.position)
        for listing in self._listings:
            listing.goes(before, None if near else row)
        if near:
            self._where.horizon.strike(row.row, self._group.stamp)  # as it was
            self._take(row, kept, doubted)
        else:
            self._where.horizon.put(row, kept, self._group.stamp)
            self._commits.soon()

    @contextmanager
    def listing(self, wanted: Wanted) -> Iterator[ShelfListing]:
        """Give a list of tasks, which is told what goes meanwhile."""
        listing = self._make_listing(wanted)
        asked = [asked.row for asked in self._asked.values() if not asked.ended]
        listing.unwritten = asked + self._where.horizon.unwritten()
        self._listings.append(listing)
        try:
            yield listing
        finally:
            self._listings.remove(listing)

    # ---- ends

    def left(self, row: Row, kept: Kept, worker: int, number: int) -> bool:
        """Give who holds a task to the link that has it now; return whether there is a handle."""
        assert self._admission is not None
        for listing in self._listings:
            listing.goes(row)
        link, scheduler = self._admission.locate(worker, number)
        task = self._holders.take(row.row)
        if task is not None:
            task._kept = kept
            link.attach(task, scheduler, number)
        self._parts.move(row.row, link, scheduler, number)
        alias = self._forget(row.row)
        if alias is not None:
            self._admission.lead(alias, (worker, scheduler, number))
        what = self._requests.pop(row.row, None)
        if what == _CANCEL:
            link.cancel(scheduler, number)
        elif what is not None:
            link.reschedule(scheduler, number, what)
        return task is not None

    def buried(self, row: int, reason: Reason, text: str) -> None:
        """Tell who holds a task that it is a dead letter, and was given to no link."""
        headline = text.rstrip().rpartition("\n")[2]
        self._settle(row, State.FAILED, RemoteError(reason.value, headline, text))

    def withdrawn(self, row: int) -> None:
        """Tell who holds a task that another one has its id, or that it was cancelled."""
        self._settle(row, State.CANCELLED, None)

    def figures(self) -> Counter[str]:
        """Return what is counted here, by the names of `stats.COUNTS`; any thread may ask."""
        return self._counts + Counter(pending=self.count)

    def _settle(self, row: int, state: State, value: Any) -> None:
        self._counts[state.value] += 1
        self._forget(row)
        self._holders.settle(row, state, value, None)
        self._parts.settle(row, state, value)

    def _forget(self, row: int) -> int | None:
        """Forget the alias of a task, and return it."""
        alias = self._aliases_of.pop(row, None)
        if alias is not None:
            self.aliases.pop(alias, None)
        return alias

    def look_after(self) -> None:
        """Is called once a tick."""
        self._holders.forget_dropped()

    def close(self, reason: Exception | None) -> None:
        """Tell who holds a task that it stays for the next host, if it is in the file."""
        kept = self.count
        for row in self._holders.numbers():
            task = self._holders.handle_of(row)
            stamp = task._kept.stamp if task and isinstance(task._kept, Kept) else 0
            state: State = State.KEPT
            error: Exception | None = kept_error(reason)
            if row in self._asked or not self._commits.has(stamp):
                kept -= 1
                state, error = (State.LOST, reason) if reason else (State.CANCELLED, None)
                self._counts[state.value] += 1
            self._holders.settle(row, state, error, None)
        self._parts.settle_all(State.KEPT, kept_error(reason))
        self._asked.clear()
        self._counts["kept"] += max(kept, 0)
        if self._admission is not None:
            self._counted(-self.count)
