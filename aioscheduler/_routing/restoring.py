"""Restores tasks of the file: they go to links, or become dead letters.

    a row ─┬─► its host died while it ran: once more, or a dead letter
           ├─► its script may yet define its function: it waits (`undefined`)
           └─► a call for a link ─► admitted, as a suspect if it may have run when the host died

    scheduled before the file was open ─┬─► put, once it is
                                        └─► merged with the task of the file that has its id

A row that cannot be read holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import count, groupby
from typing import Any, NamedTuple, Protocol

from .._durable.group import Group, Kept
from .._durable.records import Begun, Function, Opening, Reason, Row
from .._shipping.failures import text_of
from .._transport import wire
from ..registry import Durable
from ..task import Task
from .burials import Burials
from .drafts import Draft, confirmed_of
from .functions import Functions
from .ids import Address
from .keeping import MOST_LOSSES, WITHDRAWN, Keeping
from .link import Link
from .opened import HEARTBEAT_SLACK
from .storedcalls import LocalCalls, Notes, RemoteCalls, Stored
from .undefined import Undefined
from .whereabouts import Whereabouts


class Admission(Protocol):
    """Passes tasks of the file to the links (`admission.Admission`)."""

    @property
    def links(self) -> Sequence[Link]:
        """The links, by worker."""

    @property
    def is_over(self) -> bool:
        """Whether no more tasks may begin."""

    def locate(self, worker: int, number: int) -> tuple[Link, int]:
        """Return the link of a task that has not ended, and its scheduler there."""

    def find(self, id_: str, before: int) -> Address | None:
        """Return the task at a link that has an id, if its row is below `before`."""

    def dispossess(self, address: Address) -> None:
        """Take the id from a task at a link."""

    def lead(self, alias: int, address: Address) -> None:
        """Make an alias lead to a task at a link."""

    async def flush(self) -> None:
        """Wait until the links have room."""

    def count_shelved(self, change: int) -> None:
        """Change the count of tasks that are only in the file."""

    def admit(
        self, due: int, key: str | bytes | int | None, id_: str | None, call: object
    ) -> tuple[int, int]:
        """Admit a task of the file; return its worker and its number there."""

    def admit_many(
        self, dues: Sequence[int], function: Any, calls: Sequence[Any], record: Any
    ) -> list[Share]:
        """Admit tasks of one function that are in the file, in order."""

    def leave_out(self, early: Early) -> Task[Any] | None:
        """Remove an early task that duplicates one of the file; return its handle, if held."""

    def give_way(self, id_: str, worker: int, admit: Callable[[], bool]) -> None:
        """Replace a task that was scheduled under the id of one in the file by that one.

        Args:
            id_: The id.
            worker: The worker of the new task.
            admit: Admit the task of the file; return whether it has a handle.
        """


class Shelf(Protocol):
    """The shelf, as far as restoring needs it."""

    def held_among(self, rows: Sequence[int]) -> Collection[int]:
        """Return those of the tasks that have listeners, aliases or requests."""

    def left(self, row: Row, kept: Kept, worker: int, number: int) -> bool:
        """Note that a task is at a link; return whether it has a handle."""

    def buried(self, row: int, reason: Reason, text: str) -> None:
        """Note that a task is a dead letter, and goes to no link."""

    def withdrawn(self, row: int) -> None:
        """Note that a task was struck, as another has its id, or it was cancelled."""


class Early(NamedTuple):
    """A task at a link that may be one of the file; which is not known yet.

    It was scheduled before the file was open, or with an id that a task of the file may have.

    Attributes:
        kept: What is kept of it.
        draft: Its draft for the file.
        worker: Its worker.
        number: Its number there.
        due: Its due time when it was scheduled.
        replace: Whether it takes its id from another task.
    """

    kept: Kept
    draft: Draft
    worker: int
    number: int
    due: int
    replace: bool


class Share(NamedTuple):
    """Those of the tasks admitted together that one link has.

    Attributes:
        worker: The worker.
        first: The number there of the first; others are consecutive.
        indexes: Their indexes among all.
    """

    worker: int
    first: int
    indexes: list[int]


class Restoring:
    """Passes the tasks of a file to the links.

    Args:
        admission: Passes tasks to the links.
        group: Gathers changes.
        burials: Makes dead letters.
        functions: The functions of the file.
        keepings: The durable tasks of each link.
        calls: Makes calls for the links.
        notes: Reads the notes of tasks.
        opening: What the file contained at its opening.
        now: The present in nanoseconds since the epoch.
        where: Where each task is.
        shelf: Notified of what happens to tasks.
    """

    def __init__(
        self,
        admission: Admission,
        group: Group,
        burials: Burials,
        functions: Functions,
        keepings: Sequence[Keeping],
        calls: RemoteCalls | LocalCalls,
        notes: Notes,
        opening: Opening,
        now: int,
        where: Whereabouts,
        shelf: Shelf,
    ) -> None:
        self._where = where
        self._shelf = shelf
        self._first_row = opening.next_row  # of this host
        self._admission = admission
        self._group = group
        self._burials = burials
        self._functions = functions
        self._keepings = keepings
        self._calls = calls
        self._notes = notes
        self._undefined = Undefined(
            functions, group, where, now, self._admit_if_read, self._bury_unknown
        )
        # Tasks due before this may have begun in the last host; 0: none.
        self._in_doubt = 0 if opening.clean else opening.heartbeat + HEARTBEAT_SLACK

    def doubts(self, row: Row) -> bool:
        """Whether a task of the file may have ended the last host."""
        return row.row < self._first_row and row.due < self._in_doubt

    def take_many(
        self, found: Sequence[tuple[Row, Kept | None]], early: Mapping[str, Early]
    ) -> None:
        """Restore tasks of the file, in order; plain ones of one function together.

        Args:
            found: Their rows, with what is kept of each, if anything.
            early: As for `take`.
        """
        held = self._shelf.held_among([row.row for row, _ in found])

        def alike(each: tuple[Row, Kept | None]) -> int | None:
            """Return the function of a plain task; None for others."""
            row, kept = each
            is_alike = row.is_plain and kept is None and row.row not in held
            return row.function if is_alike and not self.doubts(row) else None

        for number, some in groupby(found, alike):
            function = None if number is None else self._functions.find(number)
            if isinstance(function, Durable):
                self._take_alike(function, [row for row, _ in some])
            else:
                for row, kept in some:
                    self.take(row, early, kept)

    def _take_alike(self, function: Durable, rows: list[Row]) -> None:
        """Restore plain tasks of one function."""
        stored = Stored(function, b"", confirmed=confirmed_of(function, None))
        try:
            call = self._calls.make_many(stored, [row.payload for row in rows])
        except Exception:  # noqa: BLE001  one by one: only some are dead letters
            for row in rows:
                self.take(row, {})
            return
        for worker, first, own in self._admission.admit_many([row.due for row in rows], *call):
            kept = [Kept.of(rows[index]) for index in own]
            if function.once:
                for each in kept:
                    each.once = True
            self._keepings[worker].kept.update(zip(count(first), kept))
            self._where.add_many([each.row for each in kept], worker, first)

    def take(
        self,
        row: Row,
        early: Mapping[str, Early],
        kept: Kept | None = None,
        doubted: bool = False,
    ) -> None:
        """Restore a task of the file.

        Args:
            row: Its row.
            early: Early tasks, any of which may be this one; the last one of each id.
            kept: What is kept of it, if anything.
            doubted: Whether it may have ended the last host, by its due time before it was moved.
        """
        kept = kept or Kept.of(row)
        doubted |= self.doubts(row)
        same = None if row.id is None else early.get(row.id)
        if same is not None and (same.replace or same.kept.row == WITHDRAWN):
            self._strike(kept)
            return
        if row.begun is not Begun.NO and not self._take_loss(row, kept):
            return
        if same is not None and same.kept.due != same.due:  # it is this one, and was moved
            kept.due, kept.given = same.kept.due, None
            row = row._replace(due=kept.due, given=None)
            self._group.change(kept)
        kept.suspect = kept.losses > 0 or doubted
        function = self._functions.find(row.function)
        if function is None:
            text = f"the file has no function with the number {row.function}"
            self._bury(row, kept, Reason.UNKNOWN, text)
            return
        if isinstance(function, Function) and function.qualname.startswith("__main__:"):
            if same is None:
                self._undefined.add(row, kept, function)
            else:  # the early one needs the id
                self._bury_unknown(row, kept, function)
            return
        call = self._make(row, kept, function)
        if call is None:
            return
        if same is None or row.id is None:
            self._admit(row, kept, call)
            return
        self._keepings[same.worker].leave_out(same.number)
        self._admission.give_way(row.id, same.worker, partial(self._admit, row, kept, call))

    def _strike(self, kept: Kept) -> None:
        self._group.strike(kept)
        self._where.horizon.strike(kept.row, self._group.stamp)
        self._shelf.withdrawn(kept.row)

    def _bury(self, row: Row, kept: Kept, reason: Reason, text: str) -> None:
        self._burials.bury(kept, reason, text)
        self._where.horizon.strike(kept.row, self._group.stamp)
        self._shelf.buried(row.row, reason, text)

    def _take_loss(self, row: Row, kept: Kept) -> bool:
        """Note that a host died while a task ran; return whether the task may start again."""
        kept.losses += 1
        kept.begun = Begun.NO
        text = ""
        if row.begun is Begun.ONCE:
            text = "its host died while it ran, and it must not start a second time"
        elif kept.losses >= MOST_LOSSES:
            text = f"its host or its worker died while it ran, {kept.losses} times in a row"
        if text:
            self._bury(row, kept, Reason.LOST, text)
        else:
            kept.attempt += 1
            self._group.change(kept)
        return not text

    def _make(self, row: Row, kept: Kept, function: Durable | Function) -> object | None:
        """Return the call of a task; None: it cannot be read, and is a dead letter."""
        kept.once = function.once
        if kept.once and not kept.losses:  # had it begun, it would be on record
            kept.suspect = False
        confirmed = confirmed_of(function, row.id)
        if kept.suspect:
            confirmed = wire.ALONE if kept.losses else 1
        try:
            stored = Stored(
                function,
                row.payload,
                *self._notes.read(row.options),
                confirmed,
                kept.attempt,
                kept.failed,
                kept.given,
            )
            return self._calls.make(stored, row.due)
        except Exception as error:  # noqa: BLE001  it must not hold up other tasks
            self._bury(row, kept, Reason.UNREADABLE, text_of(error))
            return None

    def _admit(self, row: Row, kept: Kept, call: object) -> bool:
        worker, number = self._admission.admit(row.due, row.key, row.id, call)
        self._keepings[worker].kept[number] = kept
        self._where.add(row.row, worker, number)
        self._where.horizon.keep(row.due, row.row)
        return self._shelf.left(row, kept, worker, number)

    @property
    def leaves_suspects(self) -> bool:
        """Whether tasks that may have ended an earlier host were not restored, or wait here."""
        horizon = self._where.horizon
        if self._in_doubt and not horizon.is_whole and horizon.reached[0] < self._in_doubt:
            return True
        return self._undefined.leaves_suspects

    # ---- functions that are not registered yet

    @property
    def waiting(self) -> int:
        """How many tasks wait for their functions to be defined."""
        return len(self._undefined)

    def waits(self, row: int) -> bool:
        """Whether a task waits for its function to be defined."""
        return row in self._undefined

    def resolve(self, now: int) -> bool:
        """Admit tasks whose functions are registered by now; bury those that waited long enough.

        Returns:
            Whether anything has changed.
        """
        return not self._admission.is_over and self._undefined.resolve(now)

    def claim(self, id_: str, now: int) -> None:
        """Free an id that a task with an unknown function has: it becomes a dead letter."""
        self.resolve(now)
        self._undefined.claim(id_)

    def withdraw(self, row: int) -> None:
        """End a task that waits for its function."""
        _, kept, _ = self._undefined.take(row)
        self._strike(kept)

    def move(self, row: int, due: int) -> Row:
        """Reschedule a task that waits for its function; return its previous row."""
        return self._undefined.move(row, due)

    def _admit_if_read(self, row: Row, kept: Kept, function: Durable) -> None:
        call = self._make(row, kept, function)
        if call is not None:
            self._admit(row, kept, call)

    def _bury_unknown(self, row: Row, kept: Kept, function: Function) -> None:
        text = f"no function is registered as {function.name!r}; register it, and requeue the task"
        self._bury(row, kept, Reason.UNKNOWN, text)
