"""The times of a rule as integers, how they are passed over, and rules that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._repeating.nominal import MOST_COUNTED, RuleFailed, next_time, pass_over
from aioscheduler._scheduling.clock import LATEST, SECOND, to_datetime
from aioscheduler.rules import Cron, Every, Rule

START = datetime(2030, 1, 1, tzinfo=UTC)
NOW = int(START.timestamp()) * SECOND
DAY = 86_400 * SECOND


class Asked:
    """A user's rule that wraps another one and counts the questions."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.number = 0

    def next(self, after: datetime) -> datetime | None:
        self.number += 1
        return self.rule.next(after)


class Answering:
    def __init__(self, answer: Callable[[datetime], Any]) -> None:
        self.next = answer


class Unclear(tzinfo):
    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        raise LookupError("no clock")

    dst = tzname = utcoffset  # type: ignore[assignment]


class Wordless(Exception):
    def __str__(self) -> str:
        raise LookupError


def raises(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda after: raises(ValueError("no\nmore")), "its rule raised ValueError: no more"),
        (lambda after: raises(StopIteration()), "its rule raised StopIteration"),
        (lambda after: raises(Wordless()), "its rule raised Wordless: it cannot be read"),
        (lambda: None, "its rule raised TypeError"),
        (lambda after: 5, "its rule returned int, not a datetime"),
        (lambda after: datetime(2031, 1, 1), "its rule returned a naive datetime: datetime"),
        (
            lambda after: after,
            r"returned 2030-01-01T00:00:00\+00:00, asked for a time after 2030-01-01",
        ),
        (lambda after: after - timedelta(1), r"its rule returned 2029-12-31T"),
        (
            lambda after: datetime(2031, 1, 1, tzinfo=Unclear()),
            "its rule returned a time that raised LookupError: no clock",
        ),
    ],
)
def test_a_rule_that_gives_no_time_has_failed(answer: Any, message: str) -> None:
    with pytest.raises(RuleFailed, match=message):
        next_time(Answering(answer), NOW)
    with pytest.raises(RuleFailed):
        pass_over(Answering(answer), NOW, NOW + DAY)


def test_a_long_text_is_cut() -> None:
    with pytest.raises(RuleFailed) as caught:
        next_time(Answering(lambda after: raises(ValueError("x" * 10_000))), NOW)
    assert len(str(caught.value)) < 250


def test_an_interrupt_is_no_answer_of_a_rule() -> None:
    with pytest.raises(KeyboardInterrupt):
        next_time(Answering(lambda after: raises(KeyboardInterrupt())), NOW)  # type: ignore[arg-type]


def test_a_part_of_a_microsecond_does_not_matter() -> None:
    every = Every(1, start=START)
    assert next_time(every, NOW - 1) == NOW
    assert next_time(every, NOW) == next_time(every, NOW + 999) == NOW + SECOND


def test_nanoseconds_are_rounded_up() -> None:
    class Fine(datetime):
        """As those of pandas."""

        nanosecond = 1

    found = Fine(2030, 1, 2, tzinfo=UTC)
    assert next_time(Answering(lambda after: found), NOW) == NOW + DAY + 1000


def test_there_is_none_after_the_last_due_time() -> None:
    years = Every(timedelta(days=365 * 200), start=START)
    assert next_time(years, NOW) == NOW + 365 * 200 * DAY
    assert next_time(years, NOW + 365 * 200 * DAY) is None
    assert pass_over(years, NOW, LATEST).next is None
    assert pass_over(Asked(years), NOW, LATEST - 1) == (2, NOW + 365 * 200 * DAY, None)
    cron = Cron("0 0 1 1 *", "UTC")
    assert pass_over(cron, NOW, LATEST - 1)[::2] == (233, None)


