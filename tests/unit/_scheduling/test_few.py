"""Tasks of a backlog that are announced a few at a time."""

from __future__ import annotations

import random

import pytest

from aioscheduler._scheduling.few import MOST, Few


class Engine:
    """Launches a task again in another turn, unless it was cancelled."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.launched: list[tuple[int, int]] = []

    def ready(self, number: int, due: int) -> None:
        self.launched.append((number, due))


@pytest.fixture
def few() -> Few:
    return Few()


def test_so_many_are_taken_and_the_others_follow_in_their_order(few: Few) -> None:
    engine, other = Engine(), Engine(1)
    taken = [few.take(engine, number, 10 + number) for number in range(MOST + 5)]
    assert taken == [True] * MOST + [False] * 5
    assert few.take(other, 100, 7)  # of another scheduler
    few.began(engine, 3)
    assert engine.launched == [(MOST + n, 10 + MOST + n) for n in range(3)]
    assert not few.take(engine, 99, 5)  # none overtakes another
    assert all(few.take(engine, *launched) for launched in engine.launched)
    few.began(engine, 32)
    assert [number for number, _ in engine.launched[3:]] == [MOST + 3, MOST + 4, 99]
    assert other.launched == []


def test_what_is_held_or_released_is_not_announced(few: Few) -> None:
    engine = Engine()
    for number in range(MOST + 2):
        few.take(engine, number, 5)
    assert [number in few for number in (MOST - 1, MOST, MOST + 1)] == [False, True, True]
    few.began(engine)
    assert MOST in few  # until it is launched again
    assert few.take(engine, MOST, 5)
    assert MOST not in few


def test_what_is_cancelled_makes_room(few: Few) -> None:
    engine = Engine()
    for number in range(MOST + 3):
        few.take(engine, number, 5)
    few.forget(MOST)
    few.forget(7)  # it was announced, and counts until that has begun
    few.began(engine)
    assert engine.launched == [(MOST + 1, 5)]
    few.forget(MOST + 1)
    assert engine.launched == [(MOST + 1, 5), (MOST + 2, 5)]


def test_when_it_is_stopped_nothing_is_released(few: Few) -> None:
    engine = Engine()
    for number in range(MOST + 3):
        few.take(engine, number, 5)
    few.stop()
    few.began(engine, MOST)
    assert engine.launched == []


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_few_are_about_to_begin_and_each_is_once(seed: int) -> None:
    draw = random.Random(seed)
    few, engine = Few(), Engine()
    about: list[int] = []  # announced, and not begun
    gone: set[int] = set()
    begun: list[int] = []
    for number in range(300):
        if few.take(engine, number, 5):
            about.append(number)
        if draw.random() < 0.2:
            victim = draw.randrange(number + 1)
            if victim in few:
                few.forget(victim)
                gone.add(victim)
    while about or engine.launched:
        released = [number for number, _ in engine.launched if number not in gone]
        assert len(about) + len(released) <= MOST
        if engine.launched and (not about or draw.random() < 0.5):
            launched, due = engine.launched.pop(0)
            if launched not in gone:
                assert few.take(engine, launched, due)
                about.append(launched)
        else:
            count = draw.randint(1, len(about))
            begun += about[:count]
            del about[:count]
            few.began(engine, count)
        if released and released[-1] in few and draw.random() < 0.1:
            few.forget(released[-1])
            gone.add(released[-1])
    assert sorted([*begun, *gone]) == list(range(300))
