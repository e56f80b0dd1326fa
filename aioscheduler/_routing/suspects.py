"""Which tasks may begin that may have ended their host or their worker. Pure.

    ask ─► its turn ─► begins, on record ─► cleared: it has ended, or has run a while
             │
             ├ those that have only been there, in lots
             ├ those that were lost once, in small lots
             └ those that were lost twice, each alone: one more loss is the last

After a host has died nobody knows which task has killed it, if one has. So those that may have been
running begin in lots that are on record, and the more often one was there at a death, the fewer are
with it at the next. So the one that does it is named, and all others are cleared by running (the
procedure is that of bisecting, with a budget of lives).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable

LOTS = 256, 16, 1
"""So many of them may run at a time that have not been cleared, by how often one was lost."""

QUARANTINE, QUARANTINE_ALONE = 2 * 10**9, 10 * 10**9
"""Nanoseconds after which those of a lot, or one alone, are cleared though they run: the others do
not wait for them longer."""


class Suspects:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[set[Hashable], int, Callable[[], None]]] = deque()
        self._running: dict[Hashable, int] = {}  # until when at the latest
        self._lot = LOTS[0]  # of what runs
        self._turning = False

    def ask(
        self, tasks: Iterable[Hashable], losses: int, now: int, begin: Callable[[], None]
    ) -> None:
        """Ask for the turn of tasks that begin together.

        Args:
            tasks: Which.
            losses: How often one of them was lost, at most.
            now: Nanoseconds.
            begin: Called, maybe at once, when it is their turn, or when all of them are cleared.
        """
        lot = LOTS[min(losses, len(LOTS) - 1)]
        self._waiting.append((set(tasks), lot, begin))
        self._turn(now)

    def clear(self, task: Hashable, now: int) -> None:
        """Say that a task has ended, has not begun after all, or is not to be waited for."""
        if self._running.pop(task, None) is None:
            for tasks, _, _ in self._waiting:
                if task in tasks:
                    tasks.discard(task)
                    break
            else:
                return
        self._turn(now)

    def look_after(self, now: int) -> None:
        """Clear what has run long enough; called once a second."""
        for task, until in list(self._running.items()):
            if until <= now:
                del self._running[task]
        self._turn(now)

    def _turn(self, now: int) -> None:
        if self._turning:  # by what has just begun
            return
        self._turning = True
        try:
            while self._waiting:
                tasks, lot, begin = self._waiting[0]
                if not tasks:  # they have ended, or their process has
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
