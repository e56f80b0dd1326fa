"""A function made again of its code, with the globals that it sees in this process.

Its closure and defaults are values, which come with each use; code comes once.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import CellType, CodeType, FunctionType
from typing import Any


class SharedCode:
    """A function's code, with the globals that it sees in this process.

    Args:
        code: The code.
        namespace: The globals.
        imports: Modules to import before a function is made of it.
    """

    def __init__(
        self, code: CodeType, namespace: dict[str, Any], imports: Sequence[str] = ()
    ) -> None:
        self.code = code
        self.namespace = namespace
        self._imports = imports
        self._function: FunctionType | None = None

    @property
    def function(self) -> Any:
        """The function; always the same one, unless it has a closure (then with an empty one)."""
        if self._function is not None:
            return self._function
        function = self.make([EMPTY] * len(self.code.co_freevars))
        if not self.code.co_freevars:
            self._function = function
        return function

    def make(self, contents: Sequence[Any]) -> FunctionType:
        """Make a function with these contents of its closure."""
        for name in self._imports:
            __import__(name)
        cells = tuple(CellType() if value is EMPTY else CellType(value) for value in contents)
        return FunctionType(self.code, self.namespace, None, None, cells)


class _Empty:
    """Stands for a closure variable that has no value yet."""

    def __reduce__(self) -> str:
        return "EMPTY"


EMPTY = _Empty()


def contents_of(cell: Any) -> Any:
    """Return what is in a cell of a closure; EMPTY if nothing was put there yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY
