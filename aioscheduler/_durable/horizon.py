"""Which tasks are in memory, and which are only in the file. Pure.

            in memory          │  only in the file
    ───────────────────────────┼──────────────────────────────►  due time, row
                            reached         ▲
    a page that was read ─────► │ ──►       └─ ahead: in memory all the same

Rules of this file:

1. All tasks up to a position (`reached`) are in memory, and it only grows: tasks of equal times
   keep their order, whether they were read or have just been scheduled.
2. Behind it a task is in memory only if it was rescheduled from before it. It is not taken from the
   file again.
3. Changes are known here until the file has them (`written`). They override a read that began
   before they were written, so they are not forgotten until all that it found has been taken
   (`begin`, `end`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from .records import FIRST, Position, Row

T = TypeVar("T")


class Unwritten(NamedTuple, Generic[T]):
    """A change of a task that is not in the file yet.

    Attributes:
        stamp: It is when everything up to this stamp is written.
        row: The task after it; None: it has ended, or is in memory.
        more: What goes with the task.
    """

    stamp: int
    row: Row | None
    more: T | None


class Horizon(Generic[T]):
    """The position up to which tasks are in memory.

    Attributes:
        reached: All tasks up to this position are in memory.
        is_whole: Whether there are no tasks behind it.
        ahead: The tasks of rule 2, by row.
        next: No task behind it is due earlier than this; None: there is none.
        on_earlier: Called when a new task behind it is due earlier than all others there.
    """

    def __init__(self) -> None:
        self.reached: Position = FIRST
        self.is_whole = False
        self.next: int | None = None
        self.on_earlier: Callable[[], object] = lambda: None
        self.ahead: set[int] = set()
        self._unwritten: dict[int, Unwritten[T]] = {}  # by row, in order of stamps
        self._written = 0
        self._readers: list[int] = []  # the stamp written when each of them began

    def is_near(self, due: int, row: int) -> bool:
        """Return whether a task belongs in memory."""
        return (due, row) <= self.reached

    # ---- tasks in memory

    def keep(self, due: int, row: int) -> None:
        """Note that a task stays in memory, even if it is behind the horizon."""
        if (due, row) > self.reached:
            self.ahead.add(row)

    def ended(self, row: int, stamp: int) -> None:
        """Note that a task in memory has ended, which is written with this stamp."""
        if row in self.ahead:
            self.ahead.discard(row)
            self._note(row, Unwritten(stamp, None, None))

    # ---- tasks that are only in the file

    def put(self, row: Row, more: T | None, stamp: int) -> None:
        """Note a task behind the horizon that is new, or has changed."""
        self.is_whole = False
        self._note(row.row, Unwritten(stamp, row, more))
        if self.next is None or row.due < self.next:
            self.next = row.due
            self.on_earlier()

    def strike(self, row: int, stamp: int) -> None:
        """Note that a task behind the horizon has ended."""
        self._note(row, Unwritten(stamp, None, None))

    def find(self, row: int) -> Unwritten[T] | None:
        """Return the unwritten change of a task; None: the file is right about it."""
        return self._unwritten.get(row)

    def unwritten(self) -> list[Row]:
        """Return the tasks behind the horizon with changes that are not in the file yet."""
        return [what.row for what in self._unwritten.values() if what.row is not None]

    def count(self) -> int:
        """Return how many tasks behind the horizon have changes that are not in the file yet."""
        return len(self.unwritten())

    def expect(self, behind: int | None) -> None:
        """Note the earliest due time behind the horizon.

        Args:
            behind: That of the file, as in the last `Page` taken.
        """
        dues = [row.due for row in self.unwritten()]
        if behind is not None:
            dues.append(behind)
        self.next = min(dues, default=None)
        self.is_whole = self.next is None

    def _note(self, row: int, what: Unwritten[T]) -> None:
        self._unwritten.pop(row, None)  # to keep the order of stamps
        self._unwritten[row] = what

    def written(self, stamp: int) -> None:
        """Forget what is in the file now: everything up to a stamp."""
        self._written = stamp
        if not self._unwritten:
            return
        until = min(self._readers, default=stamp)
        done = []
        for row, what in self._unwritten.items():
            if what.stamp > until:
                break
            done.append(row)
        for row in done:
            del self._unwritten[row]

    # ---- what is read

    def begin(self) -> int:
        """Note that a read begins; return the argument for `end`."""
        self._readers.append(self._written)
        return self._written

    def end(self, begun: int) -> None:
        """Note that all tasks of a read have been taken."""
        self._readers.remove(begun)
        self.written(self._written)

    def take(self, rows: Sequence[Row], reached: Position) -> list[tuple[Row, T | None]]:
        """Move the horizon on, and return the tasks that come into memory.

        Args:
            rows: All tasks of the file up to `reached`, in order.
            reached: The horizon from now on.

        Returns:
            The tasks, in order, and what goes with each.
        """
        found: list[tuple[Row, T | None]] = [
            (row, None)
            for row in rows
            if row.row not in self._unwritten and row.row not in self.ahead
        ]
        before, self.reached = self.reached, max(self.reached, reached)
        late = [
            what
            for what in self._unwritten.values()
            if what.row is not None and before < what.row.position <= self.reached
        ]
        if late:
            for stamp, row, more in late:
                assert row is not None
                found.append((row, more))
                self._unwritten[row.row] = Unwritten(stamp, None, None)  # no read has it yet
            found.sort(key=lambda each: each[0].position)
        return found
