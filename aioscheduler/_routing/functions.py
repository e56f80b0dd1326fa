"""The functions of a file, by the numbers under which its tasks refer to them."""

from __future__ import annotations

from collections.abc import Iterable

from .. import registry
from .._durable.group import Group
from .._durable.records import Function
from ..registry import Durable


class Functions:
    """The functions known to the file, kept up to date with those that are registered.

    Args:
        group: Gathers changes.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._by_name: dict[str, Function] = {}
        self._by_number: dict[int, Function] = {}

    def read(self, functions: Iterable[Function]) -> None:
        """Enter the functions of a file."""
        for function in functions:
            self._by_name[function.name] = self._by_number[function.number] = function

    def find(self, number: int) -> Durable | Function | None:
        """Return the function of a number: as registered, else as the file knows it."""
        known = self._by_number.get(number)
        return None if known is None else registry.find(known.name) or known

    def number(self, function: Durable | Function) -> int:
        """Return the number of a function; enter it in the file if it is new or has changed."""
        known = self._by_name.get(function.name)
        if known is not None and (known.qualname, known.once) == (function.qualname, function.once):
            return known.number
        number = max(self._by_number, default=0) + 1 if known is None else known.number
        known = Function(number, function.name, function.qualname, function.once)
        self._by_name[function.name] = self._by_number[number] = known
        self._group.define(known)
        return number
