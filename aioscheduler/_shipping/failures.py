"""How exceptions travel: by type, args and attributes, without calling their constructor.

Many constructors need more than `args` has (`__init__(self, message, *, status)`), which plain
pickle finds out only where the copy is read. Here the copy is made from the original's state:

    create_error ─► __new__ and __init__ of the built-in class that it derives from
    set_state    ─► its args and attributes, bypassing its class's `__setattr__`

A class with pickling methods of its own (`__reduce__` and the like) is left to those. No method of
the exception itself is called, as it may raise; the functions that describe one (`describe`,
`text_of`) never fail.
"""

from __future__ import annotations

import builtins
import contextlib
import copyreg
import pickle
import traceback
from collections.abc import Callable
from types import MemberDescriptorType, TracebackType
from typing import Any, cast

from .names import type_name

_BUILT_IN = frozenset(
    cls
    for cls in vars(builtins).values()
    if isinstance(cls, type)
    if issubclass(cls, BaseException)
)
_OWN_WAYS = (
    *("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"),
    *("__getnewargs__", "__getnewargs_ex__"),
)
_LEFT_OUT = frozenset(("__suppress_context__", "obj", "exceptions", "message"))  # built-in fields
_HEAP_TYPE = 1 << 9  # in __flags__: a class made by a class statement
LONGEST = 1000  # characters shown of a text or repr
LINE = 200  # characters of one that is part of a line


def reduce_error(error: BaseException) -> Any:
    """Return the exception's reduction; NotImplemented for a class with its own pickling."""
    cls = type(error)
    if cls in copyreg.dispatch_table or not _is_plain(cls):
        return NotImplemented
    base = _base_of(cls)
    if issubclass(base, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[Any]", error)
        create = _get(BaseExceptionGroup, "message", group), _get(base, "exceptions", group)
    else:
        create = base.__reduce__(error)[1]  # type: ignore[assignment, index]  # it is a tuple
    args, attributes = _get(BaseException, "args", error), _attributes(error)
    return create_error, (cls, create), (args, attributes), None, None, set_state


def reduce_some(error: BaseException, encode: Callable[[Any], bytes]) -> Any:
    """Reduce as `reduce_error` does, without the attributes on which `encode` raises."""
    reduced = reduce_error(error)
    if reduced is NotImplemented:
        return reduced
    create, made_of, (args, attributes), *_ = reduced
    encoded: dict[str, bytes] = {}
    for name, value in attributes.items():
        with contextlib.suppress(BaseException):  # a user's class may raise anything here
            encoded[name] = encode(value)
    return create, made_of, (args, encoded), None, None, set_encoded_state


def create_error(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Make an exception without calling its class's constructor."""
    base = _base_of(cls)
    error: BaseException = base.__new__(cls, *args)
    with contextlib.suppress(TypeError):  # a subclass may have replaced args
        base.__init__(error, *args)
    return error


def set_state(error: BaseException, state: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    """Set args and attributes, in slots where the class has them."""
    args, attributes = state
    vars(BaseException)["args"].__set__(error, args)
    own: dict[str, Any] = object.__getattribute__(error, "__dict__")
    members = _members(type(error))
    for name, value in attributes.items():
        if name in members:
            with contextlib.suppress(AttributeError, TypeError):  # a read-only one
                members[name].__set__(error, value)
        else:
            own[name] = value


def set_encoded_state(error: BaseException, state: tuple[tuple[Any, ...], Any]) -> None:
    """Set args, and the attributes that can be unpickled here."""
    args, encoded = state
    attributes = {}
    for name, value in encoded.items():
        with contextlib.suppress(Exception):
            attributes[name] = pickle.loads(value)
    set_state(error, (args, attributes))


def set_cause(error: BaseException, cause: BaseException) -> None:
    """Set `error.__cause__`, even if its class forbids it."""
    vars(BaseException)["__cause__"].__set__(error, cause)


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return `error.__traceback__`, even if its class forbids it."""
    found: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    return found


def text_of(error: BaseException) -> str:
    """Return the traceback as Python prints it, or as much of it as possible; never fail."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001  a user's __getattr__ may raise anything
        lines = traceback.format_tb(traceback_of(error))
        return "".join(lines) + f"{type(error).__qualname__}: {describe(str, error)}\n"


def text_of_unasked(error: BaseException) -> str:
    """Return the text for a task that raised CancelledError unrequested; never fail."""
    return f"ended by a CancelledError that nobody asked for\n{text_of(error)}"


def line_of(error: BaseException) -> str:
    """Return type and text in one short line; never fail."""
    with contextlib.suppress(BaseException):  # a metaclass may forbid it
        text = " ".join(str.split(describe(str, error)))
        return f"{type_name(error)}: {text}"[:LINE].removesuffix(": ")
    return "an exception that cannot be named"


def in_a_line(cause: str, traceback: str) -> str:
    """Return in one line why a process has ended.

    Args:
        cause: Why it was killed, or its last words: the traceback of an exception out of its
            loop, or the output of `faulthandler`.
        traceback: The traceback that the process reported.
    """
    lines = (cause or traceback).strip().splitlines() or [""]
    if not lines[0].startswith(("Traceback", "+ Exception Group Traceback")):
        return lines[0][:LONGEST]
    last = lines[-1][:LONGEST]
    return f"{last}, raised out of its event loop, as by a callback" if cause else last


def describe(say: Callable[[Any], str], value: object) -> str:
    """Return `str` or `repr` of anything, cut to a readable length; never fail."""
    try:
        return str.__str__(say(value))[:LONGEST]  # it may be a subclass of str
    except BaseException as error:  # noqa: BLE001  a user's __str__ may raise anything
        return f"<{type_name(value)}, whose {say.__name__} raises {type_name(error)}>"


def _is_plain(cls: type[BaseException]) -> bool:
    """Return whether a class and its bases are built in or define no pickling of their own."""
    for base in cls.__mro__:
        if base is object or base in _BUILT_IN:
            continue
        if not base.__flags__ & _HEAP_TYPE or not vars(base).keys().isdisjoint(_OWN_WAYS):
            return False
    return True


def _base_of(cls: type) -> type[BaseException]:
    """Return the built-in class whose layout a class has."""
    while cls not in _BUILT_IN:
        assert cls.__base__ is not None
        cls = cls.__base__
    return cls


def _members(cls: type) -> dict[str, MemberDescriptorType]:
    """Return the slots of a class, and the fields of its built-in bases."""
    return {
        name: member
        for base in reversed(cls.__mro__)
        for name, member in vars(base).items()
        if type(member) is MemberDescriptorType and not (base in _BUILT_IN and name in _LEFT_OUT)
    }


def _attributes(error: BaseException) -> dict[str, Any]:
    attributes = dict(object.__getattribute__(error, "__dict__"))
    for name, member in _members(type(error)).items():
        with contextlib.suppress(AttributeError):  # an empty slot
            value = member.__get__(error)
            if value is not None:
                attributes[name] = value
    return attributes


def _get(cls: type, name: str, error: BaseException) -> Any:
    """Return an attribute of the built-in class, whatever the error's own class defines."""
    return next(vars(base)[name] for base in cls.__mro__ if name in vars(base)).__get__(error)
