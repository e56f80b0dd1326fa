"""Pickling: which objects go by name, by number, by value, or not at all.

cloudpickle pickles code and classes; what it cannot carry is in `byvalue`, what is refused in
`refusals`. The functions that these pickles call when read are in `restore`.
"""

from __future__ import annotations

import enum
import io
import pickle
from collections import ChainMap
from collections.abc import Callable
from contextvars import Context, ContextVar
from types import CodeType, FunctionType, ModuleType
from typing import Any, ClassVar

import cloudpickle  # type: ignore[import-untyped]  # ships no type information

from . import restore
from .byvalue import (
    REDUCERS,
    facts_of,
    is_single_dispatch,
    reduce_enum,
    reduce_member,
    reduce_single_dispatch,
)
from .catalog import Catalog
from .failures import describe, reduce_error, reduce_some
from .names import importable, importable_name, is_of_namespace, module_of, resolve
from .propagation import unnamed
from .refusals import OF_ONE_PROCESS, TABLE, refuse


def _reduces_itself(cls: type) -> bool:
    """Return whether a class has a reduce method written in Python."""
    return isinstance(cls.__reduce_ex__, FunctionType) or isinstance(cls.__reduce__, FunctionType)


def _reduce_by_method(obj: object) -> Any:
    """Reduce as pickle does, but refuse a name that only this process can resolve."""
    reduced = obj.__reduce_ex__(5)
    if isinstance(reduced, str):
        module = pickle.whichmodule(obj, reduced)  # type: ignore[attr-defined]  # not documented
        if not importable(module):
            raise pickle.PicklingError(
                f"{describe(repr, obj)} is pickled by its name, {reduced!r} of {module}, which a "
                "worker process cannot import"
            )
    return reduced


_SPECIAL = (BaseException, *OF_ONE_PROCESS)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped base
    """cloudpickle's pickler, except that by-value classes and functions' code go by number.

    Args:
        catalog: The source of the numbers.
        number_class: If given, by-value classes without a number are pickled in full, with the
            number that this returns for them.

    Attributes:
        lines: The lines of the definitions that the pickle names.
    """

    dispatch_table: ClassVar[Any] = ChainMap(TABLE, *cloudpickle.Pickler.dispatch_table.maps)

    def __init__(self, catalog: Catalog, number_class: Callable[[type], int] | None = None) -> None:
        self._file = io.BytesIO()
        super().__init__(self._file, protocol=5)
        self._catalog = catalog
        self._number_class = number_class
        self._begun: set[int] = set()  # ids of the classes that this pickle defines
        self.lines: list[int] = []

    def write(self, value: object) -> tuple[bytes, list[int]]:
        """Return the pickle of a value, and the lines that it names; may be called once."""
        self.dump(value)
        return self._file.getvalue(), self.lines

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType):
            if importable_name(obj) is None:
                return self._reduce_function(obj)
        elif type(obj) in REDUCERS:
            if importable_name(obj) is None:
                return REDUCERS[type(obj)](obj)
        elif isinstance(obj, type):
            number = self._catalog.class_numbers.get(obj)
            if number is not None and id(obj) not in self._begun:
                self.lines.append(self._catalog.line_of_class(obj))
                return restore.class_of, (number,)
            name = importable_name(obj)
            if name is None:
                return self._reduce_class(obj)
            if name != f"{obj.__module__}:{obj.__qualname__}":
                return resolve, (name,)
        elif isinstance(obj, CodeType):
            # cloudpickle drops the file name, which tracebacks need to show the line.
            _, args = self.dispatch_table[CodeType](obj)
            return restore.code_of, (obj.co_filename, args)
        elif isinstance(obj, ContextVar):
            return self._reduce_variable(obj)
        elif obj is self._catalog.owner or obj is self._catalog.proxy:
            return restore.owner, ()
        elif issubclass(type(obj), _SPECIAL):
            return refuse(obj) if isinstance(obj, OF_ONE_PROCESS) else self._reduce_error(obj)
        elif issubclass(type(obj), enum.Enum) and importable_name(type(obj)) is None:
            reduced = reduce_member(obj)
            return _reduce_by_method(obj) if reduced is NotImplemented else reduced
        elif _reduces_itself(type(obj)) and not any(
            type(obj) in table for table in self.dispatch_table.maps
        ):
            return _reduce_by_method(obj)
        return super().reducer_override(obj)

    def _reduce_error(self, error: BaseException) -> Any:
        return reduce_error(error)

    def _reduce_variable(self, variable: ContextVar[Any]) -> Any:
        key = self._catalog.variable_key(variable)
        if key is None:
            raise pickle.PicklingError(unnamed(variable))
        if importable(key.partition(":")[0]):
            return resolve, (key,)
        try:
            default = (Context().run(variable.get),)
        except LookupError:
            return restore.variable_of, (key, variable.name)
        return restore.variable_of, (key, variable.name, *default)

    def _reduce_function(self, function: FunctionType) -> Any:
        if is_single_dispatch(function):
            return reduce_single_dispatch(function)
        if not is_of_namespace(function):
            # It has globals of its own, like a namedtuple's methods: they go with it.
            return super().reducer_override(function)
        key = self._catalog.code_key(function)
        if isinstance(key, int):
            self.lines.append(key)
            key = int(key)  # a lease must not be pickled
        if self._catalog.is_known(function, key):
            return restore.function_of, (key,)
        cells = function.__closure__ or ()
        facts = facts_of(function)
        state = (cells, function.__defaults__, function.__kwdefaults__, function.__dict__, facts)
        if not any(state):
            return restore.function_of, (key,)
        return restore.function_of, (key,), state, None, None, restore.set_function_state

    def _reduce_class(self, cls: type) -> Any:
        reduced = super().reducer_override(cls)
        if len(reduced) != 6:  # NoneType and the like
            return reduced
        is_enum = issubclass(cls, enum.Enum)
        if is_enum:
            reduced = reduce_enum(cls, reduced)
        if self._number_class is None:
            number = self._catalog.class_key(cls)
            if number is None:
                return reduced
            self.lines.append(self._catalog.line_of_class(cls))
            return restore.class_of, (number,)
        # Inside a definition, further classes are defined in passing: they may refer to each
        # other in a cycle, which the pickle's memo resolves. A class may come up a second time
        # before it is in the memo: its base lists it, and the base comes first. The definition
        # inside the base then counts; `make_class` returns the same class both times.
        self._begun.add(id(cls))
        number = self._catalog.class_numbers.get(cls)
        if number is None:
            number = self._number_class(cls)
        make, args, state, *_, set_state = reduced
        if is_enum:
            contents = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
            skeleton = type(cls), cls.__name__, cls.__bases__, contents
            args = restore.make_skeleton, skeleton, *args[2:]
        else:
            meta, name, bases, contents, *_ = args
            contents["__qualname__"] = cls.__qualname__
            if "__slots__" in vars(cls):  # they have no effect if set later
                bases = cls.__bases__
                for special in {"__slots__", "__orig_bases__"} & vars(cls).keys():
                    contents[special] = vars(cls)[special]
            make, args = restore.make_skeleton, (meta, name, bases, contents)
        return (
            restore.make_class,
            (number, make, args),
            (set_state, state),
            None,
            None,
            restore.set_class_state,
        )


