"""The context variables that a task sees; no other task sees its changes."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    TimedScheduler,
    current_manager,
)

CLASSES = (TimedScheduler, QueuedScheduler, LifoQueuedScheduler)

user = contextvars.ContextVar("user", default="nobody")


def prepare() -> None:
    """Set a variable for every task; an initializer."""
    decimal.setcontext(decimal.Context(prec=9))


def change(note: str = "") -> int:
    """Return the precision found, and leave another behind."""
    found = decimal.getcontext().prec
    decimal.setcontext(decimal.Context(prec=4))
    if note:
        Path(note).write_text(str(found))
    return found


async def change_later(note: str = "") -> int:
    found = change(note)
    await asyncio.sleep(0.001)
    return found


async def change_and_schedule(note: str) -> int:
    found = await change_later()
    current_manager().schedule(change_later(note))
    return found


@pytest.mark.parametrize("cls", CLASSES)
async def test_tasks_in_a_worker_start_from_the_context_of_the_initializer(
    cls: Any, tmp_path: Path
) -> None:
    async with Manager(1, cls=cls, workers=1, initializer=prepare) as manager:
        tasks = [manager.schedule(change_later()) for _ in range(3)]
        assert await asyncio.gather(*tasks) == [9] * 3
        assert await manager.map(change, [""] * 3) == [9] * 3
        assert await manager.map(change_later, [""] * 3) == [9] * 3
        note = tmp_path / "note"
        assert await manager.schedule(change_and_schedule(str(note))) == 9
        await manager.join()
        assert note.read_text() == "9"


async def see_and_set(name: str) -> str:
    found = user.get()
    user.set(name)
    await asyncio.sleep(0)
    assert user.get() == name
    return found


def see_and_set_plain(name: str) -> str:
    found = user.get()
    user.set(name)
    return found


async def see_and_schedule(name: str, found: list[str]) -> None:
    user.set(name)

    async def inner() -> None:
        found.append(user.get())

    current_manager().schedule(inner())


@pytest.mark.parametrize("cls", CLASSES)
async def test_tasks_in_this_loop_start_from_the_context_of_the_call(cls: Any) -> None:
    async with Manager(1, cls=cls, workers=0) as manager:

        async def request(name: str) -> list[str]:
            user.set(name)
            task = manager.schedule(see_and_set("task"))
            batch = manager.starmap(see_and_set, [("item",)] * 2)
            plain = manager.map(see_and_set_plain, ["item"] * 2)
            return [await task, *await batch, *await plain]

        answers = await asyncio.gather(*map(request, ("ann", "bob")))
        assert answers == [["ann"] * 5, ["bob"] * 5]
        found: list[str] = []
        await asyncio.gather(*(manager.schedule(see_and_schedule(n, found)) for n in ("a", "b")))
        await manager.join()
        assert sorted(found) == ["a", "b"]
        assert user.get() == "nobody"


@pytest.mark.parametrize("cls", CLASSES)
async def test_tasks_of_a_scheduler_start_from_the_context_of_the_call(cls: Any) -> None:
    async with cls() as scheduler:

        async def request(name: str) -> Any:
            user.set(name)
            when = () if issubclass(cls, QueuedScheduler) else (timedelta(0),)
            return await scheduler.schedule(see_and_set("task"), *when)

        assert await asyncio.gather(*map(request, ("ann", "bob"))) == ["ann", "bob"]
