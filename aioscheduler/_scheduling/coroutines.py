"""What may be scheduled: an unstarted coroutine, with an answer for each thing that is not one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from types import CoroutineType
from typing import Any


def check_awaitable(awaitable: object) -> None:
    """Refuses what cannot be awaited, or not from its beginning.

    Raises:
        TypeError: With a hint at what was probably meant.
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
                "call the function again for each schedule()"
            )
    elif not isinstance(awaitable, Awaitable):
        if inspect.iscoroutinefunction(awaitable):
            name = getattr(awaitable, "__name__", "work")
            raise TypeError(f"{name} is the function: call it, schedule({name}(...))")
        raise TypeError(
            f"schedule() takes a coroutine such as work(1), not {type(awaitable).__name__}"
        )


def name_of(called: Any) -> str:
    """Return `module:qualname` of a function or a coroutine, as far as it says so."""
    if isinstance(called, CoroutineType):
        frame = called.cr_frame  # None once it has ended
        module = frame.f_globals.get("__name__") if frame is not None else None
    else:
        module = getattr(called, "__module__", None)
    name = getattr(called, "__qualname__", type(called).__qualname__)
    return f"{module}:{name}" if module else name


def close_refused(awaitable: object, refusal: BaseException) -> None:
    """Closes what was refused; says first that it is no coroutine, if some other wrong was found.

    Raises:
        TypeError: It is none.
    """
    close_unstarted(awaitable)
    if type(refusal) in (TypeError, ValueError) and not isinstance(awaitable, Awaitable):
        try:
            check_awaitable(awaitable)
        except TypeError as first:
            raise first from None


def close_unstarted(awaitable: Any) -> None:
    """Closes a coroutine that will never run, so that Python does not warn of it."""
    if isinstance(awaitable, CoroutineType) and not (
        awaitable.cr_running or awaitable.cr_suspended
    ):
        awaitable.close()
