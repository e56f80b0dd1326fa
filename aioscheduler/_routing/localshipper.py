"""What users call, taken as it is: it does not travel.

schedule(work(1), retry=...) ─► (what is awaited, its record) ─► an entry (`localentry`)
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
"""What goes with a task: its options, the context of the call, and what was captured for it; None:
there is nothing but the present context."""

LocalCall = tuple[Work, LocalRecord]


class LocalShipper:
    """Takes what users call as it is (`link.Shipper`).

    Attributes:
        inspect: Is asked of each function whether it may be scheduled, and raises if not.
    """

    inspect: Callable[[object], None] | None = None

    def take_record(self, options: Options | None, captured: Captured | None = None) -> LocalRecord:
        """Take what goes with a task, and with it the present context."""
        return options, copy_context(), captured

    def take(self, coro: Awaitable[Any], record: LocalRecord = None) -> LocalCall:
        """Check that something can be scheduled here.

        Raises:
            TypeError: It is no awaitable, or has started; or it is to be retried, and cannot be
                made anew.
            NotDurable: It would be in memory alone, and looks as if it were not.
        """
        check_awaitable(coro)
        if self.inspect is not None:
            self.inspect(function_of(coro))
        options = None if record is None else record[0]
        if options is not None and options.retry is not None:
            return Attempts(self.take_often("what is retried", coro), coro), record
        return coro, record

    def take_often(self, what: str, coro: Awaitable[Any]) -> Callable[[], Awaitable[Any]]:
        """Return what makes a coroutine anew whenever it is called; that one is unharmed.

        Args:
            what: It is called so in a refusal.
            coro: One that has not started.

        Raises:
            TypeError: That call of its function cannot be made again.
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
    """Call a function, plain or async, when its time has come."""
    value = function(*args)
    return await value if isinstance(value, Awaitable) else value
