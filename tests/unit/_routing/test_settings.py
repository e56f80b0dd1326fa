"""What a manager is told: how it is read, and that a refusal says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aioscheduler import Manager
from aioscheduler._routing.settings import ManagerOptions, Settings, read_settings
from aioscheduler._scheduling.order import Order

SILENT: Any = {
    "workers": 0,
    "initializer": None,
    "initargs": (),
    "loop_initializer": None,
    "on_worker_loss": "fail",
    "max_restarts": (5, 30.0),
    "monitor": False,
    "max_running": None,
}
"""All that is said by who says nothing, but for `workers`."""


def read(**said: Any) -> Settings:
    return read_settings(Order.TIMED, True, 1, SILENT | said)


def test_each_option_is_read() -> None:
    assert ManagerOptions.__annotations__.keys() == SILENT.keys()
    assert read() == Settings(
        *(Order.TIMED, True, [1], True, None, None, False, (5, 30.0), False, None)
    )
    said = read(
        workers=1,
        initializer=print,
        initargs=["dsn"],
        loop_initializer=asyncio.new_event_loop,
        on_worker_loss="rerun",
        max_restarts=[0, 1],
        monitor=True,
        max_running=3,
    )
    assert said == Settings(
        *(Order.TIMED, True, [1], False, (print, ("dsn",)), asyncio.new_event_loop),
        *(True, (0, 1), True, 3),
    )


def test_the_manager_says_what_was_left_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note(order: Order, prefer_utc: bool, schedulers: int | None, said: Any) -> Settings:
        seen.append(said)
        return read_settings(order, prefer_utc, schedulers, said)

    monkeypatch.setattr("aioscheduler.manager.read_settings", note)
    Manager()
    assert seen == [SILENT | {"workers": None}]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"initargs": 5}, r"a tuple, such as \(5,\), not 5"),
        ({"initializer": print, "initargs": "dsn"}, r"such as \('dsn',\)"),
        ({"initializer": 5}, "initializer must be a function, not 5"),
        ({"loop_initializer": 5}, r"makes a loop, not 5; leave out the \(\)"),
        ({"max_restarts": 5}, r"max_restarts must be \(how many, in seconds\), not 5"),
        ({"max_restarts": (1, 2, 3)}, "max_restarts must be"),
        ({"max_restarts": (1.5, 30.0)}, r"max_restarts\[0\] must be an int, not float"),
        ({"max_running": 2.0}, "max_running must be an int, not float"),
        ({"max_running": True}, "max_running must be an int, not bool"),
        *(({"monitor": wrong}, f"must be True or False, not {wrong!r}") for wrong in ("no", 1)),
    ],
)
def test_arguments_that_no_manager_takes(said: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read(**said)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"workers": 2}, "workers=2 is more than schedulers=1"),
        ({"on_worker_loss": "again"}, 'must be "fail" or "rerun", not \'again\''),
        ({"max_restarts": (-1, 30.0)}, r"max_restarts\[0\] must be at least 0"),
        ({"max_restarts": (5, 0)}, r"max_restarts\[1\] must be seconds, more than 0, not 0"),
        ({"max_restarts": (5, math.inf)}, r"max_restarts\[1\] must be seconds"),
        ({"loop_initializer": asyncio.new_event_loop}, "workers=0 has none"),
        *(({"max_running": no}, "max_running must be at least 1") for no in (0, -1)),
    ],
)
def test_values_that_no_manager_takes(said: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(**said)


@pytest.mark.parametrize("order", [Order.FIFO, Order.LIFO])
def test_a_queue_takes_no_limit_of_its_own(order: Order) -> None:
    with pytest.raises(ValueError, match="a queue runs one task at a time: leave out max_running"):
        read_settings(order, True, 1, SILENT | {"max_running": 1})
    with pytest.raises(TypeError, match="must be an int"):
        read_settings(order, True, 1, SILENT | {"max_running": "1"})


@contextlib.contextmanager
def lifespan() -> Iterator[None]:
    yield


def generator() -> Iterator[int]:
    yield 1


class Steps:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize("initializer", [lifespan, functools.partial(lifespan), generator, Steps()])
def test_an_initializer_that_would_not_run_is_refused(initializer: Any) -> None:
    with pytest.raises(TypeError, match="must not contain a yield"):
        read(initializer=initializer)
