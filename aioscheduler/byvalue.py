"""What a script makes that cloudpickle cannot carry, or carries without what it had.

A class is made in a worker as it *is* in the host, not as it came about: its metaclass's and its
bases' hooks have run there, and what they wrote down (a registry, for example) travels as a value.
"""

from __future__ import annotations

import functools
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

Reduced = tuple[Any, ...]

_CACHED = type(functools.lru_cache(len))
_SINGLE_DISPATCH = functools.singledispatch(len).__code__  # type: ignore[attr-defined]
_FACTS = ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__")


def facts_of(function: FunctionType) -> dict[str, Any]:
    """What a function says of itself that its code does not say."""
    fresh = FunctionType(
        function.__code__, function.__globals__, closure=function.__closure__
    )  # as a worker makes it
    return {
        name: getattr(function, name)
        for name in _FACTS
        if getattr(function, name) != getattr(fresh, name)
    }


def reduce_cached(function: Any) -> Reduced:
    """A function under `lru_cache` or `cache`: each process has a cache of its own."""
    parameters = function.cache_parameters()
    return _cache, (function.__wrapped__, parameters["maxsize"], parameters["typed"])


def _cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def is_single_dispatch(function: FunctionType) -> bool:
    """Whether `functools.singledispatch` has made it."""
    return function.__code__ is _SINGLE_DISPATCH


def reduce_single_dispatch(function: Any) -> Reduced:
    """A generic function, with what is registered for each type."""
    registry = dict(function.registry)
    return functools.singledispatch, (registry.pop(object),), registry, None, None, _register


def _register(function: Any, registry: dict[type, Callable[..., Any]]) -> None:
    for cls, implementation in registry.items():
        function.register(cls, implementation)


def reduce_cached_property(prop: Any) -> Reduced:
    """A cached property, without the lock that it has before Python 3.12."""
    return _cached_property, (prop.func, prop.attrname)


def _cached_property(func: Callable[[Any], Any], name: str | None) -> Any:
    prop = functools.cached_property(func)
    prop.attrname = name
    return prop


def reduce_new_type(kind: Any) -> Reduced:
    """A `typing.NewType`."""
    return _new_type, (kind.__name__, kind.__supertype__, kind.__module__, kind.__qualname__)


def _new_type(name: str, supertype: Any, module: str, qualname: str) -> Any:
    kind = typing.NewType(name, supertype)  # type: ignore[misc]  # the name is its own
    kind.__module__, kind.__qualname__ = module, qualname
    return kind


def reduce_type_variable(variable: Any) -> Reduced:
    """A `typing.ParamSpec` or `typing.TypeVarTuple`, without its default."""
    options = {
        option: value
        for option in ("bound", "covariant", "contravariant", "infer_variance")
        if (value := getattr(variable, f"__{option}__", None))
    }
    return _type_variable, (type(variable), variable.__name__, options, variable.__module__)


def _type_variable(kind: Any, name: str, options: dict[str, Any], module: str) -> Any:
    variable = kind(name, **options)
    variable.__module__ = module
    return variable


def reduce_type_alias(alias: Any) -> Reduced:
    """What a `type` statement makes."""
    return _type_alias, (type(alias), alias.__name__, alias.__value__, alias.__type_params__)


def _type_alias(kind: Any, name: str, value: Any, type_params: tuple[Any, ...]) -> Any:
    return kind(name, value, type_params=type_params)


REDUCERS: dict[type, Callable[[Any], Reduced]] = {
    _CACHED: reduce_cached,
    functools.cached_property: reduce_cached_property,
    typing.NewType: reduce_new_type,
    typing.ParamSpec: reduce_type_variable,
    typing.TypeVarTuple: reduce_type_variable,
}
if sys.version_info >= (3, 12):
    REDUCERS[typing.TypeAliasType] = reduce_type_alias
"""By type; what can be imported by name goes by that."""


def make_skeleton(
    known: Collection[type], meta: Any, name: str, bases: tuple[Any, ...], contents: dict[str, Any]
) -> type:
    """Makes a class that is still without its attributes, with no hook of a script's run.

    Args:
        known: The classes that travel by value.
        meta: The metaclass.
        name: Of the class.
        bases: As the class statement has them.
        contents: What must be there from the beginning.
    """
    resolved = types.resolve_bases(bases)
    with _quiet(known, resolved):
        if meta not in known:
            return types.new_class(
                name, bases, {"metaclass": meta}, lambda namespace: namespace.update(contents)
            )
        if resolved is not bases:
            contents = {**contents, "__orig_bases__": bases}
        maker = next(base for base in meta.__mro__ if base not in known)
        made: type = maker.__new__(meta, name, resolved, contents)
        return made


@contextmanager
def _quiet(known: Collection[type], bases: tuple[Any, ...]) -> Iterator[None]:
    """Has no `__init_subclass__` of a script's run meanwhile."""
    loud = {
        cls: vars(cls)["__init_subclass__"]
        for base in bases
        for cls in getattr(base, "__mro__", ())
        if cls in known and "__init_subclass__" in vars(cls)
    }
    for cls in loud:
        type.__setattr__(cls, "__init_subclass__", classmethod(_nothing))
    try:
        yield
    finally:
        for cls, hook in loud.items():
            type.__setattr__(cls, "__init_subclass__", hook)


def _nothing(cls: type, /, **kwargs: object) -> None:
    """Takes the place of an `__init_subclass__`."""
