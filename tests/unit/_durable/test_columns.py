"""Values that SQLite cannot keep are read back unchanged; `storesuite` tests whole batches."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._durable.columns import (
    MOST_TEXT,
    WIDTH,
    letter_out,
    row_in,
    row_out,
    rows_out,
    write,
)
from aioscheduler._durable.records import Batch, Begun, Burial, Letter, Reason, Row
from aioscheduler._durable.schema import fill
from aioscheduler._durable.values import text_or_error


def test_columns_are_those_of_a_put() -> None:
    row = Row(7, 5 << 42, 3, b"p", "k", "i", b"o", Begun.ONCE, 4, 3, 2, 1)
    columns = row_in(row)
    assert len(columns) == WIDTH
    assert columns == (5, 7, 5 << 42, 3, b"p", "k", "i", b"o", 2, 4, 3, 2, 1)
    assert row_out(columns) == row


NUMBERS = (1, 2, 3, 8, 9, 10, 11)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((place, value) for place in NUMBERS for value in ("x", None, 1.5)),
        *((4, value) for value in ("x", None, 1.5)),
        *((5, value) for value in (1.5, b"", b"x", b"s\xff")),
        *((6, value) for value in (5, 1.5, b"\xff")),
        *((7, value) for value in ("x", 5)),
        *((12, value) for value in ("x", 1.5)),
    ],
)
def test_malformed_columns_are_refused(place: int, value: Any) -> None:
    columns = list(row_in(Row(7, 5, 3, b"p")))
    columns[place] = value
    with pytest.raises((TypeError, ValueError)):
        row_out(tuple(columns))


ROWS = st.lists(
    st.one_of(
        st.builds(Row, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.binary()),
        st.builds(Row, st.just(1), st.just(5), st.just(3), st.just(b""), key=st.integers()),
        st.builds(Row, st.just(1), st.just(5), st.just(3), st.just(b""), attempt=st.integers(1, 3)),
    ).map(row_in),
    max_size=12,
)


@given(
    ROWS, st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12), st.sampled_from([1.5, "x"])))
)
def test_many_rows_are_read_as_each_of_them(
    some: list[tuple[Any, ...]], odd: list[tuple[int, int, Any]]
) -> None:
    for at, place, value in odd:
        if at < len(some):
            some[at] = (*some[at][:place], value, *some[at][place + 1 :])
    rows, places = [], []
    for values in some:
        try:
            rows.append(row_out(values))
        except (TypeError, ValueError):
            places.append(values[:2])
    assert rows_out(some) == (rows, places)
    assert all(type(row) is Row for row in rows_out(some)[0])


@given(
    st.sets(st.tuples(st.integers(0, 2), st.integers(0, 9))),
    st.sets(st.tuples(st.integers(0, 2), st.integers(0, 9))),
    st.sampled_from([(), (2,), (4, 2)]),
)
def test_only_struck_tasks_are_gone(
    there: set[tuple[int, int]], struck: set[tuple[int, int]], sizes: tuple[int, ...]
) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        fill(connection)
        puts = [Row(row, bucket << 42, 1, b"") for bucket, row in there]
        write(connection, Batch(puts=puts), ())
        assert write(connection, Batch(strikes=list(struck)), sizes) == (-len(there & struck), 0)
        left = connection.execute("SELECT bucket, row FROM task").fetchall()
        assert set(left) == there - struck


def test_a_burial_of_a_missing_task_leaves_no_letter() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        fill(connection)
        write(connection, Batch(burials=[Burial(1, 1, 1, Reason.LOST, "", 0)]), ())
        assert connection.execute("SELECT * FROM dead_letter").fetchall() == []


LETTER = Letter(7, 5, 3, "f", b"p", "k", "i", b"o", 2, Reason.LOST, "why", 9)
NO_UTF_8 = text_or_error(b"\xff")


@pytest.mark.parametrize(
    ("column", "value", "stand_in"),
    [
        ("due", "soon", 0),
        ("function", 1.5, 0),
        ("name", NO_UTF_8, ""),
        ("payload", "text", b""),
        ("key", 1.5, None),
        ("key", NO_UTF_8, None),
        ("id", b"\xff", None),
        ("options", "text", None),
        ("attempt", "x", 0),
        ("reason", "bored", Reason.UNREADABLE),
        ("reason", NO_UTF_8, Reason.UNREADABLE),
        ("text", NO_UTF_8, ""),
        ("at", None, 0),
    ],
)
def test_an_odd_letter_is_shown_as_far_as_it_can_be_read(
    column: str, value: Any, stand_in: Any
) -> None:
    values = LETTER._asdict() | {"reason": "lost"} | {column: value}
    letter = letter_out(tuple(values.values()))
    told = f"This dead letter is damaged in the file, in {column} ({value!r}). "
    assert letter.text == told + ("" if column == "text" else "why")
    assert letter.reason is Reason.UNREADABLE
    whole = LETTER._replace(**{column: stand_in})
    assert letter._replace(reason=whole.reason, text=whole.text) == whole


def test_a_letter_is_whole_without_its_function() -> None:
    values = LETTER._asdict() | {"reason": "lost", "name": None}
    assert letter_out(tuple(values.values())) == LETTER._replace(name="")


@pytest.mark.parametrize("stored", [False, True])
def test_a_long_text_keeps_its_end(stored: bool) -> None:
    row = Row(1, 1, 1, b"")
    for length in (MOST_TEXT, MOST_TEXT + 1, 10 * MOST_TEXT):
        text = "\xe9" * (length - 3) + "end"
        burial = Burial(0, 1, 1, Reason.FAILED, text, 0)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            fill(connection)
            if stored:
                write(connection, Batch(puts=[row]), ())
            write(connection, Batch(puts=[] if stored else [row], burials=[burial]), ())
            (found,) = connection.execute("SELECT text FROM dead_letter").fetchone()
        assert len(found) == MOST_TEXT
        if length == MOST_TEXT:
            assert found == text
        else:
            mark, kept = found.split("\n")
            assert mark == "[the beginning is left out]"
            assert text.endswith(kept)
