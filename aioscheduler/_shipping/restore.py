"""What the pickles of `pickler` call where they are read.

Each is found by its name here, in the host and in its workers. Whose numbers are meant is not in
the pickle: it is the catalog that reads it.
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
"""`.catalog`: the one that reads a pickle, while it does."""


def code_of(filename: str, args: Sequence[Any]) -> CodeType:
    """Make a code again."""
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
    """Return a class that a line has defined."""
    catalog: Catalog = active.catalog
    cls = catalog.classes.get(number)
    return catalog.class_of(number) if cls is None else cls


def make_class(number: int, make: Callable[..., type], args: Sequence[Any]) -> type:
    """Define a class, once: it may be asked for before it is there."""
    catalog: Catalog = active.catalog
    cls = catalog.classes.get(number)
    if cls is None:
        cls = catalog.classes[number] = make(*args)
        catalog.class_numbers[cls] = number
    return cls


def set_class_state(cls: type, state: Any) -> None:
    """Give a class its attributes, unless it is the program's own."""
    catalog: Catalog = active.catalog
    if not catalog.is_complete(cls):
        set_state, of_class = state
        set_state(cls, of_class)


def make_skeleton(meta: Any, name: str, bases: tuple[Any, ...], contents: Any) -> type:
    """Make a class that is still without its attributes."""
    catalog: Catalog = active.catalog
    return byvalue.make_skeleton(catalog.class_numbers, meta, name, bases, contents)


def function_of(key: int | tuple[CodeType, str]) -> Any:
    """Return a function of the code of a number, or of a code and the name of a module."""
    catalog: Catalog = active.catalog
    if isinstance(key, int):
        return catalog.shared_function(key)
    code, module = key
    return SharedCode(code, catalog.namespace(module)).function


def set_function_state(function: FunctionType, state: Any) -> None:
    """Give a function its closure, defaults and attributes."""
    cells, function.__defaults__, function.__kwdefaults__, attributes, facts = state
    for own, sent in zip(function.__closure__ or (), cells, strict=True):
        try:
            own.cell_contents = sent.cell_contents
        except ValueError:  # no value yet, there as here
            continue
    function.__dict__.update(attributes)
    for name, fact in facts.items():
        setattr(function, name, fact)
