"""Reading around gaps; `test_sqlite` spoils pages, here a connection fails at some rows."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._durable.parts import Parts
from aioscheduler._durable.records import FIRST
from aioscheduler._durable.salvage import LEAST, salvage, scan_page


class Spoilt:
    """A connection to rows of which some cannot be read: it raises when it meets one."""

    def __init__(self, rows: list[tuple[int, int]], bad: set[tuple[int, int]]) -> None:
        self.rows = sorted(rows)
        self.bad = bad
        self.steps = 0

    def execute(self, query: str, key: tuple[int, ...]) -> Any:
        self.steps += 1
        if query.endswith("LIMIT ?"):
            self.some = [row for row in self.rows if row > key[:2]][: key[2]]
            return self
        back = "DESC" in query
        found = [
            row for row in self.rows if row >= key[:2] and (not back or row < (key[2], key[3]))
        ]
        row = (found[-1] if back else found[0]) if found else None
        if row in self.bad:
            raise sqlite3.DatabaseError("malformed")
        self.row = row
        return self

    def fetchall(self) -> list[tuple[int, int]]:
        if self.bad.intersection(self.some):
            raise sqlite3.OperationalError("malformed")
        return self.some

    def fetchone(self) -> tuple[int, int] | None:
        return self.row


KEYS = st.tuples(st.integers(-3, 3), st.integers(0, 200))


@given(st.sets(KEYS), st.integers(0, 60), st.integers(0, 20))
def test_around_one_bad_stretch_all_is_read(
    keys: set[tuple[int, int]], start: int, length: int
) -> None:
    rows = sorted(keys)
    bad = set(rows[start : start + length])
    connection: Any = Spoilt(rows, bad)
    found, places, done = salvage(connection, LEAST, 9, 1 << 30)
    assert done == 9
    assert found == [row for row in rows if row not in bad]
    assert len(places) == bool(bad)


@given(st.sets(KEYS), st.sets(KEYS))
def test_with_many_gaps_it_ends_and_invents_nothing(
    keys: set[tuple[int, int]], bad: set[tuple[int, int]]
) -> None:
    connection: Any = Spoilt(list(keys), bad)
    found, places, done = salvage(connection, LEAST, 9, 1 << 30)
    assert done == 9
    assert set(found) <= keys - bad
    assert len(set(found)) == len(found)
    assert len(places) <= len(keys & bad)
    assert connection.steps <= 2 * len(keys) + 100 * (len(places) + 1)
    if keys and max(keys) not in bad:  # else the last row may be between two gaps
        assert max(keys) in found


def test_it_begins_with_the_bucket_that_was_asked_for() -> None:
    connection: Any = Spoilt([(1, 1), (2, 5), (3, 1)], {(2, 5)})
    assert salvage(connection, 2, 9, 10) == ([(3, 1)], [(2, LEAST)], 9)


@given(st.sets(KEYS), st.sets(KEYS), st.integers(-3, 3), st.integers(0, 20))
def test_no_bucket_is_read_in_part(
    keys: set[tuple[int, int]], bad: set[tuple[int, int]], until: int, most: int
) -> None:
    connection: Any = Spoilt(list(keys), bad)
    found, places, done = salvage(connection, LEAST, until, most)
    assert done <= until
    assert all(bucket <= done for bucket, _ in found)
    assert done == until or (places and len(found) >= most)
    whole, _, _ = salvage(connection, LEAST, done, 1 << 30)
    assert set(found) == set(whole)


def test_a_connection_that_reads_nothing_is_given_up() -> None:
    class Dead:
        def execute(self, query: str, key: Any = ()) -> Any:
            raise sqlite3.OperationalError("disk I/O error")

    connection: Any = Dead()
    assert salvage(connection, LEAST, 9, 10) == ([], [(LEAST, LEAST)], 9)
    with pytest.raises(sqlite3.OperationalError):
        Parts().read(connection, FIRST, 9, 10, [])


@given(st.sets(KEYS), st.sets(KEYS), st.integers(1, 9))
def test_pages_around_gaps_have_all_readable_tasks_in_order(
    keys: set[tuple[int, int]], bad: set[tuple[int, int]], most: int
) -> None:
    connection: Any = Spoilt(list(keys), bad)
    whole, places, _ = salvage(connection, LEAST, 9, 1 << 30)
    gaps: set[tuple[int, int]] = set()
    found: list[tuple[int, ...]] = []
    while page := read_on(connection, found[-1][:2] if found else FIRST, most, gaps):
        found += page
        assert len(page) <= most
    assert found == sorted(set(found))
    assert set(whole) <= set(found) <= keys - bad  # a page that begins behind a gap sees more of it
    assert bool(gaps) <= bool(places)


def read_on(connection: Any, after: Any, most: int, gaps: set[tuple[int, int]]) -> Any:
    try:
        return scan_page(connection, after, most, gaps)
    except sqlite3.OperationalError:  # nothing behind can be read
        return []
