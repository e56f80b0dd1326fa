"""Classes made for each call are collected, at a tenth of the cost of shipping them."""

from __future__ import annotations

import gc

import pytest

from aioscheduler._shipping.classgarbage import ClassGarbage


class Collector:
    """A full collection that takes a while."""

    def __init__(self) -> None:
        self.seconds = self.cost = 0.0
        self.looks = 0

    def look(self) -> None:
        self.looks += 1
        self.seconds += self.cost


def test_classes_are_collected_at_a_tenth_of_their_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collector = Collector()
    garbage = ClassGarbage(collector.look, lambda: collector.seconds)
    collector.cost = 0.03  # what a thousand classes may cost
    looked: list[int] = []
    for total in range(3000):
        garbage.note(total)
        if collector.looks > len(looked):
            looked.append(total)
    assert looked == [64, 1064, 2064]
    monkeypatch.setattr(gc, "isenabled", lambda: False)
    garbage.note(1_000_000)
    assert collector.looks == 3
