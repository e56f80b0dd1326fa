"""Where the durable tasks in memory are, by their rows, and the horizon. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from .._durable.group import Kept
from .._durable.horizon import Horizon
from ..task import TaskRef


class Whereabouts:
    """The whereabouts of one manager's durable tasks.

    Args:
        workers: How many workers there are.

    Attributes:
        store: The id of the store in references; "" before it is open.
        horizon: The end of what is in memory.
    """

    def __init__(self, workers: int) -> None:
        self.store = ""
        self.horizon: Horizon[Kept] = Horizon()
        self._workers = workers
        self._links: dict[int, int] = {}  # by row: number and worker in one int, to save memory

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, row: int) -> bool:
        return row in self._links

    def add(self, row: int, worker: int, number: int) -> None:
        """Note which link has a task."""
        self._links[row] = number * self._workers + worker

    def add_many(self, rows: Sequence[int], worker: int, first: int) -> None:
        """Note which link has tasks, with consecutive numbers from `first` on."""
        self._links.update(
            zip(rows, count(first * self._workers + worker, self._workers), strict=False)
        )

    def find(self, row: int) -> tuple[int, int] | None:
        """Return the worker of a task and its number there; None: it is not in memory."""
        where = self._links.get(row)
        if where is None:
            return None
        number, worker = divmod(where, self._workers)
        return worker, number

    def forget(self, some: Iterable[Kept], stamp: int) -> None:
        """Note that tasks have left memory; that is on disk once `stamp` is reached."""
        for kept in some:
            self._links.pop(kept.row, None)
            if self.horizon.ahead:
                self.horizon.ended(kept.row, stamp)

    def ref(self, row: int) -> TaskRef | None:
        """Return the reference of a task that has a row; None before the store is open."""
        return TaskRef(self.store, -1, -1, row) if self.store and row >= 0 else None
