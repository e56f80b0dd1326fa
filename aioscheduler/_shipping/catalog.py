"""The numbers of by-value codes and classes, as picklers and unpicklers look them up.

A fresh interpreter cannot import these (from `__main__`, notebooks, closures, lambdas). A line of
the log (`definitions`) *defines* each once; from then on it is referred to by number. How the two
ends assign and learn the numbers is in `hostcatalog` and `workercatalog`.
"""

from __future__ import annotations

import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from contextvars import ContextVar
from types import CodeType, FunctionType
from typing import Any, Generic, TypeVar

from ..options import Options
from .names import importable, importable_name, variable_name
from .propagation import Propagation

V = TypeVar("V")


class ClassTable(Generic[V]):
    """A weak mapping from classes to values.

    By identity: a metaclass may define `==` as it likes, and fail while a class is half made.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[type], V]] = {}

    def get(self, cls: type, default: Any = None) -> Any:
        entry = self._entries.get(id(cls))
        return default if entry is None else entry[1]

    def pop(self, cls: type, default: Any = None) -> Any:
        entry = self._entries.pop(id(cls), None)
        return default if entry is None else entry[1]

    def __getitem__(self, cls: type) -> V:
        return self._entries[id(cls)][1]

    def __setitem__(self, cls: type, value: V) -> None:
        key, entries = id(cls), self._entries
        # The entry goes before the id is reused, in whatever thread garbage is collected.
        entries[key] = weakref.ref(cls, lambda _: entries.pop(key, None)), value

    def __contains__(self, cls: object) -> bool:
        return id(cls) in self._entries

    def __len__(self) -> int:
        return len(self._entries)


class Catalog(ABC):
    """Codes and classes by number, as one process knows them.

    Attributes:
        owner: The manager, or its proxy: each arrives as the other.
        proxy: The proxy, if the owner is the manager and both are in this process.
        handed: The objects among the initargs that each worker process inherits.
        propagation: The context items that go with each task; None for nothing.
        classes: By-value classes by number.
        class_numbers: The reverse.
    """

    def __init__(self) -> None:
        self.owner: object = None
        self.proxy: object = None
        self.handed: list[Any] = []
        self.propagation: Propagation | None = None
        self.classes: MutableMapping[int, type] = {}
        self.class_numbers: ClassTable[int] = ClassTable()
        self._variables: dict[str, ContextVar[Any]] = {}  # by key; those that cannot be imported
        self._variable_keys: dict[ContextVar[Any], str] = {}  # the reverse

    def function_number(self, function: FunctionType) -> Any:
        """Return the number of a function in a frame: that of its name, or of its code."""
        name = importable_name(function)
        return self.code_number(function) if name is None else self.name_number(name, function)

    def variable_key(self, variable: ContextVar[Any]) -> str | None:
        """Return the key by which the other end knows a context variable; None if not a global.

        It is the variable's name. In a module that cannot be imported, such as a notebook, a name
        may be bound again: then the key has a number, too, as the old variable may be in use.
        """
        key = self._variable_keys.get(variable)
        if key is not None:
            return key
        name = variable_name(variable)
        if name is None or importable(name.partition(":")[0]):
            return name
        key, number = name, 1
        while key in self._variables:
            number += 1
            key = f"{name}#{number}"
        self._enter_variable(key, variable)
        return key

    def variable(self, key: str, name: str, default: tuple[Any, ...]) -> ContextVar[Any]:
        """Return the context variable of a module that cannot be imported; always the same one.

        Args:
            key: The result of `variable_key`.
            name: The variable's own name.
            default: Its default, if it has one.
        """
        known = self._variables.get(key)
        if known is None:
            module, _, attribute = key.partition(":")
            own = getattr(sys.modules.get(module), attribute.partition("#")[0], None)
            if isinstance(own, ContextVar) and own not in self._variable_keys:
                known = own  # the program's own, or that of whatever runs it
            else:
                known = ContextVar(name, default=default[0]) if default else ContextVar(name)
            self._enter_variable(key, known)
        return known

    def _enter_variable(self, key: str, variable: ContextVar[Any]) -> None:
        self._variables[key] = variable
        self._variable_keys[variable] = key

    @abstractmethod
    def name_number(self, name: str, function: FunctionType) -> Any:
        """Return what represents a function found by name."""

    @abstractmethod
    def options_number(self, options: Options) -> Any:
        """Return what represents the options of a task in a frame."""

    @abstractmethod
    def code_number(self, function: FunctionType) -> Any:
        """Return what represents a function's code."""

    @abstractmethod
    def code_key(self, function: FunctionType) -> int | tuple[CodeType, str]:
        """Return what represents a function's code in a pickle: a number, or code and module."""

    @abstractmethod
    def is_known(self, function: FunctionType, key: int | tuple[CodeType, str]) -> bool:
        """Return whether the other end has this function, with its defaults and attributes."""

    @abstractmethod
    def shared_function(self, number: int) -> Any:
        """Return the function of a code's number."""

    @abstractmethod
    def class_key(self, cls: type) -> int | None:
        """Return the number of a by-value class; None for one that cloudpickle pickles in full."""

    @abstractmethod
    def class_of(self, number: int) -> type:
        """Return the class of a number."""

    @abstractmethod
    def is_complete(self, cls: type) -> bool:
        """Return whether a class has its attributes, which its definition must not set again."""

    @abstractmethod
    def line_of_class(self, cls: type) -> int:
        """Return the number of the line that defines a class."""

    @abstractmethod
    def namespace(self, module: str) -> dict[str, Any]:
        """Return the globals that a module's by-value functions see."""
