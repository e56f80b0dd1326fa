from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler.clock import LATEST, SECOND, to_datetime, to_ns

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
    # The hour from 2 to 3 comes twice on the last Sunday of October.
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


def test_a_refusal_says_what_a_naive_time_was_taken_for(berlin: None) -> None:
    with pytest.raises(ValueError, match="UTC"):
        to_ns(datetime(2026, 7, 1, 11), NOON)
    with pytest.raises(ValueError, match="local time"):
        to_ns(datetime(2026, 7, 1, 11), NOON, prefer_utc=False)
    with pytest.raises(TypeError, match="timedelta"):
        to_ns(3.5, NOON)  # type: ignore[arg-type]


@given(st.integers(0, 4 * 10**18))
def test_the_way_out_never_shows_an_earlier_moment(due: int) -> None:
    shown = to_ns(to_datetime(due), 0)
    assert 0 <= shown - due < 1000


@pytest.mark.parametrize("far", [datetime.max, timedelta.max, datetime.max.replace(tzinfo=UTC)])
def test_never_is_a_time_that_a_frame_can_carry(far: datetime | timedelta) -> None:
    assert to_ns(far, 10**18) == LATEST < 1 << 63
    assert to_datetime(LATEST).year == 2262
