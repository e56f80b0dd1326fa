"""Files of very many durable tasks: filled by a manager, and moved in time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from enduring import nothing

from aioscheduler import Manager
from aioscheduler._durable.records import BUCKET_SHIFT

FIRST = timedelta(hours=3)
"""When the first of many tasks is due: behind all that is in memory at a start."""

SPAN = timedelta(days=30)

SLICE = 10_000


async def put_many(manager: Manager, count: int) -> None:
    """Schedule calls of `nothing` over a month, and wait until they are on disk."""
    for start in range(0, count, SLICE):
        numbers = range(start, min(start + SLICE, count))
        manager.map(nothing, numbers, [FIRST + SPAN * n / count for n in numbers])
    await manager.sync()


def bring_forward(path: Path, by: timedelta) -> None:
    """Move all tasks of a file, which no host has, to earlier times."""
    with closing(sqlite3.connect(path)) as connection, connection:
        change = by // timedelta(microseconds=1) * 1000
        connection.execute(
            "UPDATE task SET due=due-:by, bucket=(due-:by)>>:shift",
            {"by": change, "shift": BUCKET_SHIFT},
        )


def counted(path: Path) -> tuple[int, int]:
    """Return how many tasks a file has, and how many by its own count."""
    with closing(sqlite3.connect(path)) as connection:
        (said,) = connection.execute("SELECT value FROM meta WHERE name='tasks'").fetchone()
        (there,) = connection.execute("SELECT count(*) FROM task").fetchone()
    return there, said


def spoil(path: Path, part: float) -> None:
    """Corrupt the page of tasks at a fraction, 0 to 1, of a file that no host has."""
    page = 4096
    pages = path.stat().st_size // page
    with open(path, "r+b") as file:
        at = int(pages * part)
        while True:  # skip pages that are no leaves of a table without row ids
            file.seek(at * page)
            if file.read(1) == b"\x0a":
                break
            at += 1
        file.seek(at * page)
        file.write(b"\xff" * page)
