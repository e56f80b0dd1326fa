"""Reading tasks in order of due time and row, part by part.

    a bucket ─┬─► sorted, and read to its end
              └─► it is too large: a part of it ─► positions of what follows ─► the next part …

A file has its tasks by bucket and row, so finding the first due in a bucket takes a scan of all of
it. In a large bucket, as after a week without a host, a scan notes the positions of the next
million tasks: else each part would need one. A change that puts a task among them discards them.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_right
from typing import Any

from .reading import SELECT, next_bucket
from .records import BUCKET_SHIFT, Batch, Position

MOST_BYTES = 64 << 20
"""Bytes of the payloads that are read at a time; the last thousand may exceed it."""

MOST_AHEAD = 1 << 20
"""Positions that are noted at a time, of 16 bytes each."""

_STEP = 1024  # rows between two checks of the bytes
_BY_KEY = 256  # rows that are read by their keys at a time
_ONES = f"{SELECT}bucket=? AND row IN (%s)"


class Parts:
    """A reader of one file, which remembers where the last part ended."""

    def __init__(self) -> None:
        self._at: Position | None = None  # where the last part ended, within a bucket
        self._dues = array("q")  # the noted positions behind it
        self._rows = array("q")
        self._next = 0  # the index of the first one not yet read

    def read(
        self,
        connection: sqlite3.Connection,
        after: Position,
        until: int,
        most: int,
        found: list[tuple[Any, ...]],
    ) -> bool:
        """Read tasks behind a position, due at `until` at the latest, in order.

        Args:
            connection: A connection to the file.
            after: The position.
            until: Nanoseconds since the epoch.
            most: The largest number of rows; fewer are read if they are large.
            found: The rows are appended to it, so that it has those before a page that cannot be
                read.

        Returns:
            Whether these are all.

        Raises:
            sqlite3.DatabaseError: A page cannot be read.
        """
        goes_on, self._at = after == self._at, None
        if until and goes_on:  # a queue's bucket is stored in order
            after = self._read_noted(connection, after, until, most, found)
            if self._at is not None:
                return False
        self._forget()
        most -= len(found)
        size = 0
        bucket: int | None = after[0] >> BUCKET_SHIFT
        while bucket is not None and bucket <= until >> BUCKET_SHIFT:
            order = "row" if until == 0 else "due, row"
            cursor = connection.execute(
                f"{SELECT}bucket=? AND (due, row)>(?, ?) AND (due<=? OR typeof(due)!='integer') "
                f"ORDER BY {order} LIMIT ?",
                (bucket, *after, until, most),
            )
            while rows := cursor.fetchmany(_STEP):
                found += rows
                most -= len(rows)
                size += _size_of(rows)
                if most <= 0 or size > MOST_BYTES:
                    cursor.close()
                    self._at = rows[-1][2], rows[-1][1]
                    return False
            bucket = next_bucket(connection, bucket)
        return True

    def _read_noted(
        self,
        connection: sqlite3.Connection,
        after: Position,
        until: int,
        most: int,
        found: list[tuple[Any, ...]],
    ) -> Position:
        """Read what follows in a bucket by the noted positions; note more if there are none left.

        Returns:
            Where it ended; `_at` is the same unless the bucket is known to be exhausted.
        """
        bucket = after[0] >> BUCKET_SHIFT
        if self._next >= len(self._rows):
            self._note(connection, bucket, after)
        size = 0
        while True:
            start = self._next
            end = min(start + _BY_KEY, start + most - len(found), len(self._rows))
            end = bisect_right(self._dues, until, start, max(start, end))
            if end == start:
                return after
            numbers = self._rows[start:end]
            ones = connection.execute(_ONES % ", ".join("?" * len(numbers)), (bucket, *numbers))
            rows = {row[1]: row for row in ones}
            for due, number in zip(self._dues[start:end], numbers, strict=True):
                row = rows.get(number)
                if row is not None and row[2] == due:  # else it has ended, or was moved
                    found.append(row)
                    after = due, number
            self._next = end
            size += _size_of(list(rows.values()))
            if len(found) >= most or size > MOST_BYTES:
                self._at = after
                return after

    def _note(self, connection: sqlite3.Connection, bucket: int, after: Position) -> None:
        self._forget()
        cursor = connection.execute(
            "SELECT due, row FROM task WHERE bucket=? AND (due, row)>(?, ?) "
            "AND typeof(due)='integer' ORDER BY due, row LIMIT ?",
            (bucket, *after, MOST_AHEAD),
        )
        while some := cursor.fetchmany(_STEP):
            dues, rows = zip(*some, strict=True)
            self._dues.extend(dues)
            self._rows.extend(rows)

    def _forget(self) -> None:
        self._dues, self._rows, self._next = array("q"), array("q"), 0

    def changes(self, batch: Batch) -> None:
        """Discard the noted positions if a batch puts a task among them."""
        if self._at is None or self._next >= len(self._rows):
            return
        last = self._dues[-1], self._rows[-1]
        moved = [(update.due, update.row) for update in batch.updates]
        for position in [*(put.position for put in batch.puts), *moved]:
            if self._at < position <= last:
                self._forget()
                return


def _size_of(rows: list[tuple[Any, ...]]) -> int:
    return sum(len(row[4]) for row in rows if isinstance(row[4], bytes))
