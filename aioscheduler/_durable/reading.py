"""Reading tasks of a file: by id or number, or in order of its keys or ids.

Rows are tuples of the columns, as `columns.row_out` takes them. `parts` reads in order of due time,
and `salvage` around corrupt pages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from .records import BUCKET_SHIFT, Position
from .values import text_in

SELECT = (
    "SELECT bucket, row, due, func, payload, key, id, options, state, attempt, failed, losses, "
    "given FROM task WHERE "
)

KEYS = "SELECT bucket, row, 0, 0, 0, 0, id FROM task WHERE "
"""The columns that the index of ids has by itself, each at its index in a row."""

_ROWS = range(-(1 << 63), 1 << 63)  # the numbers that a file can have


def next_bucket(connection: sqlite3.Connection, bucket: int) -> int | None:
    """Return the first bucket behind another that has tasks; None: there is none."""
    query = "SELECT min(bucket) FROM task WHERE bucket>?"
    found: int | None = connection.execute(query, (bucket,)).fetchone()[0]
    return found


def find(
    connection: sqlite3.Connection, ids: Sequence[str], rows: Sequence[Position]
) -> Iterator[tuple[Any, ...]]:
    """Yield the tasks with one of these ids or numbers, as `Store.find` returns them.

    Raises:
        sqlite3.Error: They cannot be read.
    """
    for id_ in ids:
        yield from connection.execute(f"{SELECT}id=?", (text_in(id_),))
    buckets: list[int] | None = None
    for due, row in rows:
        if row not in _ROWS:
            continue
        found = _in_one_of(connection, [due >> BUCKET_SHIFT], row)
        if found is None:
            if buckets is None:
                buckets = list(_buckets(connection))
            found = _in_one_of(connection, buckets, row)
        if found is not None:
            yield found


def _in_one_of(
    connection: sqlite3.Connection, buckets: Sequence[int], row: int
) -> tuple[Any, ...] | None:
    """Return the task with a number, if it is in one of these buckets."""
    query = f"{SELECT}bucket=? AND row=?"
    looks = (connection.execute(query, (bucket, row)).fetchone() for bucket in buckets)
    return next((found for found in looks if found is not None), None)


def _buckets(connection: sqlite3.Connection) -> Iterator[int]:
    bucket = next_bucket(connection, -(1 << 63))
    while bucket is not None:
        yield bucket
        bucket = next_bucket(connection, bucket)


def scan(
    connection: sqlite3.Connection, after: tuple[int, int], most: int
) -> list[tuple[Any, ...]]:
    """Return tasks in order of bucket and row, behind such a key.

    Raises:
        sqlite3.Error: They cannot be read.
    """
    query = f"{SELECT}(bucket, row)>(?, ?) ORDER BY bucket, row LIMIT ?"
    return connection.execute(query, (*after, most)).fetchall()


def scan_ids(
    connection: sqlite3.Connection,
    prefix: str,
    after: str | bytes | None,
    most: int,
    select: str = SELECT,
) -> list[tuple[Any, ...]]:
    """Return tasks whose ids begin with a prefix, in order: text ids, then the others.

    Ids that SQLite does not keep as text (`values.text_in`) are few, and it sorts them last.

    Args:
        connection: A connection to the file.
        prefix: The prefix of the ids.
        after: The last id read before, perhaps as the file has it; None: there is none.
        most: The largest number of rows.
        select: SELECT or KEYS.

    Raises:
        sqlite3.Error: They cannot be read.
    """
    start = prefix.encode("utf-8", "surrogatepass")
    last, compare = (text_in(prefix), ">=") if after is None else (after, ">")
    if isinstance(last, str):
        last = text_in(last)
    found: list[tuple[Any, ...]] = []
    if isinstance(last, str):
        query = f"{select}id{compare}? AND typeof(id)='text' ORDER BY id LIMIT ?"
        for row in connection.execute(query, (last, most)):
            if not row[6].startswith(prefix):
                break
            found.append(row)
        if len(found) == most:
            return found
        last, compare = start, ">="
    query = f"{select}id{compare}? AND typeof(id)='blob' ORDER BY id LIMIT ?"
    others = connection.execute(query, (last, most - len(found))).fetchall()
    return found + [row for row in others if row[6].startswith(start)]
