"""The unanswered requests to tasks. Pure.

A request is kept until its worker has answered, in whatever way, or its process is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from .._transport.entry import Entry


class Request(Enum):
    """A request to a task; a third kind, to start at another time, is that time as an int."""

    CANCEL = "cancel"
    WITHDRAW = "withdraw"


class Requests(dict[int, Request | int]):
    """The last request to each task, by number."""

    def ends(self, number: int) -> bool:
        """Whether a task was asked to end."""
        return isinstance(self.get(number), Request)

    def count_ending(self, numbers: Sequence[int]) -> int:
        """Return how many tasks no longer count as pending, as they were asked to end."""
        return sum(map(self.ends, numbers)) if self else 0

    def moves(self, numbers: Iterable[int]) -> dict[int, int]:
        """Return the tasks that were asked to start at another time, with that time."""
        asked = ((number, self.get(number)) for number in numbers)
        return {number: due for number, due in asked if isinstance(due, int)}

    def apply(self, number: int, entry: Entry) -> Entry:
        """Return the entry of a task, with the due time that was requested for it."""
        asked = self.get(number)
        return entry.move(asked) if isinstance(asked, int) else entry

    def forget(self, numbers: Iterable[int]) -> None:
        """Forget the requests to tasks."""
        if self:
            for number in numbers:
                self.pop(number, None)
