"""What a repeat was asked for: its rule, and what becomes of times that cannot be as it says."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeVar

from .._scheduling.clock import LATEST, SECOND, read_seconds, to_ns
from ..rules import Rule, check_text

_EARLIEST = -LATEST

_Choice = TypeVar("_Choice", bound=Enum)


class Missed(Enum):
    """What becomes of times that passed while nobody looked."""

    ONCE = "once"  # one run, for the latest of them
    ALL = "all"  # one run for each, one after another
    SKIP = "skip"


class Overlap(Enum):
    """What becomes of a time at which an earlier run has not ended."""

    SKIP = "skip"
    QUEUE = "queue"  # it waits its turn
    ALLOW = "allow"  # it runs beside that


@dataclass(frozen=True, slots=True)
class Terms:
    """What a repeat was asked for.

    Attributes:
        id: Of the repeat.
        rule: What gives its times.
        text: The rule's, by which an unchanged one is recognised.
        missed: What becomes of times that passed while nobody looked.
        overlap: What becomes of a time at which an earlier run has not ended.
        jitter: How much later than its time a run is due, less than that; nanoseconds.
        until: Its last possible time, nanoseconds since the epoch; None for no end.
        times: How many runs it has; None for no limit.
    """

    id: str
    rule: Rule
    text: str
    missed: Missed
    overlap: Overlap
    jitter: int
    until: int | None
    times: int | None


def read_terms(
    id_: str,
    rule: Rule,
    *,
    missed: str = "once",
    overlap: str = "skip",
    jitter: float | timedelta = 0.0,
    until: datetime | None = None,
    times: int | None = None,
) -> Terms:
    """Return what was asked for.

    Raises:
        TypeError: Something is of a wrong type.
        ValueError: Something is out of range.
    """
    return Terms(
        id_,
        rule,
        _read_rule(rule),
        _read_choice("missed", Missed, missed),
        _read_choice("overlap", Overlap, overlap),
        int(min(read_seconds("jitter", jitter) * SECOND, LATEST)),
        None if until is None else _read_until(until),
        None if times is None else _read_times(times),
    )


def _read_rule(rule: Rule) -> str:
    ask = getattr(rule, "next", None)
    if isinstance(rule, type) or not callable(ask):
        raise TypeError(
            "a rule is Every(...), Cron(...), or an object with next(after) -> datetime or None, "
            f"not {rule!r:.100}"
        )
    if inspect.iscoroutinefunction(ask):
        raise TypeError(f"next of {type(rule).__name__} is asked without await: make it a def")
    check_text("a rule", rule)
    return sys.intern(str.__str__(str(rule)))  # many have the same


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
