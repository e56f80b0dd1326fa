"""What SQLite does not keep as it is comes back all the same; `storesuite` tries whole batches."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._durable.columns import (
    WIDTH,
    key_in,
    key_out,
    row_in,
    row_out,
    text_in,
    text_out,
    write,
)
from aioscheduler._durable.records import Batch, Begun, Burial, Reason, Row
from aioscheduler._durable.schema import fill

TEXT = st.text(st.characters(exclude_categories=()))
KEYS = TEXT | st.binary() | st.integers() | st.integers(2**63 - 2, 2**63 + 2)


def through_sqlite(value: Any) -> Any:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE a(text TEXT, any)")
        connection.execute("INSERT INTO a VALUES(?, ?)", (value, value))
        as_text, as_any = connection.execute("SELECT * FROM a").fetchone()
    return as_text if isinstance(value, str) else as_any


@given(TEXT)
def test_any_text_comes_back(text: str) -> None:
    assert text_out(through_sqlite(text_in(text))) == text


@given(KEYS)
def test_any_key_comes_back(key: str | bytes | int) -> None:
    found = key_out(through_sqlite(key_in(key)))
    assert (found, type(found)) == (key, type(key))


@given(KEYS, KEYS)
def test_two_keys_stay_two(one: str | bytes | int, two: str | bytes | int) -> None:
    assert (key_in(one) == key_in(two)) == (one == two)


@pytest.mark.parametrize(
    "key", ["sam", "b", "i", b"", b"b", b"s\xed", b"i\x01", -(2**63), 2**63 - 1]
)
def test_keys_that_look_like_marks_are_none(key: str | bytes | int) -> None:
    assert key_out(key_in(key)) == key


def test_no_key_is_none() -> None:
    assert key_out(None) is None


@pytest.mark.parametrize("text", ["plain", "über", "\U0001f600"])
def test_ordinary_text_is_text_in_the_file(text: str) -> None:
    assert text_in(text) is text
    assert key_in(text) is text


def test_columns_are_those_of_a_put() -> None:
    row = Row(7, 5 << 42, 3, b"p", "k", "i", b"o", Begun.ONCE, 4, 3, 2, 1)
    columns = row_in(row)
    assert len(columns) == WIDTH
    assert columns == (5, 7, 5 << 42, 3, b"p", "k", "i", b"o", 2, 4, 3, 2, 1)
    assert row_out(columns) == row


@pytest.mark.parametrize("place", [1, 2, 3, 4, 8, 9, 10, 11])
@pytest.mark.parametrize("value", ["x", None, 1.5])
def test_columns_of_nonsense_are_refused(place: int, value: Any) -> None:
    columns = list(row_in(Row(7, 5, 3, b"p")))
    columns[place] = value
    with pytest.raises((TypeError, ValueError)):
        row_out(tuple(columns))


def test_a_burial_of_what_is_not_there_leaves_no_letter() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        fill(connection)
        write(connection, Batch(burials=[Burial(1, 1, 1, Reason.LOST, "", 0)]), ())
        assert connection.execute("SELECT * FROM dead_letter").fetchall() == []
