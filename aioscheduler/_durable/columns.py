"""How a task maps to the columns of the file, and how a batch is written.

Other programs can write to the file, so a column may hold anything: a malformed task is refused,
and of a malformed dead letter the readable part is shown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, groupby, repeat
from operator import itemgetter
from typing import Any, TypeVar

from .records import BUCKET_SHIFT, PLAIN, Batch, Begun, Burial, Function, Letter, Reason, Row
from .values import bytes_out, key_in, key_out, text_in, text_or_error, text_out

T = TypeVar("T")

WIDTH = 13
"""The number of columns of a task."""

MOST_TEXT = 64 << 10
"""Characters of a dead letter's text; a longer one keeps its end, the most telling part."""

MOST_IN_PAGE = 1 << 20
"""Characters of dead letters' texts that are read at once; the last letter may exceed it."""

DAMAGED = "This dead letter is damaged in the file"
"""The beginning of the text of a dead letter in which a value was replaced."""

_CUT = "[the beginning is left out]\n"

_AT_ONCE = 1024  # rows

_PLAIN_IN = tuple(None if value is None else int(value) for value in PLAIN)

_PUT_PLAIN = "INSERT INTO task(bucket, row, due, func, payload) VALUES "
_PUT = (
    "INSERT INTO task(bucket, row, due, func, payload, key, id, options, state, attempt, failed, "
    "losses, given) VALUES "
)
_LETTER = "dead_letter(row, due, func, payload, key, id, attempt, options, reason, text, at)"
_READ_LETTER = (
    "SELECT row, due, func, name, {}, key, id, options, attempt, reason, text, at "
    "FROM dead_letter LEFT JOIN func ON number=func WHERE "
)
_NO_PAYLOAD = "CASE typeof(payload) WHEN 'blob' THEN NULL ELSE payload END"  # report other types


def write(connection: sqlite3.Connection, batch: Batch, sizes: Sequence[int]) -> tuple[int, int]:
    """Write a batch, in an order that frees an id before it is used again.

    Args:
        connection: In a transaction.
        batch: The batch; its `next_row` is left to the caller.
        sizes: Rows per statement that puts or strikes many at once, in descending order. Such a
            statement releases and takes the GIL once, and not once a row.

    Returns:
        The change in the number of tasks, and of dead letters.

    Raises:
        sqlite3.Error: It was not written, or only in part.
    """
    many = connection.executemany
    many(
        "INSERT INTO func(number, name, place, once) VALUES(?, ?, ?, ?) ON CONFLICT(number) "
        "DO UPDATE SET name=excluded.name, place=excluded.place, once=excluded.once",
        [(f.number, text_in(f.name), text_in(f.qualname), int(f.once)) for f in batch.functions],
    )
    tasks = -_strike(connection, batch.strikes, sizes)
    many(
        "UPDATE task SET bucket=?, due=?, state=?, attempt=?, failed=?, losses=?, given=?, id=? "
        "WHERE bucket=? AND row=?",
        [
            (
                *(due >> BUCKET_SHIFT, due, int(begun), attempt, failed, losses, given),
                *(None if id_ is None else text_in(id_), bucket, row),
            )
            for bucket, row, due, begun, attempt, failed, losses, given, id_ in batch.updates
        ],
    )
    puts, letters = batch.puts, 0
    if batch.burials:
        puts, buried, letters = _bury(connection, batch)
        tasks -= buried
    plain = [row_in(put)[:5] for put in puts if put.is_plain]
    _put(connection, _PUT_PLAIN, plain, sizes)
    if len(plain) < len(puts):
        _put(connection, _PUT, [row_in(put) for put in puts if not put.is_plain], sizes)
    dropped = [*batch.discards, *(letter for letter, _ in batch.requeues)]
    letters -= many("DELETE FROM dead_letter WHERE row=?", [(row,) for row in dropped]).rowcount
    return tasks + len(puts), letters


