"""Values that SQLite cannot keep are read back unchanged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._durable.values import (
    key_in,
    key_out,
    text_in,
    text_out,
)

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
