"""Turns of the loop, and waiting for a condition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def turns(count: int = 12) -> None:
    """Give the loop some turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(done: Callable[[], object]) -> None:
    """Wait until a condition holds, and fail if it never does."""
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.001)