def _put(
    connection: sqlite3.Connection,
    statement: str,
    rows: Sequence[tuple[Any, ...]],
    sizes: Sequence[int],
) -> None:
    if not rows:
        return
    marks = f"({', '.join('?' * len(rows[0]))})"
    start = 0
    for size in sizes:
        while len(rows) - start >= size:
            values = tuple(chain.from_iterable(rows[start : start + size]))
            connection.execute(statement + ", ".join([marks] * size), values)
            start += size
    connection.executemany(statement + marks, rows[start:])


def _strike(
    connection: sqlite3.Connection, strikes: Iterable[tuple[int, int]], sizes: Sequence[int]
) -> int:
    """Delete tasks; return how many of them there were."""
    gone = 0
    others: list[tuple[int, int]] = []
    for bucket, some in groupby(sorted(strikes), itemgetter(0)):
        rows = [row for _, row in some]
        start = 0
        for size in sizes:
            statement = f"DELETE FROM task WHERE bucket=? AND row IN ({', '.join('?' * size)})"  # noqa: S608
            while len(rows) - start >= size:
                struck = connection.execute(statement, (bucket, *rows[start : start + size]))
                gone += struck.rowcount
                start += size
        others += [(bucket, row) for row in rows[start:]]
    struck = connection.executemany("DELETE FROM task WHERE bucket=? AND row=?", others)
    return gone + struck.rowcount


def _bury(connection: sqlite3.Connection, batch: Batch) -> tuple[list[Row], int, int]:
    """Write the burials of a batch.

    Returns:
        Its other puts, which may reuse ids of buried tasks; how many fewer tasks there are, and how
        many more dead letters.
    """
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
        f"INSERT OR REPLACE INTO {_LETTER} "  # noqa: S608  no user input in it
        "SELECT row, due, func, payload, key, id, ?, options, ?, ?, ? FROM task "
        "WHERE bucket=? AND row=?",
        [
            (attempt, reason.value, _shortened_in(text), at, bucket, row)
            for bucket, row, attempt, reason, text, at in stored.values()
        ],
    )
    gone = connection.executemany(
        "DELETE FROM task WHERE bucket=? AND row=?",
        [(burial.bucket, burial.row) for burial in stored.values()],
    ).rowcount
    return puts, gone, gone + len(letters)


def row_in(put: Row) -> tuple[Any, ...]:
    """Return the columns of a task, in the order of a put."""
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


def rows_out(found: Sequence[tuple[Any, ...]]) -> tuple[list[Row], list[tuple[int, int]]]:
    """Return the tasks of such columns, and bucket and row of those that are malformed."""
    rows: list[Row] = []
    odd: list[tuple[int, int]] = []
    for start in range(0, len(found), _AT_ONCE):
        some = found[start : start + _AT_ONCE]
        if all(values[5:] == _PLAIN_IN for values in some):  # at a fifth of the cost
            _, *numbers, payloads = zip(*(values[:5] for values in some), strict=True)
            if {int}.issuperset(map(type, chain(*numbers))) and {bytes}.issuperset(
                map(type, payloads)
            ):
                fields = zip(*numbers, payloads, *map(repeat, PLAIN), strict=False)
                rows += map(partial(tuple.__new__, Row), fields)  # `Row._make` in C
                continue
        for values in some:
            try:
                rows.append(row_out(values))
            except (TypeError, ValueError):
                odd.append(values[:2])
    return rows, odd


def row_out(values: tuple[Any, ...]) -> Row:
    """Return the task of such columns.

    Raises:
        TypeError: They are not what was written.
        ValueError: They are not what was written.
    """
    _, row, due, function, payload, key, id_, options, state, attempt, failed, losses, given = (
        values
    )
    numbers = row, due, function, attempt, failed, losses
    if type(payload) is not bytes or set(map(type, numbers)) != {int}:
        raise TypeError("a column has a value of a type that was never written")
    if type(options) not in (bytes, type(None)) or type(given) not in (int, type(None)):
        raise TypeError("a column has a value of a type that was never written")
    name = None if id_ is None else text_out(id_)
    so_far = Begun(state), attempt, failed, losses, given
    return Row(row, due, function, payload, key_out(key), name, options, *so_far)


