"""Tasks that begin when it is on record: they are announced, and wait for the store's word.

announced ─► it is known who has their ids ─► their turn, of suspects ─► a batch ─► begin
                 └─ forgotten meanwhile (moved, ended, their process died): they do not
struck ─► announced, for that was on its way ─► the strike is on disk ─► begin
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from .._durable.group import Group, Kept
from .._durable.records import Begun
from ..errors import StoreError
from .commits import Commits
from .marks import Marks
from .suspects import Suspects


class ConfirmedStarts:
    """Of the tasks of one link.

    Args:
        group: Takes what changes.
        commits: Says what is on disk.
        marks: Of what has begun.
        suspects: Whose turn it is.
        clock: Return the present in nanoseconds since the epoch.
        when_known: Calls back when it is known who has the ids of all that was scheduled so far.
    """

    def __init__(
        self,
        group: Group,
        commits: Commits,
        marks: Marks,
        suspects: Suspects,
        clock: Callable[[], int],
        when_known: Callable[[Callable[[], object]], object],
    ) -> None:
        # Announced, and certainly not begun: by number, with what stands for the announcement.
        self._waiting: dict[int, object] = {}
        # What was asked to end before it was announced, with the stamp by which it is struck.
        self._struck: dict[int, int] = {}
        self._group = group
        self._commits = commits
        self._marks = marks
        self._suspects = suspects
        self._clock = clock
        self._when_known = when_known

    def __contains__(self, number: int) -> bool:
        """Whether a task was announced, and has certainly not begun."""
        return number in self._waiting

    def forget(self, number: int) -> bool:
        """Have a task not begin by its announcement; return whether it waited for the word."""
        return self._waiting.pop(number, None) is not None

    def struck(self, number: int) -> None:
        """Note that a task was struck right now that may have been announced already."""
        self._struck[number] = self._group.stamp

    def ended(self, numbers: Iterable[int]) -> None:
        """Forget what was struck, and has ended by now."""
        for number in numbers if self._struck else ():
            self._struck.pop(number, None)

    def proposed(
        self,
        numbers: Sequence[int],
        kept: Mapping[int, Kept],
        begin: Callable[[list[int]], None],
    ) -> None:
        """Tasks begin when `begin` is called: when it is on record, and in their turn.

        Args:
            numbers: They, and perhaps others, which begin along with them.
            kept: What is kept of them, by number.
            begin: Called with those that have not been forgotten meanwhile, nor announced anew.
        """
        # Their start was on its way: it wins, but no other host is to begin them as well.
        struck = max((self._struck.pop(number, 0) for number in numbers), default=0)
        if not kept:
            if struck:
                self._commits.when(struck, lambda error: None if error else begin([]))
            else:
                begin([])
            return
        announcement = object()
        self._waiting.update(dict.fromkeys(kept, announcement))
        go: Callable[[], object] = partial(self._record, announcement, kept, begin, struck)
        if any(each.row < 0 for each in kept.values()):  # else it has a row of its own
            go = partial(self._when_known, go)
        suspects = [each for each in kept.values() if each.suspect]
        if suspects:
            losses = max(each.losses for each in suspects)
            self._suspects.ask(suspects, losses, self._clock(), go)
        else:
            go()

    def _record(
        self,
        announcement: object,
        kept: Mapping[int, Kept],
        begin: Callable[[list[int]], None],
        stamp: int,
    ) -> None:
        """Have it on record that tasks begin, those of them that still wait to."""
        for number, each in kept.items():
            if self._waiting.get(number) is not announcement:
                continue  # its process has died since; by now it may wait for another turn
            stamp = max(stamp, each.stamp)
            if each.once or each.suspect:
                each.begun = Begun.ONCE if each.once else Begun.YES
                self._group.change(each)
                stamp = self._group.stamp
        self._commits.when(stamp, partial(self._confirm, announcement, kept, begin))

    def _confirm(
        self,
        announcement: object,
        kept: Mapping[int, Kept],
        begin: Callable[[list[int]], None],
        error: StoreError | None,
    ) -> None:
        if error is not None:  # nothing begins any more that was to be on record
            return
        numbers = [n for n in kept if self._waiting.get(n) is announcement]
        for number in numbers:
            del self._waiting[number]
            self._marks.begun(kept[number])
        begin(numbers)


def is_confirmed(kept: Kept) -> bool:
    """Whether a task begins on the store's word alone."""
    return kept.once or kept.suspect or kept.id is not None
