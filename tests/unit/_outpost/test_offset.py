"""The lead of another machine's clock: a clock with it is never early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._outpost.offset import DRIFT, KEPT, Offset

US = 1_000
SECOND = 1_000_000_000


def test_the_best_way_there_counts() -> None:
    offset = Offset()
    offset.add(1_000 * US, 50_000 * US, 1_400 * US)
    offset.add(2_000 * US, 51_100 * US, 2_300 * US)  # 100 µs longer there than at first
    assert offset.lead(2_300 * US) == 1_000 * US - 50_000 * US - round(1_300 * US * DRIFT)
    assert offset.bound(2_300 * US) == 300 * US + round(2 * 300 * US * DRIFT)


def test_without_a_measurement_nothing_is_said() -> None:
    with pytest.raises(ValueError, match="empty"):
        Offset().lead(0)
    with pytest.raises(ValueError, match="empty"):
        Offset().bound(0)


@given(
    ahead=st.integers(-(10**15), 10**15),
    drift=st.floats(-DRIFT, DRIFT),
    ways=st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 30 * SECOND)),
        min_size=1,
        max_size=3 * KEPT,
    ),
    after=st.integers(0, 60 * SECOND),
)
def test_a_clock_with_the_lead_is_never_early_and_late_by_the_bound_at_most(
    ahead: int, drift: float, ways: list[tuple[int, int, int]], after: int
) -> None:
    """The node's clock shows any time, and runs at another speed."""

    def node(host: int) -> int:
        return host + ahead + round(host * drift)

    offset, now = Offset(), 0
    for there, back, pause in ways:
        sent = now
        offset.add(sent, node(sent + there), sent + there + back)
        now = sent + there + back + pause
    now += after
    slack = 2 + round(now * 1e-12)  # for rounding
    reads = node(now) + offset.lead(now)
    assert reads <= now + slack
    assert reads >= now - offset.bound(now) - slack


def test_old_measurements_are_forgotten() -> None:
    offset = Offset()
    offset.add(0, 0, 0)
    for second in range(1, KEPT + 1):
        offset.add(second * SECOND, second * SECOND + 10 * SECOND, second * SECOND)
    assert offset.lead(KEPT * SECOND) == -10 * SECOND
