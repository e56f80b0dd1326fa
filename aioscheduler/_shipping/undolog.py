"""What a change does to tables, written down, so that it can be taken back. Pure."""

from __future__ import annotations

from typing import Any

_MISSING: Any = object()


class UndoLog:
    """Takes back what one change after the other has done.

    A table is a dict, or what has its `get`, `pop` and `[]`.
    """

    def __init__(self) -> None:
        self._before: list[tuple[Any, Any, Any]] = []

    def note(self, table: Any, key: Any) -> None:
        """Remember an entry that is to be changed or made."""
        self._before.append((table, key, table.get(key, _MISSING)))

    def set(self, table: Any, key: Any, value: Any) -> None:
        """Change or make an entry."""
        self.note(table, key)
        table[key] = value

    def undo(self) -> None:
        """Take all of it back."""
        for table, key, before in reversed(self._before):
            if before is _MISSING:
                table.pop(key, None)
            else:
                table[key] = before

    def clear(self) -> None:
        """Begin anew: what was done stays."""
        self._before.clear()
