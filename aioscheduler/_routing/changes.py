"""The changes made by a verb of a book, which others report, and the aliases of tasks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .._scheduling.states import State
from .._transport.ledger import Ledger


class Change(NamedTuple):
    """What a verb has changed.

    Attributes:
        scheduler: The scheduler of the tasks.
        waiting: The change in the number of pending tasks.
        ended: Tasks that have ended.
        state: How they have ended.
        refused: The number of a task for which the worker's report is impossible.
    """

    scheduler: int
    waiting: int = 0
    ended: Sequence[int] = ()
    state: State = State.CANCELLED
    refused: int | None = None


class Aliases:
    """Provisional numbers of tasks, given in a worker by the tasks that scheduled them."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}  # by alias
        self._aliases: dict[int, int] = {}  # the other way round

    def add(self, alias: int, number: int) -> None:
        """Note the alias of a task."""
        self._numbers[alias] = number
        self._aliases[number] = alias

    def number_of(self, number: int) -> int:
        """Return a task's number, given its number or its alias."""
        return self._numbers.get(number, number)

    def alias_of(self, number: int) -> int:
        """Return a task's alias, or its number if it has none."""
        return self._aliases.get(number, number)

    def forget(self, numbers: Iterable[int]) -> None:
        """Forget the aliases of tasks."""
        if self._aliases:
            for number in numbers:
                if number in self._aliases:
                    del self._numbers[self._aliases.pop(number)]


def first_refused(numbers: list[int], known: int) -> int | None:
    """Return the first number after the `known` ones that were accepted, if there is one."""
    return numbers[known] if known < len(numbers) else None


def by_scheduler(ledger: Ledger, numbers: Iterable[int]) -> dict[int, list[int]]:
    """Group those of the tasks that have not ended by scheduler."""
    found: dict[int, list[int]] = {}
    for number in numbers:
        scheduler = ledger.scheduler(number)
        if scheduler is not None:
            found.setdefault(scheduler, []).append(number)
    return found
