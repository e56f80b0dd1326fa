"""What is called in this process is taken as it is, and what cannot be is refused."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from herewith import give

from aioscheduler._routing.localentry import Attempts
from aioscheduler._routing.localshipper import LocalShipper, call_function
from aioscheduler.options import Options
from aioscheduler.retry import Retry

RETRIED = Options(retry=Retry())


async def test_it_is_taken_as_it_is() -> None:
    shipper, coro, options = LocalShipper(), give(1), Options(name="a")
    assert shipper.take(coro) == (coro, None)
    assert shipper.take(coro, options) == (coro, options)
    assert shipper.take_options(options) is options
    assert shipper.take_function(print) is print
    arguments: Any = (1, [2])
    assert shipper.take_arguments(arguments) is arguments
    assert shipper.take_plain([arguments]) == [arguments]
    coro.close()


async def test_what_is_retried_can_be_made_anew() -> None:
    attempts, _ = LocalShipper().take(give(5), RETRIED)
    assert isinstance(attempts, Attempts)
    assert [await attempts.begin() for _ in range(2)] == [5, 5]


async def test_what_is_no_awaitable_or_can_be_awaited_once_is_refused() -> None:
    shipper = LocalShipper()
    with pytest.raises(TypeError):
        shipper.take(5)  # type: ignore[arg-type]
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert shipper.take(future)[0] is future
    with pytest.raises(TypeError):
        shipper.take(future, RETRIED)
    inner = give(1)
    outer = give(inner)
    with pytest.raises(TypeError, match="has a coroutine as an argument"):
        shipper.take(outer, RETRIED)
    inner.close()
    outer.close()


async def test_functions_are_called_plain_or_async() -> None:
    assert await call_function(abs, (-1,)) == 1
    assert await call_function(partial(give, 2), ()) == 2
