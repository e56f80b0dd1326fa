"""Initializers and the resources they open for tasks; a file records what happens to these."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path

opened: ContextVar[str] = ContextVar("opened", default="nothing")


def write(path: str, word: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{word} {os.getpid()}\n")


def words(path: Path) -> list[str]:
    """Return what was written, without the processes."""
    return [line.split()[0] for line in path.read_text().splitlines()]


@contextlib.asynccontextmanager
async def share(path: str) -> AsyncIterator[str]:
    """Be open for tasks; enter and leave in one task, else a timeout would raise."""
    opened.set("open")
    async with asyncio.timeout(3600):
        write(path, "entered")
        try:
            yield "open"
            write(path, "left")
        except asyncio.CancelledError:
            write(path, "cancelled")
            raise


@contextlib.asynccontextmanager
async def share_badly(path: str, how: str) -> AsyncIterator[None]:
    """Fail at the start, end by itself, fail at the end, or take long to end."""
    if how == "enter":
        raise LookupError("no database")
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_fail_when(Path(f"{path}.end"), how == "ends"))
            yield
            watch.cancel()
            if how == "leave":
                raise LookupError("no goodbye")
            if how == "linger":
                await asyncio.sleep(3600)
    finally:
        write(path, "over")


@contextlib.asynccontextmanager
async def share_never(path: str) -> AsyncIterator[None]:
    """Never finish starting, and take a moment to clean up."""
    write(path, "entering")
    try:
        await asyncio.sleep(3600)
        yield
    finally:
        await asyncio.sleep(0.05)
        write(path, "cleaned")


async def _fail_when(path: Path, may_fail: bool) -> None:
    while not (may_fail and path.exists()):
        await asyncio.sleep(0.01)
    raise LookupError("the database is gone")


async def see(path: str = "") -> tuple[str, int]:
    """Return what a task sees, and in which process."""
    if path:
        write(path, "task")
    return opened.get(), os.getpid()


async def see_slowly(path: str, seconds: float) -> None:
    try:
        await asyncio.sleep(seconds)
    finally:
        write(path, "task")
