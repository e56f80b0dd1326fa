"""The handle on a repeat."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from aioscheduler import Every
from aioscheduler._repeating.policy import Progress
from aioscheduler._repeating.terms import read_terms
from aioscheduler._scheduling.clock import SECOND
from aioscheduler.repeat import Repeat

START = datetime(2030, 1, 1, tzinfo=UTC)
NOW = int(START.timestamp()) * SECOND


class Upstream:
    def __init__(self) -> None:
        self.asked: list[tuple[str, Repeat]] = []

    async def pause(self, repeat: Repeat) -> None:
        self.asked.append(("pause", repeat))

    async def resume(self, repeat: Repeat) -> None:
        self.asked.append(("resume", repeat))

    async def cancel(self, repeat: Repeat) -> None:
        self.asked.append(("cancel", repeat))


class Work:
    key = None
    name = "reports:report"


def make(**progress: Any) -> Repeat:
    return Repeat(Upstream(), "report", read_terms(Every(60)), Progress(**progress), Work(), None)


def test_it_says_how_far_it_is() -> None:
    repeat = make(next=NOW + 500, last=NOW, ran=3, skipped=2)
    assert (repeat.id, repeat.rule, repeat.name) == ("report", "every 0:01:00", "reports:report")
    assert repeat.last == START
    assert repeat.next == datetime(2030, 1, 1, 0, 0, 0, 1, UTC)  # never before it is
    assert (repeat.ran, repeat.skipped, repeat.running) == (3, 2, 0)
    assert (repeat.paused, repeat.reason) == (False, None)


@pytest.mark.parametrize(
    ("progress", "how"),
    [
        ({"next": NOW}, "next 2030-01-01 00:00:00+00:00"),
        ({}, "ended"),
        ({"next": NOW, "paused": True}, "paused"),
        ({"paused": True, "reason": "its rule raised"}, "paused: its rule raised"),
    ],
)
def test_its_repr_says_what_becomes_of_it(progress: dict[str, Any], how: str) -> None:
    assert repr(make(**progress)) == f"<Repeat 'report' every 0:01:00 {how}>"


def test_one_that_is_over_has_no_next_time() -> None:
    repeat = make(next=NOW)
    repeat._is_over = True
    assert repeat.next is None
    assert repr(repeat) == "<Repeat 'report' every 0:01:00 cancelled>"


def test_one_whose_rule_the_file_cannot_keep_says_what_it_waits_for() -> None:
    repeat = make(next=NOW)
    repeat._since = None
    assert repeat.reason is not None
    assert "when manager.repeat() is called with its id" in repeat.reason
    assert "paused: its rule is an object of the program" in repr(repeat)
    assert not repeat.paused


async def test_its_owner_does_the_work() -> None:
    repeat = make()
    await repeat.pause()
    await repeat.resume()
    await repeat.cancel()
    owner: Any = repeat._owner
    assert owner.asked == [("pause", repeat), ("resume", repeat), ("cancel", repeat)]


def test_it_stays_where_it_was_made() -> None:
    with pytest.raises(TypeError, match="pass its id instead"):
        pickle.dumps(make())
