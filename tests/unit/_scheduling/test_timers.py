from __future__ import annotations

import random
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from aioscheduler._scheduling import timers
from aioscheduler._scheduling.timers import TimerQueue

SECOND = 10**9
SPANS = [0, 1, 1000, 10**6, 50 * 10**6, SECOND, 9 * SECOND, 3600 * SECOND, 10**8 * SECOND]

pushes = st.tuples(st.just("push"), st.sampled_from(SPANS), st.integers(-3, 5))
pops = st.tuples(st.just("pop"), st.sampled_from(SPANS), st.integers(1, 7))
discards = st.tuples(st.just("discard"), st.integers(0, 10**6), st.just(0))
returns = st.tuples(st.just("again"), st.integers(0, 10**6), st.sampled_from([0, 0, 1, *SPANS]))
moves = st.tuples(st.just("move"), st.integers(0, 10**6), st.sampled_from([0, 0, 1, *SPANS]))


@settings(max_examples=300)
@given(
    st.lists(st.one_of(pushes, pops, discards, returns, moves), max_size=120),
    st.sampled_from([3, 1000]),
)
def test_it_is_a_sorted_list(steps: list[tuple[str, int, int]], prune: int) -> None:
    """Even with numbers that come back (`again`), or are discarded first (`move`)."""
    with mock.patch.object(timers, "_PRUNE_MIN", prune):
        live_by(steps)


def live_by(steps: list[tuple[str, int, int]]) -> None:
    alive: dict[int, None] = {}
    queue = TimerQueue(alive)
    model: list[tuple[int, int]] = []
    gone: dict[int, int] = {}  # numbers that have left, and their last due times
    now = 10 * SECOND
    number = 0

    def discard(index: int) -> int:
        due, number = model.pop(index % len(model))
        gone[number] = due
        del alive[number]
        queue.discard()
        return number

    def push_again(number: int, later: int) -> None:
        before = gone.pop(number)
        due = before + later if later < SECOND else now + later - SECOND
        queue.push_again(due if due % 2 else [due], [number])
        alive[number] = None
        model.append((due, number))

    for verb, first, second in steps:
        if verb == "push":
            due = max(0, now + first * second)
            alive[number] = None
            queue.push(due, number)
            model.append((due, number))
            number += 1
        elif verb == "discard" and model:
            discard(first)
        elif verb == "move" and model:
            push_again(discard(first), second)
        elif verb == "again" and gone:
            push_again(list(gone)[first % len(gone)], second)
        elif verb == "pop":
            now += first
            model.sort()
            expected = [(due, n) for due, n in model if due <= now][:second]
            numbers, dues = queue.pop_due(now, second)
            assert list(zip(dues, numbers, strict=True)) == expected
            model = model[len(expected) :]
            for due, n in expected:
                del alive[n]
                gone[n] = due
        assert len(queue) == len(model)
        look = queue.next_look()
        assert (look is None) == (not model)
        if look is not None:
            assert look <= min(model)[0]
        assert queue._again.keys() <= alive.keys() | gone.keys()
    queue.pop_due(10**30, 10**6)
    assert (queue._size, queue._dead, queue._again) == (0, 0, {})


@given(st.lists(st.integers(0, 400 * SECOND), max_size=60))
def test_looking_when_told_finds_everything_in_time(dues: list[int]) -> None:
    alive: dict[int, None] = dict.fromkeys(range(len(dues)))
    queue = TimerQueue(alive)
    for number, due in enumerate(dues):
        queue.push(due, number)
    found: list[int] = []
    looks = 0
    while (now := queue.next_look()) is not None:
        ready, their_dues = queue.pop_due(now, 10**6)
        assert their_dues == [dues[number] for number in ready]
        assert all(due <= now for due in their_dues)
        found += ready
        for number in ready:
            del alive[number]
        looks += 1
    assert found == sorted(range(len(dues)), key=lambda n: (dues[n], n))
    assert looks <= 3 * len(dues)  # a bucket costs one look, and no more


def test_equal_times_come_in_the_order_of_numbers_whenever_they_were_pushed() -> None:
    alive: dict[int, Any] = dict.fromkeys(range(6))
    queue = TimerQueue(alive)
    queue.push(5, 0)
    queue.push(5, 1)
    assert queue.pop_due(5, 1) == ([0], [5])
    for number in (4, 3, 2, 5):  # into a span that is open already, out of order
        queue.push(5, number)
    assert queue.pop_due(4, 10) == ([], [])
    assert queue.pop_due(5, 10) == ([1, 2, 3, 4, 5], [5] * 5)


def test_cancelled_entries_do_not_pile_up() -> None:
    generator = random.Random(1)
    alive: dict[int, None] = {}
    queue = TimerQueue(alive)
    for number in range(50_000):
        alive[number] = None
        queue.push(generator.randrange(10**6 * SECOND), number)
        if number % 10:
            del alive[number]
            queue.discard()
        assert queue._size <= 2 * len(alive) + 2 * 1000
    assert len(queue) == 5000


def test_far_off_timers_share_their_buckets() -> None:
    """A million timers over days must not cost a list each (see the module's docstring)."""
    alive = dict.fromkeys(range(10_000))
    queue = TimerQueue(alive)
    for number in alive:
        queue.push(number * SECOND, number)
    assert len(queue._far._buckets) < 10_000 / 8
