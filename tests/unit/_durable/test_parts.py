"""Reading part by part returns the same as slicing a sorted list of the tasks."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import positions, store_of

from aioscheduler._durable import parts
from aioscheduler._durable.records import (
    BUCKET_SHIFT,
    FIRST,
    LAST,
    Batch,
    Begun,
    Row,
    Update,
)
from aioscheduler._durable.sqlite import SQLiteStore

STEP = 1 << (BUCKET_SHIFT - 2)  # four due times in each bucket
DUES = st.integers(-6, 20).map(lambda n: n * STEP)


@st.composite
def tasks(draw: st.DrawFn) -> list[Row]:
    dues = draw(st.lists(DUES, max_size=30))
    return [Row(number, due, 1, b"") for number, due in enumerate(dues, 1)]


@pytest.fixture
def few_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_AHEAD", 7)
    monkeypatch.setattr(parts, "_BY_KEY", 2)


@given(tasks(), DUES, st.integers(-1, 31), DUES, st.integers(1, 40))
def test_a_part_is_a_prefix_of_the_range(
    rows: list[Row], due: int, row: int, until: int, most: int
) -> None:
    with_rows = store_of(rows)
    page = with_rows.read((due, row), until, most)
    behind = sorted(r.position for r in rows if r.position > (due, row))
    wanted = [position for position in behind if position[0] <= until]
    assert positions(page.rows) == wanted[:most]
    assert page.reached == ((until, LAST[1]) if len(wanted) < most else page.rows[-1].position)
    assert [p for p in behind if p <= page.reached] == wanted[:most]
    end = ((until >> BUCKET_SHIFT) + 1) << BUCKET_SHIFT
    if len(wanted) >= most or any(p[0] >= end for p in behind):
        assert page.behind is not None
    if page.behind is None:
        assert not [p for p in behind if p[0] >= end]
    else:
        assert all(p[0] >= page.behind for p in behind if p > page.reached and p[0] >= end)
    with_rows.close(clean=True)


@given(tasks(), st.integers(1, 40))
def test_part_by_part_all_is_read_once(rows: list[Row], most: int) -> None:
    store = store_of(rows)
    found: list[Row] = []
    after = FIRST
    behind: int | None = LAST[0]
    while behind is not None:
        found_now, after, behind = store.read(after, LAST[0], most)
        found += found_now
    assert positions(found) == sorted(positions(rows))
    store.close(clean=True)


def test_a_queue_is_read_in_order() -> None:
    rows = [Row(number, 0, 1, b"") for number in range(1, 3000)]
    shuffled = random.Random(1).sample(rows, len(rows))
    store = store_of(shuffled)
    assert store.read((0, 500), 0, 1000) == (rows[500:1500], (0, 1500), 0)
    assert store.read((0, 2500), 0, 1000) == (rows[2500:], (0, LAST[1]), None)
    store.close(clean=True)


def test_large_arguments_make_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_BYTES", 2_000_000)
    rows = [Row(number, 7, 1, bytes(1000)) for number in range(1, 8000)]
    store = store_of(rows)
    page = store.read(FIRST, 9, 100_000)
    assert 2000 <= len(page.rows) <= 2000 + 1024
    assert page.reached == page.rows[-1].position
    assert page.behind == 7
    store.close(clean=True)


@pytest.mark.parametrize("seed", range(150))
@pytest.mark.usefixtures("few_ahead")
def test_changes_between_parts_are_seen(seed: int) -> None:
    """With two buckets, so that most parts end within one."""
    draw = random.Random(seed)

    def draw_due() -> int:
        return draw.randrange(6) << (BUCKET_SHIFT - 2)

    there = {number: Row(number, draw_due(), 1, b"") for number in range(1, 40)}
    store = store_of(list(there.values()))
    after, until = FIRST, 6 << (BUCKET_SHIFT - 2)
    for event in range(40):
        what = draw.choice(["put", "move", "mark", "strike", *["read"] * 4])
        known = draw.choice(list(there.values()))
        if what == "read":
            most = draw.choice([1, 1, 2, 5])
            page = store.read(after, until, most)
            behind = sorted(row.position for row in there.values() if row.position > after)
            assert positions(page.rows) == behind[:most]
            after = page.rows[-1].position if page.rows else after
        elif what == "put":
            new = Row(100 + event, draw_due(), 1, b"")
            there[new.row] = new
            store.commit(Batch(puts=[new]))
        elif what == "strike":
            del there[known.row]
            store.commit(Batch(strikes=[(known.bucket, known.row)]))
        else:
            begun = Begun.NO if what == "move" else Begun.YES
            moved = known._replace(due=draw_due(), begun=begun) if what == "move" else known
            there[known.row] = moved
            facts = moved.due, begun, 1, 0, 0, None, None
            store.commit(Batch(updates=[Update(known.bucket, known.row, *facts)]))
    store.close(clean=True)


class Asked:
    """A connection that counts its queries."""

    def __init__(self, store: SQLiteStore) -> None:
        assert store._connection is not None
        self.connection = store._connection
        self.sorts = 0

    def execute(self, query: str, values: tuple[int, ...]) -> object:
        self.sorts += "ORDER BY due, row" in query
        return self.connection.execute(query, values)


@pytest.mark.usefixtures("few_ahead")
def test_a_large_bucket_is_not_scanned_for_each_part() -> None:
    rows = [Row(number, 5 - number % 3, 1, b"") for number in range(1, 30)]
    store = store_of(rows)
    asked = Asked(store)
    reader = parts.Parts()
    after, found = FIRST, []
    whole = False
    while not whole:
        some: list[tuple[int, ...]] = []
        whole = reader.read(asked, after, 9, 2, some)  # type: ignore[arg-type]
        found += [(row[2], row[1]) for row in some]
        after = found[-1]
    assert found == sorted(positions(rows))
    assert asked.sorts <= 11  # and not one query for each of the 15 parts
    store.close(clean=True)


@pytest.mark.usefixtures("few_ahead")
def test_noted_positions_are_discarded_only_by_a_task_among_them() -> None:
    rows = [Row(number, number, 1, b"") for number in range(1, 40)]
    store = store_of(rows)
    first = store.read(FIRST, 99, 2)
    store.read(first.reached, 99, 2)
    noted = store._parts._rows
    store.commit(Batch(puts=[Row(50, 90, 1, b""), Row(51, 1, 1, b"")]))
    assert store._parts._rows is noted
    store.commit(Batch(updates=[Update(0, 2, 6, Begun.NO, 1, 0, 0, None, None)]))
    assert not store._parts._rows
    store.close(clean=True)