@given(
    st.integers(1, 10**10),
    st.integers(0, 3000),
    st.integers(0, 10**10),
)
def test_all_up_to_a_moment_are_passed_over(step: int, number: int, beside: int) -> None:
    """An Every is divided, and one that is not recognised as such is asked."""
    every = Every(timedelta(microseconds=step))
    until = NOW + number * step * 1000 + beside % (step * 1000)
    passed = pass_over(every, NOW, until)
    last = NOW + number * step * 1000
    assert passed == (number + 1, last, last + step * 1000)
    anchored = Asked(Every(timedelta(microseconds=step), start=START))
    assert pass_over(anchored, NOW, until) == (min(number + 1, MOST_COUNTED), *passed[1:])


@pytest.mark.parametrize(
    "rule",
    [
        Cron("* * * * *", "Europe/Berlin"),
        Cron("*/7 3 * * 1-5", "Australia/Lord_Howe"),
        Cron("30 2 * * *", "Europe/Berlin"),
        Cron("* * * 1 *", "UTC"),
    ],
)
def test_bisection_finds_the_same_as_a_walk(rule: Cron) -> None:
    first = next_time(rule, NOW)
    assert first is not None
    times = [first]
    for moment in rule.iterate(to_datetime(first)):
        times.append(int(moment.timestamp()) * SECOND)
        if len(times) == 1800:
            break
    for n in (0, 1, MOST_COUNTED - 1, MOST_COUNTED, 1777):
        for until in (times[n], times[n + 1] - 1):
            expected = min(n + 1, MOST_COUNTED), times[n], times[n + 1]
            assert pass_over(rule, first, until) == expected


def test_years_of_minutes_are_some_questions() -> None:
    asked = Asked(Cron("* * * * *", "UTC"))
    passed = pass_over(asked, NOW, NOW + 3650 * DAY + 1)
    last = NOW + 3650 * DAY
    assert passed == (MOST_COUNTED, last, last + 60 * SECOND)
    assert asked.number < MOST_COUNTED + 70
    assert pass_over(Every(60), NOW, NOW + 3650 * DAY).number == 3650 * 1440 + 1


def test_a_cron_that_many_have_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Cron] = []

    def iterate(rule: Cron, after: datetime) -> Iterator[datetime]:
        asked.append(rule)
        return real(rule, after)

    real = Cron.iterate
    monkeypatch.setattr(Cron, "iterate", iterate)
    rules = [Cron("17 3 * * *", zone) for zone in ("UTC", "UTC", "Europe/Berlin")]
    after = NOW + 5
    found = [next_time(rule, after) for rule in rules * 10]
    assert asked == [rules[0], rules[2]]
    assert found[:3] * 10 == found
    assert found[0] == found[1] == NOW + (3 * 60 + 17) * 60 * SECOND
    assert found[2] == NOW + (2 * 60 + 17) * 60 * SECOND


def test_a_rule_may_be_over() -> None:
    class Thrice:
        def next(self, after: datetime) -> datetime | None:
            return after + timedelta(1) if after < START + timedelta(2) else None

    assert pass_over(Thrice(), NOW, NOW + 9 * DAY) == (3, NOW + 2 * DAY, None)


def test_an_answer_holds_until_its_time_comes_and_no_longer() -> None:
    rules = [Cron("*/20 9-17 * * 1-5", zone) for zone in ("Europe/Berlin", "UTC")]
    moments = [NOW + n * 517 * SECOND for n in (*range(400), *range(400, 0, -7), 33, 33, 9000)]
    for moment in moments:
        for rule in rules:
            found = next_time(rule, moment)
            assert found is not None
            assert to_datetime(found) == rule.next(to_datetime(moment))


def test_times_that_many_repeats_missed_are_passed_over_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = [Cron("7,9 4 * * *", "UTC") for _ in range(5)]
    first = next_time(rules[0], NOW)
    assert first is not None
    expected = pass_over(rules[0], first, NOW + 30 * DAY)
    monkeypatch.setattr(Cron, "iterate", None)
    assert {pass_over(rule, first, NOW + 30 * DAY) for rule in rules} == {expected}
    assert expected.number == 60
