"""Decides when tasks begin that may have ended their host or their worker. Pure.

    ask ─► its turn ─► begins, on record ─► cleared: it has ended, or has run a while
             │
             ├ present at a death, but not lost: in lots
             ├ lost once: in small lots
             └ lost twice: each alone, as one more loss is the last

After a host has died nobody knows which task killed it, if any. So those that may have been running
begin in lots that are on record: the more often a task was present at a death, the fewer run with
it next time. The culprit is found that way, and all others are cleared by running (a bisection
with a budget of lives).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable

LOTS = 256, 16, 1
"""How many tasks that are not cleared may run at a time, by how often one was lost."""

QUARANTINE, QUARANTINE_ALONE = 2 * 10**9, 10 * 10**9
"""Nanoseconds after which a lot, or a single task, is cleared though it still runs: the others do
not wait longer."""


class Suspects:
    """The suspects of one manager, those that wait and those that run."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[set[Hashable], int, Callable[[], object]]] = deque()
        self._running: dict[Hashable, int] = {}  # with the time of their clearance
        self._lot = LOTS[0]  # the limit of those that run
        self._turning = False

    def ask(
        self, tasks: Iterable[Hashable], losses: int, now: int, begin: Callable[[], object]
    ) -> None:
        """Ask for the turn of tasks that begin together.

        Args:
            tasks: The tasks.
            losses: The most losses of any of them.
            now: The present in nanoseconds.
            begin: Called, maybe at once, when it is their turn, or all of them are cleared.
        """
        lot = LOTS[min(losses, len(LOTS) - 1)]
        self._waiting.append((set(tasks), lot, begin))
        self._turn(now)

    def clear(self, task: Hashable, now: int) -> None:
        """Note that a task has ended, has not begun after all, or need not be waited for."""
        if self._running.pop(task, None) is None:
            for tasks, _, _ in self._waiting:
                if task in tasks:
                    tasks.discard(task)
                    break
            else:
                return
        self._turn(now)

    def look_after(self, now: int) -> None:
        """Clear tasks that have run long enough; called once a second."""
        for task, until in list(self._running.items()):
            if until <= now:
                del self._running[task]
        self._turn(now)

    def _turn(self, now: int) -> None:
        if self._turning:  # called from `begin` below
            return
        self._turning = True
        try:
            while self._waiting:
                tasks, lot, begin = self._waiting[0]
                if not tasks:  # cleared: they, or their process, have ended
                    self._waiting.popleft()
                    begin()
                    continue
                if not self._running:
                    self._lot = lot
                elif len(self._running) + len(tasks) > min(lot, self._lot):
                    return
                self._waiting.popleft()
                self._lot = min(lot, self._lot)
                until = now + (QUARANTINE if lot > 1 else QUARANTINE_ALONE)
                self._running.update(dict.fromkeys(tasks, until))
                begin()
        finally:
            self._turning = False
