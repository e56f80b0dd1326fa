"""When repeats are looked at: in order, some in each turn, and no stale entry twice."""

from __future__ import annotations

import asyncio
import random
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from aioscheduler._repeating.policy import GRACE
from aioscheduler._routing import agenda as module
from aioscheduler._routing.agenda import MOST_AT_ONCE, Agenda
from aioscheduler._scheduling.clock import SECOND
from aioscheduler.testing import FakeClock

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Item:
    """Stands for a repeat."""

    def __init__(self, name: Any) -> None:
        self.name = name
        self._wake: int | None = None


class Rig:
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
async def rig(clock: FakeClock) -> Any:
    rig = Rig(clock)
    yield rig
    rig.agenda.stop()


async def test_each_is_looked_at_when_it_is_time(rig: Rig, clock: FakeClock) -> None:
    items: list[Any] = [Item(n) for n in range(6)]
    now = clock()
    rig.agenda.set(items[0], now + 3 * SECOND)
    rig.agenda.start(asyncio.get_running_loop())
    for n, after in ((1, 1), (2, 2), (3, 2), (4, 4), (5, 5)):
        rig.agenda.set(items[n], now + after * SECOND)
    rig.agenda.set(items[4], now + SECOND)  # rescheduled
    rig.agenda.set(items[5], None)
    rig.again[2] = 2 * SECOND
    await clock.advance(0.999)
    assert rig.looked == []
    await clock.advance(0.001)
    assert rig.looked == [1, 4]
    await clock.advance(1)
    assert rig.looked == [1, 4, 2, 3]
    await clock.advance(2)
    assert rig.looked == [1, 4, 2, 3, 0, 2]
    assert rig.agenda.watched == now


async def test_the_next_repeats_are_yielded_in_order(rig: Rig, clock: FakeClock) -> None:
    chance = random.Random(3)
    items: list[Any] = [Item(n) for n in range(200)]
    for item in items * 2:
        rig.agenda.set(item, chance.choice((None, clock() + chance.randrange(10**12))))
    waiting = [item for item in items if item._wake is not None]
    expected = sorted(waiting, key=lambda item: item._wake or 0)
    assert list(rig.agenda.soonest()) == expected
    assert next(Agenda(clock, rig.look, copy_context()).soonest(), None) is None  # type: ignore[arg-type]


async def test_one_set_again_for_the_same_time_is_there_once(rig: Rig, clock: FakeClock) -> None:
    """So it is at each start: the file has the repeat, and the program makes it again."""
    rig.agenda.start(asyncio.get_running_loop())
    items: list[Any] = [Item(n) for n in range(3)]
    for _ in range(3):
        for n, item in enumerate(items):
            rig.agenda.set(item, clock() + (9 + n) * SECOND)
        await clock.advance(0)  # all are near
    rig.agenda.set(items[1], clock() + 8 * SECOND)
    rig.agenda.set(items[1], clock() + 10 * SECOND)
    assert list(rig.agenda.soonest()) == items
    rig.again = dict.fromkeys(range(3), 60 * SECOND)
    await clock.advance(11)
    assert rig.looked == [0, 1, 2]
    assert (len(rig.agenda._near), rig.agenda._useless) == (3, 0)  # none is held for longer


async def test_very_many_take_several_turns(rig: Rig, clock: FakeClock) -> None:
    rig.agenda.start(asyncio.get_running_loop())
    turns: list[int] = []

    def note() -> None:
        turns.append(len(rig.looked))
        if len(rig.looked) < 300:
            asyncio.get_running_loop().call_soon(note)

    for n in range(300):
        rig.agenda.set(Item(n), clock() + SECOND)  # type: ignore[arg-type]
    asyncio.get_running_loop().call_soon(note)
    await clock.advance(1)
    assert rig.looked == list(range(300))
    steps = [b - a for a, b in zip(turns, turns[1:], strict=False)]
    assert max(steps) == MOST_AT_ONCE
    rig.runs, rig.looked = 15, []
    for n in range(4):
        rig.agenda.set(Item(n), clock() + SECOND)  # type: ignore[arg-type]
    turns.clear()
    asyncio.get_running_loop().call_soon(note)
    await clock.advance(1)
    steps = [b - a for a, b in zip(turns, turns[1:], strict=False)]
    assert max(steps) == 2  # with the runs that they start


async def test_the_alarm_rings_in_no_users_context(clock: FakeClock) -> None:
    rig = Rig(clock)
    rig.agenda.start(asyncio.get_running_loop())
    WHO.set("the caller")
    for n in range(200):
        rig.agenda.set(Item(n), clock() + SECOND)  # type: ignore[arg-type]
    await clock.advance(1)
    assert rig.whose == {"nobody"}
    rig.agenda.stop()


async def test_entries_that_are_of_no_use_are_thrown_away(rig: Rig, clock: FakeClock) -> None:
    rig.agenda.start(asyncio.get_running_loop())
    chance = random.Random(7)
    items: list[Any] = [Item(n) for n in range(50)]
    for _ in range(5000):
        item = chance.choice(items)
        rig.agenda.set(item, chance.choice((None, clock() + chance.randrange(9 * SECOND))))
        assert len(rig.agenda._near) <= 4 * (50 + 64)
    expected = [i.name for i in sorted(items, key=lambda i: i._wake or 0) if i._wake is not None]
    await clock.advance(9)
    assert rig.looked == expected


