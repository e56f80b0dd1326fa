"""Files of very many durable tasks: filled by a manager, and brought forward as years do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from enduring import nothing

from aioscheduler import Manager
from aioscheduler._durable.records import BUCKET_SHIFT

FIRST = timedelta(hours=3)
"""When the first of many is due: behind all that is in memory at a start."""

SPAN = timedelta(days=30)

SLICE = 10_000


async def put_many(manager: Manager, count: int) -> None:
    """Schedule calls of `nothing` whose times are spread over a month, and have them on disk."""
    for start in range(0, count, SLICE):
        numbers = range(start, min(start + SLICE, count))
        manager.map(nothing, numbers, [FIRST + SPAN * n / count for n in numbers])
    await manager.sync()


def bring_forward(path: Path, by: timedelta) -> None:
    """Have all tasks of a file be due so much earlier; no host has it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        change = by // timedelta(microseconds=1) * 1000
        connection.execute(
            "UPDATE task SET due=due-:by, bucket=(due-:by)>>:shift",
            {"by": change, "shift": BUCKET_SHIFT},
        )


def counted(path: Path) -> tuple[int, int]:
    """Return how many tasks a file has, and how many it says that it has."""
    with closing(sqlite3.connect(path)) as connection:
        (said,) = connection.execute("SELECT value FROM meta WHERE name='tasks'").fetchone()
        (there,) = connection.execute("SELECT count(*) FROM task").fetchone()
    return there, said


def spoil(path: Path, part: float) -> None:
    """Make a page of tasks corrupt that is so far into the file, from 0 to 1; no host has it."""
    page = 4096
    pages = path.stat().st_size // page
    with open(path, "r+b") as file:
        at = int(pages * part)
        while True:  # what is no leaf of a table without row ids is passed over
            file.seek(at * page)
            if file.read(1) == b"\x0a":
                break
            at += 1
        file.seek(at * page)
        file.write(b"\xff" * page)
