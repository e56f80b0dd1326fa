"""Objects that cannot travel, and what to do about them.

Objects that belong to one process would arrive as useless copies, or as something else: they are
refused where they are pickled, each with a hint.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import io
import multiprocessing.connection
import pickle
import sys
from collections.abc import Callable, Mapping
from types import CoroutineType, FunctionType, MethodType
from typing import Any, NoReturn

from .failures import describe
from .names import type_name
from .sharedcode import contents_of


def cannot_travel(error: BaseException, own: str = "") -> str:
    """Return the end of a NotShippable message: why, and what to do about it.

    Args:
        error: What pickling it raised.
        own: What the script could move to a module instead; "" for nothing.
    """
    module = f", or put {own} in a module of its own, which each worker imports" if own else ""
    return (
        f"cannot travel to a worker process: {error}. Pass plain data (an id, a path) and open "
        f"what it names in the worker, by initializer= or in the task{module}; or use workers=0"
    )


def cannot_be_kept(error: BaseException, own: str = "") -> str:
    """Return the end of a NotDurable message, as `cannot_travel`; `own` is in the error."""
    return (
        f"cannot be kept for the next host: {error}. Pass plain data (an id, a path), and look up "
        "in the task what it stands for"
    )


def blame(
    fault_of: Callable[[object], Exception | None],
    kinds: Mapping[str, Mapping[Any, Any]],
    error: Exception,
    why: Callable[[BaseException, str], str] = cannot_travel,
) -> tuple[str, str]:
    """Return the name of the value that cannot travel, and why, with what to do about it.

    Args:
        fault_of: Returns what pickling a value raises.
        kinds: The values, by kind and name.
        error: What pickling all of them has raised.
        why: Returns the end of the message for an error.
    """
    for kind, values in kinds.items():
        for name, value in values.items():
            fault = fault_of(value)
            if fault is not None:
                own = "" if kind == "argument" or kind.startswith("value") else "it"
                what = f"the {kind} {name!r}{_key_of_fault(fault_of, value)}"
                return what, why(fault, own)
    kind = next(iter(kinds), "")
    return kind and f"{'an' if kind[0] in 'ao' else 'a'} {kind}", why(error, "")


def _key_of_fault(fault_of: Callable[[object], Exception | None], value: object) -> str:
    """Return the key of a dict whose value cannot travel, for the message."""
    if type(value) is dict:
        for key, item in list(value.items()):
            if fault_of(item) is not None:
                return f", under its key {describe(repr, key):.80},"
    return ""


def refuse(obj: object) -> NoReturn:
    """Refuse an object that would arrive as a useless copy, or as something else."""
    hint = next((_HINTS[kind] for kind in _HINTS if isinstance(obj, kind)), "its copy is of no use")
    raise pickle.PicklingError(f"{type_name(obj)} belongs to one process: {hint}")


def _reduce_file(file: io.TextIOWrapper) -> Any:
    for name in ("stdin", "stdout", "stderr"):
        if file is getattr(sys, name):
            return getattr, (sys, name)
    refuse(file)


LoopBound = asyncio.mixins._LoopBoundMixin  # the base of asyncio's locks, events and queues
_HINTS: dict[type, str] = {
    asyncio.AbstractEventLoop: "a task asks for its own, asyncio.get_running_loop()",
    asyncio.Future: "await it here, and pass its result",
    concurrent.futures.Future: "await it here, by asyncio.wrap_future(), and pass its result",
    CoroutineType: "schedule an async function that calls and awaits it; for a deadline of the "
    "whole, give schedule() a timeout=",
}
OF_ONE_PROCESS = (LoopBound, *_HINTS)
TABLE: dict[type, Callable[[Any], Any]] = {
    # cloudpickle sends the bytes, or a read-only copy of a file's text; pickle sends a descriptor
    # number that means nothing elsewhere.
    memoryview: refuse,
    io.TextIOWrapper: _reduce_file,
    multiprocessing.connection.Connection: refuse,
}
"""Reducers by type, in addition to cloudpickle's."""


def parts_of(function: Callable[..., Any]) -> dict[str, dict[Any, Any]]:
    """Return the values that a callable holds, which may be unable to travel, by kind and name."""
    if isinstance(function, FunctionType):
        contents = map(contents_of, function.__closure__ or ())
        closure = dict(zip(function.__code__.co_freevars, contents, strict=True))
        return {"closure variable": closure, "default of the argument": _defaults(function)}
    if isinstance(function, functools.partial):
        return {"argument": dict(enumerate(function.args, 1)) | function.keywords}
    if isinstance(function, MethodType):
        return {"object": {"self": function.__self__}}
    return {}


def _defaults(function: FunctionType) -> dict[str, Any]:
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    given = function.__defaults__ or ()
    positional = dict(zip(names[len(names) - len(given) :], given, strict=True))
    return positional | (function.__kwdefaults__ or {})
