"""Waits for the loop, and for what comes of its turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def turns(count: int = 12) -> None:
    """Give the loop so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(done: Callable[[], object]) -> None:
    """Wait until something is so, and fail if it never is."""
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.001)
