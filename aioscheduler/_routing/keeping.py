"""Records what happens to the durable tasks of one link.

    Book, Receiver, Endings (or LocalRunner) ─► Keeping ─► Group: strike, change, bury
                                                 │
                                                 ├► Marks: begun, if it outlasts a commit
                                                 └► ConfirmedStarts: may it begin?

A task's number at its link leads to what is kept of it. Numbers of tasks that are not durable are
ignored: a link without durable tasks pays for a look at an empty dict.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from .._durable.group import Group, Kept
from .._durable.records import Begun, Reason
from .._scheduling.states import State
from .._shipping.failures import text_of
from .._shipping.payloads import text_in
from .._transport import wire
from ..task import TaskRef
from .commits import Commits
from .confirmedstarts import ConfirmedStarts, is_confirmed
from .marks import Marks
from .suspects import Suspects
from .whereabouts import Whereabouts

MOST_LOSSES = 3
"""Deaths in a row, of its worker or its host, after which a task does not begin again."""

NOT_GIVEN, WITHDRAWN = -1, -2
"""Stand for the row number of a task that has none yet, and of one that never gets one."""

_REASONS = {
    wire.UNREADABLE: Reason.UNREADABLE,
    wire.UNKNOWN: Reason.UNKNOWN,
    wire.TOO_LATE: Reason.TOO_LATE,
}


class Keeping:
    """The durable tasks of one link.

    Args:
        group: Gathers changes.
        commits: Says what is on disk.
        marks: The begun marks of tasks.
        suspects: Decide whose turn it is.
        timed: Whether tasks have due times.
        clock: Return the present in nanoseconds since the epoch.
        bury: Make a task a dead letter, with a reason and a text.
        wait_stored: Wait until a task is on disk; None: everything so far.
        left: Tasks that stay for the next host, by id.
        where: Where each durable task is, by its row.
        when_known: Call back when the holders of all ids used so far are known.

    Attributes:
        kept: What is kept of each task, by its number here.
        leaves_suspects: Whether tasks that may have ended an earlier host stayed for the next,
            with nothing in their rows to show it.
    """

    def __init__(
        self,
        group: Group,
        commits: Commits,
        marks: Marks,
        suspects: Suspects,
        timed: bool,
        clock: Callable[[], int],
        bury: Callable[[Kept, Reason, str], None],
        wait_stored: Callable[[Kept | None], Awaitable[None]],
        left: dict[str, Kept],
        where: Whereabouts,
        when_known: Callable[[Callable[[], object]], object],
    ) -> None:
        self.kept: dict[int, Kept] = {}
        self.leaves_suspects = False
        self._starts = ConfirmedStarts(group, commits, marks, suspects, clock, when_known)
        self._left = left
        self._where = where
        self._group = group
        self._commits = commits
        self._marks = marks
        self._suspects = suspects
        self._timed = timed
        self._clock = clock
        self._put_away = bury
        self._wait_stored = wait_stored

    def all_durable(self, numbers: Iterable[int]) -> bool:
        """Return whether there are any numbers, and all are of durable tasks."""
        if not self.kept:
            return False
        known = [number in self.kept for number in numbers]
        return bool(known) and all(known)

    async def stored(self, number: int, kept: Any) -> None:
        """Wait until a task is on disk, given what its handle keeps; see `home.Home`."""
        await self._wait_stored(kept if isinstance(kept, Kept) else self.kept.get(number))

    def ref(self, number: int, kept: Any = None) -> TaskRef | None:
        """Return a task's reference by its row; None if it is not durable, or has no row yet."""
        if not isinstance(kept, Kept):
            kept = self.kept.get(number)
        return None if kept is None else self._where.ref(kept.row)

    def waits(self, number: int) -> bool:
        """Whether a task begins only once its start is on record."""
        kept = self.kept.get(number)
        return kept is not None and is_confirmed(kept)

    def is_once(self, number: int) -> bool:
        """Whether a task must not begin a second time."""
        kept = self.kept.get(number)
        return kept is not None and kept.once

    # ---- starts

    def announced(self, numbers: Iterable[int]) -> None:
        """Note that tasks may have begun, except those that begin on record."""
        if self.kept:
            known = [self.kept[number] for number in numbers if number in self.kept]
            self._marks.begun(*(kept for kept in known if not is_confirmed(kept)))

    def proposed(self, numbers: Sequence[int], begin: Callable[[list[int]], None]) -> None:
        """Call `begin` when the start of tasks is on record, and it is their turn.

        It is called with those neither withdrawn nor announced again meanwhile.
        """
        kept = {number: self.kept[number] for number in numbers if number in self.kept}
        self._starts.proposed(numbers, kept, begin)

    def unbegun(self, numbers: Iterable[int]) -> None:
        """Note that announced tasks have not begun."""
        for number in numbers:
            if number in self.kept:
                self._starts.forget(number)
                self._rest(self.kept[number])

    def _rest(self, kept: Kept) -> None:
        """Note that a task is not running."""
        self._marks.forget(kept)
        if kept.suspect:
            self._suspects.clear(kept, self._clock())
        if kept.begun is not Begun.NO:
            kept.begun = Begun.NO
            self._group.change(kept)
            self._commits.soon()

    # ---- other times

    def retried(self, until: Mapping[int, int]) -> None:
        """Note that attempts have failed; the tasks start once more at these times, by number."""
        for number, due in until.items():
            kept = self.kept.get(number)
            if kept is None:
                continue
            self._rest(kept)
            kept.attempt += 1
            kept.failed += 1
            kept.losses, kept.suspect = 0, False
            if self._timed:
                if kept.given is None:
                    kept.given = kept.due
                kept.due = due
                self._where.horizon.keep(due, kept.row)
            self._group.change(kept)
            self._commits.soon()

    def moved(self, number: int, due: int) -> None:
        """Note that a pending task was rescheduled."""
        kept = self.kept.get(number)
        if kept is not None:
            kept.due, kept.given = due, None
            if kept.row >= 0:  # else the file has no row of it yet
                self._starts.forget(number)
                self._rest(kept)
                self._where.horizon.keep(due, kept.row)
                self._group.change(kept)
                self._commits.soon()

    def dispossess(self, number: int, running: bool) -> bool:
        """Note that a task has lost its id to another; if it has not begun, it never will.

        Returns:
            Whether it goes on without the id.
        """
        kept = self.kept.get(number)
        if kept is None:
            return running
        if not running or kept.row < 0:
            self.withdrawn(number)
            return False
        kept.id = None
        self._group.change(kept)
        self._commits.soon()
        return True

    def leave_out(self, number: int) -> None:
        """Forget a task that has turned out to duplicate another; it must not begin."""
        del self.kept[number]
        self._starts.forget(number)

    def withdrawn(self, number: int) -> None:
        """Strike a task that was asked to end: no host must find it, though it may still run."""
        kept = self.kept.pop(number, None)
        if kept is None:
            return
        self._starts.forget(number)
        if kept.row < 0:  # the holder of its id is not known yet
            kept.row = WITHDRAWN
        else:
            self._marks.forget(kept)
            if kept.suspect:
                self._suspects.clear(kept, self._clock())
            self._group.strike(kept)
            self._where.forget((kept,), self._group.stamp)
            self._commits.soon()
            if is_confirmed(kept):
                self._starts.struck(number)

    # ---- ends

    def ended(
        self,
        numbers: Sequence[int],
        state: State,
        values: Iterable[Any] = (),
        ending: int = wire.FAILED,
    ) -> Collection[int]:
        """Note that tasks have ended.

        Args:
            numbers: The tasks, durable or not.
            state: How they have ended.
            values: Their outcomes, payloads or exceptions, if failed, lost or UNASKED.
            ending: More about a failure; see `wire`.

        Returns:
            Those of them that are dead letters, and not lost.
        """
        self._starts.ended(numbers)
        if not self.kept:
            return ()
        letters: set[int] = set()
        with_values = state in (State.FAILED, State.LOST) or ending == wire.UNASKED
        found = False
        if state is State.FINISHED:
            numbers = self._strike_most(numbers)
        for number, value in zip(numbers, values if with_values else numbers, strict=False):
            kept = self.kept.pop(number, None)
            if kept is None:
                continue
            has_begun = not self._starts.forget(number)
            if kept.row < 0:  # the holder of its id is not known yet
                if state is State.CANCELLED:
                    kept.row = WITHDRAWN
                continue
            found = True
            self._marks.forget(kept)
            if kept.suspect:
                self._suspects.clear(kept, self._clock())
            if state is State.KEPT:
                self._leave(kept, has_begun)
            elif with_values:
                reason = Reason.LOST
                if state is not State.LOST:
                    letters.add(number)
                    reason = _REASONS.get(ending, Reason.FAILED)
                self._bury(kept, reason, value)
            else:
                self._group.strike(kept)
            self._where.forget((kept,), self._group.stamp)
        if found:
            self._commits.soon()
        return letters

    def _strike_most(self, numbers: Iterable[int]) -> list[int]:
        """Strike the finished tasks that need no more than that; return the other numbers."""
        ended, others = [], []
        for number in numbers:
            kept = self.kept.get(number)
            if kept is None:
                continue
            if kept.suspect or kept.row < 0:
                others.append(number)
            else:
                del self.kept[number]
                ended.append(kept)
        if ended:
            self._marks.forget(*ended)
            self._group.strike(*ended)
            self._where.forget(ended, self._group.stamp)
            self._commits.soon()
        return others

    def _leave(self, kept: Kept, has_begun: bool) -> None:
        """Leave a task for the next host; if it is on record and has begun, an attempt counts."""
        self.leaves_suspects |= kept.suspect and not kept.losses
        if kept.id is not None:
            self._left[kept.id] = kept
        if kept.begun is not Begun.NO:
            kept.begun = Begun.NO
            kept.attempt += has_begun
            self._group.change(kept)

    def _bury(self, kept: Kept, reason: Reason, value: Any) -> None:
        if not isinstance(value, BaseException):
            text = text_in(value)
        elif reason is Reason.LOST:
            text = str(value)
        else:
            text = text_of(value)
        self._put_away(kept, reason, text)

    # ---- deaths and closes

    def runs_again(self, number: int, otherwise: bool) -> bool:
        """Return whether a task that had begun in a process that is gone runs again.

        If so it is a suspect from now on: it may have killed its process.

        Args:
            number: The task's number.
            otherwise: The answer for a task that is not durable.
        """
        kept = self.kept.get(number)
        if kept is None:
            return otherwise
        if self._starts.forget(number):  # it certainly has not begun
            self._rest(kept)
            return True
        kept.losses += 1
        if kept.once or kept.losses >= MOST_LOSSES:
            return False
        self._rest(kept)
        kept.attempt += 1
        kept.suspect = True
        self._group.change(kept)
        self._commits.soon()
        return True

    def confirmed_again(self, number: int) -> int:
        """Return how a task that runs again is confirmed (see `wire.More`); 0: as before."""
        return wire.ALONE if number in self.kept else 0

    def stays(self, number: int, running: bool) -> bool:
        """Return whether a task that nobody has asked to end stays for the next host."""
        kept = self.kept.get(number)
        if kept is None or kept.row < 0 or not self._commits.has(kept.stamp):
            return False
        if kept.row in self._commits.refused:  # the file never had it
            return False
        return not (running and kept.once and number not in self._starts)
