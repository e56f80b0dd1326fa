"""Ending running tasks, with all waits set to nothing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from turning import turns

from aioscheduler._scheduling import ending
from aioscheduler._scheduling.alarm import Alarm
from aioscheduler._scheduling.ending import end_running
from aioscheduler._scheduling.engine import Engine
from aioscheduler._scheduling.lateness import Recorder
from aioscheduler._scheduling.order import Order
from aioscheduler._scheduling.running import Running


class Runner:
    """Runs coroutine functions, and records what they saw."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def launch(self, engine: Engine[Any], numbers: list[int], dues: list[int]) -> None:
        engine.run(numbers, dues)

    async def execute(self, engine: Engine[Any], number: int, entry: Any, due: int) -> None:
        try:
            await entry()
            self.log.append(number)
        except asyncio.CancelledError:
            self.log.append((number, engine.running.was_given_up(number)))
        engine.ended(number)

    def withdrawn(self, engine: Engine[Any], number: int, entry: Any) -> None:
        self.log.append(("withdrawn", number))

    def broken(self, engine: Engine[Any], error: Exception, launched: dict[int, Any]) -> None:
        raise error


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def swallow() -> None:
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
    await forever()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "CLEANUP_TIME", 0.001)
    monkeypatch.setattr(ending, "LAST_WORDS", 0.001)


async def running(*entries: Any) -> tuple[Engine[Any], Runner, Alarm]:
    runner = Runner()
    engine: Engine[Any] = Engine(3, Order.TIMED, runner, Recorder(), lambda: 5)
    alarm = Alarm(asyncio.get_running_loop(), lambda: 5)
    engine.add_many(range(len(entries)), 0, entries)
    engine.start(asyncio.get_running_loop(), alarm)
    await turns()
    engine.stop()
    alarm.stop()
    return engine, runner, alarm


async def test_a_task_that_ends_in_time_is_left_alone() -> None:
    gate = asyncio.Event()
    engine, runner, _ = await running(gate.wait, forever)
    asyncio.get_running_loop().call_soon(gate.set)
    assert await end_running([engine], 0.01) == []
    assert runner.log == [0, (1, False)]


async def test_they_may_be_given_up() -> None:
    engine, runner, _ = await running(forever, forever)
    engine.running.cancel(1)  # its end was requested
    assert await end_running([engine], 0, cancel=Running.give_up) == []
    assert sorted(runner.log) == [(0, True), (1, False)]


async def test_tasks_that_swallow_their_cancellation_twice_are_reported() -> None:
    engine, runner, _ = await running(forever, swallow)
    assert await end_running([engine], 0) == [(3, 1)]
    assert runner.log == [(0, False)]
    engine.running.cancel(1)
    await turns()


async def test_the_caller_is_spared() -> None:
    engine, runner, _ = await running(forever, forever)
    assert await end_running([engine], 0, caller=(3, 0)) == []
    assert runner.log == [(1, False)]
    engine.running.cancel(0)
    await turns()
