"""Reads the tasks of a file, and what can be read of it around corrupt pages.

Rows are tuples of the columns, as `columns.row_out` takes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

PAGE = 4096  # rows that are read at a time

LEAST = -(1 << 63)
_MOST = (1 << 63) - 1
_SELECT = (
    "SELECT bucket, row, due, func, payload, key, id, options, state, attempt, failed, losses, "
    "given FROM task WHERE "
)
_ONWARD = _SELECT + "(bucket, row) >= (?, ?) ORDER BY bucket, row LIMIT 1"
_BACK = (
    _SELECT + "(bucket, row) >= (?, ?) AND (bucket, row) < (?, ?) "
    "ORDER BY bucket DESC, row DESC LIMIT 1"
)


def in_order(connection: sqlite3.Connection) -> Iterator[list[tuple[Any, ...]]]:
    """Yield all rows, some thousand at a time, in order of due time and row.

    It goes by buckets, each of which is sorted by itself, and as it was when its turn came.

    Raises:
        sqlite3.DatabaseError: A page cannot be read; what is in its bucket was not yielded, or in
            part.
    """
    bucket = LEAST
    following = "SELECT min(bucket) FROM task WHERE bucket > ?"
    while (bucket := connection.execute(following, (bucket,)).fetchone()[0]) is not None:
        cursor = connection.execute(_SELECT + "bucket = ? ORDER BY due, row", (bucket,))
        while rows := cursor.fetchmany(PAGE):
            yield rows


def salvage(connection: sqlite3.Connection, bucket: int) -> tuple[list[tuple[Any, ...]], int]:
    """Read, from a bucket on, what can be read around corrupt pages.

    Where it goes no further, the nearest place behind from which it does is looked for, in steps
    that double, and what is between is read from there back to the bad page.

    Returns:
        The rows, in no order, and the number of bad places.
    """
    found: list[tuple[Any, ...]] = []
    bad = 0
    at: tuple[int, int] | None = (bucket, LEAST)
    while at is not None:
        last = at
        try:
            while row := _one(connection, _ONWARD, *last):
                found.append(row)
                last = row[0], row[1] + 1
            break
        except sqlite3.DatabaseError:
            bad += 1
        at = next((key for key in _beyond(last) if _readable(connection, key)), None)
        until = at or (_MOST, LEAST)
        with suppress(sqlite3.DatabaseError):
            while row := _one(connection, _BACK, *last, *until):
                found.append(row)
                until = row[:2]
    return found, bad


def _one(connection: sqlite3.Connection, query: str, *key: int) -> tuple[Any, ...] | None:
    """Read one row: a cursor over many is ahead by one, which it drops when it meets an error."""
    row: tuple[Any, ...] | None = connection.execute(query, key).fetchone()
    return row


def _beyond(key: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield keys behind one, farther and farther away."""
    bucket, row = key
    for power in range(63):
        yield bucket, min(row + (1 << power), _MOST)
    for power in range(24):
        yield bucket + (1 << power), LEAST


def _readable(connection: sqlite3.Connection, key: tuple[int, int]) -> bool:
    try:
        _one(connection, _ONWARD, *key)
    except sqlite3.DatabaseError:
        return False
    return True
