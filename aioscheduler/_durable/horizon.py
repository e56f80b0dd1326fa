"""Which tasks are in memory, and which are only in the file. Pure.

            in memory          │  only in the file
    ───────────────────────────┼──────────────────────────────►  due time, row
                            reached         ▲
    a page that was read ─────► │ ──►       └─ ahead: in memory all the same

Rules of this file:

1. All tasks up to a position (`reached`) are in memory, and it only grows: so those of equal times
   keep their order, whether they were read or have just been scheduled.
2. Behind it a task is in memory only if it was before it got there: it was given another time. It
   is not taken from the file again.
3. What the file does not say yet is known here until it does (`written`). What was read is as the
   file was then, and what it did not say is right: so nothing is forgotten that it did not say
   when a read was asked for, until all that was read has been taken (`begin`, `end`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from .records import FIRST, Position, Row

T = TypeVar("T")


class Unwritten(NamedTuple, Generic[T]):
    """What the file does not say yet of a task.

    Attributes:
        stamp: It does when everything up to this one is written.
        row: As it is to be; None: it is there no more, or is in memory.
        more: What goes with it.
    """

    stamp: int
    row: Row | None
    more: T | None


class Horizon(Generic[T]):
    """Where what is in memory ends.

    Attributes:
        reached: All tasks up to this position are in memory.
        is_whole: Whether there is none in the file behind it.
        ahead: Those of rule 2.
        next: None behind it is due earlier than this; None: there is none.
        told: Called when a task has come behind it that is due earlier than all others were.
    """

    def __init__(self) -> None:
        self.reached: Position = FIRST
        self.is_whole = False
        self.next: int | None = None
        self.told: Callable[[], object] = lambda: None
        self.ahead: set[int] = set()
        self._unwritten: dict[int, Unwritten[T]] = {}  # by row, in order of stamps
        self._written = 0
        self._readers: list[int] = []  # what was written when each of them began

    def is_near(self, due: int, row: int) -> bool:
        """Whether a task is to be in memory."""
        return (due, row) <= self.reached

    # ---- tasks in memory

    def keep(self, due: int, row: int) -> None:
        """Note that a task in memory stays there though it may be behind the horizon."""
        if (due, row) > self.reached:
            self.ahead.add(row)

    def ended(self, row: int, stamp: int) -> None:
        """Note that a task in memory is no more, which is written with a stamp."""
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
            self.told()

    def strike(self, row: int, stamp: int) -> None:
        """Note that a task behind the horizon is no more."""
        self._note(row, Unwritten(stamp, None, None))

    def find(self, row: int) -> Unwritten[T] | None:
        """Return what the file does not say yet of a task; None: it says what is right."""
        return self._unwritten.get(row)

    def unwritten(self) -> list[Row]:
        """Return the tasks behind the horizon of which the file does not say all yet."""
        return [what.row for what in self._unwritten.values() if what.row is not None]

    def count(self) -> int:
        """Return how many tasks behind the horizon are not in the file yet."""
        return len(self.unwritten())

    def expect(self, behind: int | None) -> None:
        """Note when what the file has behind the horizon is due, at the earliest.

        Args:
            behind: As of `Page`, which has been taken.
        """
        dues = [row.due for row in self.unwritten()]
        if behind is not None:
            dues.append(behind)
        self.next = min(dues, default=None)
        self.is_whole = self.next is None

    def _note(self, row: int, what: Unwritten[T]) -> None:
        self._unwritten.pop(row, None)  # in order of stamps
        self._unwritten[row] = what

    def written(self, stamp: int) -> None:
        """Forget what is in the file by now: everything up to a stamp."""
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
        """Note that tasks are read from now on; return what `end` takes."""
        self._readers.append(self._written)
        return self._written

    def end(self, begun: int) -> None:
        """Note that all that was read has been taken."""
        self._readers.remove(begun)
        self.written(self._written)

    def take(self, rows: Sequence[Row], reached: Position) -> list[tuple[Row, T | None]]:
        """Have what follows on the horizon come into memory.

        Args:
            rows: All that the file has had up to `reached`, in order.
            reached: The horizon from now on.

        Returns:
            The tasks that come, in order, and what goes with each.
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
                self._unwritten[row.row] = Unwritten(stamp, None, None)  # of which it says nothing
            found.sort(key=lambda each: each[0].position)
        return found
