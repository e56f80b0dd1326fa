"""The batches of tasks that are only in the file, known as long as they are held.

Rows of one call of `map` are consecutive, so a batch is known by its parts, and a part by its first
row. Holding the batch, or a handle of one of its tasks, holds the parts.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from ..home import Home
from ..outcomes import Outcomes, Part
from ..task import State, Task
from .link import Link

_SWEEP = 64  # new parts after which dropped ones are forgotten


class ShelvedParts:
    """Finds the part of a task by its row."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._parts: list[weakref.ref[Part]] = []
        self._swept = 0

    def add(
        self,
        outcomes: Outcomes,
        offset: int,
        home: Home,
        first: int,
        count: int,
        dues: int | list[int],
    ) -> None:
        """Add the tasks of a batch, whose rows follow all rows added before."""
        part = Part(outcomes, offset, home, 0, first, count, dues)
        self._firsts.append(first)
        self._parts.append(weakref.ref(part))
        if len(self._parts) > 2 * self._swept + _SWEEP:
            held = [(known.first, ref) for ref in self._parts if (known := ref()) is not None]
            self._firsts = [first for first, _ in held]
            self._parts = [ref for _, ref in held]
            self._swept = len(held)

    def __bool__(self) -> bool:
        """Whether any parts may be held."""
        return bool(self._parts)

    def _find(self, row: int) -> Part | None:
        index = bisect_right(self._firsts, row) - 1
        part = self._parts[index]() if index >= 0 else None
        return part if part is not None and row in part else None

    def __contains__(self, row: int) -> bool:
        """Whether a task is in a batch that is held."""
        part = self._find(row)
        return part is not None and part.is_here(row)

    def task(self, row: int) -> Task[Any] | None:
        """Return the handle of a task, if its batch is held."""
        part = self._find(row)
        return part.task(row) if part is not None and part.is_here(row) else None

    def handle(self, row: int) -> Task[Any] | None:
        """Return the handle of a task of a batch, if it exists."""
        part = self._find(row)
        return part.handle(row) if part is not None and part.is_here(row) else None

    def due(self, row: int) -> int | None:
        """Return the due time of a task, as far as its batch knows."""
        part = self._find(row)
        return None if part is None else part.due(row)

    def move(self, row: int, home: Link, scheduler: int, number: int) -> None:
        """Move a task to the link that has it from now on, if its batch is held."""
        part = self._find(row)
        if part is not None and part.is_here(row):
            home.attach_part(part.move(row, home, scheduler, number))

    def settle(self, row: int, state: State, value: Any) -> None:
        """Notify a batch of the end of one of its tasks, if it is held."""
        part = self._find(row)
        if part is not None and part.is_here(row):
            part.settle(row, state, value, None)

    def settle_all(self, end_of: Callable[[int], tuple[State, Any]]) -> None:
        """Notify all held batches of the ends of their tasks that are still here."""
        for ref in self._parts:
            part = ref()
            if part is not None:
                for row in range(part.first, part.first + part.count):
                    if part.is_here(row):
                        part.settle(row, *end_of(row), None)
