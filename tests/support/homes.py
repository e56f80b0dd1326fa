"""A home of handles where nothing happens by itself, for the tests of listeners."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler.task import State, Task, TaskRef

DUE = 5 * 10**9


class Home:
    """A fake `home.Home`: its tasks run until a test ends them.

    Args:
        loop: The running loop, if there is one.

    Attributes:
        cancelled: The numbers of tasks, once for each request to cancel.
        moved: The tasks that were rescheduled, with their new times.
        stored_ones: The numbers of tasks whose storing was awaited, with what is kept of them.
        held: Handles that are awaited.
        next_start: The next start of every task, which `due` returns.
    """

    identity = 5 << 64

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop
        self.loop_thread = LoopThread("manager")
        if loop is not None:
            self.loop_thread.enter(loop)
        self.cancelled: list[int] = []
        self.moved: list[tuple[int, int]] = []
        self.stored_ones: list[tuple[int, Any]] = []
        self.held: list[Task[Any]] = []
        self.next_start: int | None = None

    def new_due(self, when: datetime | timedelta | None) -> int:
        return DUE

    def cancel(self, scheduler: int, number: int) -> bool:
        self.cancelled.append(number)
        return True

    def reschedule(self, scheduler: int, number: int, due: int) -> bool:
        self.moved.append((number, due))
        return True

    def state(self, number: int) -> State:
        return State.RUNNING

    def ref(self, scheduler: int, number: int, kept: object = None) -> TaskRef:
        return TaskRef("m", 1, scheduler, number)

    def due(self, scheduler: int, number: int) -> int | None:
        return self.next_start

    async def stored(self, number: int, kept: Any) -> None:
        self.stored_ones.append((number, kept))

    def name_of(self, label: Any) -> str:
        return f"function {label}"

    def hold(self, task: Task[Any]) -> None:
        self.held.append(task)

    def release(self, task: Task[Any]) -> None:
        self.held.remove(task)
