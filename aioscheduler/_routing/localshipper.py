"""What users call, for schedulers in this process: it is taken as it is, and does not travel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from types import CoroutineType
from typing import Any

from .._scheduling.coroutines import check_awaitable, name_of, take_apart
from ..options import Options
from .localentry import Attempts, Work

LocalCall = tuple[Work, "Options | None"]


class LocalShipper:
    """Takes what users call as it is: it does not travel."""

    def take_options(self, options: Options) -> Options:
        return options

    def take(self, coro: Awaitable[Any], options: Options | None = None) -> LocalCall:
        """Check that something can be scheduled here.

        Raises:
            TypeError: It is no awaitable, or has started; or it is to be retried, and cannot be
                made anew.
        """
        check_awaitable(coro)
        if options is not None and options.retry is not None:
            function, args, kwargs = take_apart(coro)
            if any(isinstance(value, CoroutineType) for value in (*args, *kwargs.values())):
                raise TypeError(
                    f"{name_of(coro)}() has a coroutine as an argument, which can be awaited once, "
                    "and so not be retried; have an async def function make it for each attempt"
                )
            return Attempts(partial(function, *args, **kwargs), coro), options
        return coro, options

    def take_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def take_arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args

    def take_plain(self, calls: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return calls


async def call_function(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a function, plain or async, when its time has come."""
    value = function(*args)
    return await value if isinstance(value, Awaitable) else value
