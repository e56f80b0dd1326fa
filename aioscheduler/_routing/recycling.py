"""Which worker is recycled, and when: one of a manager at a time. Pure.

    a task has ended, a tick has come ─► worn ─► its turn ─► DRAIN … the next process is READY
                                                    ▲                          │
                                                    └──── the next in line ◄───┘

A process is worn when it has run so many tasks, or is so large. One that is as large when it begins
would be again and again: its size is no reason then.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

log: logging.Logger = logging.getLogger("aioscheduler")


class Recycling:
    """Replaces worn processes, one after the other.

    Args:
        workers: How many there are.
        max_tasks: After how many tasks a process is worn; None: never.
        max_rss: Above how many resident bytes it is; None: never.
        recycle: Called with a worker and why its process is to be replaced; returns whether it
            is, which it is not if it is to go in any case.
        avoid: Called when new tasks are to go elsewhere, or not any more.
        name: The manager's, if it was given one; for messages.

    Attributes:
        wears: How worn each worker is; told what its processes do.
    """

    def __init__(
        self,
        workers: int,
        max_tasks: int | None,
        max_rss: int | None,
        recycle: Callable[[int, str], bool],
        avoid: Callable[[], None],
        name: str = "",
    ) -> None:
        self._recycle = recycle
        self._avoid = avoid
        self._line: dict[int, str] = {}  # who waits for its turn, and why
        self._current: int | None = None
        of = name and f" of {name}"
        self.wears: list[Wear] = [
            Wear(self, worker, f"worker {worker}{of}", max_tasks, max_rss)
            for worker in range(workers)
        ]

    def is_worn(self, worker: int, why: str) -> None:
        """A process is worn: it goes now, or when its turn has come."""
        if worker != self._current:
            self._line[worker] = why
            self._call_next()

    def is_new(self, worker: int) -> None:
        """A new process is READY, and nobody's turn is kept for the one before."""
        self._line.pop(worker, None)
        if self._current == worker:
            self._current = None
            self._avoid()
            self._call_next()

    def _call_next(self) -> None:
        while self._current is None and self._line:
            worker = next(iter(self._line))
            why = self._line.pop(worker)
            if self._recycle(worker, why):
                self._current = worker
                self._avoid()


class Wear:
    """How worn the process of one worker is.

    Args:
        recycling: Told when it is.
        worker: The slot, from 0.
        who: The same, in messages.
        max_tasks: As for `Recycling`.
        max_rss: The same.
    """

    def __init__(
        self,
        recycling: Recycling,
        worker: int,
        who: str,
        max_tasks: int | None,
        max_rss: int | None,
    ) -> None:
        self._recycling = recycling
        self._worker = worker
        self._who = who
        self._max_tasks = max_tasks
        self._max_rss = max_rss
        self._ran: int = 0  # tasks of the process that is there
        self._limit: float | None = None  # of its size; None: not measured yet

    def began(self) -> None:
        """A new process is READY."""
        self._ran = 0
        self._limit = None
        self._recycling.is_new(self._worker)

    def ran(self, count: int) -> None:
        """So many more tasks have run there; each attempt of a task counts."""
        self._ran += count
        if self._max_tasks is not None and self._ran >= self._max_tasks:
            tasks = f"{self._ran:,} task{'s' if self._ran > 1 else ''}"
            self._recycling.is_worn(self._worker, f"it has run {tasks}")

    def measured(self, size: int) -> None:
        """It has so many resident bytes, 0: not known; called first when it has just begun."""
        if self._max_rss is None or not size:
            return
        if self._limit is None:
            self._limit = float(self._max_rss)
            if size > self._limit:
                log.warning(
                    "%s has %s bytes before its first task, and max_rss_per_worker, which is in "
                    "bytes, is %s: this process is not recycled for its size; raise the limit",
                    self._who,
                    f"{size:,}",
                    f"{self._max_rss:,}",
                )
                self._limit = math.inf
        elif size > self._limit:
            why = f"it has {size:,} bytes, over {self._max_rss:,}"
            self._recycling.is_worn(self._worker, why)
