from __future__ import annotations

from typing import Any

import pytest

from aioscheduler._routing.placement import Placement
from aioscheduler.errors import TaskLimitReached


def fill(placement: Placement, count: int) -> list[int]:
    places = []
    for _ in range(count):
        place = placement.choose(None)
        placement.added(place)
        places.append(place)
    return places


def test_places_are_numbered_over_the_workers() -> None:
    placement = Placement((3, 2), True)
    assert placement.worker_of == [0, 0, 0, 1, 1]
    assert placement.scheduler_of == [0, 1, 2, 0, 1]
    assert (1, 1) in placement
    for wrong in ((2, 0), (1, 2), (-1, 0), (0, -1)):
        assert wrong not in placement


def test_timed_tasks_share_the_workers_queued_tasks_the_queues() -> None:
    timed, queued = Placement((3, 1), True), Placement((3, 1), False)
    for placement in (timed, queued):
        fill(placement, 120)
    assert timed.loads == [20, 20, 20, 60]
    assert queued.loads == [30, 30, 30, 30]
    # Among empty queues, the one of the least loaded worker.
    assert fill(Placement((2, 2), False), 4) == [0, 2, 1, 3]


class Restless(list[int]):
    """Schedules something between finding the minimum and finding its index."""

    def index(self, value: int, *args: Any) -> int:
        self[super().index(value)] += 1
        return super().index(value, *args)


class RestlessLater(list[int]):
    """Schedules something just after equals were counted."""

    def count(self, value: int) -> int:
        found = super().count(value)
        self[:] = [load + 1 for load in self]
        return found


@pytest.mark.parametrize("loads", ["loads", "_worker_loads"])
@pytest.mark.parametrize("by_worker", [True, False])
def test_what_garbage_collection_schedules_does_not_disturb_a_choice(
    by_worker: bool, loads: str
) -> None:
    placement = Placement((1, 1, 1), by_worker)
    for place, count in enumerate((5, 1, 3)):
        placement.added(place, count)
    setattr(placement, loads, Restless(getattr(placement, loads)))
    assert placement.choose(None) == 1


def test_a_choice_among_equals_or_by_what_waits_is_not_disturbed() -> None:
    placement = Placement((1, 1, 1), False, max_each=4)
    placement.added(0, 3)
    placement.loads = RestlessLater(placement.loads)
    assert placement.choose(None) == 1
    placement.loads = [1, 1, 0]
    placement.waiting = Restless([3, 2, 4])  # the least loaded place is full
    assert placement.choose(None) == 1


def test_started_tasks_no_longer_wait_and_ended_ones_are_no_load() -> None:
    placement = Placement((2, 2), True)
    fill(placement, 8)
    placement.count_waiting(1, 0, -2)
    assert (placement.waiting, placement.all_waiting) == ([2, 2, 0, 2], 6)
    placement.count_ended(1, 0, 2)
    assert (placement.loads, placement.all_loads) == ([2, 2, 0, 2], 6)
    assert placement.choose(None) == 2
    placement.count_emptied(0)
    assert (placement.loads, placement.waiting) == ([0, 0, 0, 2], [0, 0, 0, 2])
    assert (placement.all_loads, placement.all_waiting) == (2, 2)


@pytest.mark.parametrize("by_worker", [True, False])
def test_a_worker_that_does_not_answer_is_avoided_while_another_does(by_worker: bool) -> None:
    placement = Placement((1, 1), by_worker)
    placement.added(1, 5)
    placement.avoid([True, False])
    placement.avoid([True, False])
    assert fill(placement, 10) == [1] * 10
    placement.avoid([True, True])
    assert 0 in fill(placement, 20)
    placement.avoid([False, False])
    assert placement._worker_loads == placement.loads


def test_a_key_names_the_same_place_for_ever() -> None:
    """Pinned, as a change would break the stored references of running programs."""
    placement = Placement((3, 2), True)
    keys: list[str | bytes | int] = ["user 1", "user 2", b"user 1", 1, -1, "1", "\udc80"]
    assert [placement.place_of_key(key) for key in keys] == EXPECTED
    assert placement.choose("user 1") == EXPECTED[0]
    for wrong in (1.5, None, ("a",), ["a"]):
        with pytest.raises(TypeError, match="key"):
            placement.place_of_key(wrong)  # type: ignore[arg-type]
    assert placement.place_near(None, 1, 1) == 4
    assert placement.place_near("user 1", 1, 1) == EXPECTED[0]


EXPECTED = [4, 0, 4, 1, 3, 2, 3]


def test_the_limit_of_all() -> None:
    placement = Placement((1, 1), True, max_tasks=3)
    assert placement.room(0) == 3
    fill(placement, 3)
    with pytest.raises(TaskLimitReached, match="max_tasks=3"):
        placement.choose(None)
    with pytest.raises(TaskLimitReached):
        placement.choose("key")
    placement.count_waiting(0, 0, -1)
    assert placement.room(0) == 1
    placement.choose(None)


def test_the_limit_of_each() -> None:
    placement = Placement((1, 1), True, max_each=2)
    key = next(k for k in range(100) if placement.place_of_key(k) == 0)
    placement.added(0, 2)
    with pytest.raises(TaskLimitReached, match="max_tasks=2"):
        placement.choose(key)
    # Its worker has a higher load, but the other scheduler has room.
    placement.count_waiting(0, 0, -2)
    placement.count_ended(0, 0, 2)
    placement.added(1, 2)
    placement.count_waiting(1, 0, -1)
    placement.added(0, 2)
    assert placement.choose(None) == 1
    placement.added(1)
    with pytest.raises(TaskLimitReached):
        placement.choose(None)
