"""Chooses a worker and a scheduler for each task. Pure.

A place is one scheduler, numbered over all workers: `Manager(5)` over two workers has places
0 to 2 on worker 0, and 3 and 4 on worker 1. The load of a place is the number of its tasks
that have not ended; its waiting tasks are those that have not started.

Timed tasks go to the least loaded worker, and there to the least loaded scheduler: they compete
for the worker's core. Queued tasks go to the least loaded scheduler, and among equals to the least
loaded worker: a queue runs one task at a time, whatever its worker does. A worker that does not
answer is avoided while another does. A key always maps to the same place.

The host counts waiting tasks, and limits them in all (`max_tasks`) and at each place (`max_each`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence

from ..errors import TaskLimitReached

_MOST = 1 << 60  # more than any load


class Placement:
    """Counts the tasks of every place, and chooses the place of the next one.

    Args:
        layout: The number of schedulers of each worker.
        by_worker: Whether the worker's load comes before the scheduler's.
        max_tasks: How many tasks may wait in all; None for no limit.
        max_each: How many tasks may wait at each place; None for no limit.

    Attributes:
        emptied: Called whenever no task is left.
        workers: How many workers there are.
    """

    def __init__(
        self,
        layout: Sequence[int],
        by_worker: bool,
        max_tasks: int | None = None,
        max_each: int | None = None,
    ) -> None:
        self.emptied: Callable[[], None] = lambda: None
        self.worker_of: list[int] = [w for w, count in enumerate(layout) for _ in range(count)]
        self.scheduler_of: list[int] = [s for count in layout for s in range(count)]
        self.first_of: list[int] = [sum(layout[:w]) for w in range(len(layout))]
        self.loads: list[int] = [0] * len(self.worker_of)
        self.waiting: list[int] = [0] * len(self.worker_of)
        self.all_waiting: int = 0
        self.all_loads: int = 0
        self._worker_loads = [0] * len(layout)
        self._avoided = [False] * len(layout)
        self._layout = tuple(layout)
        self.workers: int = len(layout)
        self._schedulers = frozenset(zip(self.worker_of, self.scheduler_of, strict=True))
        self._by_worker = by_worker
        self._max_tasks = max_tasks
        self._max_each = max_each

    def choose(self, key: str | bytes | int | None) -> int:
        """Return the place for a task. Linear in the number of schedulers.

        Raises:
            TaskLimitReached: A limit is reached there, or everywhere.
            TypeError: The key is neither None, str, bytes nor int.
        """
        if self._max_tasks is not None and self.all_waiting >= self._max_tasks:
            raise limit_reached(self._max_tasks)
        place = self.choose_freely(key)
        each = self._max_each
        if each is not None and self.waiting[place] >= each:
            if key is None:
                place = min(range(len(self.waiting)), key=self.waiting.__getitem__)
            if self.waiting[place] >= each:
                raise limit_reached(each, " on the scheduler")
        return place

    def choose_freely(self, key: str | bytes | int | None) -> int:
        """Return the place for a task that is accepted whatever the limits are.

        Raises:
            TypeError: The key is neither None, str, bytes nor int.
        """
        return self._least_loaded() if key is None else self.place_of_key(key)

    def room(self, place: int) -> int:
        """Return how many more tasks may wait at a place; `sys.maxsize` if there is no limit."""
        room = sys.maxsize
        if self._max_tasks is not None:
            room = self._max_tasks - self.all_waiting
        if self._max_each is not None:
            room = min(room, self._max_each - self.waiting[place])
        return room

    def room_everywhere(self) -> int | None:
        """Return how many more tasks may wait in all, at most; None if there is no limit."""
        rooms = []
        if self._max_tasks is not None:
            rooms.append(self._max_tasks - self.all_waiting)
        if self._max_each is not None:
            rooms.append(sum(max(0, self._max_each - waiting) for waiting in self.waiting))
        return max(0, min(rooms)) if rooms else None

    def place_near(self, key: str | bytes | int | None, worker: int, scheduler: int) -> int:
        """Return the place for a task's successor: that of the key, else the task's own.

        Raises:
            TypeError: The key is neither None, str, bytes nor int.
        """
        if key is not None:
            return self.place_of_key(key)
        return self.first_of[worker] + scheduler

    def _least_loaded(self) -> int:
        loads, worker_loads, worker_of = self.loads, self._worker_loads, self.worker_of
        try:
            if self._by_worker:
                worker = worker_loads.index(min(worker_loads))
                first = self.first_of[worker]
                own = loads[first : first + self._layout[worker]]
                return first + own.index(min(own))
            if True in self._avoided:
                return self._least_of_all()
            least = min(loads)
            place = loads.index(least)
            if loads.count(least) > 1:
                place = min(
                    (p for p, load in enumerate(loads) if load == least),
                    key=lambda p: worker_loads[worker_of[p]],
                )
            return place
        except ValueError:
            # Garbage collection ran code that scheduled something, and the minimum is gone. A
            # single pass cannot miss it, but takes longer.
            return self._least_of_all()

    def _least_of_all(self) -> int:
        """Return the least loaded place, in a single pass."""
        loads, worker_loads, worker_of = self.loads, self._worker_loads, self.worker_of
        return min(
            range(len(loads)),
            key=lambda p: (
                (worker_loads[worker_of[p]], loads[p])
                if self._by_worker
                else (self._avoided[worker_of[p]], loads[p], worker_loads[worker_of[p]])
            ),
        )

    def check_key(self, key: str | bytes | int | None) -> None:
        """Check the type of a key.

        Raises:
            TypeError: The key is neither None, str, bytes nor int.
        """
        if key is not None:
            self.place_of_key(key)

    def place_of_key(self, key: str | bytes | int) -> int:
        """Return the place of a key: the same in every process, run and Python version.

        Raises:
            TypeError: The key is neither str, bytes nor int.
        """
        if isinstance(key, str):
            data = b"s" + key.encode("utf-8", "surrogatepass")
        elif isinstance(key, bytes):
            data = b"b" + key
        elif isinstance(key, int):
            data = b"i%d" % key
        else:
            raise TypeError(f"key must be a str, bytes or int, not {type(key).__name__}")
        digest = hashlib.blake2b(data, digest_size=8).digest()
        return int.from_bytes(digest) % len(self.worker_of)

    def __contains__(self, at: object) -> bool:
        """Whether there is such a (worker, scheduler)."""
        return at in self._schedulers

    def added(self, place: int, count: int = 1) -> None:
        """Count tasks accepted at a place."""
        self.loads[place] += count
        self.waiting[place] += count
        self._worker_loads[self.worker_of[place]] += count
        self.all_waiting += count
        self.all_loads += count

    def waiting_at(self, worker: int) -> list[int]:
        """Return how many tasks wait at each scheduler of a worker."""
        first = self.first_of[worker]
        return self.waiting[first : first + self._layout[worker]]

    def avoid(self, avoided: Sequence[bool]) -> None:
        """Set for each worker whether tasks should avoid it."""
        for worker, (now, before) in enumerate(zip(avoided, self._avoided, strict=True)):
            self._worker_loads[worker] += (now - before) * _MOST
        self._avoided = list(avoided)

    # Called by links (`link.LoadCounter`).

    def count_waiting(self, worker: int, scheduler: int, change: int) -> None:
        """Change the number of waiting tasks at a place."""
        self.waiting[self.first_of[worker] + scheduler] += change
        self.all_waiting += change

    def count_shelved(self, change: int) -> None:
        """Change the number of waiting tasks that have no place."""
        self.all_waiting += change
        self.all_loads += change
        if not self.all_loads and change:
            self.emptied()

    def count_given_up(self, worker: int, scheduler: int, change: int) -> None:
        """Change the number of waiting tasks; those without a place (worker -1) only in all."""
        if worker < 0:
            self.all_waiting += change
        else:
            self.count_waiting(worker, scheduler, change)

    def count_ended(self, worker: int, scheduler: int, count: int) -> None:
        """Count `count` tasks as ended."""
        self.loads[self.first_of[worker] + scheduler] -= count
        self._worker_loads[worker] -= count
        self.all_loads -= count
        if not self.all_loads:
            self.emptied()

    def count_emptied(self, worker: int) -> None:
        """Count all tasks of a worker as ended."""
        for scheduler in range(self._layout[worker]):
            place = self.first_of[worker] + scheduler
            self.count_waiting(worker, scheduler, -self.waiting[place])
            self.count_ended(worker, scheduler, self.loads[place])


def limit_reached(limit: int, where: str = "") -> TaskLimitReached:
    """Return the refusal of a task beyond a limit."""
    return TaskLimitReached(
        f"max_tasks={limit} tasks are waiting already{where}; "
        "wait for some to start, or raise the limit"
    )
