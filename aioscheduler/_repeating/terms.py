"""The terms of a repeat: its rule, and what happens to times that cannot be kept."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeVar

from .._scheduling.clock import LATEST, SECOND, read_seconds, to_ns
from ..rules import Cron, Every, Rule, check_text

_EARLIEST = -LATEST

_Choice = TypeVar("_Choice", bound=Enum)


class Missed(Enum):
    """What happens to times that passed while no host was looking."""

    ONCE = "once"  # one run, for the latest of them
    ALL = "all"  # one run for each, one after another
    SKIP = "skip"


class Overlap(Enum):
    """What happens to a time at which an earlier run has not ended."""

    SKIP = "skip"
    QUEUE = "queue"  # it waits its turn
    ALLOW = "allow"  # it runs beside the earlier one


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a repeat; many repeats may share them.

    Attributes:
        rule: The rule of its times. An unchanged rule is recognised by its text.
        missed: What happens to times that passed while no host was looking.
        overlap: What happens to a time at which an earlier run has not ended.
        jitter: The exclusive upper bound of a run's delay after its nominal time, in nanoseconds.
        until: Its last possible time, in nanoseconds since the epoch; None for no end.
        times: How many runs it has; None for no limit.
    """

    rule: Rule
    missed: Missed
    overlap: Overlap
    jitter: int
    until: int | None
    times: int | None

    @property
    def text(self) -> str:
        """The text of the rule."""
        return str(self.rule)


class Given:
    """A user's rule, with its text at the time it was passed.

    Args:
        rule: The rule.
        text: Its text.
    """

    __slots__ = ("_rule", "_text")

    def __init__(self, rule: Rule, text: str) -> None:
        self._rule = rule
        self._text = text

    def next(self, after: datetime) -> datetime | None:
        """Return the rule's next time."""
        return self._rule.next(after)

    def __str__(self) -> str:
        return self._text


def read_terms(
    rule: Rule,
    *,
    missed: str = "once",
    overlap: str = "skip",
    jitter: float | timedelta = 0.0,
    until: datetime | None = None,
    times: int | None = None,
) -> Terms:
    """Return the terms of the arguments of `repeat`.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: An argument is out of range.
    """
    return Terms(
        _read_rule(rule),
        _read_choice("missed", Missed, missed),
        _read_choice("overlap", Overlap, overlap),
        int(min(read_seconds("jitter", jitter) * SECOND, LATEST)),
        None if until is None else _read_until(until),
        None if times is None else _read_times(times),
    )


def _read_rule(rule: Rule) -> Rule:
    ask = getattr(rule, "next", None)
    if isinstance(rule, type) or not callable(ask):
        raise TypeError(
            "a rule is Every(...), Cron(...), or an object with next(after) -> datetime or None, "
            f"not {rule!r:.100}"
        )
    if inspect.iscoroutinefunction(ask):
        raise TypeError(f"{type(rule).__name__}.next must be a plain function, not async")
    check_text("a rule", rule)
    if type(rule) in (Every, Cron):  # their texts never change
        return rule
    return Given(rule, str.__str__(str(rule)))


def _read_choice(name: str, choices: type[_Choice], given: str) -> _Choice:
    if not isinstance(given, str):
        raise TypeError(f"{name} is a str, not {type(given).__name__}")
    try:
        return choices(given)
    except ValueError:
        known = ", ".join(repr(each.value) for each in choices)
        raise ValueError(f"{name} is one of {known}, not {given!r}") from None


def _read_until(until: datetime) -> int:
    if not isinstance(until, datetime):
        raise TypeError(f"until is a datetime, not {type(until).__name__}")
    if until.utcoffset() is None:
        raise ValueError(
            f"until is naive: {until!r}; give an aware datetime such as datetime.now(UTC)"
        )
    return to_ns(until, _EARLIEST)


def _read_times(times: int) -> int:
    if not isinstance(times, int) or isinstance(times, bool):
        raise TypeError(f"times is an int, not {type(times).__name__}")
    if times < 1:
        raise ValueError(f"times is 1 or more, not {times}")
    return times
