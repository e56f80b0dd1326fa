"""Which tasks may begin that may have ended their host or their worker. Pure.

    ask ─► its turn ─► begins, on record ─► cleared: it has ended, or has run a while
             │
             ├ those that have only been there, in lots
             └ those that were lost before, each alone

After a host has died nobody knows which task has killed it, if one has. So those that may have been
running begin in lots that are on record; those of the lot that was running at the next death begin
one by one; and so the one that does it is named, and all others are cleared by running (the
procedure is that of bisecting, with a budget of lives).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable

LOT = 256
"""So many of them may run at a time that have not been cleared."""

QUARANTINE = 10 * 10**9
"""Nanoseconds after which one that still runs is cleared: the others do not wait for it longer."""


class Suspects:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[list[Hashable], bool, Callable[[], None]]] = deque()
        self._running: dict[Hashable, int] = {}  # until when at the latest
        self._alone = False  # whether what runs is one that was lost before
        self._turning = False

    def ask(
        self, tasks: Iterable[Hashable], alone: bool, now: int, begin: Callable[[], None]
    ) -> None:
        """Ask for the turn of tasks that begin together.

        Args:
            tasks: Which.
            alone: Whether one of them was lost before.
            now: Nanoseconds.
            begin: Called, maybe at once, when it is their turn.
        """
        self._waiting.append((list(tasks), alone, begin))
        self._turn(now)

    def clear(self, task: Hashable, now: int) -> None:
        """Say that a task has ended, has not begun after all, or is not to be waited for."""
        if self._running.pop(task, None) is not None:
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
                tasks, alone, begin = self._waiting[0]
                blocked = alone or self._alone or len(self._running) + len(tasks) > LOT
                if self._running and blocked:
                    return
                self._waiting.popleft()
                self._alone = alone
                self._running.update(dict.fromkeys(tasks, now + QUARANTINE))
                begin()
        finally:
            self._turning = False
