"""What tasks were asked for while it is not known what comes of it. Pure.

A request is kept until its worker has answered, in whatever way, or its process is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from .._transport.entry import Entry


class Request(Enum):
    """What a task was asked for; a third is to start at another time, which is that time."""

    CANCEL = "cancel"
    WITHDRAW = "withdraw"


class Requests(dict[int, Request | int]):
    """What each task was asked for last, by number."""

    def ends(self, number: int) -> bool:
        """Whether a task was asked to end."""
        return isinstance(self.get(number), Request)

    def count_ending(self, numbers: Sequence[int]) -> int:
        """Return how many of these count as waiting no more, because they were asked to end."""
        return sum(map(self.ends, numbers)) if self else 0

    def moves(self, numbers: Iterable[int]) -> dict[int, int]:
        """Return those of these that were asked to start at another time, with that time."""
        asked = ((number, self.get(number)) for number in numbers)
        return {number: due for number, due in asked if isinstance(due, int)}

    def apply(self, number: int, entry: Entry) -> Entry:
        """Return what is to hold of a task: with the time for which it was asked."""
        asked = self.get(number)
        return entry.move(asked) if isinstance(asked, int) else entry

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop what was asked of these."""
        if self:
            for number in numbers:
                self.pop(number, None)
