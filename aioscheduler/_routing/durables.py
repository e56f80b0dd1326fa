"""What a book asks of who keeps the durable tasks of its link (`keeping.Keeping`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol


class Durables(Protocol):
    """Told of what becomes of tasks, durable or not; it passes over those that are not."""

    def all_durable(self, numbers: Iterable[int]) -> bool:
        """Whether all of these are durable, and there is one."""

    def announced(self, numbers: Iterable[int]) -> None:
        """Tasks may have begun."""

    def proposed(self, numbers: Sequence[int], begin: Callable[[list[int]], None]) -> None:
        """Tasks begin when `begin` is called with those that still are to, and not before."""

    def unbegun(self, numbers: Iterable[int]) -> None:
        """Tasks that were announced have not begun."""

    def retried(self, until: Mapping[int, int]) -> None:
        """Attempts have failed; the tasks start once more at these times, by number."""

    def moved(self, number: int, due: int) -> None:
        """A task that waits was given another time."""

    def confirmed_again(self, number: int) -> int:
        """Return how a task that runs again is confirmed, as of `wire.More`; 0: as before."""

    def runs_again(self, number: int, otherwise: bool) -> bool:
        """Say whether a task that had begun in a process that is gone runs again."""

    def stays(self, number: int, running: bool) -> bool:
        """Say whether a task that nobody has asked to end stays for the next host."""
