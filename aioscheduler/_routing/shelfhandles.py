"""The handles, batches, ids and aliases of tasks that are only in the file.

    hand_out ─► a handle that is still blank ─► tell: it is filled in
    give ─► the link that has the task from now on

Once it is on disk, nothing is kept of a task without any of these.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container
from datetime import datetime
from typing import Any

from .._durable.group import Kept
from .._durable.records import Row
from ..home import Home
from ..outcomes import Outcomes
from ..task import State, Task
from .drafts import Drafts
from .endings import kept_error
from .ids import Forgotten
from .link import Link
from .listeners import Listeners
from .shelvedparts import ShelvedParts
from .whereabouts import Whereabouts

MOST_ALIASES = 1 << 16
"""Aliases kept of tasks scheduled by tasks; older ones no longer lead anywhere."""


class ShelfHandles:
    """The listeners, ids and aliases of tasks that are only in the file.

    Args:
        home: The home of the handles.
        timed: Whether tasks have due times.
        where: Where other tasks are, and changes that are not in the file yet.
        drafts: Knows the names of tasks.
        is_known: Return True for a claim, False for a task that was asked to end; None: neither.

    Attributes:
        aliases: Rows of tasks scheduled by tasks, by the provisional numbers these got.
        forgotten: Aliases that no longer lead anywhere.
    """

    def __init__(
        self,
        home: Home,
        timed: bool,
        where: Whereabouts,
        drafts: Drafts,
        is_known: Callable[[int], bool | None],
    ) -> None:
        self.aliases: OrderedDict[int, int] = OrderedDict()
        self.forgotten = Forgotten()
        self._aliases_of: dict[int, int] = {}
        self._home = home
        self._timed = timed
        self._where = where
        self._drafts = drafts
        self._is_known = is_known
        self._listeners = Listeners(home)
        self._parts = ShelvedParts()
        self._rows: dict[str, int] = {}  # by id, some of them stale
        self._swept = 0

    # ---- handles

    def make(self, row: Row, kept: Kept, when: datetime | int) -> Task[Any]:
        """Make the handle of a new task."""
        task = self._listeners.hand_out(0, row.row, when, self._drafts.name(row))
        task._kept = kept
        if row.id is not None:
            task._id = row.id
        return task

    def hand_out(self, row: int) -> Task[Any]:
        """Return a handle of a task, which may still be blank."""
        task = self.find(row)
        if task is None:
            task = self._listeners.hand_out(0, row, 0, "")
            task._kept = True
        return task

    def find(self, row: int) -> Task[Any] | None:
        """Return the handle of a task, if it or its batch is held."""
        return self._listeners.handle_of(row) or self._parts.task(row)

    def fill(self, task: Task[Any], row: Row, kept: Kept) -> None:
        """Fill in a handle."""
        _keep(task, kept)
        task._label = self._drafts.name(row)
        task._when = (row.due if row.given is None else row.given) if self._timed else 0
        task._id = row.id
        if row.id is not None:
            self.note_id(row.id, row.row)

    def put(self, task: Task[Any], row: Row, kept: Kept) -> None:
        """Make a handle that of another task; if that has one, follow it."""
        other = self.find(row.row)
        if other is None:
            self._listeners.put(task, 0, row.row)
            self.fill(task, row, kept)
        else:
            task._follow(other)

    def take(self, row: int) -> Task[Any] | None:
        """Remove and return the handle of a task; nobody is notified of its end."""
        return self._listeners.take(row)

    def hold(self, task: Task[Any]) -> None:
        """Keep a handle until its task ends, as somebody waits for its callbacks."""
        self._listeners.hold(task)

    def release(self, task: Task[Any]) -> None:
        """Stop keeping a handle."""
        self._listeners.release(task)

    def add(
        self, outcomes: Outcomes, offset: int, first: int, count: int, dues: int | list[int]
    ) -> None:
        """Add the tasks of a batch; see `ShelvedParts`."""
        self._parts.add(outcomes, offset, self._home, first, count, dues)

    def __bool__(self) -> bool:
        """Whether there may be listeners or aliases."""
        return bool(self._listeners or self._parts or self.aliases)

    def holds(self, row: int) -> bool:
        """Whether a task or its batch is held, or the task has an alias."""
        held = self._listeners.handle_of(row) is not None or row in self._parts
        return held or row in self._aliases_of

    # ---- what is kept

    def kept_of(self, row: Row) -> Kept:
        """Return what is kept of a task: one object for everybody that changes it."""
        kept, unwritten = self._kept_by_handle(row.row), self._where.horizon.find(row.row)
        if kept is not None:
            return kept
        if unwritten is not None and unwritten.more is not None:
            return unwritten.more
        return Kept.of(row)

    def due(self, row: int) -> int | None:
        """Return the due time of a task, as far as its listeners know."""
        kept = self._kept_by_handle(row)
        return self._parts.due(row) if kept is None else kept.due

    def _kept_by_handle(self, row: int) -> Kept | None:
        task = self._listeners.handle_of(row) or self._parts.handle(row)
        return task._kept if task is not None and isinstance(task._kept, Kept) else None

    # ---- ids and aliases

    def note_id(self, id_: str, row: int) -> None:
        """Note which task has an id; of two, the newer one has it."""
        known = self.row_of(id_)
        if known is not None and known > row:
            return
        self._rows[id_] = row
        if len(self._rows) > 2 * self._swept + 1024:
            self._rows = {name: row for name, row in self._rows.items() if self._is_kept(row)}
            self._swept = len(self._rows)

    def row_of(self, id_: str) -> int | None:
        """Return the row of the task that has an id, if anything is kept of it here."""
        row = self._rows.get(id_)
        if row is not None and not self._is_kept(row):
            del self._rows[id_]
            return None
        return row

    def _is_kept(self, row: int) -> bool:
        known = self._is_known(row)
        if known is not None:
            return known
        unwritten = self._where.horizon.find(row)
        if unwritten is not None:
            return unwritten.row is not None
        return self._listeners.handle_of(row) is not None and row not in self._where

    def lead(self, alias: int, row: int) -> None:
        """Make an alias lead to a task."""
        self.aliases[alias] = row
        self._aliases_of[row] = alias
        if len(self.aliases) > MOST_ALIASES:
            alias, row = self.aliases.popitem(last=False)
            self.forgotten.add(alias)
            self._aliases_of.pop(row, None)

    def forget_alias(self, row: int) -> int | None:
        """Forget and return the alias of a task."""
        alias = self._aliases_of.pop(row, None)
        if alias is not None:
            self.aliases.pop(alias, None)
        return alias

    # ---- ends

    def give(self, row: int, kept: Kept, link: Link, scheduler: int, number: int) -> bool:
        """Move a task's listeners to the link that has it; return whether it has a handle."""
        task = self._listeners.take(row)
        if task is not None:
            task._kept = kept
            link.attach(task, scheduler, number)
        of_batch = self._parts.handle(row)
        if of_batch is not None:
            _keep(of_batch, kept)
        self._parts.move(row, link, scheduler, number)
        return task is not None

    def settle(self, row: int, state: State, value: Any) -> None:
        """Notify the listeners of a task of its end."""
        self.forget_alias(row)
        self._listeners.settle(row, state, value, None)
        self._parts.settle(row, state, value)

    def forget_dropped(self) -> None:
        """Forget dropped handles."""
        self._listeners.forget_dropped()

    def close(self, reason: Exception | None, lost: Container[int]) -> None:
        """Settle all tasks: they stay in the file, or are lost.

        Args:
            reason: Why the manager has failed, if it has.
            lost: The rows of tasks that are not in the file.
        """
        stays = State.KEPT, kept_error(reason)
        goes = State.CANCELLED if reason is None else State.LOST, reason

        def end_of(row: int) -> tuple[State, Any]:
            return goes if row in lost else stays

        for row in self._listeners.numbers():
            self._listeners.settle(row, *end_of(row), None)
        self._parts.settle_all(end_of)


def _keep(task: Task[Any], kept: Kept) -> None:
    """Set what a handle keeps of its task; if it is of a batch, it still holds that."""
    before = getattr(task, "_kept", None)  # missing if it was not durable so far
    if isinstance(before, Kept):
        kept.batch = kept.batch or before.batch
    elif isinstance(before, Outcomes):
        kept.batch = before
    task._kept = kept