async def test_after_the_end_nothing_is_looked_at(rig: Rig, clock: FakeClock) -> None:
    rig.agenda.start(asyncio.get_running_loop())
    for n in range(2 * MOST_AT_ONCE):
        rig.agenda.set(Item(n), clock())  # type: ignore[arg-type]
    rig.agenda.stop()
    rig.agenda.set(Item("late"), clock())  # type: ignore[arg-type]
    await clock.advance(1)
    assert rig.looked == []


async def test_a_manager_without_repeats_has_no_alarm(rig: Rig) -> None:
    rig.agenda.start(asyncio.get_running_loop())
    assert rig.agenda._alarm is None


async def test_a_clock_that_is_set_or_a_sleep_is_noticed() -> None:
    now = [10**18]
    rig = Rig(lambda: now[0])
    rig.agenda.notice(now[0])  # before the start there is nothing to compare with
    rig.agenda.start(asyncio.get_running_loop())
    began = rig.agenda.watched
    for jump, seen in ((GRACE - SECOND, False), (GRACE + SECOND, True), (-GRACE - SECOND, True)):
        now[0] += jump
        rig.agenda.notice(now[0])
        assert rig.agenda.watched == (now[0] if seen else began)
    rig.agenda.stop()


async def test_a_jump_is_noticed_before_anything_is_looked_at() -> None:
    now = [10**18]
    rig = Rig(lambda: now[0])
    rig.agenda.start(asyncio.get_running_loop())
    now[0] += 3600 * SECOND
    rig.agenda.set(Item(1), now[0] - 1)  # type: ignore[arg-type]
    while not rig.looked:
        await asyncio.sleep(0)
    assert rig.agenda.watched == now[0]
    rig.agenda.stop()


# ---- far-off repeats


async def test_far_ones_come_near_some_at_a_turn_and_in_order(
    rig: Rig, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OPENED", 7)
    chance = random.Random(11)
    wakes = {n: clock() + chance.randrange(900 * SECOND) for n in range(500)}
    items: list[Any] = [Item(n) for n in wakes]
    for item in items[:250]:
        rig.agenda.set(item, wakes[item.name])
    rig.agenda.start(asyncio.get_running_loop())
    for item in items[250:]:
        rig.agenda.set(item, wakes[item.name])
    await clock.advance(450)
    assert rig.looked == sorted((n for n in wakes if wakes[n] <= clock()), key=wakes.__getitem__)
    await clock.advance(450)
    assert rig.looked == sorted(wakes, key=wakes.__getitem__)


async def test_after_a_jump_all_that_is_due_is_looked_at_in_order(
    rig: Rig, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OPENED", 7)
    chance = random.Random(12)
    wakes = {n: clock() + chance.randrange(10**6) * SECOND + n for n in range(300)}
    for n, wake in wakes.items():
        rig.agenda.set(Item(n), wake)  # type: ignore[arg-type]
    clock._now += 10**6 * SECOND
    rig.agenda.start(asyncio.get_running_loop())
    await clock.advance(0)
    while len(rig.looked) < 300:
        await asyncio.sleep(0)
    assert rig.looked == sorted(wakes, key=wakes.__getitem__)


async def test_one_that_is_moved_while_it_comes_near_is_looked_at_once(
    rig: Rig, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OPENED", 1)
    items: list[Any] = [Item(n) for n in range(6)]
    now = clock()
    for item in items:
        rig.agenda.set(item, now + 100 * SECOND)
    rig.agenda.start(asyncio.get_running_loop())
    clock._now += 80 * SECOND  # they come near
    rig.agenda._ring()
    rig.agenda.set(items[2], now + 101 * SECOND)
    rig.agenda.set(items[3], now + 500 * SECOND)
    rig.agenda.set(items[4], None)
    rig.agenda.set(items[5], now + 100 * SECOND)
    await clock.advance(30)
    assert (set(rig.looked[:3]), rig.looked[3:]) == ({0, 1, 5}, [2])
    await clock.advance(500)
    assert rig.looked[4:] == [3]


async def test_far_ones_that_are_moved_leave_nothing(rig: Rig, clock: FakeClock) -> None:
    rig.agenda.start(asyncio.get_running_loop())
    item: Any = Item(1)
    for n in range(2000):
        rig.agenda.set(item, clock() + (1000 + n) * 100 * SECOND)
        rig.agenda.set(item, clock() + 10**6 * SECOND)
        rig.agenda.set(item, None)
    assert not rig.agenda._far
    assert len(rig.agenda._minutes) <= 70
    rig.agenda.set(item, clock() + SECOND)
    await clock.advance(1)
    assert rig.looked == [1]


async def test_against_a_sorted_list(rig: Rig, clock: FakeClock) -> None:
    """Whatever is set and moved, each repeat is looked at at its time, and at no other."""
    rig.agenda.start(asyncio.get_running_loop())
    chance = random.Random(13)
    items: list[Any] = [Item(n) for n in range(40)]
    wakes: dict[int, int] = {}
    for _ in range(300):
        for item in chance.sample(items, 5):
            wake = chance.choice((None, clock() + chance.randrange(600 * SECOND)))
            rig.agenda.set(item, wake)
            wakes.pop(item.name, None)
            if wake is not None:
                wakes[item.name] = wake
        soonest: list[Any] = list(rig.agenda.soonest())
        assert [item.name for item in soonest] == sorted(wakes, key=wakes.__getitem__)
        until = clock() + chance.randrange(120 * SECOND)
        due = sorted((n for n in wakes if wakes[n] <= until), key=wakes.__getitem__)
        rig.looked.clear()
        await clock.advance((until - clock()) / SECOND)
        due = [n for n in due if wakes[n] <= clock()]
        assert rig.looked == due
        for n in due:
            del wakes[n]
