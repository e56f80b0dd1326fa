"""The functions of a file, by the numbers that its tasks name them by."""

from __future__ import annotations

from collections.abc import Iterable

from .. import registry
from .._durable.group import Group
from .._durable.records import Function
from ..registry import Durable


class Functions:
    """What the file knows of functions, kept up to date with what is registered.

    Args:
        group: Has what changes written.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._by_name: dict[str, Function] = {}
        self._by_number: dict[int, Function] = {}

    def read(self, functions: Iterable[Function]) -> None:
        """Take those of a file."""
        for function in functions:
            self._by_name[function.name] = self._by_number[function.number] = function

    def find(self, number: int) -> Durable | Function | None:
        """Return what is registered under a function's name; else what the file knows of it."""
        known = self._by_number.get(number)
        return None if known is None else registry.find(known.name) or known

    def number(self, function: Durable | Function) -> int:
        """Return the number of a function, which the file is told if it does not know it so."""
        known = self._by_name.get(function.name)
        if known is not None and (known.qualname, known.once) == (function.qualname, function.once):
            return known.number
        number = max(self._by_number, default=0) + 1 if known is None else known.number
        known = Function(number, function.name, function.qualname, function.once)
        self._by_name[function.name] = self._by_number[number] = known
        self._group.define(known)
        return number
