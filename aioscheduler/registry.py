"""Functions whose tasks outlive the host, by their names in the store's file.

    @durable("remind") ─► registry ◄─ name ─ a row of the file
                              └─ function ─► a coroutine of `schedule`

The file holds only the name: a function may be moved or renamed in the code and keeps its tasks.
Retries and timeouts belong to the function, not to the file, so that a new version of the program
changes them for stored tasks, too (an idea of River's and Oban's workers).

Rules of this file:

1. A name has one function, and a function one name. A function that is defined again (a notebook
   cell, a reload, a script that is also imported) replaces the old one, which stays known: whoever
   still holds it means the new one.
2. A coroutine exposes only its code, and several functions may share one code object: those made
   by one decorator, or in a loop. For such code the function itself is searched for.
3. Everything registered is kept alive, so that no registered id() is ever reused.
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
    """A registered function.

    Attributes:
        name: Its name in the file.
        function: The function.
        qualname: Its `module:qualname`.
        options: The options of its tasks, except their names.
        once: Whether its tasks must not begin a second time (`on_loss="fail"`).
    """

    name: str
    function: Callable[..., Any]
    qualname: str
    options: Options
    once: bool


_names: dict[str, Durable] = {}
_functions: dict[int, Durable] = {}  # by id
_codes: dict[int, Durable] = {}  # by id; only codes that belong to one name
_shared: set[int] = set()  # ids of codes that several functions may share
_alive: list[object] = []  # everything whose id is used above


def durable(
    name: str,
    *,
    timeout: float | timedelta | None = None,
    retry: Retry | None = None,
    max_lateness: float | timedelta | None = None,
    on_loss: Literal["rerun", "fail"] = "rerun",
) -> Callable[[F], F]:
    """Register an `async def` function whose tasks outlive the host.

    A manager with a store keeps its tasks in the store's file until they have ended; on any other
    manager they run like all tasks, with these options.

    Args:
        name: The function's name in the file, unique to it. Keep it when the function is moved or
            renamed in the code.
        timeout: As for `schedule`, like `retry` and `max_lateness`. These belong to the function:
            tasks already stored follow the options of the running program.
        retry: Which failures are retried. A CancelledError never is: if the task raises it
            without being cancelled, it becomes a dead letter. Whatever a task raises when a close
            or the end of its worker cancels it does not count: the task has not ended.
        max_lateness: How late a task may start.
        on_loss: What happens to a task that had begun when its process, or the host, died:
            "rerun" starts it again, so that it runs at least once; "fail" makes it a dead letter,
            so that it runs at most once.

    Returns:
        A decorator, which returns the function itself. Methods may be decorated in their class.

    Raises:
        TypeError: A value has the wrong type, or (from the decorator) the function is not an
            `async def` function.
        ValueError: A value is out of range, or (from the decorator) the name belongs to another
            function, or the function has another name.
        NotDurable: The next host could not find the function, as when it is defined in another.
    """
    if callable(name):
        raise TypeError('durable() needs a name for the store\'s file: write @durable("name")')
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
    """Return the entry of a name, None if there is none."""
    return _names.get(name)


def of_function(function: object) -> Durable | None:
    """Return the entry of a function; a bound or wrapped function is a different one."""
    return _functions.get(id(function))


def of_code(code: CodeType) -> Durable | None:
    """Return the entry of a code's function; None for a code that several may share."""
    return _codes.get(id(code))


