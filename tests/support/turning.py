"""Turns of the loop, for tests that wait for nothing else."""

from __future__ import annotations

import asyncio


async def turns(count: int = 12) -> None:
    """Give the loop some turns."""
    for _ in range(count):
        await asyncio.sleep(0)
