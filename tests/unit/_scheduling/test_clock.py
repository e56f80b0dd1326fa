from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._scheduling.clock import LATEST, SECOND, to_datetime, to_ns

NOON = int(datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()) * SECOND


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_naive_is_utc_aware_is_what_it_says() -> None:
    later = NOON + 3600 * SECOND
    assert to_ns(datetime(2026, 7, 1, 13), NOON) == later
    assert to_ns(datetime(2026, 7, 1, 22, tzinfo=timezone(timedelta(hours=9))), NOON) == later
    assert to_ns(timedelta(hours=1), NOON) == later
    assert to_ns(timedelta(0), NOON) == NOON
    assert to_ns(timedelta(microseconds=1), NOON) == NOON + 1000


def test_naive_can_be_local_and_fold_counts(berlin: None) -> None:
    assert to_ns(datetime(2026, 7, 1, 15), NOON, prefer_utc=False) == NOON + 3600 * SECOND
    # The hour from 2 to 3 occurs twice on the last Sunday of October.
    first = to_ns(datetime(2026, 10, 25, 2, 30), NOON, prefer_utc=False)
    second = to_ns(datetime(2026, 10, 25, 2, 30, fold=1), NOON, prefer_utc=False)
    assert second - first == 3600 * SECOND
    assert to_datetime(first) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "when", [datetime(2026, 7, 1, 11, 59, 59), timedelta(microseconds=-1), datetime.min]
)
def test_the_past_is_refused(when: Any) -> None:
    with pytest.raises(ValueError, match="past"):
        to_ns(when, NOON)


@pytest.mark.parametrize(
    ("when", "shown"),
    [
        (timedelta(seconds=-1), "it is -1.0 s"),
        (timedelta(hours=-25, microseconds=-1), "it is -90000.000001 s"),
        (
            datetime(2026, 7, 1, 11, 59, 58, 500_000, UTC),
            "2026-07-01 11:59:58.500000+00:00 was 1.5 s ago",
        ),
        (datetime(2026, 7, 1, 10, 1, tzinfo=UTC), "2026-07-01 10:01:00+00:00 was 1 h ago"),
        (datetime(2020, 1, 1, tzinfo=UTC), "2020-01-01 00:00:00+00:00 was 2,373 d ago"),
    ],
)
def test_a_refusal_says_how_far_it_is_in_the_past(when: Any, shown: str) -> None:
    with pytest.raises(ValueError, match="past") as caught:
        to_ns(when, NOON)
    assert str(caught.value) == f"when must not be in the past, but {shown}"


def test_a_refusal_says_what_a_naive_time_was_taken_for(berlin: None) -> None:
    with pytest.raises(ValueError, match="UTC"):
        to_ns(datetime(2026, 7, 1, 11), NOON)
    with pytest.raises(ValueError, match="local time"):
        to_ns(datetime(2026, 7, 1, 11), NOON, prefer_utc=False)
    with pytest.raises(TypeError, match="timedelta"):
        to_ns(3.5, NOON)  # type: ignore[arg-type]


@given(st.integers(0, 4 * 10**18))
def test_a_datetime_is_never_before_its_due_time(due: int) -> None:
    shown = to_ns(to_datetime(due), 0)
    assert 0 <= shown - due < 1000


@pytest.mark.parametrize("far", [datetime.max, timedelta.max, datetime.max.replace(tzinfo=UTC)])
def test_never_is_a_time_that_a_frame_can_carry(far: datetime | timedelta) -> None:
    assert to_ns(far, 10**18) == LATEST < 1 << 63
    assert to_datetime(LATEST).year == 2262


