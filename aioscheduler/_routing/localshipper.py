"""Calls that do not travel: coroutines are taken as they are.

schedule(work(1), retry=...) ─► (work, record) ─► an entry (`localentry`)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType
from typing import Any

from .._scheduling.coroutines import check_awaitable, function_of, name_of, take_apart
from .._shipping.propagation import Captured
from ..options import Options
from .localentry import Attempts, Work

LocalRecord = tuple["Options | None", Context, "Captured | None"] | None
"""A task's options, the context of the scheduling call, and the values captured for the task;
None: only the present context."""

LocalCall = tuple[Work, LocalRecord]


class LocalShipper:
    """Takes users' coroutines as they are (`link.Shipper`).

    Attributes:
        inspect: Called with each function; raises if it must not be scheduled.
    """

    inspect: Callable[[object], None] | None = None

    def take_record(self, options: Options | None, captured: Captured | None = None) -> LocalRecord:
        """Make a record, with the present context."""
        return options, copy_context(), captured

    def take(self, coro: Awaitable[Any], record: LocalRecord = None) -> LocalCall:
        """Check that an awaitable can be scheduled here, and return the call.

        Raises:
            TypeError: It is not an awaitable, or has started; or it has `retry` and its call cannot
                be repeated.
            NotDurable: It would only be in memory, though its function looks durable.
        """
        check_awaitable(coro)
        if self.inspect is not None:
            self.inspect(function_of(coro))
        options = None if record is None else record[0]
        if options is not None and options.retry is not None:
            return Attempts(self.take_often("what is retried", coro), coro), record
        return coro, record

    def take_often(self, what: str, coro: Awaitable[Any]) -> Callable[[], Awaitable[Any]]:
        """Return a function that repeats the call of a coroutine, which itself is left alone.

        Args:
            what: The subject of a refusal.
            coro: A coroutine that has not started.

        Raises:
            TypeError: The call cannot be repeated.
        """
        check_awaitable(coro)
        function, args, kwargs = take_apart(coro, what)
        if any(isinstance(value, CoroutineType) for value in (*args, *kwargs.values())):
            raise TypeError(
                f"{name_of(coro)}() has a coroutine as an argument, which can be awaited once, "
                f"and {what} is called again; have an async def function make it for each run"
            )
        return partial(function, *args, **kwargs)

    def take_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self.inspect is not None:
            self.inspect(function)
        return function

    def take_arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args

    def take_plain(self, calls: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return calls


async def call_function(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a function, plain or async, at its due time."""
    value = function(*args)
    return await value if isinstance(value, Awaitable) else value
