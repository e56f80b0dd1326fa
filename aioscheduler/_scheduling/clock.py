"""The border between `datetime` and the integer nanoseconds used everywhere inside.

A due time is an `int`: nanoseconds since 1970-01-01 UTC on the wall clock. A datetime has
microseconds, so the conversion to a due time is exact; the one back rounds up, never to a time
before the due time. "Now" is always an argument: nothing here reads a clock.
"""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from operator import index

SECOND = 1_000_000_000

LATEST = (1 << 63) - 1
"""The last due time, in the year 2262: the limit of 64 bits. A later time is clamped to it."""

_UNITS = ((86_400 * SECOND, "d"), (3600 * SECOND, "h"), (60 * SECOND, "min"), (SECOND, "s"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  the naive rule is what this module is for


def to_ns(when: datetime | timedelta, now: int, prefer_utc: bool = True) -> int:
    """Convert a user's `when` to a due time.

    Args:
        when: A datetime (a naive one is UTC, or local time if not `prefer_utc`, with `fold`
            obeyed), or a timedelta from now. Subclasses are read by their fields, those of pandas
            to the nanosecond.
        now: The present, in nanoseconds since the epoch.
        prefer_utc: Whether a naive datetime is UTC rather than local time.

    Returns:
        The due time in nanoseconds since the epoch, at most `LATEST`; `now` for `timedelta(0)`.

    Raises:
        ValueError: The time has passed, or is no time (NaT, a time zone that raises).
        TypeError: `when` is neither a datetime nor a timedelta.
    """
    naive = False
    if type(when) is timedelta:
        due = now + _span_ns(when)
        if now <= due <= LATEST:  # the common case
            return due
    elif isinstance(when, timedelta):
        due = now + _odd_span_ns(when)
    elif isinstance(when, datetime):
        due, naive = _datetime_ns(when, prefer_utc)
    else:
        raise TypeError(
            f"when must be a datetime or a timedelta, not {type(when).__name__}; "
            "for seconds from now use timedelta(seconds=...)"
        )
    if due < now:
        raise ValueError(
            f"when must not be in the past, but {_show_past(when, now - due)}"
            + (
                "; a naive datetime is taken as "
                + ("UTC (prefer_utc=True)" if prefer_utc else "local time (prefer_utc=False)")
                + "; give a timedelta, or an aware datetime such as datetime.now(UTC)"
                if naive
                else ""
            )
        )
    return min(due, LATEST)


def to_datetime(due: int) -> datetime:
    """Return the aware UTC datetime of a due time, rounded up to the microsecond."""
    return _EPOCH + timedelta(microseconds=-(-due // 1000))


def _span_ns(span: timedelta) -> int:
    return ((span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds) * 1000


def _datetime_ns(when: datetime, prefer_utc: bool) -> tuple[int, bool]:
    """Return the nanoseconds since the epoch, and whether the datetime is naive."""
    if type(when) is datetime:
        if when.tzinfo is not None:
            try:
                return _span_ns(when - _EPOCH), False
            except Exception:  # noqa: BLE001, S110  a zone that raises, or has no offset: see below
                pass
        elif prefer_utc:
            return _span_ns(when - _NAIVE_EPOCH), True
    # The methods of `datetime` are called unbound, because subclasses override them. Pandas' NaT is
    # a datetime whose difference from anything is NaT.
    try:
        is_time = bool(when == when)  # noqa: PLR0124  NaT is the one that differs from itself
        offset = datetime.utcoffset(when)
        plain = datetime.combine(datetime.date(when), datetime.time(when))
        below = getattr(when, "nanosecond", 0)
    except Exception as error:
        raise ValueError(f"when cannot be read as a time: {type(error).__name__}") from error
    if not is_time:
        raise ValueError(f"when must be a time, and {_show(when)} is none")
    due = _span_ns(plain - _NAIVE_EPOCH)
    if isinstance(below, int) and 0 < below < 1000:
        due += below
    if offset is not None:
        return due - _span_ns(offset), False
    if not prefer_utc:
        # Local time cannot be computed at the ends of the calendar, where a day more or less does
        # not matter.
        with suppress(ValueError, OverflowError, OSError):
            due += _span_ns(plain.astimezone(UTC) - plain.replace(tzinfo=UTC))
    return due, True


def _odd_span_ns(span: timedelta) -> int:
    """Return the nanoseconds of a timedelta of a subclass."""
    try:
        below = getattr(span, "nanoseconds", 0)
        fields = tuple(map(index, (span.days, span.seconds, span.microseconds, below)))
    except Exception as error:
        raise ValueError(f"when cannot be read as a time: {type(error).__name__}") from error
    days, seconds, microseconds, nanoseconds = fields
    return ((days * 86_400 + seconds) * 1_000_000 + microseconds) * 1000 + nanoseconds


def _show_past(when: datetime | timedelta, passed: int) -> str:
    """Say how far a time is in the past, in nanoseconds."""
    seconds = f"{passed / SECOND:.9f}".rstrip("0")
    seconds += "0 s" if seconds.endswith(".") else " s"
    if isinstance(when, timedelta):
        return f"it is -{seconds}"
    return f"{_show(when)} was {seconds if passed < 60 * SECOND else show_span(passed)} ago"


def _show(when: datetime | timedelta) -> str:
    """Return a time as text, or the type's name if a subclass's method raises."""
    try:
        return str(when)
    except Exception:  # noqa: BLE001  whatever a subclass raises
        return f"a {type(when).__name__}"


def show_span(span: int) -> str:
    """Return a number of nanoseconds in its largest unit, rounded down: "3 d", "2 h"."""
    unit, name = next((each for each in _UNITS if span >= each[0]), _UNITS[-1])
    return f"{span // unit:,} {name}"


def read_seconds(option: str, value: float | timedelta, above_zero: bool = False) -> float:
    """Return the seconds of an option that is a number or a timedelta.

    Args:
        option: The option's name, for error messages.
        value: The option's value.
        above_zero: Whether 0 is refused, too.

    Raises:
        TypeError: The value has another type.
        ValueError: The value is less than 0, or not finite.
    """
    # With the methods of the built-in classes: those of a subclass may raise.
    if isinstance(value, timedelta):
        value = timedelta.total_seconds(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{option} is seconds or a timedelta, not {type(value).__name__}")
    if isinstance(value, float):
        seconds = float.__float__(value)
    else:
        try:
            seconds = int.__float__(value)
        except OverflowError:
            seconds = math.inf if int.__gt__(value, 0) else -math.inf
    if not math.isfinite(seconds) or seconds < 0 or (above_zero and not seconds):
        least = "more than 0" if above_zero else "0 or more"
        raise ValueError(f"{option} must be finite, and {least} seconds, not {seconds:g}")
    return seconds
