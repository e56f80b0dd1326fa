"""A loop that seems to be ending, played by a fake loop without time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aioscheduler._scheduling.holdback import HoldBack


class Task:
    def __init__(self, cancelling: int) -> None:
        self._cancelling = cancelling

    def cancelling(self) -> int:
        return self._cancelling


class Loop:
    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []
        self.closed = False
        self._asyncgens_shutdown_called = False

    def is_closed(self) -> bool:
        return self.closed

    def call_later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        self.later.append(lambda: call(*args))


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    found: list[Task] = []
    monkeypatch.setattr(asyncio, "all_tasks", lambda loop: found)
    return found


def test_it_goes_on_when_something_in_the_loop_does(tasks: list[Task]) -> None:
    loop: Any = Loop()
    log: list[str] = []
    held = HoldBack(lambda: log.append("on"))
    assert not held.active
    held.begin(loop)
    tasks += [Task(1), Task(1)]
    loop.later.pop()()
    assert (held.active, log) == (True, [])  # every task is cancelled
    tasks[1] = Task(0)
    loop.later.pop()()
    assert (held.active, log, loop.later) == (False, ["on"], [])


def test_it_waits_while_the_loop_shuts_down(tasks: list[Task]) -> None:
    loop: Any = Loop()
    held = HoldBack(lambda: None)
    held.begin(loop)
    loop._asyncgens_shutdown_called = True
    loop.later.pop()()
    assert held.active
    assert len(loop.later) == 1  # it looks again if the loop has another turn


def test_it_looks_once_however_many_tasks_were_cancelled(tasks: list[Task]) -> None:
    loop: Any = Loop()
    log: list[str] = []
    held = HoldBack(lambda: log.append("on"))
    for _ in range(3):
        held.begin(loop)
    assert len(loop.later) == 1
    tasks.append(Task(1))
    loop.later.pop()()
    held.begin(loop)
    assert len(loop.later) == 1
    tasks[0] = Task(0)
    loop.later.pop()()
    assert log == ["on"]
    held.begin(loop)  # and it may begin again
    assert (held.active, len(loop.later)) == (True, 1)


def test_a_loop_that_is_closed_is_not_asked(tasks: list[Task]) -> None:
    loop: Any = Loop()
    loop.closed = True
    held = HoldBack(lambda: None)
    held.begin(loop)
    assert (held.active, loop.later) == (False, [])
