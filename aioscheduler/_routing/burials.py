"""Durable tasks that become dead letters: stored with their reasons, and reported in sums.

    an end, or a row that cannot go on ─► bury ─► Group
                                            └─► once a second: how many, why, the last one's text

A million overdue tasks that fail are a million letters and one line in the log each second.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from .._durable.group import Group, Kept
from .._durable.records import Reason, headline_of

log: logging.Logger = logging.getLogger("aioscheduler")

_NOT_STARTED = (Reason.UNREADABLE, Reason.UNKNOWN, Reason.TOO_LATE)  # the attempt was none
_LONGEST = 300  # characters of a text in the log


class Burials:
    """The new dead letters of one manager.

    Args:
        group: Gathers what is written.
        clock: Return the present in nanoseconds since the epoch.
        has: Whether everything up to a stamp of the group is on disk, or may yet be written.
    """

    def __init__(self, group: Group, clock: Callable[[], int], has: Callable[[int], bool]) -> None:
        self._group = group
        self._clock = clock
        self._has = has
        self._stamp = 0  # of the last one
        self._reasons: Counter[str] = Counter()
        self._last = ""

    def bury(self, kept: Kept, reason: Reason, text: str) -> None:
        """Make a task a dead letter.

        Args:
            kept: The task.
            reason: Why.
            text: More about that; a line of it is logged.
        """
        kept.attempt -= reason in _NOT_STARTED
        self._group.bury(kept, reason, text, self._clock())
        self._stamp = self._group.stamp
        self._reasons[reason.value] += 1
        own = "" if kept.id is None else f" {kept.id!r}"
        self._last = f"row {kept.row}{own}: {headline_of(text)[:_LONGEST]}"

    def log(self) -> None:
        """Log which tasks have become dead letters since the last time.

        Nothing is logged if they can never be written: there are no such letters then.
        """
        count = self._reasons.total()
        if count and self._has(self._stamp):
            log.error(
                "%s (%s); the last is %s; see manager.dead_letters()",
                "a durable task became a dead letter"
                if count == 1
                else f"{count:,} durable tasks became dead letters",
                ", ".join(f"{reason}: {n:,}" for reason, n in self._reasons.items()),
                self._last,
            )
        self._reasons.clear()
