"""Calls that do not travel: the coroutine itself, and the context of its call."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from herewith import give

from aioscheduler._routing.localentry import Attempts
from aioscheduler._routing.localshipper import LocalShipper, call_function
from aioscheduler.options import Options
from aioscheduler.retry import Retry

variable: ContextVar[str] = ContextVar("variable", default="nobody")


def test_it_is_taken_as_it_is() -> None:
    shipper, coro = LocalShipper(), give(1)
    assert shipper.take(coro) == (coro, None)
    assert shipper.take_function(print) is print
    arguments: Any = (1, [2])
    assert shipper.take_arguments(arguments) is arguments
    assert shipper.take_plain([arguments]) == [arguments]
    coro.close()


def test_a_copy_of_the_context_of_the_call_goes_with_it() -> None:
    shipper = LocalShipper()
    token = variable.set("ann")
    options = Options(timeout=1.0)
    record = shipper.take_record(options, [1, "captured"])
    variable.reset(token)
    assert record is not None
    assert record[0] is options
    assert record[1].run(variable.get) == "ann"
    assert record[2] == [1, "captured"]
    assert shipper.take_record(None)[2] is None  # type: ignore[index]


async def test_a_retried_run_is_called_again() -> None:
    shipper = LocalShipper()
    record = shipper.take_record(Options(retry=Retry()))
    attempts, taken = shipper.take(give("value"), record)
    assert isinstance(attempts, Attempts)
    assert taken is record
    assert [await attempts.begin(), await attempts.begin()] == ["value", "value"]


def test_a_call_that_cannot_be_repeated_is_refused() -> None:
    shipper = LocalShipper()
    inner = give(1)
    coro: Any = give(inner)
    with pytest.raises(TypeError, match="has a coroutine as an argument"):
        shipper.take(coro, shipper.take_record(Options(retry=Retry())))
    coro.close()
    inner.close()
    with pytest.raises(TypeError, match="give is the function: call it"):
        shipper.take(give)  # type: ignore[arg-type]


async def test_an_awaitable_that_can_be_awaited_once_is_not_retried() -> None:
    shipper = LocalShipper()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert shipper.take(future)[0] is future
    with pytest.raises(TypeError):
        shipper.take(future, shipper.take_record(Options(retry=Retry())))


async def test_functions_are_called_plain_or_async() -> None:
    assert await call_function(abs, (-1,)) == 1
    assert await call_function(partial(give, 2), ()) == 2


def test_each_function_is_asked_for_where_somebody_wants_to_know() -> None:
    shipper = LocalShipper()
    asked: list[object] = []
    shipper.inspect = asked.append
    coro = give(1)
    shipper.take(coro)
    shipper.take_function(print)
    assert asked == [give, print]
    coro.close()
