"""Somebody cancels all tasks of the loop, at any turn: waiters are notified all the same.

A program does so to end its own tasks, and cancels the library's, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import reminders
from stores import TrickyStore
from turning import turns

from aioscheduler import AioschedulerError, Task
from aioscheduler._routing import fleet
from aioscheduler._scheduling import holdback
from aioscheduler._transport.pipe import HIGH_WATER
from aioscheduler.testing import FakeClock, FakeManager

DAY = timedelta(days=1)
TURNS = 14
PATIENCE = 20.0  # seconds after which a wait is considered endless

WORKERS = pytest.mark.parametrize(
    ("workers", "spared"), [(0, False), (2, False), (2, True)], ids=["here", "both ends", "host"]
)
"""With workers in the same loop: whether their tasks are spared, as those of processes are."""

PROCESSES = pytest.mark.parametrize("spared", [False, True], ids=["both ends", "host"])
FILES = pytest.mark.parametrize("stored", [False, True], ids=["memory", "store"])
INITIALIZERS = pytest.mark.parametrize("initializer", [None, asyncio.sleep], ids=["", "lifespan"])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(holdback, "LOOK_EVERY", 0)
    monkeypatch.setattr(fleet, "next_tick", lambda now: now + 0.01)
    reminders.done.clear()
    yield
    reminders.done.clear()


def cancel_all(spared: bool) -> None:
    """Cancel all tasks of the loop but this one."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        coro: Any = task.get_coro()
        file = Path(coro.cr_code.co_filename)
        if not (spared and file.parent.name == "aioscheduler_workers"):
            task.cancel()


async def settled(awaitable: Awaitable[Any]) -> None:
    """Wait for it, long enough for everything to end; it may raise an error of ours."""
    async with asyncio.timeout(PATIENCE):
        with suppress(AioschedulerError):
            await awaitable


async def linger(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class Program:
    """A manager with pending tasks, and a worker to which much must be sent.

    Attributes:
        tasks: All its tasks.
    """

    def __init__(self, workers: int, stored: bool, initializer: Any = None) -> None:
        self.clock = FakeClock()
        self.tasks: list[Task[Any]] = []
        self.manager: FakeManager = self.clock.manager(
            *(2,),
            workers=workers,
            store=TrickyStore() if stored else None,
            initializer=initializer,
            initargs=() if initializer is None else (0,),
        )

    def schedule(self, stored: bool) -> None:
        manager = self.manager
        self.tasks += [manager.schedule(linger(3)), manager.schedule(linger(3), DAY)]
        self.tasks += [manager.schedule(give(b"x" * HIGH_WATER)) for _ in range(2)]
        if stored:
            self.tasks += [manager.schedule(reminders.note("a"), when) for when in (None, DAY)]
            self.tasks.append(manager.schedule(reminders.note("b"), id="b"))

    async def end(self) -> None:
        """End everything."""
        await settled(self.manager.ready())
        async with asyncio.timeout(PATIENCE):
            await self.clock.advance(2 * DAY)
        await settled(self.manager.join())
        await settled(self.manager.close(0))
        await settled(self.manager.close(0))
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(self.tasks)
        for task in self.tasks:
            if not task.cancelled():
                task.exception()
        assert not len(self.manager)


async def give(value: bytes) -> int:
    return len(value)


@WORKERS
@FILES
@INITIALIZERS
@pytest.mark.parametrize("turn", range(TURNS))
async def test_while_a_manager_starts(
    workers: int, spared: bool, stored: bool, initializer: Any, turn: int
) -> None:
    program = Program(workers, stored, initializer)
    program.schedule(stored)
    program.manager.start()
    await turns(turn)
    cancel_all(spared)
    await program.end()


@PROCESSES
@FILES
@pytest.mark.parametrize("turn", range(TURNS))
async def test_while_a_worker_is_replaced(spared: bool, stored: bool, turn: int) -> None:
    program = Program(2, stored)
    async with program.manager:
        program.schedule(stored)
        program.manager.kill(turn % 2)
        await turns(turn)
        cancel_all(spared)
        await program.end()


@WORKERS
@FILES
@pytest.mark.parametrize("turn", range(1, TURNS))
async def test_while_a_manager_closes(workers: int, spared: bool, stored: bool, turn: int) -> None:
    program = Program(workers, stored)
    program.manager.start()
    await program.manager.ready()
    program.schedule(stored)
    await turns(3)
    closing = asyncio.create_task(program.manager.close())
    await turns(turn)
    cancel_all(spared)
    await asyncio.wait([closing], timeout=PATIENCE)
    assert closing.done()
    await settled(program.manager.join())  # although nobody closes it any more
    await program.end()
