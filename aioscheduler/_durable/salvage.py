"""Reads what can be read of the tasks of a file around corrupt pages.

Rows are tuples of the columns, as `columns.row_out` takes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from .reading import SELECT, read_part
from .records import BUCKET_SHIFT, LAST, Page, Position, Row

LEAST = -(1 << 63)
_MOST = (1 << 63) - 1
_ONWARD = SELECT + "(bucket, row) >= (?, ?) ORDER BY bucket, row LIMIT 1"
_BACK = (
    SELECT + "(bucket, row) >= (?, ?) AND (bucket, row) < (?, ?) "
    "ORDER BY bucket DESC, row DESC LIMIT 1"
)


def read_page(
    connection: sqlite3.Connection,
    after: Position,
    until: int,
    most: int,
    out: Callable[[Iterable[tuple[Any, ...]]], list[Row]],
) -> tuple[Page, list[tuple[int, int]]]:
    """Read tasks as `Store.read` does.

    Args:
        connection: To the file.
        after: As there, and so are the next two.
        until: As there.
        most: As there.
        out: Make rows of columns, of those which are any.

    Returns:
        The tasks, and the bad places.
    """
    last_bucket = until >> BUCKET_SHIFT
    found: list[tuple[Any, ...]] = []
    bad: list[tuple[int, int]] = []
    done = last_bucket
    try:
        whole = read_part(connection, after, until, most, found)
        rows = out(found)
    except sqlite3.DatabaseError:
        rows = out(found)
        last = rows[-1].position if rows else after
        rest, bad, done = salvage(connection, last[0] >> BUCKET_SHIFT, last_bucket, most)
        rows += (row for row in out(rest) if last < row.position <= (until, LAST[1]))
        rows.sort(key=lambda row: row.position)
        whole = done == last_bucket and len(rows) <= most
        del rows[most:]
    if whole:
        behind = next_readable(connection, last_bucket)
        at = None if behind is None else behind << BUCKET_SHIFT
        return Page(rows, (until, LAST[1]), at), bad
    reached = ((done + 1) << BUCKET_SHIFT) - 1, LAST[1]
    if rows and (len(rows) >= most or not bad):
        reached = rows[-1].position
    return Page(rows, reached, reached[0]), bad


def salvage(
    connection: sqlite3.Connection, bucket: int, until: int, most: int
) -> tuple[list[tuple[Any, ...]], list[tuple[int, int]], int]:
    """Read, from a bucket on, what can be read around corrupt pages.

    Where it goes no further, the nearest place behind from which it does is looked for, in steps
    that double, and what is between is read from there back to the bad page.

    Args:
        connection: To the file.
        bucket: The first one.
        until: The last one.
        most: Rows after which no further bucket is begun, when a page was bad.

    Returns:
        The rows, in no order, the bad places, and the last bucket of which all has been read.
    """
    found: list[tuple[Any, ...]] = []
    bad: list[tuple[int, int]] = []
    at: tuple[int, int] | None = (bucket, LEAST)
    while at is not None:
        last = at
        try:
            while (row := _one(connection, _ONWARD, *last)) and row[0] <= until:
                if len(found) >= most and bad and row[0] > last[0]:
                    return found, bad, row[0] - 1
                found.append(row)
                last = row[0], row[1] + 1
            break
        except sqlite3.DatabaseError:
            bad.append(last)
        at = next((key for key in _beyond(last) if _readable(connection, key)), None)
        end = min(at or (_MOST, LEAST), (until + 1, LEAST))
        with suppress(sqlite3.DatabaseError):
            while row := _one(connection, _BACK, *last, *end):
                found.append(row)
                end = row[:2]
        if at is not None and at[0] > until:
            break
    return found, bad, until


def next_readable(connection: sqlite3.Connection, bucket: int) -> int | None:
    """Return the first bucket behind one of which a task can be read; None: there is none."""
    key = bucket + 1, LEAST
    for place in (key, *_beyond(key)):
        with suppress(sqlite3.DatabaseError):
            row = _one(connection, _ONWARD, *place)
            return None if row is None else int(row[0])
    return None


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
