"""Reading the tasks and dead letters of a file around corrupt pages.

Rows are tuples of the columns, as `columns.row_out` takes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from .columns import MOST_IN_PAGE, read_letters
from .faults import is_corrupt
from .parts import Parts
from .reading import KEYS, SELECT, scan, scan_ids
from .records import BUCKET_SHIFT, LAST, Letter, Page, Position, Row

LEAST = -(1 << 63)
_MOST = (1 << 63) - 1
_LETTERS = 1 << 63  # stands for a bucket in the gaps of dead letters: no task has it
_ONWARD = SELECT + "(bucket, row) >= (?, ?) ORDER BY bucket, row LIMIT 1"
_BACK = (
    SELECT + "(bucket, row) >= (?, ?) AND (bucket, row) < (?, ?) "
    "ORDER BY bucket DESC, row DESC LIMIT 1"
)


def read_page(
    parts: Parts,
    connection: sqlite3.Connection,
    after: Position,
    until: int,
    most: int,
    out: Callable[[Sequence[tuple[Any, ...]]], list[Row]],
) -> tuple[Page, list[tuple[int, int]]]:
    """Read tasks as `Store.read` does.

    Args:
        parts: The reader, for as long as no page is corrupt.
        connection: A connection to the file.
        after: As there.
        until: As there.
        most: As there.
        out: Convert columns to rows, without those that are malformed.

    Returns:
        The tasks, and the gaps.
    """
    last_bucket = until >> BUCKET_SHIFT
    found: list[tuple[Any, ...]] = []
    bad: list[tuple[int, int]] = []
    rows: list[Row] = []
    whole, done = False, last_bucket
    try:
        while not (whole or rows):  # all rows found may be malformed: go on behind them
            after = _position(found[-1]) if found else after
            found.clear()
            whole = parts.read(connection, after, until, most, found)
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


def _position(values: tuple[Any, ...]) -> Position:
    """Return the position of columns; a due time that is not an int comes last in its bucket."""
    bucket, row, due, *_ = values
    return (due, row) if type(due) is int else ((bucket + 1) << BUCKET_SHIFT, LEAST)


def salvage(
    connection: sqlite3.Connection, bucket: int, until: int, most: int
) -> tuple[list[tuple[Any, ...]], list[tuple[int, int]], int]:
    """Read what can be read around corrupt pages, from a bucket on.

    Args:
        connection: A connection to the file.
        bucket: The first bucket.
        until: The last bucket.
        most: The number of rows after which no further bucket is begun, once a page was corrupt.

    Returns:
        The rows, the gaps, and the last bucket that has been read to its end.
    """
    found: list[tuple[Any, ...]] = []
    bad: list[tuple[int, int]] = []
    for row in _around(connection, (bucket, LEAST), until, bad):
        if bad and len(found) >= most and (not found or row[0] > found[-1][0]):
            return found, bad, row[0] - 1
        found.append(row)
    return found, bad, until


def in_order(
    connection: sqlite3.Connection, bucket: int, gaps: set[tuple[int, int]]
) -> Iterator[tuple[Any, ...]]:
    """Yield what can be read around corrupt pages, from a bucket on, in order of due time and row.

    The rows of one bucket at a time are in memory.
    """
    bad: list[tuple[int, int]] = []
    for _, rows in groupby(_around(connection, (bucket, LEAST), _MOST, bad), itemgetter(0)):
        yield from sorted(rows, key=order_of)
    gaps.update(bad)


def order_of(values: Sequence[Any]) -> tuple[int, bool, int | float, int]:
    """Return the sort key of columns: a due time that is not a number comes last in its bucket."""
    bucket, row, due, *_ = values
    is_odd = not isinstance(due, int | float)
    return bucket, is_odd, 0 if is_odd else due, row


def scan_page(
    connection: sqlite3.Connection, after: tuple[int, int], most: int, gaps: set[tuple[int, int]]
) -> list[tuple[Any, ...]]:
    """Return tasks as `reading.scan` does, and note the gaps between them.

    Raises:
        sqlite3.Error: None of them can be read, but for another reason than a corrupt page.
    """
    bad: list[tuple[int, int]] = []
    try:
        return scan(connection, after, most)
    except sqlite3.DatabaseError as error:
        at = after[0], min(after[1] + 1, _MOST)
        found = list(islice(_around(connection, at, _MOST, bad), most))
        if not found and not is_corrupt(error):
            raise
    gaps.update(bad)
    return found


def scan_ids_page(
    connection: sqlite3.Connection,
    prefix: str,
    after: str | bytes | None,
    most: int,
    gaps: set[tuple[int, int]],
) -> list[tuple[Any, ...]]:
    """Return tasks as `reading.scan_ids` does, and note the buckets where some cannot be read.

    Around corrupt pages the index of ids leads to the tasks.

    Raises:
        sqlite3.Error: The index cannot be read, or no task, but for another reason than a corrupt
            page.
    """
    try:
        return scan_ids(connection, prefix, after, most)
    except sqlite3.DatabaseError as error:
        why = error
    while keys := scan_ids(connection, prefix, after, most, KEYS):
        found = []
        for bucket, number, *_ in keys:
            try:
                row = _find(connection, bucket, number)
            except sqlite3.DatabaseError:
                gaps.add((bucket, LEAST))
            else:
                found += [] if row is None else [row]
        if found:
            return found
        if not is_corrupt(why):
            raise why
        after = keys[-1][6]
    return []


def letters_page(
    connection: sqlite3.Connection, after: int, most: int, gaps: set[tuple[int, int]]
) -> list[Letter]:
    """Read dead letters as `Store.letters` does, and note the gaps between them.

    Raises:
        sqlite3.Error: They cannot be read, but for another reason than a corrupt page.
    """
    try:
        return read_letters(connection, after, most)
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
    found: list[Letter] = []
    size = 0
    while len(found) < most and size < MOST_IN_PAGE and after < _MOST:
        try:
            some = read_letters(connection, after, 1)
        except sqlite3.DatabaseError:
            after = _behind_bad_letters(connection, after)
            gaps.add((_LETTERS, after))
            continue
        if not some:
            break
        found += some
        after, size = some[0].row, size + len(some[0].text)
    return found


def _behind_bad_letters(connection: sqlite3.Connection, bad: int) -> int:
    """Return the nearest row from which letters can be read again, or there are none.

    Args:
        connection: A connection to the file.
        bad: A row behind which no letter can be read. The search goes on from it in steps that
            double, and then by halves.
    """

    def is_good(row: int) -> bool:
        try:
            read_letters(connection, row, 1)
        except sqlite3.DatabaseError:
            return False
        return True

    steps = (min(bad + (1 << power), _MOST) for power in range(64))
    good = next((row for row in steps if row == _MOST or is_good(row)), _MOST)
    while good - bad > 1:
        middle = (bad + good) // 2
        if is_good(middle):
            good = middle
        else:
            bad = middle
    return good


def _around(
    connection: sqlite3.Connection,
    at: tuple[int, int],
    until: int,
    bad: list[tuple[int, int]],
) -> Iterator[tuple[Any, ...]]:
    """Yield, in order, the tasks that can be read around corrupt pages.

    Behind a corrupt page the search for the next readable key goes on in steps that double; the
    tasks between are read backwards from that key to the page.

    Args:
        connection: A connection to the file.
        at: The first key: bucket and row.
        until: The last bucket.
        bad: The gaps are appended to it.
    """
    while True:
        try:
            row = _one(connection, _ONWARD, *at)
        except sqlite3.DatabaseError:
            bad.append(at)
        else:
            if row is None or row[0] > until:
                return
            yield row
            at = row[0], row[1] + 1
            continue
        beyond = next((key for key in _beyond(at) if _readable(connection, key)), None)
        end = min(beyond or (_MOST, LEAST), (min(until + 1, _MOST), LEAST))
        between: list[tuple[Any, ...]] = []
        with suppress(sqlite3.DatabaseError):
            while row := _one(connection, _BACK, *at, *end):
                between.append(row)
                end = row[:2]
        yield from reversed(between)
        if beyond is None or beyond[0] > until:
            return
        at = beyond


def next_readable(connection: sqlite3.Connection, bucket: int) -> int | None:
    """Return the first bucket behind another with a readable task; None: there is none."""
    first = bucket + 1, LEAST
    for key in (first, *_beyond(first)):
        with suppress(sqlite3.DatabaseError):
            row = _one(connection, _ONWARD, *key)
            return None if row is None else int(row[0])
    return None


def _one(connection: sqlite3.Connection, query: str, *key: int) -> tuple[Any, ...] | None:
    """Read one row: a cursor over many reads one ahead, and drops it when the next one fails."""
    row: tuple[Any, ...] | None = connection.execute(query, key).fetchone()
    return row


def _find(connection: sqlite3.Connection, bucket: int, number: int) -> tuple[Any, ...] | None:
    """Read one task, from either side: beside a corrupt page only one of them works."""
    try:
        return _one(connection, _BACK, bucket, number, bucket, number + 1)
    except sqlite3.DatabaseError:
        row = _one(connection, _ONWARD, bucket, number)
    return row if row is not None and row[:2] == (bucket, number) else None


def _beyond(key: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield keys behind another, farther and farther away."""
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
