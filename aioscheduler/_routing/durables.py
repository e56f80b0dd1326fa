"""What a book needs of the keeping of its link's durable tasks (`keeping.Keeping`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol


class Durables(Protocol):
    """Notified of what happens to tasks, durable or not; it ignores those that are not."""

    def all_durable(self, numbers: Iterable[int]) -> bool:
        """Return whether there are any numbers, and all are of durable tasks."""

    def announced(self, numbers: Iterable[int]) -> None:
        """Note that tasks may have begun."""

    def proposed(self, numbers: Sequence[int], begin: Callable[[list[int]], None]) -> None:
        """Call `begin` once tasks may begin, with those that still should."""

    def unbegun(self, numbers: Iterable[int]) -> None:
        """Note that announced tasks have not begun."""

    def retried(self, until: Mapping[int, int]) -> None:
        """Note that attempts have failed; the tasks start once more at these times, by number."""

    def moved(self, number: int, due: int) -> None:
        """Note that a pending task was rescheduled."""

    def confirmed_again(self, number: int) -> int:
        """Return how a task that runs again is confirmed (see `wire.More`); 0: as before."""

    def runs_again(self, number: int, otherwise: bool) -> bool:
        """Return whether a task that had begun in a process that is gone runs again."""

    def stays(self, number: int, running: bool) -> bool:
        """Return whether a task that nobody has asked to end stays for the next host."""
