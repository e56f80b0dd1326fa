"""How repeats map to the columns of the file, and are written and read."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from .faults import RECOVER
from .repeatrecords import RepeatChange, RepeatEnd, RepeatProgress, RepeatRow
from .values import key_in, key_out, text_in, text_out

log: logging.Logger = logging.getLogger("aioscheduler")

_COLUMNS = "id, text, terms, func, payload, key, options, next, last, ran, skipped, paused, reason"
_PUT = f"INSERT OR REPLACE INTO repeat({_COLUMNS}) VALUES({', '.join('?' * 13)})"
_CHANGE = "UPDATE repeat SET next=?, last=?, ran=?, skipped=?, paused=?, reason=? WHERE id=?"
_END = "DELETE FROM repeat WHERE id=?"


def write_repeats(connection: sqlite3.Connection, changes: Sequence[RepeatChange]) -> None:
    """Write changes of repeats, in their order.

    Args:
        connection: In a transaction.
        changes: The changes.

    Raises:
        sqlite3.Error: They were not written, or only in part.
    """
    for kind, alike in groupby(changes, type):
        statement, columns = _WRITERS[kind]
        connection.executemany(statement, map(columns, alike))


def read_repeats(connection: sqlite3.Connection, path: str) -> list[RepeatRow]:
    """Read all repeats, in order of their ids; log that some cannot be read.

    Args:
        connection: A connection to the file.
        path: Its path.
    """
    rows: list[RepeatRow] = []
    bad = 0
    try:
        # No user input is in the statement.
        for values in connection.execute(f"SELECT {_COLUMNS} FROM repeat ORDER BY id"):  # noqa: S608
            try:
                rows.append(_row_out(values))
            except (TypeError, ValueError):  # another program has changed it
                bad += 1
    except sqlite3.DatabaseError:
        bad += 1
    if bad:
        log.error(
            "%s is corrupt: repeats at %d %s cannot be read and stand still until manager.repeat() "
            "is called with their ids; all else goes on. %s",
            *(path, bad, "place" if bad == 1 else "places", RECOVER.format(path=path)),
        )
    return rows


def _row_in(row: RepeatRow) -> tuple[Any, ...]:
    id_, text, terms, function, payload, key, options, *progress = row
    key = None if key is None else key_in(key)
    return (
        text_in(id_),
        text_in(text),
        terms,
        function,
        payload,
        key,
        options,
        *_progress_columns(*progress),
    )


def _progress_in(progress: RepeatProgress) -> tuple[Any, ...]:
    id_, *rest = progress
    return (*_progress_columns(*rest), text_in(id_))


def _progress_columns(*progress: Any) -> tuple[Any, ...]:
    """Return the columns of a progress."""
    *numbers, paused, reason = progress
    return (*numbers, int(paused), None if reason is None else text_in(reason))


def _end_in(end: RepeatEnd) -> tuple[Any, ...]:
    return (text_in(end.id),)


_WRITERS: dict[type, tuple[str, Any]] = {
    RepeatRow: (_PUT, _row_in),
    RepeatProgress: (_CHANGE, _progress_in),
    RepeatEnd: (_END, _end_in),
}


def _row_out(values: tuple[Any, ...]) -> RepeatRow:
    id_, text, terms, function, payload, key, options, *numbers, paused, reason = values
    times, counts = numbers[:2], (function, *numbers[2:], paused)
    if {type(terms), type(payload)} != {bytes} or type(options) not in (bytes, type(None)):
        raise TypeError("a column has a value of a type that was never written")
    if set(map(type, counts)) != {int} or not set(map(type, times)) <= {int, type(None)}:
        raise TypeError("a column has a value of a type that was never written")
    progress = *numbers, bool(paused), None if reason is None else text_out(reason)
    fields = text_out(id_), text_out(text), terms, function, payload, key_out(key), options
    return RepeatRow._make((*fields, *progress))
