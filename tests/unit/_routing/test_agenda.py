"""When repeats are looked at: in order, some at a turn, and never a useless time twice."""

from __future__ import annotations

import asyncio
import random
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from aioscheduler._repeating.policy import GRACE
from aioscheduler._routing.agenda import MOST_AT_ONCE, Agenda
from aioscheduler._scheduling.clock import SECOND
from aioscheduler.testing import FakeClock

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Item:
    """In the place of a repeat."""

    def __init__(self, name: Any) -> None:
        self.name = name
        self._wake: int | None = None


class Place:
    def __init__(self, clock: Any) -> None:
        self.looked: list[Any] = []
        self.whose: set[str] = set()
        self.runs = 0
        self.agenda = Agenda(clock, self.look, copy_context())  # type: ignore[arg-type]
        self.again: dict[Any, int] = {}

    def look(self, item: Any, now: int) -> int:
        self.whose.add(WHO.get())
        self.looked.append(item.name)
        if item.name in self.again:
            self.agenda.set(item, now + self.again[item.name])
        return self.runs


@pytest.fixture
async def place(clock: FakeClock) -> Any:
    place = Place(clock)
    yield place
    place.agenda.stop()


async def test_each_is_looked_at_when_it_is_time(place: Place, clock: FakeClock) -> None:
    items: list[Any] = [Item(n) for n in range(6)]
    now = clock()
    place.agenda.set(items[0], now + 3 * SECOND)
    place.agenda.start(asyncio.get_running_loop())
    for n, after in ((1, 1), (2, 2), (3, 2), (4, 4), (5, 5)):
        place.agenda.set(items[n], now + after * SECOND)
    place.agenda.set(items[4], now + SECOND)  # another time
    place.agenda.set(items[5], None)
    place.again[2] = 2 * SECOND
    await clock.advance(0.999)
    assert place.looked == []
    await clock.advance(0.001)
    assert place.looked == [1, 4]
    await clock.advance(1)
    assert place.looked == [1, 4, 2, 3]
    await clock.advance(2)
    assert place.looked == [1, 4, 2, 3, 0, 2]
    assert place.agenda.watched == now


async def test_what_comes_next_is_told_in_order(place: Place, clock: FakeClock) -> None:
    chance = random.Random(3)
    items: list[Any] = [Item(n) for n in range(200)]
    for item in items * 2:
        place.agenda.set(item, chance.choice((None, clock() + chance.randrange(10**12))))
    waiting = [item for item in items if item._wake is not None]
    expected = sorted(waiting, key=lambda item: item._wake or 0)
    assert list(place.agenda.soonest()) == expected
    assert next(Agenda(clock, place.look, copy_context()).soonest(), None) is None  # type: ignore[arg-type]


async def test_very_many_take_several_turns(place: Place, clock: FakeClock) -> None:
    place.agenda.start(asyncio.get_running_loop())
    turns: list[int] = []

    def note() -> None:
        turns.append(len(place.looked))
        if len(place.looked) < 300:
            asyncio.get_running_loop().call_soon(note)

    for n in range(300):
        place.agenda.set(Item(n), clock() + SECOND)  # type: ignore[arg-type]
    asyncio.get_running_loop().call_soon(note)
    await clock.advance(1)
    assert place.looked == list(range(300))
    steps = [b - a for a, b in zip(turns, turns[1:], strict=False)]
    assert max(steps) == MOST_AT_ONCE
    place.runs, place.looked = 15, []
    for n in range(4):
        place.agenda.set(Item(n), clock() + SECOND)  # type: ignore[arg-type]
    turns.clear()
    asyncio.get_running_loop().call_soon(note)
    await clock.advance(1)
    steps = [b - a for a, b in zip(turns, turns[1:], strict=False)]
    assert max(steps) == 2  # with all that comes of them


async def test_it_rings_in_nobody_s_context(clock: FakeClock) -> None:
    place = Place(clock)
    place.agenda.start(asyncio.get_running_loop())
    WHO.set("the caller")
    for n in range(200):
        place.agenda.set(Item(n), clock() + SECOND)  # type: ignore[arg-type]
    await clock.advance(1)
    assert place.whose == {"nobody"}
    place.agenda.stop()


async def test_entries_that_are_of_no_use_are_thrown_away(place: Place, clock: FakeClock) -> None:
    place.agenda.start(asyncio.get_running_loop())
    chance = random.Random(7)
    items: list[Any] = [Item(n) for n in range(50)]
    for _ in range(5000):
        item = chance.choice(items)
        place.agenda.set(item, chance.choice((None, clock() + chance.randrange(9 * SECOND))))
        assert len(place.agenda._near) <= 4 * (50 + 64)
    expected = [i.name for i in sorted(items, key=lambda i: i._wake or 0) if i._wake is not None]
    await clock.advance(9)
    assert place.looked == expected


async def test_after_the_end_nothing_is_looked_at(place: Place, clock: FakeClock) -> None:
    place.agenda.start(asyncio.get_running_loop())
    for n in range(2 * MOST_AT_ONCE):
        place.agenda.set(Item(n), clock())  # type: ignore[arg-type]
    place.agenda.stop()
    place.agenda.set(Item("late"), clock())  # type: ignore[arg-type]
    await clock.advance(1)
    assert place.looked == []


async def test_who_never_has_one_has_no_alarm(place: Place) -> None:
    place.agenda.start(asyncio.get_running_loop())
    assert place.agenda._alarm is None


async def test_a_clock_that_is_set_or_a_sleep_is_noticed() -> None:
    now = [10**18]
    place = Place(lambda: now[0])
    place.agenda.notice(now[0])  # before the start there is nothing to compare with
    place.agenda.start(asyncio.get_running_loop())
    began = place.agenda.watched
    for jump, seen in ((GRACE - SECOND, False), (GRACE + SECOND, True), (-GRACE - SECOND, True)):
        now[0] += jump
        place.agenda.notice(now[0])
        assert place.agenda.watched == (now[0] if seen else began)
    place.agenda.stop()


async def test_a_jump_is_noticed_before_anything_is_looked_at() -> None:
    now = [10**18]
    place = Place(lambda: now[0])
    place.agenda.start(asyncio.get_running_loop())
    now[0] += 3600 * SECOND
    place.agenda.set(Item(1), now[0] - 1)  # type: ignore[arg-type]
    while not place.looked:
        await asyncio.sleep(0)
    assert place.agenda.watched == now[0]
    place.agenda.stop()
