"""A record of the changes to tables, so that they can be undone. Pure."""

from __future__ import annotations

from typing import Any

_MISSING: Any = object()


class UndoLog:
    """Records the entries that a change sets, and restores them.

    A table is a dict, or anything with its `get`, `pop` and `[]`.
    """

    def __init__(self) -> None:
        self._before: list[tuple[Any, Any, Any]] = []

    def note(self, table: Any, key: Any) -> None:
        """Remember an entry that is about to be set or removed."""
        self._before.append((table, key, table.get(key, _MISSING)))

    def set(self, table: Any, key: Any, value: Any) -> None:
        """Set an entry."""
        self.note(table, key)
        table[key] = value

    def undo(self) -> None:
        """Restore all entries."""
        for table, key, before in reversed(self._before):
            if before is _MISSING:
                table.pop(key, None)
            else:
                table[key] = before

    def clear(self) -> None:
        """Forget the record: the changes stay."""
        self._before.clear()
