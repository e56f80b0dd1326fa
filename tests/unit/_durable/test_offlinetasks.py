"""Tasks of a connection that reads nothing; `test_offline` spoils pages."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from aioscheduler._durable.offlinetasks import (
    count_tasks,
    list_tasks,
    number_or_none,
    text_or_none,
)

NAMES = {1: "remind", 2: "pay"}


class Failing:
    """A connection on which every query fails."""

    def __init__(self, code: int) -> None:
        self.error = sqlite3.DatabaseError("no")
        self.error.sqlite_errorcode = code

    def execute(self, query: str, values: Any = ()) -> Any:
        raise self.error


def test_what_no_page_is_to_blame_for_is_raised() -> None:
    connection: Any = Failing(sqlite3.SQLITE_IOERR)
    with pytest.raises(sqlite3.DatabaseError):
        count_tasks(connection, NAMES, set())
    with pytest.raises(sqlite3.DatabaseError):
        list(list_tasks(connection, NAMES, None, "", None, set()))


def test_where_nothing_can_be_read_there_is_a_gap() -> None:
    connection: Any = Failing(sqlite3.SQLITE_CORRUPT)
    gaps: set[tuple[int, int]] = set()
    assert count_tasks(connection, NAMES, gaps) == {}
    assert len(gaps) == 1
    assert list(list_tasks(connection, NAMES, None, "", None, gaps)) == []
    assert len(gaps) == 1


def test_what_is_odd_is_none() -> None:
    assert number_or_none(5) == 5
    assert number_or_none("5") is None
    assert text_or_none(b"ada") == "ada"
    assert text_or_none(5) is None
    assert text_or_none(b"\xff") is None