def of_coroutine(coro: Any) -> Durable | None:
    """Return the entry of an unstarted coroutine's function."""
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
    """Return the options of a task: those of its function, with the name that the call gives.

    Raises:
        TypeError: The call gives an option that belongs to the function or is not for a queue.
        ValueError: A value is out of range.
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
                f"set {option} in the decorator, @durable({durable.name!r}, {option}=...): it "
                "belongs to the function, so that a new version of the program changes it for "
                "stored tasks, too"
            )
    return durable.options._replace(name=read.name)


def check_plain(function: object) -> None:
    """Refuse an unregistered function that wraps a registered one.

    Its tasks would be in memory only, unnoticed.

    Raises:
        NotDurable: It wraps a registered function.
    """
    if not _functions or id(function) in _functions:
        return
    seen = {id(function)}
    left = [function]
    while left:  # not by recursion: a chain of wrappers may be long, or a cycle
        for inner in _wrapped_by(left.pop()):
            if id(inner) in seen:
                continue
            found = _functions.get(id(inner))
            if found is not None:
                raise NotDurable(_why_not_plain(function, found))
            seen.add(id(inner))
            left.append(inner)


def _wrapped_by(called: object) -> Iterator[object]:
    """Yield the callables that this one may wrap; no attribute of a proxy is looked up."""
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
            f"a {type(function).__name__} of {found.qualname}, which {own} registers, would not "
            "be stored: give the function itself, with all of its arguments"
        )
    maker, inside, _ = function.__code__.co_qualname.partition(".<locals>")
    made = f"@{maker}" if inside else "another decorator"
    return (
        f"{name_of(function)} is what {made} makes of {found.qualname}, which {own} registers, and "
        f"would not be stored: put {own} above {made}, so that it registers the result, or "
        "schedule the function itself"
    )


def _check(name: str, function: object) -> FunctionType:
    """Return the function if it can be registered.

    Raises:
        TypeError: It is not an `async def` function.
        NotDurable: The next host could not find it.
    """
    own = f'@durable("{name}")'
    if not isinstance(function, FunctionType):
        raise _refusal(own, f"a {type(function).__name__}")
    qualname = _qualname_of(function)
    if function.__name__ == "<lambda>" or "<locals>" in function.__qualname__:
        raise NotDurable(
            f"the next host must find {own} again, and {qualname} is created each time the code "
            "around it runs: define it at the top of a module, or in a class there, and pass it "
            "what it needs as arguments; a decorator's wrapper needs functools.wraps"
        )
    if not function.__code__.co_flags & inspect.CO_COROUTINE:
        raise _refusal(own, f"{qualname}, which is not one")
    if function.__module__ == "__main__" and _is_of_many(function):
        raise NotDurable(
            f"{qualname} is made by a decorator under {own}, in the script itself: a worker gets "
            "only its code, which everything that decorator makes has in common; move the "
            "function to a module of its own, or leave that decorator out"
        )
    return function


def _is_of_many(function: FunctionType) -> bool:
    """Return whether other functions may share its code: it closes over more than its class."""
    return function.__code__.co_freevars not in ((), ("__class__",))


def _choose(name: str, function: FunctionType) -> tuple[Callable[..., Any], str]:
    """Return the function that a name gets from now on, and its qualname.

    Raises:
        ValueError: The name belongs to another function, or the function has another name.
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
            "function: give that one a name of its own"
        )
    # One script, run as `__main__` and imported as a module: any host can import the module.
    return (
        (before.function, before.qualname)
        if qualname.startswith("__main__:")
        else (function, qualname)
    )


def _refusal(own: str, what: str) -> TypeError:
    return TypeError(
        f"{own} takes an async def function, not {what}: put @durable next to the def, with "
        "other decorators under it only if they return async def functions, too"
    )


def _qualname_of(function: FunctionType) -> str:
    module = function.__module__ or "__main__"
    if module == "__main__":  # run by `python -m`, it has a name under which to import it
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        module = module if spec is None else spec.name
    return f"{module}:{function.__qualname__}"


def _is_same(one: Any, other: FunctionType) -> bool:
    """Return whether two functions come from one definition that was executed twice."""
    codes = one.__code__, other.__code__
    first, second = ((code.co_qualname, os.path.realpath(code.co_filename)) for code in codes)
    names = one.__qualname__, other.__qualname__  # all wrappers of a decorator share one code
    of_file = not one.__code__.co_filename.startswith("<")  # neither typed nor generated
    return of_file and first == second and names[0] == names[1]


def adopt(code: CodeType, name: str, qualname: str, once: bool, options: Options) -> None:
    """Register a code that a host sent by value, and that no function of this process has."""
    _codes[id(code)] = Durable(name, _not_here, qualname, options, once)
    _alive.append(code)


def _not_here(*_: object) -> None:
    raise LookupError("this durable function is known only by its code")


def _enter(entry: Durable, function: FunctionType) -> None:
    """Register an entry for its name, and for all functions that ever had that name."""
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
