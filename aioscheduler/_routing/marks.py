"""The durable tasks that have begun and are not on record as such. Pure.

    begun ─► fresh ─ a batch is made ─► aged ─ another one is ─► marked in the file as begun
      └─ ended meanwhile, as most have: never written

So a host's death leaves in doubt tasks that outlast a commit, and those begun since the last one.
"""

from __future__ import annotations

from .._durable.group import Group, Kept
from .._durable.records import Begun


class Marks:
    """Marks tasks that outlast a commit as begun.

    Args:
        group: Gathers the marks.
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
        """Mark unfinished tasks begun before the last batch; called when a batch is made."""
        for kept in self._aged:
            if kept.begun is Begun.NO:
                kept.begun = Begun.YES
                self._group.change(kept)
        self._aged, self._fresh = self._fresh, {}
