"""The nominal times of any rule, as integers.

They are nanoseconds since the epoch, in whole microseconds. A user's rule may do anything; whatever
it does wrong is reported as `RuleFailed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from .._scheduling.clock import LATEST, to_datetime, to_ns
from ..rules import Cron, Every, Rule

MOST_COUNTED = 1000
"""Times counted when they are passed over at once: to ask a Cron for them takes 5 to 20 ms."""

_MICROSECOND = 1000
_LONGEST = 200  # characters of the text of an error


class RuleFailed(Exception):
    """A rule gave no answer, or an invalid one; the text says which."""


class Passed(NamedTuple):
    """Times that are passed over.

    Attributes:
        number: How many there are, at most `MOST_COUNTED` unless the rule is an Every.
        last: The last of them.
        next: The time after that; None if there is none.
    """

    number: int
    last: int
    next: int | None


def next_time(rule: Rule, after: int) -> int | None:
    """Return the first time of a rule after a moment; None if there is none until 2262.

    Raises:
        RuleFailed: It gave no valid answer.
    """
    after = after // _MICROSECOND * _MICROSECOND
    if type(rule) is Every:
        reckoned = _next_of_every(rule, after)
        return reckoned if reckoned < LATEST else None
    asked = to_datetime(after)
    try:
        found = _next_of_cron(rule, asked) if type(rule) is Cron else rule.next(asked)
    except Exception as error:
        raise RuleFailed(f"its rule raised {_line_of(error)}") from error
    if found is None:
        return None
    if not isinstance(found, datetime):
        raise RuleFailed(f"its rule returned {type(found).__name__}, not a datetime")
    try:
        naive = found.utcoffset() is None
        time = None if naive else to_ns(found, -LATEST)
    except Exception as error:
        raise RuleFailed(f"its rule returned a time that raised {_line_of(error)}") from error
    if time is None:
        raise RuleFailed(f"its rule returned a naive datetime: {found!r}")
    time = -(-time // _MICROSECOND) * _MICROSECOND  # a datetime of pandas has nanoseconds
    if time <= after:
        raise RuleFailed(f"its rule returned {found.isoformat()}, asked for a time after {asked}")
    return time if time < LATEST else None


def _next_of_every(rule: Every, after: int) -> int:
    """Do what `Every.next` does, in integers, in a fifth of the time."""
    assert isinstance(rule.step, timedelta)
    step = rule.step // timedelta(microseconds=1) * _MICROSECOND
    if rule.start is None:
        return after + step
    start = to_ns(rule.start, -LATEST)
    return start if after < start else start + ((after - start) // step + 1) * step


class _Answer:
    """The last moment asked and the answer, which holds for all moments between them.

    One attribute holds both, as managers in other threads may ask at the same time.
    """

    __slots__ = ("span",)

    def __init__(self) -> None:
        self.span: tuple[datetime, datetime] | None = None


@lru_cache(4096)
def _answer_of(rule: Cron) -> _Answer:
    return _Answer()


def _next_of_cron(rule: Cron, after: datetime) -> datetime | None:
    """Ask a Cron, which takes up to 0.3 ms, once for all repeats that share it."""
    answer = _answer_of(rule)
    span = answer.span
    if span is not None and span[0] <= after < span[1]:
        return span[1]
    found = rule.next(after)
    if found is not None:
        answer.span = after, found
    return found


def pass_over(rule: Rule, first: int, until: int) -> Passed:
    """Pass over all times up to a moment, that included.

    For an Every this is one division. Other rules are asked for the first `MOST_COUNTED` times; the
    last of more than that is found by bisection, in some fifty questions for years of minutes.

    Args:
        rule: The rule.
        first: One of its times, `until` at the latest.
        until: The moment, in nanoseconds since the epoch.

    Raises:
        RuleFailed: It gave no valid answer.
    """
    if type(rule) is Every:
        assert isinstance(rule.step, timedelta)
        step = rule.step // timedelta(microseconds=1) * _MICROSECOND
        count = (until - first) // step + 1
        last = first + (count - 1) * step
        return Passed(count, last, last + step if last + step < LATEST else None)
    if type(rule) is Cron:
        return _pass_over_of_cron(rule, first, until)
    return _walk(rule, first, until)


@lru_cache(4096)
def _pass_over_of_cron(rule: Cron, first: int, until: int) -> Passed:
    """Ask once for all repeats that share a Cron and have missed the same times."""
    return _walk(rule, first, until)


def _walk(rule: Rule, first: int, until: int) -> Passed:
    count, last = 1, first
    for time in islice(_iterate(rule, first), MOST_COUNTED):
        if time > until:
            return Passed(count, last, time)
        if count == MOST_COUNTED:
            break
        count, last = count + 1, time
    else:
        return Passed(count, last, None)
    # Behind `end` there is no time up to the moment.
    end = until // _MICROSECOND * _MICROSECOND
    while last < end:
        middle = (last + end) // (2 * _MICROSECOND) * _MICROSECOND
        found = next_time(rule, middle)
        if found is not None and found <= until:
            last = found
        else:
            end = middle
    return Passed(count, last, next_time(rule, last))


def _iterate(rule: Rule, after: int) -> Iterator[int]:
    if type(rule) is Cron:
        try:
            for found in rule.iterate(to_datetime(after)):
                if (time := to_ns(found, -LATEST)) == LATEST:
                    return
                yield time
        except Exception as error:
            raise RuleFailed(f"its rule raised {_line_of(error)}") from error
        return
    following = next_time(rule, after)
    while following is not None:
        yield following
        following = next_time(rule, following)


def _line_of(error: Exception) -> str:
    """Return type and text of an error in one short line. Does not raise."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  a user's __str__ may raise anything
        text = "it cannot be read"
    return f"{type(error).__name__}: {text}"[:_LONGEST].removesuffix(": ")
