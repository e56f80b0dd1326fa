"""What is to be written next: all that changes between two commits. Pure.

    put, change, strike, bury … ─► Group ─ take ─► Batch ═══► the writer's thread
                                     └─ what came and went meanwhile is never written

Rules of this file:

1. A change has a place in the order in which changes came, and a batch is a beginning of that
   order: what is in the file after any crash is what was there after some change. Only what is
   said of a task that has such a place already takes that one, for the file then shows it early.
2. The end of a task has a place of its own, behind all that it scheduled: a chain of tasks loses
   no link. What has changed of it before keeps its place: another may have its id since then.
3. What was handed out is as good as written, for a batch is written before the next one, or never
   and no other one either.
4. What belongs together is in one batch, though it may be more than a batch is to be (`whole`).
5. In a batch puts come before burials: who takes the id of a task that is buried comes with the
   next one.
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
"""Of a batch, so that no commit lasts long."""

MOST_CHANGES = 1 << 14
"""The same, so that the loop is not held for long while it is handed out."""

_PER_ROW = 64  # bytes of a change, beside payloads and texts
_TASK, _END, _LETTER, _FUNCTION, _REPEAT = range(5)  # what a change is of
_KINDS = 3  # so many last bits of its key say so, below the number
_KIND = (1 << _KINDS) - 1


class Kept:
    """A durable task that has not ended, as the host knows it; there may be a million.

    Attributes:
        row: Its number.
        id: That of `schedule`; None, and changed as others are, once another task has it.
        bucket: Where it is in the file, once all has been written that was handed out.
        due: As of `Row`, and so are `begun`, `attempt`, `failed`, `losses` and `given`: they are
            set by whoever calls `Group.change` then.
        stamp: It is on disk when everything up to this stamp is; 0: it was when it was read.
        new: What is to be put, until it has been handed out.
        once: Whether it is not to begin a second time.
        suspect: Whether it may have ended its host, or its worker: it begins in its turn.
        end: Why it is to be a dead letter, more about that, and since when.
        batch: Its batch, which lives as long as a handle that has this.
    """

    # As of most tasks, which are not given them one by one: that is a third of what one costs.
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
        """Return a task as a row of the file tells of it."""
        kept = cls(row.row, row.due)
        kept.bucket = row.bucket
        if not row.is_plain:
            kept.id, kept.begun, kept.given = row.id, row.begun, row.given
            kept.attempt, kept.failed, kept.losses = row.attempt, row.failed, row.losses
        return kept


class Group:
    """What was changed, and was not handed out yet.

    Args:
        next_row: The first number that was never given to a task.

    Attributes:
        next_row: As it is now; to be set before the first task is put.
        stamp: Of the last change; it grows.
        unsaved_bytes: About how many bytes are to be written.
    """

    def __init__(self, next_row: int) -> None:
        self.stamp: int = 0
        self.unsaved_bytes: int = 0
        self.next_row = next_row
        # By key: its stamp, what has changed, and about how many bytes that is.
        self._changes: dict[int, tuple[int, Any, int]] = {}
        self._of_repeats = 0  # changes so far
        self._wholes: deque[tuple[int, int]] = deque()  # the stamps behind which each is, and ends

    @property
    def unsaved(self) -> int:
        """How many rows are to be written."""
        return len(self._changes)

    def new_row(self) -> int:
        """Return the number of a new task."""
        row = self.next_row
        self.next_row = row + 1
        return row

    def put(self, kept: Kept, row: Row) -> None:
        """Take note of a new task.

        Args:
            kept: Of it.
            row: As it is to be in the file. Its function is defined, and its id no other's.
        """
        self.stamp = kept.stamp = stamp = self.stamp + 1
        kept.new = row
        size = _size_of(row)
        self._changes[row.row << _KINDS] = stamp, kept, size
        self.unsaved_bytes += size

    def put_many(
        self, alike: Row, dues: int | Sequence[int], payloads: Sequence[bytes]
    ) -> list[Kept]:
        """Take note of new tasks, as `put`; return what is kept of them.

        Args:
            alike: What they have in common: all but numbers, due times and payloads.
            dues: The due time of each, or of all.
            payloads: Of each.
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
        """Take note that fields of a task have been set."""
        size = _PER_ROW
        if kept.new is not None:  # what has changed of it is new as well
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
        """Take note that tasks are no more."""
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
        """Take note that a task is a dead letter.

        Args:
            kept: Of it.
            reason: Why.
            text: More about that.
            at: The present.
        """
        kept.end = reason, text, at
        self._note(kept.row << _KINDS | _END, kept, _PER_ROW + len(text))

    def discard_letter(self, row: int, instead: int | None = None) -> None:
        """Take note that a dead letter is no more.

        Args:
            row: Its number.
            instead: That of the task that has come in its place, put before and `whole` with this.
        """
        self._note(row << _KINDS | _LETTER, instead)

    def define(self, function: Function) -> None:
        """Take note of a function that is new, or has changed."""
        self._note(function.number << _KINDS | _FUNCTION, function)

    def repeat(self, change: RepeatChange) -> None:
        """Take note of what has become of a repeat; what has before is written as well."""
        self._of_repeats += 1
        size = _PER_ROW + sum(len(f) for f in change if isinstance(f, str | bytes))
        self._note(self._of_repeats << _KINDS | _REPEAT, change, size)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Have what is new and noted within written in one batch."""
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
        """Hand out what is to be written next.

        Args:
            most_bytes: How much it may be, about; one change is taken, however large.
            until: The stamp of the last change that may be; None: all may.

        Returns:
            The batch, and the stamp up to which everything is written when it is; None: there is
            nothing to write, or nothing may be.
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
        freed: set[str | None] = set()  # the ids of what is buried
        whole = 0  # up to this stamp it belongs to what was taken
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
            elif what.end is None:  # what else has changed of it need not be written
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
    """Return what is written of a task that has changed, which moves to where it is due then."""
    bucket, kept.bucket = kept.bucket, kept.due >> BUCKET_SHIFT
    return Update(
        *(bucket, kept.row, kept.due, kept.begun, kept.attempt, kept.failed, kept.losses),
        *(kept.given, kept.id),
    )


_NOTHING = (None, None, None)  # key, id and options


def _size_of(row: Row) -> int:
    """Return about how many bytes a new task takes."""
    size = _PER_ROW + len(row.payload)
    if row[4:7] == _NOTHING:  # as of most
        return size
    if row.id is not None:
        size += len(row.id)
    if row.options is not None:
        size += len(row.options)
    if isinstance(row.key, (str, bytes)):
        size += len(row.key)
    return size
