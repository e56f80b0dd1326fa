"""Worn workers are recycled, one at a time, and each gets its turn."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._routing.recycling import Recycling


class Fleet:
    """Workers that obey, and check the rules."""

    def __init__(self, workers: int = 3, tasks: int | None = 5, rss: int | None = 100) -> None:
        self.told: list[tuple[int, str]] = []
        self.leaving: set[int] = set()
        self.going: set[int] = set()  # ending anyway
        self.avoided = 0
        self.recycling = Recycling(workers, tasks, rss, self.recycle, self.avoid)
        for worker in range(workers):
            self.recycling.wears[worker].began()

    def recycle(self, worker: int, why: str) -> bool:
        if worker in self.going:
            return False
        assert not self.leaving
        self.leaving.add(worker)
        self.told.append((worker, why))
        return True

    def avoid(self) -> None:
        self.avoided += 1

    def began(self, worker: int) -> None:
        self.leaving.discard(worker)
        self.going.discard(worker)
        self.recycling.wears[worker].began()


def test_a_worker_goes_with_the_task_that_is_its_last() -> None:
    fleet = Fleet()
    fleet.recycling.wears[1].ran(3)
    fleet.recycling.wears[1].ran(1)
    assert (fleet.told, fleet.avoided) == ([], 0)
    fleet.recycling.wears[1].ran(1)
    assert fleet.told == [(1, "it has run 5 tasks")]
    assert fleet.avoided == 1
    fleet.recycling.wears[1].ran(7)  # tasks that run while it drains
    assert len(fleet.told) == 1
    fleet.began(1)
    assert fleet.avoided == 2
    fleet.recycling.wears[1].ran(4)
    assert len(fleet.told) == 1
    fleet.recycling.wears[1].ran(1)
    assert len(fleet.told) == 2


def test_all_that_are_worn_together_go_one_after_the_other() -> None:
    fleet = Fleet()
    for worker in (2, 0, 1):
        fleet.recycling.wears[worker].ran(6)
    assert fleet.leaving == {2}
    fleet.recycling.wears[0].ran(2)  # it runs on, and has more reason to go
    fleet.began(2)
    assert fleet.told[-1] == (0, "it has run 8 tasks")
    fleet.began(0)
    assert fleet.leaving == {1}
    fleet.began(1)
    assert [worker for worker, _ in fleet.told] == [2, 0, 1]


def test_one_that_dies_in_the_line_is_new() -> None:
    fleet = Fleet()
    for worker in (0, 1):
        fleet.recycling.wears[worker].ran(5)
    fleet.began(1)
    fleet.began(0)
    assert [worker for worker, _ in fleet.told] == [0]


def test_a_worker_that_is_ending_anyway_takes_no_turn() -> None:
    fleet = Fleet()
    for worker in (0, 1, 2):
        fleet.recycling.wears[worker].ran(5)
    fleet.going.add(1)
    fleet.began(0)
    assert fleet.leaving == {2}
    fleet.going.add(0)
    fleet.began(2)
    fleet.recycling.wears[0].ran(5)
    assert [worker for worker, _ in fleet.told] == [0, 2]


def test_one_that_has_grown_goes() -> None:
    fleet = Fleet(tasks=None)
    fleet.recycling.wears[0].measured(100)
    fleet.recycling.wears[0].ran(10**9)
    fleet.recycling.wears[0].measured(100)
    assert fleet.told == []
    fleet.recycling.wears[0].measured(1_101)
    assert fleet.told == [(0, "it has 1,101 bytes, over 100")]


def test_one_that_is_large_from_the_beginning_stays_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Fleet(tasks=5)
    for size in (1_500, 2_000, 3_000):
        fleet.recycling.wears[0].measured(size)
    assert fleet.told == []
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "worker 0 has 1,500 bytes before its first task" in record.getMessage()
    fleet.recycling.wears[0].ran(5)
    assert [worker for worker, _ in fleet.told] == [0]
    fleet.began(0)
    fleet.recycling.wears[0].measured(0)  # unknown
    fleet.recycling.wears[0].measured(1_500)
    assert [worker for worker, _ in fleet.told] == [0]
    assert len(caplog.records) == 2
    fleet.began(0)
    fleet.recycling.wears[0].measured(50)  # the next process is judged afresh
    fleet.recycling.wears[0].measured(101)
    assert [worker for worker, _ in fleet.told] == [0, 0]
    assert len(caplog.records) == 2


def test_without_a_limit_of_size_nothing_is_too_large(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(rss=None)
    for size in (0, 10**12):
        fleet.recycling.wears[0].measured(size)
    assert not fleet.told
    assert not caplog.records


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ran", "measured", "began", "goes"]),
            st.integers(0, 2),
            st.integers(1, 60),
        ),
        max_size=60,
    )
)
def test_nobody_is_forgotten(acts: list[tuple[str, int, int]]) -> None:
    """When all have had their turn, no worn worker is left."""
    fleet = Fleet(tasks=50, rss=1000)
    ran = [0, 0, 0]
    for act, worker, count in acts:
        if act == "ran":
            ran[worker] += count
            fleet.recycling.wears[worker].ran(count)
        elif act == "measured":
            fleet.recycling.wears[worker].measured(count)
        elif act == "goes":
            fleet.going.add(worker)
        else:
            ran[worker] = 0
            fleet.began(worker)
    while fleet.leaving or fleet.going:
        worker = min(fleet.leaving or fleet.going)
        ran[worker] = 0
        fleet.began(worker)
    assert max(ran) < 50
