"""A library's decorator, with globals of its own, for `kinds`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

OFFSET = 1  # a module that uses the decorator has a global of the same name


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def outer(*args: Any) -> Any:
            return "counted", OFFSET, await function(*args)

        return outer

    @functools.wraps(function)
    def plain_outer(*args: Any) -> Any:
        return "counted", OFFSET, function(*args)

    return plain_outer
