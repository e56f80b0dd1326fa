"""Recycles worn worker processes, one of a manager at a time. Pure.

    a task has ended, a tick has come ─► worn ─► its turn ─► DRAIN … the next process is READY
                                                    ▲                          │
                                                    └──── the next in line ◄───┘

A process is worn when it has run a number of tasks, or exceeds a size. If it exceeds that already
at its start, so would the next one: its size does not count then.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

log: logging.Logger = logging.getLogger("aioscheduler")


class Recycling:
    """Replaces worn processes, one after another.

    Args:
        workers: How many workers there are.
        max_tasks: Number of tasks after which a process is worn; None: no limit.
        max_rss: Resident bytes above which it is worn; None: no limit.
        recycle: Called with a worker and the reason; return whether its process is recycled,
            which is not so if it is ending anyway.
        avoid: Called when the workers that new tasks should avoid have changed.
        name: The manager's name, if given; for messages.

    Attributes:
        wears: The wear of each worker.
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
        self._line: dict[int, str] = {}  # workers that wait for their turn, and why
        self._current: int | None = None
        of = name and f" of {name}"
        self.wears: list[Wear] = [
            Wear(self, worker, f"worker {worker}{of}", max_tasks, max_rss)
            for worker in range(workers)
        ]

    def is_worn(self, worker: int, why: str) -> None:
        """Recycle a worn process, now or when it is its turn."""
        if worker != self._current:
            self._line[worker] = why
            self._call_next()

    def is_new(self, worker: int) -> None:
        """Note that a new process is READY: its predecessor's turn is over."""
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
    """The wear of one worker's process.

    Args:
        recycling: Notified when the process is worn.
        worker: The slot, from 0.
        who: The worker's name in messages.
        max_tasks: As for `Recycling`.
        max_rss: As for `Recycling`.
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
        self._ran: int = 0  # by the present process
        self._limit: float | None = None  # of its size; None: not measured yet

    def began(self) -> None:
        """Note that a new process is READY."""
        self._ran = 0
        self._limit = None
        self._recycling.is_new(self._worker)

    def ran(self, count: int) -> None:
        """Count tasks that have run; each attempt counts."""
        self._ran += count
        if self._max_tasks is not None and self._ran >= self._max_tasks:
            tasks = f"{self._ran:,} task{'s' if self._ran > 1 else ''}"
            self._recycling.is_worn(self._worker, f"it has run {tasks}")

    def measured(self, size: int) -> None:
        """Note the resident bytes, 0 if unknown; called first when the process has just begun."""
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
