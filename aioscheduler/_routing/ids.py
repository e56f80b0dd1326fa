"""Which unfinished task has which id. Pure.

    schedule(…, id="x") ─► find ─┬─► the task that has it, and nothing new is scheduled
                                 └─► give ─ … ─► ended, or released: the id is free again

An id names one task of its manager. A new task may take it from another (`replace`); what happens
to that one is not decided here. A task in a worker that schedules another does not know whether
the id is taken, and gets a provisional number, an alias, which leads to the task that has the id
until that ends.

Nothing is kept for tasks without an id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .._transport.entry import ALIAS_BITS

MOST_ALIASES = 1024
"""Aliases of one task. An id may be requested for ever, and only the last requests matter."""

Address = tuple[int, int, int]
"""A task's worker, scheduler, and number there."""


class Ids:
    """The ids of one manager's tasks.

    Args:
        workers: How many workers it has.

    Attributes:
        of: For each worker, the ids of its tasks by number.
        leads: The tasks to which aliases lead.
        forgotten: Aliases that no longer lead anywhere, though their tasks may not have ended.
    """

    def __init__(self, workers: int) -> None:
        self.of: tuple[dict[int, str], ...] = tuple({} for _ in range(workers))
        self.leads: dict[int, Address] = {}
        self.forgotten = Forgotten()
        self._tasks: dict[str, Address] = {}
        self._aliases: dict[tuple[int, int], deque[int]] = {}  # by worker and number

    def find(self, id_: str) -> Address | None:
        """Return the task that has an id; None if it is free."""
        return self._tasks.get(id_)

    def give(self, id_: str, address: Address) -> None:
        """Give an id to a task that has none; take it from the task that has it."""
        before = self._tasks.get(id_)
        if before is not None:
            del self.of[before[0]][before[2]]
        self._tasks[id_] = address
        self.of[address[0]][address[2]] = id_

    def release(self, worker: int, number: int) -> None:
        """Free the id of a task, if it has one."""
        id_ = self.of[worker].pop(number, None)
        if id_ is not None:
            del self._tasks[id_]

    def ended(self, worker: int, numbers: Sequence[int]) -> None:
        """Forget tasks that have ended."""
        if self.of[worker]:
            for number in numbers:
                self.release(worker, number)
        if self._aliases:
            for number in numbers:
                for alias in self._aliases.pop((worker, number), ()):
                    del self.leads[alias]

    def lead(self, alias: int, address: Address) -> None:
        """Make an alias lead to a task that has not ended."""
        aliases = self._aliases.setdefault((address[0], address[2]), deque())
        aliases.append(alias)
        self.leads[alias] = address
        if len(aliases) > MOST_ALIASES:
            first = aliases.popleft()
            del self.leads[first]
            self.forgotten.add(first)


class Forgotten:
    """Aliases that may lead nowhere though their tasks have not ended.

    There may be millions: only the last one of each process is kept, and all before it are taken
    for forgotten, too. A user of one gets an error that says so, not that there is no such task.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}  # by process

    def add(self, alias: int) -> None:
        """Note that an alias no longer leads anywhere."""
        process = alias >> ALIAS_BITS
        self._last[process] = max(alias, self._last.get(process, alias))

    def __contains__(self, alias: int) -> bool:
        return alias <= self._last.get(alias >> ALIAS_BITS, -1)
