"""Listing and counting the tasks of a file that no host has open, around corrupt pages.

A corrupt page ends a query with all that would follow. Rows are then looked for one by one, which
is slow but finds all that can be read (`salvage.in_order`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from typing import Any

from .faults import is_corrupt
from .offlinerecords import TaskLine
from .records import Begun
from .salvage import LEAST, in_order, order_of
from .values import text_out

_BEGUN = {each.value: each for each in Begun}


def count_tasks(
    connection: sqlite3.Connection, names: Mapping[int, str], gaps: set[tuple[int, int]]
) -> dict[str | None, tuple[int, int | None]]:
    """Return the number of tasks of each function, and when the next one is due.

    Buckets are counted one by one, so that SQLite never sorts all tasks.

    Args:
        connection: A connection to the file.
        names: The names of its functions, by number; tasks of others are counted under None.
        gaps: The gaps are added to it.

    Raises:
        sqlite3.Error: They cannot be read, but for another reason than a corrupt page.
    """
    counts: dict[str | None, tuple[int, int | None]] = {}
    bucket = LEAST
    after = "SELECT min(bucket) FROM task WHERE bucket > ?"
    query = "SELECT func, count(*), min(due) FROM task WHERE bucket = ? GROUP BY func"
    try:
        while (bucket := connection.execute(after, (bucket,)).fetchone()[0]) is not None:
            _add(counts, names, connection.execute(query, (bucket,)))
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
        counts.clear()
        _add(counts, names, ((row[3], 1, row[2]) for row in in_order(connection, LEAST, gaps)))
    return counts


def _add(
    counts: dict[str | None, tuple[int, int | None]],
    names: Mapping[int, str],
    found: Iterable[tuple[Any, int, Any]],
) -> None:
    for function, count, due in found:
        before, first = counts.get(name := names.get(function), (0, None))
        known = (each for each in (first, number_or_none(due)) if each is not None)
        counts[name] = before + count, min(known, default=None)


def list_tasks(
    connection: sqlite3.Connection,
    names: Mapping[int, str],
    function: int | None,
    id_prefix: str,
    limit: int | None,
    gaps: set[tuple[int, int]],
) -> Generator[TaskLine, None, None]:
    """Yield tasks in order of due time and row, with few of them in memory.

    Args:
        connection: A connection to the file.
        names: The names of its functions, by number.
        function: Only tasks of this function, by its number; None: of all.
        id_prefix: Only tasks whose id begins with this.
        limit: The number of tasks wanted; more may come if a page is corrupt. None: all.
        gaps: The gaps are added to it.

    Raises:
        sqlite3.Error: They cannot be read, but for another reason than a corrupt page.
    """
    wheres: list[str] = ["1"]
    values: list[Any] = []
    if function is not None:
        wheres.append("func = ?")
        values.append(function)
    if id_prefix:
        bounds = _range_of(id_prefix)
        text = "id >= CAST(? AS TEXT) AND id < CAST(? AS TEXT)"
        wheres.append(f"({text} OR id >= ? AND id < ?)")  # ids with lone surrogates are bytes
        values += bounds + bounds
    values.append(-1 if limit is None else limit)
    query = (
        "SELECT bucket, row, due, func, id, state, attempt FROM task "  # noqa: S608  no user input
        f"WHERE {' AND '.join(wheres)} ORDER BY bucket, due, row LIMIT ?"
    )
    last: tuple[Any, ...] | None = None
    try:
        with closing(connection.execute(query, values)) as found:
            for last in found:
                yield _line_of(names, *last)
            return
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
    for row in in_order(connection, LEAST if last is None else last[0], gaps):
        bucket, number, due, func, _, _, id_, _, state, attempt, *_ = row
        if last is not None and order_of(row) <= order_of(last):
            continue
        if function in (None, func) and (text_or_none(id_) or "").startswith(id_prefix):
            yield _line_of(names, bucket, number, due, func, id_, state, attempt)


def _line_of(
    names: Mapping[int, str],
    _: int,
    row: Any,
    due: Any,
    function: Any,
    id_: Any,
    state: Any,
    attempt: Any,
) -> TaskLine:
    return TaskLine(
        *(number_or_none(row), names.get(function), text_or_none(id_)),
        *(number_or_none(due), number_or_none(attempt), _BEGUN.get(state)),
    )


def _range_of(prefix: str) -> tuple[bytes, bytes]:
    """Return the first bytes with a prefix, and the first behind all of them."""
    start = prefix.encode("utf-8", "surrogatepass")
    return start, start[:-1] + bytes([start[-1] + 1])  # UTF-8 has no byte 255


def number_or_none(value: Any) -> int | None:
    """Return a value of the file if it is an int, else None."""
    return value if type(value) is int else None


def text_or_none(value: Any) -> str | None:
    """Return a value of the file as text; None: it is none."""
    try:
        return text_out(value)
    except (TypeError, ValueError):
        return None
