"""What may be scheduled: an unstarted coroutine, with an error message for everything else.

A coroutine that has not started is just its function and its arguments: it can be recreated from
those.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Awaitable
from types import CoroutineType, FunctionType
from typing import Any


def check_awaitable(awaitable: object, call: str = "schedule") -> None:
    """Refuse an object that cannot be awaited, or not from the beginning.

    Args:
        awaitable: The object.
        call: The name of the function that refuses it.

    Raises:
        TypeError: It is refused, with a hint at what was probably meant.
    """
    if isinstance(awaitable, CoroutineType):
        if awaitable.cr_running or awaitable.cr_suspended:
            raise TypeError(
                f"{awaitable.__qualname__}() has started already; "
                "schedule a coroutine that nothing has awaited yet"
            )
        if awaitable.cr_frame is None:
            raise TypeError(
                f"{awaitable.__qualname__}() has been awaited or closed already; "
                f"call the function again for each {call}()"
            )
    elif not isinstance(awaitable, Awaitable):
        if inspect.iscoroutinefunction(awaitable):
            name = getattr(awaitable, "__name__", "work")
            raise TypeError(f"{name} is the function: call it, {call}({name}(...))")
        raise TypeError(
            f"{call}() takes a coroutine such as work(1), not {type(awaitable).__name__}; "
            "plain functions are called by a manager's map(), or by an async def function"
        )


def take_apart(coro: object, what: str) -> tuple[FunctionType, list[Any], dict[str, Any]]:
    """Return function, positional and keyword arguments of an unstarted coroutine, left intact.

    Args:
        coro: The coroutine.
        what: What needs it to be recreated, for error messages.

    Raises:
        TypeError: `coro` is another awaitable, or the call of its function cannot be repeated.
    """
    if not isinstance(coro, CoroutineType):
        raise TypeError(
            f"{what} is a coroutine of an async def function, and a {type(coro).__name__} cannot "
            "be recreated: wrap it in an async def function that makes and awaits it"
        )
    function = function_of(coro)
    if function is None or function.__code__ is not coro.cr_code:
        raise TypeError(
            f"the code of {coro.__qualname__}() was exchanged after the call, and {what} is called "
            "again: call the function once more"
        )
    return function, *read_arguments(coro)


def function_of(coro: object) -> FunctionType | None:
    """Return the function of an unstarted coroutine; None for any other object."""
    # `gc` finds it even if a decorator has renamed it.
    return next((each for each in gc.get_referents(coro) if type(each) is FunctionType), None)


def read_arguments(coro: CoroutineType[Any, Any, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and keyword arguments of an unstarted coroutine, defaults included."""
    assert coro.cr_frame is not None
    values, code = coro.cr_frame.f_locals, coro.cr_code
    names, count = code.co_varnames, code.co_argcount
    rest = count + code.co_kwonlyargcount
    args = [values[name] for name in names[:count]]
    kwargs = {name: values[name] for name in names[count:rest]}
    if code.co_flags & inspect.CO_VARARGS:
        args += values[names[rest]]
        rest += 1
    if code.co_flags & inspect.CO_VARKEYWORDS:
        kwargs |= values[names[rest]]
    return args, kwargs


def name_of(called: Any) -> str:
    """Return `module:qualname` of a function or a coroutine, without the module if it has none."""
    if isinstance(called, CoroutineType):
        frame = called.cr_frame  # None once it has ended
        module = frame.f_globals.get("__name__") if frame is not None else None
    else:
        module = getattr(called, "__module__", None)
    name = getattr(called, "__qualname__", type(called).__qualname__)
    return f"{module}:{name}" if module else name


def close_refused(awaitable: object, refusal: BaseException) -> None:
    """Close a refused object; that it is no awaitable takes precedence over a wrong argument.

    Raises:
        TypeError: `awaitable` is no awaitable.
    """
    close_unstarted(awaitable)
    if type(refusal) in (TypeError, ValueError) and not isinstance(awaitable, Awaitable):
        try:
            check_awaitable(awaitable)
        except TypeError as first:
            raise first from None


def close_unstarted(awaitable: Any) -> None:
    """Close a coroutine that will never run, so that Python does not warn about it."""
    if isinstance(awaitable, CoroutineType) and not (
        awaitable.cr_running or awaitable.cr_suspended
    ):
        awaitable.close()
