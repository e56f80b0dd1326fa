"""What is taken as it is: the coroutine itself, and the context of its call."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest
from herewith import give

from aioscheduler._routing.localentry import Attempts
from aioscheduler._routing.localshipper import LocalShipper
from aioscheduler._shipping.propagation import captured_here
from aioscheduler.options import Options
from aioscheduler.retry import Retry

variable: ContextVar[str] = ContextVar("variable", default="nobody")


def test_a_coroutine_is_taken_as_it_is() -> None:
    coro = give(1)
    assert LocalShipper().take(coro) == (coro, None)
    coro.close()


def test_what_goes_with_it_is_a_copy_of_the_context_of_the_call() -> None:
    shipper = LocalShipper()
    token = variable.set("ann")
    options = Options(timeout=1.0)
    record = shipper.take_record(options, [1, "captured"])
    variable.reset(token)
    assert record is not None
    assert record[0] is options
    assert record[1].run(variable.get) == "ann"
    assert record[1].run(captured_here) == [1, "captured"]
    assert captured_here() is None


async def test_one_that_is_retried_is_made_anew() -> None:
    shipper = LocalShipper()
    record = shipper.take_record(Options(retry=Retry()))
    attempts, taken = shipper.take(give("value"), record)
    assert isinstance(attempts, Attempts)
    assert taken is record
    assert [await attempts.begin(), await attempts.begin()] == ["value", "value"]


def test_one_that_cannot_be_made_anew_is_refused() -> None:
    shipper = LocalShipper()
    inner = give(1)
    coro: Any = give(inner)
    with pytest.raises(TypeError, match="has a coroutine as an argument"):
        shipper.take(coro, shipper.take_record(Options(retry=Retry())))
    coro.close()
    inner.close()
    with pytest.raises(TypeError, match="give is the function: call it"):
        shipper.take(give)  # type: ignore[arg-type]
