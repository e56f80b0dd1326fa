"""Which durable tasks have begun and are not on record as such. Pure.

begun ─► fresh ─ a batch is made ─► aged ─ another one is ─► marked in the file as begun
  └─ ended meanwhile, as most have: never written

So what a host's death leaves in doubt is what outlives a commit, and what has begun since the last.
"""

from __future__ import annotations

from .._durable.group import Group, Kept
from .._durable.records import Begun


class Marks:
    """Marks the tasks that outlive a commit.

    Args:
        group: Takes the marks.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._fresh: dict[Kept, None] = {}  # begun since the last batch was made
        self._aged: dict[Kept, None] = {}  # begun before

    def __len__(self) -> int:
        return len(self._fresh) + len(self._aged)

    def begun(self, *some: Kept) -> None:
        """Note that tasks may have begun."""
        self._fresh.update(dict.fromkeys(some))

    def forget(self, *some: Kept) -> None:
        """Note that tasks have ended, or have not begun."""
        fresh, aged = self._fresh, self._aged
        for kept in some:
            if fresh.pop(kept, self) is self:
                aged.pop(kept, None)

    def age(self) -> None:
        """Mark what has begun before the last batch and has not ended; a batch is being made."""
        for kept in self._aged:
            if kept.begun is Begun.NO:
                kept.begun = Begun.YES
                self._group.change(kept)
        self._aged, self._fresh = self._fresh, {}
