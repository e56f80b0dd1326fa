"""The border between `datetime` and the integer nanoseconds used everywhere inside.

A due time is an `int`: nanoseconds since 1970-01-01 UTC on the wall clock. A datetime has
microseconds, so the way in is exact; the way out rounds up, never to a moment before the due
time. "Now" is always handed in: nothing here reads a clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

SECOND = 1_000_000_000

LATEST = (1 << 63) - 1
"""The last due time, in the year 2262: as much as 64 bits hold. A later one is taken as this."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  the naive rule is what this module is for


def to_ns(when: datetime | timedelta, now: int, prefer_utc: bool = True) -> int:
    """Turns what a user gave as `when` into a due time.

    Args:
        when: A datetime (a naive one is UTC, or local time if not `prefer_utc`, with `fold`
            obeyed), or a timedelta from now.
        now: The present, in nanoseconds since the epoch.
        prefer_utc: What a naive datetime means.

    Returns:
        The due time in nanoseconds since the epoch, at most `LATEST`; `now` for `timedelta(0)`.

    Raises:
        ValueError: The time has passed.
        TypeError: `when` is neither a datetime nor a timedelta.
    """
    if isinstance(when, datetime):
        if when.tzinfo is not None:
            span = when - _EPOCH
        elif prefer_utc:
            span = when - _NAIVE_EPOCH
        else:
            span = when.astimezone(UTC) - _EPOCH
        due = _span_ns(span)
    elif isinstance(when, timedelta):
        due = now + _span_ns(when)
    else:
        raise TypeError(
            f"when must be a datetime or a timedelta, not {type(when).__name__}; "
            "for seconds from now use timedelta(seconds=...)"
        )
    if due < now:
        raise ValueError(
            f"when must not be in the past, and {when!r} was {(now - due) / SECOND:.6f} s ago"
            + (
                "; a naive datetime is taken as "
                + ("UTC (prefer_utc=True)" if prefer_utc else "local time (prefer_utc=False)")
                + "; give a timedelta, or an aware datetime such as datetime.now(UTC)"
                if isinstance(when, datetime) and when.tzinfo is None
                else ""
            )
        )
    return min(due, LATEST)


def to_datetime(due: int) -> datetime:
    """Gives the aware UTC datetime of a due time, rounded up to the microsecond."""
    return _EPOCH + timedelta(microseconds=-(-due // 1000))


def _span_ns(span: timedelta) -> int:
    return ((span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds) * 1000
