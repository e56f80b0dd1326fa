"""A limit on the tasks that are on record as begun but have not begun yet. Pure.

    launched ─┬─► take: True ─► on record as begun ─► began ─► release
              └─► held ◄──────────────────────────────────────────┘ and launched once more

A task that must not begin twice is on record as begun before it begins. If the host dies then, it
is a dead letter, whether it has begun or not. So a backlog goes on record a few at a time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Protocol

MOST = 32
"""The most tasks of a scheduler that are about to begin."""


class Launcher(Protocol):
    """The engine of a scheduler."""

    index: int

    def ready(self, number: int, due: int) -> None:
        """Launch a task that was left out of its slice."""


class Few:
    """Decides which tasks may be announced, and holds the others back."""

    def __init__(self) -> None:
        self._about: Counter[int] = Counter()  # by engine: number of tasks about to begin
        self._held: dict[int, dict[int, int]] = defaultdict(dict)  # by engine: due times by number
        self._released: dict[int, Launcher] = {}  # about to be launched once more

    def __contains__(self, number: int) -> bool:
        return number in self._released or any(number in held for held in self._held.values())

    def take(self, engine: Launcher, number: int, due: int) -> bool:
        """Return whether a launched task may be announced; if not, it is launched again later."""
        if self._released.pop(number, None) is not None:
            return True
        held = self._held[engine.index]
        if held or self._about[engine.index] >= MOST:
            held[number] = due
            return False
        self._about[engine.index] += 1
        return True

    def began(self, engine: Launcher, count: int = 1) -> None:
        """Note that `count` tasks have begun, or never will, and release as many."""
        self._about[engine.index] -= count
        held = self._held[engine.index]
        while held and self._about[engine.index] < MOST:
            number = next(iter(held))
            self._about[engine.index] += 1
            self._released[number] = engine
            engine.ready(number, held.pop(number))

    def forget(self, number: int) -> None:
        """Note that a task, if it is held back, must not be launched again."""
        for held in self._held.values():
            held.pop(number, None)
        engine = self._released.pop(number, None)
        if engine is not None:
            self.began(engine)

    def stop(self) -> None:
        """Release no more tasks."""
        self._held.clear()
