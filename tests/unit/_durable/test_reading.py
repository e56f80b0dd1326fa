"""Reads of a file return the same as those of a list of its tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import store_of

from aioscheduler._durable.records import BUCKET_SHIFT, FIRST, Position, Row
from aioscheduler.errors import StoreError

STEP = 1 << (BUCKET_SHIFT - 2)  # four due times in each bucket
DUES = st.integers(-6, 20).map(lambda n: n * STEP)
IDS = st.sampled_from(["", "a", "ab", "abc", "b", "\xfc", "\ud800", "a\ud800", "\ud800a"])


@st.composite
def tasks(draw: st.DrawFn) -> list[Row]:
    dues = draw(st.lists(DUES, max_size=30))
    rows = [Row(number, due, 1, b"") for number, due in enumerate(dues, 1)]
    for id_, number in zip(draw(st.sets(IDS)), range(len(rows)), strict=False):
        rows[number] = rows[number]._replace(id=id_)
    return rows


@given(tasks(), st.lists(IDS, max_size=3), st.lists(st.tuples(DUES, st.integers(-1, 31))))
def test_tasks_are_found_wherever_they_are(
    rows: list[Row], ids: list[str], asked: list[Position]
) -> None:
    store = store_of(rows)
    found = store.find(ids, asked)
    by_id = {row.id: row for row in rows}
    by_number = {row.row: row for row in rows}
    assert found == [
        *(by_id[id_] for id_ in ids if id_ in by_id),
        *(by_number[number] for _, number in asked if number in by_number),
    ]
    store.close(clean=True)


def test_a_number_that_no_file_can_have_is_of_no_task() -> None:
    store = store_of([Row(1, 5, 1, b"")])
    assert store.find([], [(5, 1 << 63), (5, -(1 << 70))]) == []
    store.close(clean=True)


@given(tasks(), st.integers(1, 10))
def test_all_are_listed_once(rows: list[Row], most: int) -> None:
    store = store_of(rows)
    found: list[Row] = []
    after = FIRST
    while part := store.scan(after, most):
        assert len(part) <= most
        found += part
        after = part[-1].bucket, part[-1].row
    assert found == sorted(rows, key=lambda row: (row.bucket, row.row))
    store.close(clean=True)


@given(tasks(), IDS, st.integers(1, 10))
def test_all_ids_of_a_prefix_are_listed_once(rows: list[Row], prefix: str, most: int) -> None:
    store = store_of(rows)
    found: list[str] = []
    after = None
    while part := store.scan_ids(prefix, after, most):
        found += (after := row.id or "" for row in part)
    wanted = [row.id for row in rows if row.id is not None and row.id.startswith(prefix)]
    assert sorted(found) == sorted(wanted)
    store.close(clean=True)


def test_what_cannot_be_read_is_said() -> None:
    store = store_of([])
    connection = store._connection
    assert connection is not None
    connection.execute("DROP TABLE task")
    with pytest.raises(StoreError, match="cannot be read"):
        store.find(["a"], [])
    store.close(clean=True)
