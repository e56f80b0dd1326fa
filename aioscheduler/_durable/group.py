"""What to write next: all changes between two commits. Pure.

    put, change, strike, bury … ─► Group ─ take ─► Batch ═══► the writer's thread
                                     └─ what came and went meanwhile is never written

Rules of this file:

1. Changes are written in the order in which they came, and a batch is a prefix of that order: after
   any crash the file has the state after some change. Only a further change of a task joins the
   unwritten change of that task, so that the file shows it early.
2. The end of a task is a change of its own, behind all that the task scheduled: a chain of tasks
   loses no link. Its earlier changes keep their position: another task may have its id by now.
3. What was handed out counts as written: a batch is written before the next one, or neither it nor
   any later one is.
4. Changes that belong together are in one batch, even if it exceeds its size (`whole`).
5. In a batch puts come before burials: a task that takes the id of a buried one comes with the next
   batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any

from .records import (
    BUCKET_SHIFT,
    Batch,
    Begun,
    Burial,
    Function,
    Reason,
    Row,
    Update,
)
from .repeatrecords import RepeatChange

MOST_BYTES = 8 << 20
"""Bytes of a batch: a limit that keeps commits short."""

MOST_CHANGES = 1 << 14
"""Changes of a batch: a limit that keeps handing out from blocking the loop."""

_PER_ROW = 64  # bytes of a change, beside payloads and texts
_TASK, _END, _LETTER, _FUNCTION, _REPEAT = range(5)  # the kind of a change
_KINDS = 3  # bits for the kind in a change's key, below the number
_KIND = (1 << _KINDS) - 1


class Kept:
    """A durable task that has not ended, as the host knows it; there may be a million.

    Attributes:
        row: Its number.
        id: The `id` of `schedule`; None, by a change as any other, once another task has it.
        bucket: Its bucket in the file, once all that was handed out is written.
        due: As in `Row`, like `begun`, `attempt`, `failed`, `losses` and `given`: the caller sets
            them and then calls `Group.change`.
        stamp: It is on disk when everything up to this stamp is; 0: it was read from there.
        new: The row to put, until it has been handed out.
        once: Whether it must not begin a second time.
        suspect: Whether it may have ended its host or worker: it begins in its turn.
        end: Why it becomes a dead letter, the details, and when.
        batch: Its batch, which lives as long as a handle that has this.
    """

    # Most tasks keep these class defaults: setting them one by one is a third of a task's cost.
    bucket: int = 0
    begun: Begun = Begun.NO
    attempt: int = 1
    failed: int = 0
    losses: int = 0
    given: int | None = None
    id: str | None = None
    new: Row | None = None
    end: tuple[Reason, str, int] | None = None
    once: bool = False
    suspect: bool = False
    batch: object = None

    def __init__(self, row: int, due: int, stamp: int = 0) -> None:
        self.row: int = row
        self.due: int = due
        self.stamp: int = stamp

    @classmethod
    def of(cls, row: Row) -> Kept:
        """Return the task of a row of the file."""
        kept = cls(row.row, row.due)
        kept.bucket = row.bucket
        if not row.is_plain:
            kept.id, kept.begun, kept.given = row.id, row.begun, row.given
            kept.attempt, kept.failed, kept.losses = row.attempt, row.failed, row.losses
        return kept


class Group:
    """The changes that were not handed out yet.

    Args:
        next_row: The first number that no task was ever given.

    Attributes:
        next_row: The same, now; to be set before the first task is put.
        stamp: The stamp of the last change; it grows.
        unsaved_bytes: About how many bytes are to be written.
    """

    def __init__(self, next_row: int) -> None:
        self.stamp: int = 0
        self.unsaved_bytes: int = 0
        self.next_row = next_row
        # By key: the change's stamp, what has changed, and its approximate size in bytes.
        self._changes: dict[int, tuple[int, Any, int]] = {}
        self._of_repeats = 0  # changes so far
        self._wholes: deque[tuple[int, int]] = deque()  # the stamps before and at the end of each

    @property
    def unsaved(self) -> int:
        """The number of changes to be written."""
        return len(self._changes)

    def new_row(self) -> int:
        """Return the number of a new task."""
        row = self.next_row
        self.next_row = row + 1
        return row

    def put(self, kept: Kept, row: Row) -> None:
        """Note a new task.

        Args:
            kept: The task.
            row: Its row in the file. Its function is defined, and no other task has its id.
        """
        self.stamp = kept.stamp = stamp = self.stamp + 1
        kept.new = row
        size = _size_of(row)
        self._changes[row.row << _KINDS] = stamp, kept, size
        self.unsaved_bytes += size

    def put_many(
        self, alike: Row, dues: int | Sequence[int], payloads: Sequence[bytes]
    ) -> list[Kept]:
        """Note new tasks, as `put` does; return them.

        Args:
            alike: Their common fields: all but number, due time and payload.
            dues: The due time of each, or of all.
            payloads: The payload of each.
        """
        each = repeat(dues) if isinstance(dues, int) else dues
        first = self.next_row
        self.next_row = first + len(payloads)
        numbers = range(first, self.next_row)
        same = map(repeat, alike[4:])
        fields = zip(numbers, each, repeat(alike.function), payloads, *same, strict=False)
        rows = map(partial(tuple.__new__, Row), fields)  # `Row._make` in C
        changes, stamp, size = self._changes, self.stamp, _size_of(alike)
        made = []
        for number, due, payload, row in zip(numbers, each, payloads, rows, strict=False):
            stamp += 1
            kept = Kept(number, due, stamp)
            kept.new = row
            changes[number << _KINDS] = stamp, kept, size + len(payload)
            made.append(kept)
        self.stamp = stamp
        self.unsaved_bytes += size * len(payloads) + sum(map(len, payloads))
        return made

    def change(self, kept: Kept) -> None:
        """Note that fields of a task have been set."""
        size = _PER_ROW
        if kept.new is not None:  # it is not in the file yet: put it as it is now
            kept.new = kept.new._replace(
                due=kept.due,
                begun=kept.begun,
                attempt=kept.attempt,
                failed=kept.failed,
                losses=kept.losses,
                given=kept.given,
                id=kept.id,
            )
            size = _size_of(kept.new)
        self._note(kept.row << _KINDS, kept, size)

    def strike(self, *some: Kept) -> None:
        """Note that tasks have ended."""
        changes, stamp, size = self._changes, self.stamp, 0
        for kept in some:
            stamp += 1
            if kept.new is None:
                changes[kept.row << _KINDS | _END] = stamp, kept, _PER_ROW
                size += _PER_ROW
            else:
                size -= changes.pop(kept.row << _KINDS)[2]
        self.stamp = stamp
        self.unsaved_bytes += size

    def bury(self, kept: Kept, reason: Reason, text: str, at: int) -> None:
        """Note that a task becomes a dead letter.

        Args:
            kept: The task.
            reason: Why.
            text: The details.
            at: The present, in nanoseconds since the epoch.
        """
        kept.end = reason, text, at
        self._note(kept.row << _KINDS | _END, kept, _PER_ROW + len(text))

    def discard_letter(self, row: int, instead: int | None = None) -> None:
        """Note that a dead letter is gone.

        Args:
            row: Its number.
            instead: The number of the task that replaces it, put before and `whole` with this.
        """
        self._note(row << _KINDS | _LETTER, instead)

    def define(self, function: Function) -> None:
        """Note a function that is new, or has changed."""
        self._note(function.number << _KINDS | _FUNCTION, function)

    def repeat(self, change: RepeatChange) -> None:
        """Note a change of a repeat; its earlier changes are written, too."""
        self._of_repeats += 1
        size = _PER_ROW + sum(len(f) for f in change if isinstance(f, str | bytes))
        self._note(self._of_repeats << _KINDS | _REPEAT, change, size)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Write the changes noted within in one batch."""
        stamp = self.stamp
        try:
            yield
        finally:
            if self.stamp > stamp + 1:
                self._wholes.append((stamp, self.stamp))

    def _note(self, key: int, what: Any, size: int = _PER_ROW) -> None:
        self.stamp += 1
        stamp, _, before = self._changes.get(key) or (self.stamp, None, 0)
        self._changes[key] = stamp, what, size
        self.unsaved_bytes += size - before

    def take(
        self, most_bytes: int = MOST_BYTES, until: int | None = None
    ) -> tuple[Batch, int] | None:
        """Hand out what to write next.

        Args:
            most_bytes: Its approximate limit in bytes; at least one change is taken, however large.
            until: The stamp of the last change that may be written; None: all may.

        Returns:
            The batch, and the stamp up to which all is written once it is; None: there is nothing
            that may be written.
        """
        if not self._changes:
            return None
        functions: list[Function] = []
        strikes: list[tuple[int, int]] = []
        updates: dict[int, Update] = {}  # by row
        puts: list[Row] = []
        burials: list[Burial] = []
        discards: list[int] = []
        requeues: list[tuple[int, int]] = []
        repeats: list[RepeatChange] = []
        freed: set[str | None] = set()  # the ids of buried tasks
        whole = 0  # changes up to this stamp belong to those taken
        taken: list[int] = []
        total, covered = 0, self.stamp
        for key, (stamp, what, size) in self._changes.items():
            if until is not None and stamp > until:
                covered = until
                break
            kind = key & _KIND
            new: Row | None = what.new if kind == _TASK else None
            waits = new is not None and new.id is not None and new.id in freed  # rule 5
            while self._wholes and self._wholes[0][0] + 1 < stamp:
                whole = max(whole, self._wholes.popleft()[1])
            is_much = total + size > most_bytes or len(taken) >= MOST_CHANGES
            if taken and stamp > whole and (waits or is_much):
                covered = stamp - 1
                break
            taken.append(key)
            total += size
            if new is not None:
                puts.append(new)
                what.new, what.bucket = None, new[1] >> BUCKET_SHIFT
            elif kind == _TASK:
                updates[what.row] = _update(what)
            elif kind == _FUNCTION:
                functions.append(what)
            elif kind == _REPEAT:
                repeats.append(what)
            elif kind == _LETTER and what is not None:
                requeues.append((key >> _KINDS, what))
            elif kind == _LETTER:
                discards.append(key >> _KINDS)
            elif what.end is None:  # its other changes need not be written
                update = updates.pop(what.row, None)
                strikes.append((what.bucket if update is None else update.bucket, what.row))
            else:
                burials.append(Burial(what.bucket, what.row, what.attempt, *what.end))
                freed.add(what.id)
        if not taken:
            return None
        self.unsaved_bytes -= total
        if len(taken) == len(self._changes):
            self._changes.clear()
        else:
            for key in taken:
                del self._changes[key]
        next_row = self.next_row
        changed = list(updates.values())
        dropped = discards, requeues
        batch = Batch(functions, strikes, changed, puts, burials, *dropped, repeats, next_row)
        return batch, covered


def _update(kept: Kept) -> Update:
    """Return what to write of a changed task, and move it to the bucket of its due time."""
    bucket, kept.bucket = kept.bucket, kept.due >> BUCKET_SHIFT
    return Update(
        *(bucket, kept.row, kept.due, kept.begun, kept.attempt, kept.failed, kept.losses),
        *(kept.given, kept.id),
    )


_NOTHING = (None, None, None)  # key, id and options


def _size_of(row: Row) -> int:
    """Return about how many bytes a new task takes."""
    size = _PER_ROW + len(row.payload)
    if row[4:7] == _NOTHING:  # as for most
        return size
    if row.id is not None:
        size += len(row.id)
    if row.options is not None:
        size += len(row.options)
    if isinstance(row.key, (str, bytes)):
        size += len(row.key)
    return size
