"""The arguments and results of calls about dead letters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest

from aioscheduler import DeadLetter
from aioscheduler._durable.records import Letter, Reason
from aioscheduler.deadletters import of_letter, read_before, read_limit, read_reason, row_of

LETTER = Letter(
    *(5, 2 * 10**9, 1, "remind", b"", "key", "remind:7", None, 3, Reason.TOO_LATE, "why", 9 * 10**9)
)


def test_a_letter_is_told_in_words_of_users() -> None:
    due = datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)
    letter = of_letter(LETTER)
    at = datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC)
    assert letter == DeadLetter(5, "remind", "remind:7", due, 3, "too_late", "why", at)
    assert letter.at.tzinfo is UTC
    assert (row_of(letter), row_of(5)) == (5, 5)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            'Traceback (most recent call last):\n  File "a"\n    f()\nOSError: no line\n',
            "OSError: no line",
        ),
        (
            'Traceback\n  File "a"\nOSError: no line\nit had 2 attempts, of 2 at most\n',
            "OSError: no line",
        ),
        ("its host died while it ran", "its host died while it ran"),
        ("", ""),
    ],
)
def test_the_error_is_found_in_a_text(text: str, error: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert DeadLetter(1, "f", None, at, 2, "failed", text, at).error == error


def test_reasons_are_known_by_name() -> None:
    assert read_reason(None) is None
    words = " ".join((DeadLetter.__doc__ or "").split())
    for reason in Reason:
        assert read_reason(reason.value) is reason
        assert f'"{reason.value}" (' in words


def test_a_time_is_read_in_any_zone() -> None:
    east = timezone(timedelta(hours=5))
    assert read_before(None) is None
    assert read_before(datetime(1970, 1, 1, 5, 0, 1, tzinfo=east)) == 10**9
    assert read_before(datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)) == -(10**9)
    assert (read_limit(None), read_limit(0), read_limit(7)) == (None, 0, 7)


@pytest.mark.parametrize("hours", [-23, 0, 23])
def test_before_is_any_time_of_the_calendar(hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    least, most = (read_before(time.replace(tzinfo=zone)) for time in (datetime.min, datetime.max))
    assert least is not None
    assert most is not None
    assert least < -(1 << 63) < 1 << 63 < most


class Odd(tzinfo):
    """A time zone without an offset, or with an invalid one."""

    def __init__(self, offset: Any) -> None:
        self.offset = offset

    def utcoffset(self, _: datetime | None) -> Any:
        return self.offset

    def dst(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> None:
        return None


@pytest.mark.parametrize(
    ("read", "given", "error", "message"),
    [
        (read_reason, "late", ValueError, "there is no reason 'late'; there are 'failed', 'unread"),
        (read_reason, Reason.LOST, TypeError, "reason is a str, not Reason"),
        (read_limit, -1, ValueError, "limit must be 0 or more, not -1"),
        (read_limit, 1.0, TypeError, "limit is an int, not float"),
        (read_limit, True, TypeError, "limit is an int, not bool"),
        (read_before, datetime(2026, 1, 1), TypeError, "before is an aware datetime, such as"),
        (read_before, 5, TypeError, "before is an aware datetime, such as .*, not 5"),
        (read_before, datetime(2026, 1, 1, tzinfo=Odd(None)), ValueError, "before has a time zone"),
        (read_before, datetime(2026, 1, 1, tzinfo=Odd("1")), ValueError, "before has a time zone"),
        (row_of, DeadLetter._make("5" * 8), TypeError, "its row is needed, not str"),
        (row_of, True, TypeError, "a DeadLetter or its row is needed, not bool"),
        (row_of, "5", TypeError, "a DeadLetter or its row is needed, not str"),
        (row_of, (1, 2), TypeError, "a DeadLetter or its row is needed, not tuple"),
    ],
)
def test_senseless_arguments_are_refused(read: Any, given: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        read(given)
