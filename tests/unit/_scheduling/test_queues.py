from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._scheduling.queues import FifoQueue, LifoQueue


@pytest.mark.parametrize(("cls", "end"), [(FifoQueue, 0), (LifoQueue, -1)])
@given(steps=st.lists(st.integers(-4, 3), max_size=80))
def test_it_is_a_list_taken_from_one_end(cls: type[FifoQueue], end: int, steps: list[int]) -> None:
    """A step below zero pushes, zero discards the middle one, above zero pops that many."""
    alive: dict[int, None] = {}
    queue = cls(alive)
    model: list[int] = []
    for number, step in enumerate(steps):
        if step < 0:
            alive[number] = None
            queue.push(-number, number)  # the time means nothing
            model.append(number)
        elif step == 0 and model:
            del alive[model.pop(len(model) // 2)]
            queue.discard()
        else:
            expected = [model.pop(end) for _ in range(min(step, len(model)))]
            assert queue.pop_due(0, step) == (expected, [0] * len(expected))
            for gone in expected:
                del alive[gone]
        assert len(queue) == len(model)
        assert queue.next_look() == (0 if model else None)
        assert len(queue._numbers) <= 2 * len(model) + 1


@pytest.mark.parametrize(("cls", "order"), [(FifoQueue, [1, 2, 0]), (LifoQueue, [0, 2, 1])])
def test_a_number_that_comes_back_is_there_once_and_as_a_new_one(
    cls: type[FifoQueue], order: list[int]
) -> None:
    alive = dict.fromkeys(range(3))
    queue = cls(alive)
    queue.push_many(0, range(3))
    del alive[0]
    queue.discard()
    queue.push_again(0, [0])
    alive[0] = None
    assert len(queue) == 3
    assert queue.pop_due(0, 5) == (order, [0] * 3)
    assert len(queue) == 0
