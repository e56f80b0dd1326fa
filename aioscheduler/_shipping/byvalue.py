"""By-value objects of a script that cloudpickle cannot carry, or carries incompletely.

A class is made in a worker as it *is* in the host, not as it came about: the hooks of its metaclass
and bases have run in the host, and what they recorded (in a registry, say) travels as a value.
"""

from __future__ import annotations

import enum
import functools
import pickle
import sys
import types
import typing
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import Any

Reduced = tuple[Any, ...]

_CACHED = type(functools.lru_cache(len))
_SINGLE_DISPATCH = functools.singledispatch(len).__code__  # type: ignore[attr-defined]
_FACTS = ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__")


def facts_of(function: FunctionType) -> dict[str, Any]:
    """Return the attributes in which a function differs from a new one of the same code."""
    fresh = FunctionType(
        function.__code__, function.__globals__, closure=function.__closure__
    )  # as a worker makes it
    return {
        name: getattr(function, name)
        for name in _FACTS
        if getattr(function, name) != getattr(fresh, name)
    }


def reduce_cached(function: Any) -> Reduced:
    """Reduce a function under `lru_cache` or `cache`: each process has a cache of its own."""
    parameters = function.cache_parameters()
    return _cache, (function.__wrapped__, parameters["maxsize"], parameters["typed"])


def _cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def is_single_dispatch(function: FunctionType) -> bool:
    """Return whether `functools.singledispatch` made the function."""
    return function.__code__ is _SINGLE_DISPATCH


def reduce_single_dispatch(function: Any) -> Reduced:
    """Reduce a generic function, with its registry."""
    registry = dict(function.registry)
    return functools.singledispatch, (registry.pop(object),), registry, None, None, _register


def _register(function: Any, registry: dict[type, Callable[..., Any]]) -> None:
    for cls, implementation in registry.items():
        function.register(cls, implementation)


def reduce_single_dispatch_method(method: Any) -> Reduced:
    """Reduce a generic method, without its cache of bound methods (Python 3.13)."""
    make = functools.singledispatchmethod
    return make, (method.func,), method.dispatcher, None, None, _set_dispatcher


def _set_dispatcher(method: Any, dispatcher: Any) -> None:
    method.dispatcher = dispatcher


def reduce_cached_property(prop: Any) -> Reduced:
    """Reduce a cached property, without its lock (before Python 3.12)."""
    return _cached_property, (prop.func, prop.attrname)


def _cached_property(func: Callable[[Any], Any], name: str | None) -> Any:
    prop = functools.cached_property(func)
    prop.attrname = name
    return prop


def reduce_new_type(kind: Any) -> Reduced:
    """Reduce a `typing.NewType`."""
    return _new_type, (kind.__name__, kind.__supertype__, kind.__module__, kind.__qualname__)


def _new_type(name: str, supertype: Any, module: str, qualname: str) -> Any:
    kind = typing.NewType(name, supertype)  # type: ignore[misc]  # the name is a variable
    kind.__module__, kind.__qualname__ = module, qualname
    return kind


def reduce_type_variable(variable: Any) -> Reduced:
    """Reduce a `typing.ParamSpec` or `typing.TypeVarTuple`, without its default."""
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
    """Reduce the alias that a `type` statement makes."""
    return _type_alias, (type(alias), alias.__name__, alias.__value__, alias.__type_params__)


def _type_alias(kind: Any, name: str, value: Any, type_params: tuple[Any, ...]) -> Any:
    return kind(name, value, type_params=type_params)


REDUCERS: dict[type, Callable[[Any], Reduced]] = {
    _CACHED: reduce_cached,
    functools.cached_property: reduce_cached_property,
    functools.singledispatchmethod: reduce_single_dispatch_method,
    typing.NewType: reduce_new_type,
    typing.ParamSpec: reduce_type_variable,
    typing.TypeVarTuple: reduce_type_variable,
}
if sys.version_info >= (3, 12):
    REDUCERS[typing.TypeAliasType] = reduce_type_alias
"""By type, for objects that cannot be imported by name."""


_OF_THE_SKELETON = frozenset(
    (
        "__dict__",
        "__module__",
        "__weakref__",
        "_member_map_",
        "_member_names_",
        "_value2member_map_",
    )
)
_NO_MEMBER = object()


def reduce_enum(cls: Any, reduced: Reduced) -> Reduced:
    """Reduce an enumeration; its members are made without calling its `__new__` or `__init__`.

    They exist, without their attributes, as soon as the class does: the class's attributes may
    refer to them.

    Args:
        cls: The enumeration.
        reduced: cloudpickle's reduction of it.

    Raises:
        pickle.PicklingError: A member's type can only be made by its constructor.
    """
    make, (bases, name, qualname, _, *rest), (abstract, _), *_ = reduced
    by_name = cls._member_map_
    attributes = {
        key: value
        for key, value in vars(cls).items()
        if key not in _OF_THE_SKELETON and value is not by_name.get(key, _NO_MEMBER)
    }
    if "_abc_impl" in abstract:  # the classes registered with it
        attributes["_abc_impl"] = abstract["_abc_impl"]
    members = {key: _base_arguments(member) for key, member in by_name.items()}
    names = {key: member._name_ for key, member in by_name.items()}  # an alias has another name
    states = {key: object.__getstate__(by_name[key]) for key in by_name if names[key] == key}  # type: ignore[attr-defined]
    values = [
        (value, member._name_)
        for value, member in cls._value2member_map_.items()
        if by_name.get(member._name_) is member  # combined flags are made on demand
    ]
    args = make, (bases, name, qualname, {}, *rest), members, names, cls._member_names_
    return make_enum, args, (states, values, attributes), None, None, _set_enum_state


