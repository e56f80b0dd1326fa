"""Files of durable tasks made by SQL: like ours, and a hundred million in minutes."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from common import FAR, durable_work

from aioscheduler import Manager

BYTES = 64  # on disk per task, with some to spare
ROOM = 1 << 30  # bytes for anything else that is written meanwhile


def check_disk(folder: str, count: int) -> None:
    """End the program if there is no room for so many tasks."""
    needed, free = count * BYTES + ROOM, shutil.disk_usage(folder).free
    if needed > free:
        sys.exit(
            f"{count:,} tasks in files need {needed / 1e9:.1f} GB, and {folder} has "
            f"{free / 1e9:.1f} GB: set TMPDIR to a folder with more room, or ask for fewer"
        )


def build(path: Path, count: int, first: int, span: int) -> int:
    """Make a file of tasks, and return its bytes.

    Args:
        path: Its path, where nothing exists.
        count: How many tasks.
        first: When the first of them is due, in nanoseconds since the epoch.
        span: The nanoseconds from then on over which the others are due, evenly.
    """
    asyncio.run(_put_one(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if count:
            _multiply(connection, count, first, max(span // count, 1))
        else:
            connection.execute("DELETE FROM task")
        connection.execute("UPDATE meta SET value=? WHERE name='tasks'", (count,))
        connection.execute("UPDATE meta SET value=value+? WHERE name='next_row'", (count,))
    with open(path, "rb") as file:  # drop it from the cache, so that a host reads it from the disk
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path.stat().st_size


async def _put_one(path: Path) -> None:
    """Make the file by our own code, with one task as the pattern for the others."""
    async with Manager(store=path, workers=0) as manager:
        await manager.schedule(durable_work(1_000_000), FAR).stored()


def _multiply(connection: sqlite3.Connection, count: int, first: int, step: int) -> None:
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    function, payload = connection.execute("DELETE FROM task RETURNING func, payload").fetchone()
    (row,) = connection.execute("SELECT value FROM meta WHERE name='next_row'").fetchone()
    connection.execute("BEGIN")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<:count-1) "
        "INSERT INTO task(bucket, row, due, func, payload) "
        "SELECT (:first+i*:step)>>42, :row+i, :first+i*:step, :function, :payload FROM n",
        {
            "count": count,
            "first": first,
            "step": step,
            "row": row,
            "function": function,
            "payload": payload,
        },
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode=WAL")
