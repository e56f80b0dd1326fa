"""Functions recreated from their code, with the globals that they see in this process.

Closure and defaults are values and come with each use; the code comes once.
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
        imports: Modules to import before a function is made from it.
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
        """The function: always the same one, or if it has a closure, a new one with empty cells."""
        if self._function is not None:
            return self._function
        function = self.make([EMPTY] * len(self.code.co_freevars))
        if not self.code.co_freevars:
            self._function = function
        return function

    def make(self, contents: Sequence[Any]) -> FunctionType:
        """Return a function with these contents of its closure."""
        for name in self._imports:
            __import__(name)
        cells = tuple(CellType() if value is EMPTY else CellType(value) for value in contents)
        return FunctionType(self.code, self.namespace, None, None, cells)


class _Empty:
    """The content of a closure variable that has no value yet."""

    def __reduce__(self) -> str:
        return "EMPTY"


EMPTY = _Empty()


def contents_of(cell: Any) -> Any:
    """Return the content of a closure's cell; EMPTY if it has none yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY
