"""Functions whose tasks outlive the host, by the names that the file has of them.

    @durable("remind") ─► registry ◄─ name ─ a row of the file
                              └─ function ─► a coroutine of `schedule`

The name stands in the file: a function may be moved and renamed, and goes on under its old name.
What a task is to do when it fails is the function's, and not the file's, so that a new version of
the program changes it for what waits already (the idea is that of River's and Oban's workers).

Rules of this file:

1. A name has one function, and a function one name. What is defined again (a notebook's cell, a
   reload, a script that is imported besides) takes the place of what it was, which stays known:
   whoever still holds it means the new one.
2. A coroutine shows its code, and a code may be of many functions: of those that a decorator has
   made, and of those that a loop has. Of such a one the function is looked for.
3. What is known is kept alive, so that no id that is known is given again.
"""

from __future__ import annotations

import functools
import gc
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, Literal, NamedTuple, TypeVar

from ._scheduling.coroutines import name_of
from ._scheduling.order import Order
from .errors import NotDurable
from .options import Options, TaskOptions, read_options, read_text
from .retry import Retry

F = TypeVar("F", bound=Callable[..., Any])


class Durable(NamedTuple):
    """A function that was registered.

    Attributes:
        name: In the file.
        function: It.
        qualname: Its `module:qualname`.
        options: Of its tasks, but for their names.
        once: Whether its tasks are not to begin a second time (`on_loss="fail"`).
    """

    name: str
    function: Callable[..., Any]
    qualname: str
    options: Options
    once: bool


_names: dict[str, Durable] = {}
_functions: dict[int, Durable] = {}  # by id
_codes: dict[int, Durable] = {}  # by id; of those that one name has
_shared: set[int] = set()  # ids of codes that may be of several functions
_alive: list[object] = []  # what has an id here


def durable(
    name: str,
    *,
    timeout: float | timedelta | None = None,
    retry: Retry | None = None,
    max_lateness: float | timedelta | None = None,
    on_loss: Literal["rerun", "fail"] = "rerun",
) -> Callable[[F], F]:
    """Register an `async def` function, so that its tasks outlive the host.

    On a manager with a store they are kept in its file until they have ended; on any other one
    they run as those of all functions, with these options.

    Args:
        name: What the file calls the function. It stays the same when the function is moved or
            renamed, and is no other function's.
        timeout: As of `schedule`, and so are `retry` and `max_lateness`. They belong to the
            function: tasks that wait go by what the running program says.
        retry: Which failures have a task start once more. No CancelledError is one, also if the
            task raises it though nobody has asked for its end: it is a dead letter then. Nor is
            what a task makes of a cancellation by a close, or with its worker: it has not ended.
        max_lateness: How late a task may start.
        on_loss: What becomes of a task that had begun when its process, or the host, died:
            "rerun" starts it again, so that it runs at least once; "fail" makes it a dead letter,
            so that it runs at most once.

    Returns:
        A decorator, which returns the function itself. Methods may be decorated in their class.

    Raises:
        TypeError: A value is of a wrong type, or (the decorator) it is no `async def` function.
        ValueError: A value cannot mean anything, or (the decorator) another function has the
            name, or the function another name.
        NotDurable: The next host could not find the function: it is made in another function.
    """
    if callable(name):
        raise TypeError('durable() needs a name, which stands in the file: write @durable("name")')
    name = read_text("durable's name", name, "and the decorator for a function as any other")
    if on_loss not in ("rerun", "fail"):
        raise ValueError(f'on_loss is "rerun" or "fail", not {on_loss!r:.80}')
    given: TaskOptions = {"timeout": timeout, "retry": retry, "max_lateness": max_lateness}
    options = read_options(given, Order.TIMED) or Options()

    def register(function: F) -> F:
        own = _check(name, function)
        chosen, qualname = _choose(name, own)
        _enter(Durable(name, chosen, qualname, options, on_loss == "fail"), own)
        return function

    return register


def find(name: str) -> Durable | None:
    """Return what is registered under a name."""
    return _names.get(name)


def of_function(function: object) -> Durable | None:
    """Return what a function is registered as. What is bound or wrapped is another one."""
    return _functions.get(id(function))


def of_code(code: CodeType) -> Durable | None:
    """Return what the function of a code is registered as; None for one that many may have."""
    return _codes.get(id(code))


def of_coroutine(coro: Any) -> Durable | None:
    """Return what the function of an unstarted coroutine is registered as."""
    if not _codes and not _shared:
        return None
    try:
        code = id(coro.cr_code)
    except AttributeError:  # it is another awaitable
        return None
    found = _codes.get(code)
    if found is None and code in _shared:
        for each in gc.get_referents(coro):
            if type(each) is FunctionType:
                return _functions.get(id(each))
    return found


def read_durable_options(durable: Durable, given: TaskOptions, order: Order) -> Options:
    """Return the options of a task: its function's, with the name that the call gives.

    Raises:
        TypeError: The call gives one that is the function's, or that is not for a queue.
        ValueError: It cannot mean anything.
    """
    if durable.options.max_lateness is not None and order is not Order.TIMED:
        raise TypeError(
            f"@durable({durable.name!r}) has a max_lateness, and a queue has no due times to be "
            "late after: leave it out, or use a TimedScheduler"
        )
    if not given:
        return durable.options
    read = read_options(given, order) or Options()
    for option, value in zip(Options._fields, read, strict=True):
        if option != "name" and value is not None:
            raise TypeError(
                f"{option} belongs to a durable function, so that a new version of the program "
                f"changes it for what waits: @durable({durable.name!r}, {option}=...)"
            )
    return durable.options._replace(name=read.name)


def check_plain(function: object) -> None:
    """Refuse a function that wraps a registered one, and is not registered itself.

    Its tasks would be in memory alone, and nobody would know.

    Raises:
        NotDurable: It leads to a registered one.
    """
    if not _functions or id(function) in _functions:
        return
    seen = {id(function)}
    left = [function]
    while left:  # by steps: a chain may be long, and a circle
        for inner in _wrapped_by(left.pop()):
            if id(inner) in seen:
                continue
            found = _functions.get(id(inner))
            if found is not None:
                raise NotDurable(_why_not_plain(function, found))
            seen.add(id(inner))
            left.append(inner)


def _wrapped_by(called: object) -> Iterator[object]:
    """Yield what a callable may call in its own place; a proxy is not asked what it stands for."""
    kind = type(called)
    if kind is FunctionType:
        function: Any = called
        for cell in function.__closure__ or ():
            if cell != _EMPTY:
                yield cell.cell_contents
        yield function.__dict__.get("__wrapped__")
    elif kind is MethodType:
        yield called.__func__  # type: ignore[attr-defined]
    elif issubclass(kind, functools.partial):
        yield called.func  # type: ignore[attr-defined]


_EMPTY = CellType()


def _why_not_plain(function: object, found: Durable) -> str:
    own = f'@durable("{found.name}")'
    if not isinstance(function, FunctionType):
        return (
            f"a {type(function).__name__} of {found.qualname}, which {own} registers, would be "
            "called in memory alone: give the function itself, with all of its arguments"
        )
    maker, inside, _ = function.__code__.co_qualname.partition(".<locals>")
    made = f"@{maker}" if inside else "another decorator"
    return (
        f"{name_of(function)} is what {made} makes of {found.qualname}, which {own} registers, and "
        f"would be in memory alone: put {own} over {made}, so that it registers what that makes, "
        "or schedule the function itself"
    )


def _check(name: str, function: object) -> FunctionType:
    """Return the function that is to be registered.

    Raises:
        TypeError: It is no `async def` function.
        NotDurable: The next host could not find it.
    """
    own = f'@durable("{name}")'
    if not isinstance(function, FunctionType):
        raise _refusal(own, f"a {type(function).__name__}")
    qualname = _qualname_of(function)
    if function.__name__ == "<lambda>" or "<locals>" in function.__qualname__:
        raise NotDurable(
            f"{own} is to be found again by the next host, and {qualname} is made anew whenever "
            "its code runs: define it at the top of a module, or in a class there, and give it "
            "what it needs as arguments; a decorator's own function needs functools.wraps"
        )
    if not function.__code__.co_flags & inspect.CO_COROUTINE:
        raise _refusal(own, f"{qualname}, which is none")
    if function.__module__ == "__main__" and _is_of_many(function):
        raise NotDurable(
            f"{qualname} is what a decorator under {own} makes, and of the script itself a worker "
            "has the code alone, which all that the decorator makes have in common: move the "
            "function to a module of its own, or leave that decorator out"
        )
    return function


def _is_of_many(function: FunctionType) -> bool:
    """Whether other functions may have the same code: it looks at more than its class."""
    return function.__code__.co_freevars not in ((), ("__class__",))


def _choose(name: str, function: FunctionType) -> tuple[Callable[..., Any], str]:
    """Return the function that a name is to have from now on, and its qualname.

    Raises:
        ValueError: The name is another's, or the function has another name.
    """
    qualname = _qualname_of(function)
    known = _functions.get(id(function))
    if known is not None and known.name != name:
        raise ValueError(
            f"{qualname} is durable as {known.name!r} already: if tasks in the file have another "
            "name, register a function of that name that awaits this one"
        )
    before = _names.get(name)
    if before is None or before.qualname == qualname:
        return function, qualname
    if not _is_same(before.function, function):
        raise ValueError(
            f"{before.qualname} is durable as {name!r} already, and {qualname} is another "
            "function: give it a name of its own"
        )
    # One script, as `__main__` and as a module, which can be imported by any host.
    return (
        (before.function, before.qualname)
        if qualname.startswith("__main__:")
        else (function, qualname)
    )


def _refusal(own: str, what: str) -> TypeError:
    return TypeError(
        f"{own} takes an async def function, not {what}: put @durable next to the def, other "
        "decorators under it only if they return async def functions, too"
    )


def _qualname_of(function: FunctionType) -> str:
    module = function.__module__ or "__main__"
    if module == "__main__":  # by `python -m` it has a name by which it can be imported
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        module = module if spec is None else spec.name
    return f"{module}:{function.__qualname__}"


def _is_same(one: Any, other: FunctionType) -> bool:
    """Whether two functions are of one line of one file, which was executed twice."""
    codes = one.__code__, other.__code__
    first, second = ((code.co_qualname, os.path.realpath(code.co_filename)) for code in codes)
    names = one.__qualname__, other.__qualname__  # decorators' own have all one code
    of_file = not one.__code__.co_filename.startswith("<")  # nor typed or made
    return of_file and first == second and names[0] == names[1]


def adopt(code: CodeType, name: str, qualname: str, once: bool, options: Options) -> None:
    """Register a code that has come from a host by value, and is no function's of this process."""
    _codes[id(code)] = Durable(name, _not_here, qualname, options, once)
    _alive.append(code)


def _not_here(*_: object) -> None:
    raise LookupError("this durable function is known by its code alone")


def _enter(entry: Durable, function: FunctionType) -> None:
    """Make an entry that of its name, for all functions that ever had the name."""
    code = function.__code__
    known = _codes.get(id(code))
    if _is_of_many(function) or (known and known.name != entry.name):
        _shared.add(id(code))
        _codes.pop(id(code), None)
    elif id(code) not in _shared:
        _codes[id(code)] = entry
    _functions[id(function)] = entry
    _alive.extend((function, code))
    if entry.name in _names:
        for table in (_functions, _codes):
            for key, other in table.items():
                if other.name == entry.name:
                    table[key] = entry
    _names[entry.name] = entry
