"""Tasks that append a line to a file when they begin, so that no second start goes unnoticed."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path


async def note(path: str, n: int, seconds: float = 0.0) -> int:
    """Write the number in one call, which no other tears and no death undoes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{n}\n".encode())
    finally:
        os.close(descriptor)
    if seconds:
        await asyncio.sleep(seconds)
    return n


def noted(path: Path) -> Counter[int]:
    """Return how often each task has begun."""
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


async def whereabouts(seconds: float = 0.0) -> tuple[int, str]:
    """Return process id and folder."""
    await asyncio.sleep(seconds)
    return os.getpid(), os.getcwd()
