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
    """Has worn processes replaced, one after the other.

    Args:
        workers: How many there are.
        max_tasks: After how many tasks a process is worn; None: never.
        max_rss: Above how many resident bytes it is; None: never.
        recycle: Called with a worker and why its process is to be replaced; returns whether it
            is, which it is not if it is to go in any case.
        avoid: Called when new tasks are to go elsewhere, or not any more.
        name: The manager's, if it was given one; for messages.
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
        self._max_tasks = max_tasks
        self._max_rss = max_rss
        self._recycle = recycle
        self._avoid = avoid
        self._of = name and f" of {name}"
        self._ran = [0] * workers  # tasks of the process that is there
        self._limits: list[float | None] = [None] * workers  # of its size; None: not measured yet
        self._line: dict[int, str] = {}  # who waits for its turn, and why
        self._current: int | None = None

    def began(self, worker: int) -> None:
        """A new process is READY, and nobody's turn is kept for the one before."""
        self._ran[worker] = 0
        self._limits[worker] = None
        self._line.pop(worker, None)
        if self._current == worker:
            self._current = None
            self._avoid()
            self._call_next()

    def ran(self, worker: int, count: int) -> None:
        """So many more tasks have run there; each attempt of a task counts."""
        self._ran[worker] += count
        ran = self._ran[worker]
        if self._max_tasks is not None and ran >= self._max_tasks:
            self._is_worn(worker, f"it has run {ran:,} task{'s' if ran > 1 else ''}")

    def measured(self, worker: int, size: int) -> None:
        """It has so many resident bytes, 0: not known; called first when it has just begun."""
        if self._max_rss is None or not size:
            return
        limit = self._limits[worker]
        if limit is None:
            limit = self._limits[worker] = float(self._max_rss)
            if size > limit:
                log.warning(
                    "worker %d%s has %s bytes before its first task, and max_rss_per_worker, "
                    "which is in bytes, is %s: this process is not recycled for its size; raise "
                    "the limit",
                    worker,
                    self._of,
                    f"{size:,}",
                    f"{self._max_rss:,}",
                )
                self._limits[worker] = math.inf
        elif size > limit:
            self._is_worn(worker, f"it has {size:,} bytes, over {self._max_rss:,}")

    def _is_worn(self, worker: int, why: str) -> None:
        if worker != self._current:
            self._line[worker] = why
            self._call_next()

    def _call_next(self) -> None:
        while self._current is None and self._line:
            worker = next(iter(self._line))
            why = self._line.pop(worker)
            if self._recycle(worker, why):
                self._current = worker
                self._avoid()