def _constructor(cls: type) -> type:
    """Return the class whose `__new__`, written in C, makes the instances."""
    return next(
        base for base in cls.__mro__ if isinstance(vars(base).get("__new__"), BuiltinFunctionType)
    )


def _base_arguments(member: Any) -> tuple[Any, ...]:
    """Return the arguments of the built-in `__new__` that makes a member."""
    base: Any = _constructor(type(member))
    if base is object:
        return ()
    if hasattr(base, "__getnewargs__"):  # int, str, tuple and the like
        return tuple(base.__getnewargs__(member))
    if base.__reduce__ is not object.__reduce__:
        make, args, *_ = base.__reduce__(member)
        if make is type(member):
            return tuple(args)
    raise pickle.PicklingError(
        f"the members of the enumeration {type(member).__qualname__} are made from a "
        f"{base.__qualname__}, and cannot be recreated in another process"
    )


def make_enum(
    make: Callable[..., type],
    args: tuple[Any, ...],
    members: dict[str, tuple[Any, ...]],
    names: dict[str, str],
    order: list[str],
) -> type:
    """Make an enumeration, and its members without their attributes."""
    cls: Any = make(*args)
    base, by_name = _constructor(cls), cls._member_map_
    if "__abstractmethods__" in vars(cls):  # inherited ones, as its own methods are not set yet
        type.__setattr__(cls, "__abstractmethods__", frozenset())
    for key, name in names.items():
        if name not in by_name:
            member = base.__new__(cls, *members[name])
            vars(member).update(_name_=name, __objclass__=cls)
            by_name[name] = member
        by_name[key] = by_name[name]
        type.__setattr__(cls, key, by_name[key])
    cls._member_names_[:] = order
    return cls  # type: ignore[no-any-return]  # a class


def _set_enum_state(cls: Any, state: tuple[Any, ...]) -> None:
    states, values, attributes = state
    by_name = cls._member_map_
    for name, own in states.items():
        contents, slots = own if isinstance(own, tuple) else (own, {})
        vars(by_name[name]).update(contents)
        for slot, value in slots.items():
            object.__setattr__(by_name[name], slot, value)
    cls._value2member_map_.update((value, by_name[name]) for value, name in values)
    for subclass in attributes.pop("_abc_impl", ()):
        cls.register(subclass)
    for key, value in attributes.items():
        type.__setattr__(cls, key, value)


def reduce_member(member: Any) -> Any:
    """Reduce a member of a by-value enumeration; return NotImplemented for a non-member."""
    cls = type(member)
    if cls._member_map_.get(member._name_) is member:
        return _member, (cls, member._name_)
    # Combined flags, which their class may pickle by a name that does not exist.
    return (cls, (member._value_,)) if issubclass(cls, enum.Flag) else NotImplemented


def _member(cls: Any, name: str) -> Any:
    return cls._member_map_[name]


def make_skeleton(
    known: Container[type], meta: Any, name: str, bases: tuple[Any, ...], contents: dict[str, Any]
) -> type:
    """Make a class without its attributes, and without running hooks of the script.

    Args:
        known: The classes that travel by value.
        meta: The metaclass.
        name: The name of the class.
        bases: The bases, as in the class statement.
        contents: Attributes that must be there from the beginning.
    """
    resolved = types.resolve_bases(bases)
    with _quiet(known, resolved):
        if meta not in known:
            return types.new_class(
                name, bases, {"metaclass": meta}, lambda namespace: namespace.update(contents)
            )
        if resolved is not bases:
            contents = {**contents, "__orig_bases__": bases}
        maker: Any = next(base for base in meta.__mro__ if base not in known)
        namespace = maker.__prepare__(name, resolved)  # not a plain dict for an enumeration
        namespace.update(contents)
        made: type = maker.__new__(meta, name, resolved, namespace)
        return made


@contextmanager
def _quiet(known: Container[type], bases: tuple[Any, ...]) -> Iterator[None]:
    """Disable every `__init_subclass__` of the script meanwhile."""
    loud = [
        (cls, vars(cls)["__init_subclass__"])
        for base in bases
        for cls in getattr(base, "__mro__", ())
        if cls in known and "__init_subclass__" in vars(cls)
    ]
    for cls, _ in loud:
        type.__setattr__(cls, "__init_subclass__", classmethod(_nothing))
    try:
        yield
    finally:
        for cls, hook in loud:
            type.__setattr__(cls, "__init_subclass__", hook)


def _nothing(cls: type, /, **kwargs: object) -> None:
    """Replace an `__init_subclass__`."""
