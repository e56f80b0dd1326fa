"""What of a task is in which column of the file, and how a batch is written.

SQLite keeps bytes as they are. It does not keep numbers beyond 64 bits and lone surrogates, so keys,
ids and texts of that kind are stored as bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from .records import BUCKET_SHIFT, Batch, Begun, Burial, Letter, Reason, Row, Update

WIDTH = 13
"""How many columns a task has."""

_TASK = (
    "task(bucket, row, due, func, payload, key, id, options, state, attempt, failed, losses, given)"
)
_PUT = f"INSERT INTO {_TASK} VALUES "
_MARKS = f"({', '.join('?' * WIDTH)})"
_LETTER = "dead_letter(row, due, func, payload, key, id, attempt, options, reason, text, at)"


def write(connection: sqlite3.Connection, batch: Batch, sizes: Sequence[int]) -> None:
    """Write a batch, in an order in which an id is free before it is given again.

    Args:
        connection: In a transaction.
        batch: What is to be written; its `next_row` is left to the caller.
        sizes: Of the statements that put many rows at once, from large to small. Such a statement
            gives the interpreter's lock away and takes it back once, and not for each row.

    Raises:
        sqlite3.Error: It was not written, or in part.
    """
    many = connection.executemany
    many(
        "INSERT INTO func(number, name, place, once) VALUES(?, ?, ?, ?) ON CONFLICT(number) "
        "DO UPDATE SET name=excluded.name, place=excluded.place, once=excluded.once",
        [(f.number, text_in(f.name), text_in(f.place), int(f.once)) for f in batch.functions],
    )
    many("DELETE FROM task WHERE bucket=? AND row=?", batch.strikes)
    many(
        "UPDATE task SET bucket=?, due=?, state=?, attempt=?, failed=?, losses=?, given=?, id=? "
        "WHERE bucket=? AND row=?",
        map(_update_in, batch.updates),
    )
    puts = _bury(connection, batch) if batch.burials else batch.puts
    start = 0
    for size in sizes:
        while len(puts) - start >= size:
            values = [value for put in puts[start : start + size] for value in row_in(put)]
            connection.execute(_PUT + ", ".join([_MARKS] * size), values)
            start += size
    many(_PUT + _MARKS, map(row_in, puts[start:]))
    many("DELETE FROM dead_letter WHERE row=?", [(row,) for row in batch.discards])


def _update_in(update: Update) -> tuple[Any, ...]:
    bucket, row, due, begun, attempt, failed, losses, given, id_ = update
    written = None if id_ is None else text_in(id_)
    new = due >> BUCKET_SHIFT
    return new, due, int(begun), attempt, failed, losses, given, written, bucket, row


def _bury(connection: sqlite3.Connection, batch: Batch) -> list[Row]:
    """Write the burials of a batch, and return its other puts: their ids may be those of the dead."""
    stored = {burial.row: burial for burial in batch.burials}
    puts, letters = [], []
    for put in batch.puts:
        burial = stored.pop(put.row, None)
        if burial is None:
            puts.append(put)
        else:
            letters.append(_letter_in(put, burial))
    connection.executemany(
        f"INSERT OR REPLACE INTO {_LETTER} VALUES({', '.join('?' * 11)})",
        letters,
    )
    connection.executemany(
        f"INSERT OR REPLACE INTO {_LETTER} "  # noqa: S608  nothing of a user's is in it
        "SELECT row, due, func, payload, key, id, ?, options, ?, ?, ? FROM task "
        "WHERE bucket=? AND row=?",
        [
            (attempt, reason.value, text_in(text), at, bucket, row)
            for bucket, row, attempt, reason, text, at in stored.values()
        ],
    )
    connection.executemany(
        "DELETE FROM task WHERE bucket=? AND row=?",
        [(burial.bucket, burial.row) for burial in stored.values()],
    )
    return puts


def row_in(put: Row) -> tuple[Any, ...]:
    """Give the columns of a task, in the order of a put."""
    row, due, function, payload, key, id_, options, begun, attempt, failed, losses, given = put
    return (
        due >> BUCKET_SHIFT,
        row,
        due,
        function,
        payload,
        None if key is None else key_in(key),
        None if id_ is None else text_in(id_),
        options,
        int(begun),
        attempt,
        failed,
        losses,
        given,
    )


def row_out(values: tuple[Any, ...]) -> Row:
    """Give the task of such columns.

    Raises:
        TypeError: They are not what was written.
        ValueError: The same.
    """
    bucket, row, due, function, payload, key, id_, options, state, *counts, given = values
    numbers = (bucket, row, due, function, *counts)
    if any(type(number) is not int for number in numbers) or type(payload) is not bytes:
        raise TypeError("a column has a value of a type that was never written")
    name = None if id_ is None else text_out(id_)
    return Row(
        row, due, function, payload, key_out(key), name, options, Begun(state), *counts, given
    )


def _letter_in(put: Row, burial: Burial) -> tuple[Any, ...]:
    _, row, due, function, payload, key, id_, options, *_ = row_in(put)
    told = burial.reason.value, text_in(burial.text), burial.at
    return (row, due, function, payload, key, id_, burial.attempt, options, *told)


def letter_out(values: tuple[Any, ...]) -> Letter:
    """Give the dead letter of columns in the order of its fields; a name may be missing."""
    row, due, function, name, payload, key, id_, options, attempt, reason, text, at = values
    return Letter(
        row,
        due,
        function,
        text_out(name or ""),
        payload,
        key_out(key),
        None if id_ is None else text_out(id_),
        options,
        attempt,
        Reason(reason),
        text_out(text),
        at,
    )


def text_in(text: str) -> str | bytes:
    """Give a text as SQLite keeps it."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogatepass")
    return text


def text_out(text: str | bytes) -> str:
    """Give back a text."""
    return text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else str(text)


def key_in(key: str | bytes | int) -> str | bytes | int:
    """Give a key as SQLite keeps it: bytes begin with a letter that says what they stand for."""
    if isinstance(key, str):
        text = text_in(key)
        return b"s" + text if isinstance(text, bytes) else text
    if isinstance(key, bytes):
        return b"b" + key
    if -(1 << 63) <= key < 1 << 63:
        return int(key)
    return b"i" + key.to_bytes(key.bit_length() // 8 + 1, "big", signed=True)


def key_out(key: Any) -> Any:
    """Give back a key, or None."""
    if not isinstance(key, bytes):
        return key
    if key[:1] == b"s":
        return text_out(key[1:])
    return int.from_bytes(key[1:], "big", signed=True) if key[:1] == b"i" else key[1:]