class Broken(tzinfo):
    """A time zone that returns a given offset, or raises a given error."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def utcoffset(self, when: datetime | None) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    dst = utcoffset

    def tzname(self, when: datetime | None) -> str:
        return "?"


def odd(base: type, answers: dict[str, Any]) -> type:
    """Make a subclass whose attributes have given values, or raise given errors."""

    def override(answer: Any) -> property:
        def read(_: object) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return property(read)

    return type("Odd", (base,), {name: override(answer) for name, answer in answers.items()})


ANSWERS = st.one_of(
    st.sampled_from([None, float("nan"), float("inf"), "3", LookupError("no"), OverflowError()]),
    st.integers(-(1 << 70), 1 << 70),
)
FIELDS = ("days", "seconds", "microseconds", "nanoseconds", "nanosecond", "tzinfo", "year", "fold")
ZONES = st.one_of(
    st.none(),
    st.just(UTC),
    st.builds(
        Broken,
        st.one_of(
            st.timedeltas(timedelta(days=-2), timedelta(days=2)),
            st.sampled_from([None, 3, ValueError("no"), KeyError("no")]),
        ),
    ),
)


@given(
    st.one_of(st.datetimes(), st.timedeltas()),
    ZONES,
    st.dictionaries(st.sampled_from(FIELDS), ANSWERS),
    st.sampled_from([None, "raises", "differs from itself"]),
    st.booleans(),
    st.integers(0, LATEST),
)
def test_any_time_is_read_or_refused(
    when: Any,
    zone: Any,
    answers: dict[str, Any],
    special: str | None,
    prefer_utc: bool,
    now: int,
) -> None:
    kind = odd(type(when), answers)
    if special is not None:

        def no(*_: Any) -> Any:
            if special == "raises":
                raise RuntimeError("a method of a subclass")
            return False

        for name in ("__eq__", "__repr__", "__sub__", "__hash__"):
            setattr(kind, name, no)
    if isinstance(when, timedelta):
        when = kind(when.days, when.seconds, when.microseconds)
    else:
        when = kind(*when.timetuple()[:6], when.microsecond, zone)
    try:
        due = to_ns(when, now, prefer_utc)
    except (ValueError, TypeError):
        return
    assert type(due) is int
    assert 0 <= due <= LATEST


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-5)), None])
@pytest.mark.parametrize("prefer_utc", [True, False])
def test_the_end_of_the_calendar_is_far(zone: Any, prefer_utc: bool) -> None:
    assert to_ns(datetime.max.replace(tzinfo=zone), NOON, prefer_utc) == LATEST
    assert to_ns(timedelta.max, NOON) == LATEST


@pytest.mark.parametrize("name", ["Etc/GMT+12", "Etc/GMT-14"])
def test_the_ends_of_the_calendar_in_local_time(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TZ", name)
    time.tzset()
    try:
        assert to_ns(datetime.max, NOON, prefer_utc=False) == LATEST
        with pytest.raises(ValueError, match="past"):
            to_ns(datetime.min, NOON, prefer_utc=False)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_zone_without_an_offset_leaves_a_time_naive() -> None:
    when = datetime(2026, 7, 1, 13, tzinfo=Broken(None))
    assert to_ns(when, NOON) == NOON + 3600 * SECOND
    with pytest.raises(ValueError, match="UTC"):
        to_ns(when, NOON + 7200 * SECOND)
    with pytest.raises(ValueError, match="KeyError"):
        to_ns(datetime(2026, 7, 1, 13, tzinfo=Broken(KeyError("no"))), NOON)


def test_pandas_times_count_to_the_nanosecond_and_nat_is_none() -> None:
    pandas = pytest.importorskip("pandas")
    when = pandas.Timestamp("2026-07-01 12:00:00.000000001", tz="UTC")
    assert to_ns(when, NOON) == NOON + 1
    assert to_ns(pandas.Timedelta(1, "ns"), NOON) == NOON + 1
    assert to_ns(pandas.Timedelta(5, "s"), NOON) == NOON + 5 * SECOND
    with pytest.raises(ValueError, match="NaT is none"):
        to_ns(pandas.NaT, NOON)
