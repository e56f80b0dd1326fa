"""Batches of tasks that are only in the file."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest
from homes import Home

from aioscheduler._routing.shelvedparts import ShelvedParts
from aioscheduler.batch import Batch
from aioscheduler.outcomes import Outcomes, Part
from aioscheduler.task import State


class Link(Home):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Part] = []

    def attach_part(self, part: Part) -> None:
        self.parts.append(part)


@pytest.fixture
def parts() -> ShelvedParts:
    return ShelvedParts()


def add(parts: ShelvedParts, first: int, count: int, dues: int | list[int] = 7) -> Batch[Any]:
    outcomes = Outcomes(count, "m:f")
    outcomes.durable = True
    parts.add(outcomes, 0, Home(), first, count, dues)
    return Batch(outcomes)


def test_a_task_is_found_by_its_row_as_its_batch_has_it(parts: ShelvedParts) -> None:
    assert parts.task(10) is None
    first, second = add(parts, 10, 3), add(parts, 20, 2, [5, 6])
    assert parts.task(12) is first[2]
    assert parts.task(20) is second[0]
    assert [parts.task(row) for row in (9, 13, 19, 22)] == [None] * 4
    assert [parts.due(row) for row in (9, 10, 13, 20, 21, 22)] == [None, 7, None, 5, 6, None]


def test_a_batch_is_notified_of_each_end_once(parts: ShelvedParts) -> None:
    batch = add(parts, 10, 2)
    parts.settle(10, State.CANCELLED, None)
    parts.settle(10, State.FAILED, ValueError())
    parts.settle(99, State.CANCELLED, None)
    assert batch._outcomes.states == [State.CANCELLED, None]
    assert parts.task(10) is None
    assert batch[0].cancelled()


def test_the_end_of_a_task_moved_to_a_link_is_not_reported_here(
    parts: ShelvedParts,
) -> None:
    link: Any = Link()
    batch = add(parts, 10, 2, [5, 6])
    task = batch[1]
    parts.move(11, link, 3, 77)
    parts.move(11, link, 3, 78)  # it is elsewhere by now
    parts.move(50, link, 3, 79)
    (part,) = link.parts
    assert (part.scheduler, part.first, part.count, part.due(77)) == (3, 77, 1, 6)
    assert (task._home, task._number) == (link, 77)
    parts.settle(11, State.LOST, None)
    parts.settle_all(lambda row: (State.KEPT, "closed"))
    assert batch._outcomes.states == [State.KEPT, None]
    part.settle(77, State.FINISHED, 4, None)
    assert task.result() == 4


def test_at_the_end_all_unfinished_tasks_settle(parts: ShelvedParts) -> None:
    batches = [add(parts, first, 2) for first in (10, 20, 30)]
    parts.settle(20, State.CANCELLED, None)
    del batches[0]
    parts.settle_all(lambda row: (State.KEPT, "closed"))
    assert [batch._outcomes.states for batch in batches] == [
        [State.CANCELLED, State.KEPT],
        [State.KEPT, State.KEPT],
    ]


def test_a_handle_of_one_task_holds_its_batch(parts: ShelvedParts) -> None:
    task = add(parts, 10, 2)[1]
    gc.collect()
    parts.settle(11, State.CANCELLED, None)
    assert task.cancelled()


def test_what_nobody_holds_is_forgotten_and_all_else_is_found(parts: ShelvedParts) -> None:
    draw = random.Random(7)
    held: dict[int, Batch[Any]] = {}
    most = 0
    for first in range(0, 30_000, 10):
        if first % 500 == 0:
            gc.collect()  # a batch and its parts are a reference cycle
        batch = add(parts, first, draw.randint(1, 10))
        if draw.random() < 0.02:
            held[first] = batch
        del batch
        most = max(most, len(held))
        if held and draw.random() < 0.01:
            del held[draw.choice(list(held))]
    assert len(parts._parts) == len(parts._firsts) <= 2 * (most + 50) + 64 + 1 < 500
    gc.collect()
    for first in range(0, 30_000, 10):
        found = parts.task(first)
        assert (found is not None) == (first in held)
        assert found is None or found is held[first][0]
