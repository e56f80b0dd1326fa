"""Reports on repeats; that they are made when due is tested in `test_repeats`."""

from __future__ import annotations

from typing import Any

import pytest

from aioscheduler import Every
from aioscheduler._repeating.policy import Progress
from aioscheduler._repeating.terms import read_terms
from aioscheduler._routing.repeatreports import MOST_SHOWN, TELL_EVERY, RepeatReports
from aioscheduler.repeat import Repeat


class Work:
    name = "m:f"


def make(id_: str, **progress: Any) -> Repeat:
    owner: Any = None
    return Repeat(owner, id_, read_terms(Every(60)), Progress(**progress), Work(), None)


def test_only_some_of_very_many_repeats_are_shown() -> None:
    reports = RepeatReports()
    asked: list[str] = []

    def soonest() -> Any:
        for n in range(1000):
            asked.append(str(n))
            yield make(str(n), next=n)

    for n in range(1000):
        reports.note(make(f"p{n}", paused=True))
    shown = reports.shown(soonest())
    half = MOST_SHOWN // 2
    assert [told["id"] for told in shown] == [*(f"p{n}" for n in range(half)), *asked]
    assert len(asked) == half


def test_one_that_stands_still_is_not_shown_as_coming_next_too() -> None:
    reports = RepeatReports()
    waiting = make("waits for its rule", next=5)
    waiting._since = None
    reports.note(waiting)
    shown = reports.shown([waiting, make("next", next=6)])
    assert [told["id"] for told in shown] == ["waits for its rule", "next"]


def test_a_reason_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    reports = RepeatReports()
    repeat = make("x", paused=True, reason="its rule raised")
    reports.note(repeat)
    reports.note(repeat, repeat._progress)
    reports.note(repeat, repeat._progress._replace(reason="another"))
    assert len(caplog.messages) == 2
    reports.note(make("x", paused=True))
    assert len(caplog.messages) == 2


def test_what_waits_for_its_rule_stands_still() -> None:
    reports = RepeatReports()
    repeat = make("x")
    repeat._since = None
    reports.note(repeat)
    assert reports.figures(1)["repeats_paused"] == 1
    repeat._since = 0
    reports.note(repeat)
    assert reports.figures(1)["repeats_paused"] == 0


def test_repeats_waiting_for_rules_are_logged_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reports = RepeatReports()
    for n in range(25):
        repeat = make(f"r{n}")
        repeat._since = None
        reports.note(repeat)
    for n in range(5):
        reports.look_after(n * TELL_EVERY)
    (message,) = caplog.messages
    assert "'r0', 'r1'" in message
    assert ", and 15 more; they go on" in message
