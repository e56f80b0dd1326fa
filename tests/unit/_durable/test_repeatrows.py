"""Repeats in a file that other programs have changed; the rest is in the suite of all stores."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from aioscheduler._durable import schema
from aioscheduler._durable.repeatrecords import RepeatRow
from aioscheduler._durable.repeatrows import read_repeats, write_repeats

ROWS = [RepeatRow(id_, "every", b"terms", 1, b"args") for id_ in "abc"]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.fill(connection)
        write_repeats(connection, ROWS)
        yield connection


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("text", b"\xff"), ("terms", "text"), ("payload", "text"), ("func", "x"), ("key", b"?")),
        *(("options", "text"), ("next", "x"), ("last", b""), ("ran", "x"), ("skipped", 1.5)),
        *(("paused", "x"), ("reason", b"\xff")),
    ],
)
def test_a_malformed_repeat_is_left_out_and_logged(
    connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture, column: str, value: Any
) -> None:
    connection.execute(f"UPDATE repeat SET {column}=? WHERE id='b'", (value,))
    assert read_repeats(connection, "tasks.db") == [ROWS[0], ROWS[2]]
    (message,) = caplog.messages
    assert message.startswith("tasks.db is corrupt: repeats at 1 place cannot be read")
    assert "sqlite3 tasks.db .recover" in message


def test_repeats_behind_a_bad_page_are_logged(
    connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    class Torn:
        def execute(self, query: str) -> Iterator[Any]:
            yield from list(connection.execute(query))[:2]
            raise sqlite3.DatabaseError("malformed")

    torn: Any = Torn()
    assert read_repeats(torn, "tasks.db") == ROWS[:2]
    assert "repeats at 1 place cannot be read" in caplog.text


def test_a_good_file_logs_nothing(
    connection: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_repeats(connection, "tasks.db") == ROWS
    assert not caplog.messages
