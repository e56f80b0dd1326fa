"""Tasks that begin on record: they are proposed, and wait until the store has written it.

proposed ─► it is known who has their ids ─► suspects: their turn ─► a batch ─► begin
                └─ forgotten meanwhile (moved, ended, their process died): they do not
struck ───► proposed, as that was on its way ─► the strike is on disk ─► begin
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
    """The starts on record of one link's tasks.

    Args:
        group: Gathers changes.
        commits: Says what is on disk.
        marks: The begun marks of tasks.
        suspects: Decide whose turn it is.
        clock: Return the present in nanoseconds since the epoch.
        when_known: Call back when the holders of all ids used so far are known.
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
        # Proposed, and certainly not begun: by number, with a token for the announcement.
        self._waiting: dict[int, object] = {}
        # Asked to end before they were announced, with the stamp of their strike.
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
        """Revoke a task's announcement; return whether the task still waited to begin."""
        return self._waiting.pop(number, None) is not None

    def struck(self, number: int) -> None:
        """Note that a task was just struck which may have been announced already."""
        self._struck[number] = self._group.stamp

    def ended(self, numbers: Iterable[int]) -> None:
        """Forget struck tasks that have ended."""
        for number in numbers if self._struck else ():
            self._struck.pop(number, None)

    def proposed(
        self,
        numbers: Sequence[int],
        kept: Mapping[int, Kept],
        begin: Callable[[list[int]], None],
    ) -> None:
        """Call `begin` when the start of tasks is on record, and it is their turn.

        Args:
            numbers: The tasks, durable or not, which begin together.
            kept: What is kept of the durable ones, by number.
            begin: Called with those neither forgotten nor announced again meanwhile.
        """
        # Their announcement was on its way and wins, but no other host may begin them, too.
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
        """Put the start of those tasks that still wait on record."""
        for number, each in kept.items():
            if self._waiting.get(number) is not announcement:
                continue  # its process has died since; it may wait under another announcement
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
        if error is not None:  # nothing that must be on record begins any more
            return
        numbers = [n for n in kept if self._waiting.get(n) is announcement]
        for number in numbers:
            del self._waiting[number]
            self._marks.begun(kept[number])
        begin(numbers)


def is_confirmed(kept: Kept) -> bool:
    """Whether a task begins only once its start is on record."""
    return kept.once or kept.suspect or kept.id is not None
