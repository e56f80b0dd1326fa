"""The whereabouts of durable tasks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._durable.group import Kept
from aioscheduler._routing.whereabouts import Whereabouts
from aioscheduler.task import TaskRef

NUMBERS = st.integers(0, 1 << 62)


@given(st.integers(1, 300), st.data())
def test_each_task_is_found_where_it_was_put_last(workers: int, data: st.DataObject) -> None:
    where = Whereabouts(workers)
    places = st.tuples(st.integers(0, 9), st.integers(0, workers - 1), NUMBERS)
    expected: dict[int, tuple[int, int]] = {}
    for row, worker, number in data.draw(st.lists(places)):
        where.add(row, worker, number)
        expected[row] = worker, number
    assert {row: where.find(row) for row in expected} == expected
    assert len(where) == len(expected)
    assert [row for row in range(10) if row in where] == sorted(expected)
    assert all(where.find(row) is None for row in range(10) if row not in expected)


@given(st.integers(1, 300), st.integers(0, 300), NUMBERS, st.integers(0, 9), st.integers(0, 9))
def test_many_are_found_as_if_each_had_been_put_alone(
    workers: int, worker: int, first: int, row: int, count: int
) -> None:
    many, single = Whereabouts(workers), Whereabouts(workers)
    worker %= workers
    many.add_many(range(row, row + count), worker, first)
    for n in range(count):
        single.add(row + n, worker, first + n)
    assert len(many) == len(single) == count
    for n in range(row, row + count):
        assert many.find(n) == single.find(n) == (worker, first + n - row)


def test_what_has_ended_is_nowhere_and_those_that_never_were_are_passed_over() -> None:
    where = Whereabouts(2)
    where.add_many([1, 2, 3], 1, 7)
    where.forget([Kept(2, 5), Kept(9, 5)], 3)
    assert 2 not in where
    assert where.find(2) is None
    assert where.find(3) == (1, 9)
    assert where.horizon.find(2) is None  # the file is no longer read at its position


def test_a_task_that_ends_behind_the_horizon_is_not_read_again() -> None:
    where = Whereabouts(2)
    where.add(1, 0, 7)
    where.horizon.keep(50, 1)
    where.forget([Kept(1, 50)], 3)
    struck = where.horizon.find(1)
    assert struck is not None
    assert (struck.stamp, struck.row) == (3, None)
    assert not where.horizon.ahead
    where.horizon.written(3)
    assert where.horizon.find(1) is None


def test_a_task_has_a_reference_once_the_store_is_open_and_it_has_a_row() -> None:
    where = Whereabouts(2)
    assert where.ref(5) is None
    where.store = "ab" * 16
    assert where.ref(-1) is None
    ref = where.ref(5)
    assert ref == TaskRef("ab" * 16, -1, -1, 5)
    assert ref is not None
    assert ref.is_durable