def _letter_in(put: Row, burial: Burial) -> tuple[Any, ...]:
    _, row, due, function, payload, key, id_, options, *_ = row_in(put)
    end = burial.reason.value, _shortened_in(burial.text), burial.at
    return (row, due, function, payload, key, id_, burial.attempt, options, *end)


def _shortened_in(text: str) -> str | bytes:
    return text_in(text if len(text) <= MOST_TEXT else _CUT + text[len(_CUT) - MOST_TEXT :])


def read_letters(connection: sqlite3.Connection, after: int, most: int) -> list[Letter]:
    """Read dead letters as `Store.letters` does.

    Raises:
        sqlite3.Error: They cannot be read.
    """
    page: list[Letter] = []
    size = 0
    query = f"{_READ_LETTER.format(_NO_PAYLOAD)}row>? ORDER BY row LIMIT ?"
    with _any_text(connection), closing(connection.execute(query, (after, most))) as cursor:
        for values in cursor:
            page.append(letter_out(values))
            size += len(page[-1].text)
            if size >= MOST_IN_PAGE:
                break
    return page


def read_letter(connection: sqlite3.Connection, row: int) -> Letter | None:
    """Read a dead letter as `Store.letter` does.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    with _any_text(connection):
        query = f"{_READ_LETTER.format('payload')}row=?"
        found = connection.execute(query, (row,)).fetchone()
    return None if found is None else letter_out(found)


@contextmanager
def _any_text(connection: sqlite3.Connection) -> Iterator[None]:
    connection.text_factory = text_or_error
    try:
        yield
    finally:
        connection.text_factory = str


def letter_out(values: tuple[Any, ...]) -> Letter:
    """Return the dead letter of columns in the order of its fields; the name may be missing.

    A value that cannot be read is replaced; the text says so, and the reason is "unreadable".
    """
    odd: list[str] = []

    def read(column: str, out: Callable[[Any], T], stand_in: T) -> T:
        value = columns[column]
        try:
            return out(value)
        except (TypeError, ValueError):
            odd.append(f"{column} ({value!r:.80})")
            return stand_in

    columns = dict(zip(Letter._fields, values, strict=True))
    payload: bytes | None = columns["payload"]
    if payload is not None:
        payload = read("payload", bytes_out, b"")
    letter = Letter(
        columns["row"],
        read("due", _number_out, 0),
        read("function", _number_out, 0),
        read("name", lambda name: "" if name is None else text_out(name), ""),
        payload,
        read("key", key_out, None),
        read("id", lambda id_: None if id_ is None else text_out(id_), None),
        read("options", lambda options: None if options is None else bytes_out(options), None),
        read("attempt", _number_out, 0),
        read("reason", Reason, Reason.UNREADABLE),
        read("text", text_out, ""),
        read("at", _number_out, 0),
    )
    if not odd:
        return letter
    text = f"{DAMAGED}, in {', '.join(odd)}. {letter.text}"
    return letter._replace(reason=Reason.UNREADABLE, text=text)


def _number_out(number: Any) -> int:
    if type(number) is not int:
        raise TypeError("no number")
    return number


def functions_out(found: Iterable[tuple[Any, ...]]) -> list[Function]:
    """Return the functions of columns in the order of their fields, sorted by number.

    Raises:
        sqlite3.DatabaseError: One of them is malformed.
    """
    try:
        return [
            Function(number, text_out(name), text_out(qualname), bool(once))
            for number, name, qualname, once in sorted(found)
        ]
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError("its table func is damaged") from error
