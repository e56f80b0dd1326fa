"""The functions that the pickles of `pickler` call when they are read.

Each is found by its name here, in the host and in its workers. The numbers are those of the catalog
that reads the pickle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import CodeType, FunctionType
from typing import Any

from . import byvalue
from .catalog import Catalog
from .sharedcode import SharedCode

active = threading.local()
"""Its `catalog` is the one that is reading a pickle in this thread."""


def code_of(filename: str, args: Sequence[Any]) -> CodeType:
    """Recreate a code."""
    return CodeType(*args).replace(co_filename=filename)


def owner() -> object:
    """Return the manager, or its proxy."""
    catalog: Catalog = active.catalog
    return catalog.owner


def variable_of(key: str, name: str, *default: Any) -> ContextVar[Any]:
    """Return a context variable of a module that cannot be imported."""
    catalog: Catalog = active.catalog
    return catalog.variable(key, name, default)


def class_of(number: int) -> type:
    """Return a class that a line defines."""
    catalog: Catalog = active.catalog
    cls = catalog.classes.get(number)
    return catalog.class_of(number) if cls is None else cls


def make_class(number: int, make: Callable[..., type], args: Sequence[Any]) -> type:
    """Define a class, or return the one that was already defined."""
    catalog: Catalog = active.catalog
    cls = catalog.classes.get(number)
    if cls is None:
        cls = catalog.classes[number] = make(*args)
        catalog.class_numbers[cls] = number
    return cls


def set_class_state(cls: type, state: Any) -> None:
    """Set the attributes of a class, unless it is the program's own."""
    catalog: Catalog = active.catalog
    if not catalog.is_complete(cls):
        set_state, of_class = state
        set_state(cls, of_class)


def make_skeleton(meta: Any, name: str, bases: tuple[Any, ...], contents: Any) -> type:
    """Make a class without its attributes."""
    catalog: Catalog = active.catalog
    return byvalue.make_skeleton(catalog.class_numbers, meta, name, bases, contents)


def function_of(key: int | tuple[CodeType, str]) -> Any:
    """Return the function of a code's number, or of a code and a module's name."""
    catalog: Catalog = active.catalog
    if isinstance(key, int):
        return catalog.shared_function(key)
    code, module = key
    return SharedCode(code, catalog.namespace(module)).function


def set_function_state(function: FunctionType, state: Any) -> None:
    """Set a function's closure, defaults and attributes."""
    cells, function.__defaults__, function.__kwdefaults__, attributes, facts = state
    for own, sent in zip(function.__closure__ or (), cells, strict=True):
        try:
            own.cell_contents = sent.cell_contents
        except ValueError:  # no value yet at the sender either
            continue
    function.__dict__.update(attributes)
    for name, fact in facts.items():
        setattr(function, name, fact)
