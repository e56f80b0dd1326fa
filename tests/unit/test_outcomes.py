"""The ends of a batch's tasks, and their parts: single tasks may move."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from homes import Home

from aioscheduler.batch import Batch
from aioscheduler.outcomes import Outcomes, Part
from aioscheduler.task import State


@pytest.fixture
async def home(reports: list[dict[str, Any]]) -> Home:
    return Home(asyncio.get_running_loop())


@pytest.fixture
async def other(reports: list[dict[str, Any]]) -> Home:
    return Home(asyncio.get_running_loop())


def make(home: Home, dues: int | list[int] = 7) -> tuple[Outcomes, Part]:
    """Three tasks: numbers 10, 11 and 12."""
    outcomes = Outcomes(3, "f")
    return outcomes, Part(outcomes, 0, home, 1, 10, 3, dues)


async def test_a_part_has_its_numbers_and_their_times(home: Home) -> None:
    outcomes, part = make(home, [7, 8, 9])
    assert [number in part for number in (9, 10, 12, 13)] == [False, True, True, False]
    assert [part.due(number) for number in (10, 12)] == [7, 9]
    assert make(home)[1].due(12) == 7
    assert part.name == "f"
    assert outcomes.part_of(2) is part


async def test_a_row_of_ends_is_taken_at_once_unless_a_handle_waits(home: Home) -> None:
    outcomes, part = make(home)
    assert part.settle_row(10, [1, 2], State.FINISHED, None)
    assert (part.left, outcomes.left) == (1, 1)
    handle = part.task(12)
    assert not part.settle_row(12, [3], State.FINISHED, None)
    part.settle(12, State.FINISHED, 3, None)
    assert handle.result() == 3
    assert (part.left, outcomes.left, outcomes.values) == (0, 0, [1, 2, 3])


async def test_a_task_that_is_elsewhere_ends_there(home: Home, other: Home) -> None:
    outcomes, part = make(home, [7, 8, 9])
    moved = part.move(11, other, 4, 60)
    assert (moved.home, moved.scheduler, moved.first, moved.count) == (other, 4, 60, 1)
    assert moved.due(60) == 8
    assert outcomes.part_of(1) is moved
    assert outcomes.part_of(2) is part
    assert [part.is_here(number) for number in (10, 11, 12)] == [True, False, True]
    moved.settle(60, State.FINISHED, "there", None)
    part.settle(10, State.FINISHED, "here", None)
    part.settle(12, State.FINISHED, "here", None)
    assert outcomes.values == ["here", "there", "here"]
    assert outcomes.left == 0
    assert not part.is_here(10)


async def test_a_handle_goes_with_its_task(home: Home, other: Home) -> None:
    outcomes, part = make(home)
    before = outcomes.task(part, 1)
    part.move(11, other, 4, 60)
    assert (before._home, before._scheduler, before._number) == (other, 4, 60)
    assert outcomes.task(outcomes.part_of(1), 1) is before
    assert before.cancel()
    assert (home.cancelled, other.cancelled) == ([], [60])
    del before
    handle = outcomes.task(outcomes.part_of(1), 1)
    assert (handle._home, handle._number) == (other, 60)


async def test_it_may_go_on_from_there(home: Home, other: Home) -> None:
    outcomes, part = make(home)
    shelved = part.move(11, other, 0, 60)
    back = shelved.move(60, home, 2, 70)
    assert outcomes.part_of(1) is back
    assert not part.is_here(11)
    back.settle(70, State.FAILED, KeyError("k"), None)
    assert outcomes.first_bad == 1
    assert outcomes.states == [None, State.FAILED, None]


async def test_a_batch_is_cancelled_wherever_its_tasks_are(home: Home, other: Home) -> None:
    outcomes, part = make(home)
    batch: Batch[Any] = Batch(outcomes)
    moved = [part.move(number, other, 0, number + 50) for number in (10, 11)]
    moved[0].settle(60, State.FINISHED, 1, None)
    assert batch.cancel()
    assert (home.cancelled, other.cancelled) == ([12], [61])
    part.settle(12, State.CANCELLED, None, None)
    moved[1].settle(61, State.CANCELLED, None, None)
    assert not batch.cancel()


async def test_what_is_durable_is_marked_on_its_handles(home: Home) -> None:
    outcomes, part = make(home)
    plain = part.task(10)
    outcomes.durable = True
    durable = part.task(11)
    with pytest.raises(TypeError, match="is not in a store"):
        await plain.stored()
    await durable.stored()
    assert home.stored_ones == [(11, outcomes)]