class LenientPickler(Pickler):
    """A pickler that leaves out attributes of exceptions that cannot travel.

    Args:
        catalog: As for `Pickler`.
        inside: The ids of the exceptions whose attributes this pickles: they are refused.
    """

    def __init__(self, catalog: Catalog, inside: frozenset[int] = frozenset()) -> None:
        super().__init__(catalog)
        self._inside = inside

    def _reduce_error(self, error: BaseException) -> Any:
        if id(error) in self._inside:
            raise pickle.PicklingError("an exception among its own attributes")
        inside = self._inside | {id(error)}

        def encode(value: Any) -> bytes:
            payload, lines = LenientPickler(self._catalog, inside).write(value)
            self.lines += lines
            return payload

        return reduce_some(error, encode)


class DurablePickler(Pickler):
    """A pickler for another host: nothing goes by value, or by a number of this host.

    Its pickles are kept in files: what they call of this package (`restore.owner`, `names.resolve`,
    the functions in `failures.reduce_error`) must stay where it is.
    """

    def write(self, value: object) -> tuple[bytes, list[int]]:
        written = super().write(value)
        if self.lines:
            raise pickle.PicklingError("it names something that only this host has defined")
        return written

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type):
            if obj in self._catalog.class_numbers:
                return self._reduce_class(obj)
        elif isinstance(obj, CodeType):
            raise pickle.PicklingError("code is of one version of Python")
        elif type(obj) in REDUCERS and importable_name(obj) is None:
            raise _made_here(type(obj).__name__, getattr(obj, "__name__", "without a name"))
        elif isinstance(obj, ModuleType) and not importable(obj.__name__):
            raise _made_here("module", obj.__name__)
        return super().reducer_override(obj)

    def _reduce_function(self, function: FunctionType) -> Any:
        raise _made_here("function", f"{module_of(function)}.{function.__qualname__}")

    def _reduce_class(self, cls: type) -> Any:
        if cls.__module__ == "builtins":  # NoneType, and others without an importable name
            return super()._reduce_class(cls)
        raise _made_here("class", f"{cls.__module__}.{cls.__qualname__}")

    def _reduce_variable(self, variable: ContextVar[Any]) -> Any:
        key = self._catalog.variable_key(variable)
        if key is None or not importable(key.partition(":")[0]):
            raise _made_here("context variable", variable.name)
        return super()._reduce_variable(variable)


def _made_here(kind: str, name: str) -> pickle.PicklingError:
    return pickle.PicklingError(
        f"the {kind} {name} cannot be imported by the next host: define it at the top of a module "
        "of its own, which the program and its workers import, and not in the script itself or in "
        "a function"
    )
