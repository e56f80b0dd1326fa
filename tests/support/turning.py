"""Turns of the loop, for tests in which nothing takes longer."""

from __future__ import annotations

import asyncio


async def turns(count: int = 12) -> None:
    """Give the loop so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)
