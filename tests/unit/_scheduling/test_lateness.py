from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._scheduling.lateness import BOUNDS, WINDOW, History, Recorder
from aioscheduler._transport import wire

MS = 1_000_000


def counted(recorder: Recorder) -> dict[float, int]:
    """Return the upper bounds of the buckets with tasks, and how many they have."""
    return {BOUNDS[bucket]: count for bucket, count in enumerate(recorder.take()[2]) if count}


def bound_of(late: float) -> float:
    return next(bound for bound in BOUNDS if late < bound)


def test_a_task_falls_into_the_bucket_of_its_lateness() -> None:
    recorder = Recorder()
    for late in (0, 16_383, 16_384, 5 * MS, 3600 * 1000 * MS):
        recorder.record([1000 * MS], 1000 * MS + late, 1000 * MS + late)
        assert counted(recorder) == {bound_of(late / 1e9): 1}
    assert BOUNDS[-1] == math.inf


def test_a_clock_that_was_set_back_makes_tasks_on_time() -> None:
    recorder = Recorder()
    recorder.record([1000 * MS], 10 * MS, 11 * MS)
    assert recorder.take() == (0, 0, [1])


def test_a_clock_that_was_set_by_decades_still_fits_a_frame() -> None:
    recorder = Recorder()
    for _ in range(20):
        recorder.record([0] * 256, 50 * 10**9 * 86400 * 365, 50 * 10**9 * 86400 * 365)
    most, total, counts = recorder.take()
    assert wire.encode([wire.Kind.TICK, 0.0, most, total, counts])
    assert total == 2**63


@given(
    st.lists(st.integers(0, 2**36), min_size=1, max_size=40),
    st.integers(0, 2**36),
    st.integers(0, 2**25),
)
def test_a_slice_is_recorded_as_its_tasks_would_be_singly(
    dues: list[int], after: int, length: int
) -> None:
    first = max(dues) + after
    last = first + (length if len(dues) > 1 else 0)
    together, singly = Recorder(), Recorder()
    together.record(dues, first, last)
    for index, due in enumerate(dues):
        at = first + int((last - first) / (len(dues) - 1 or 1) * index)
        singly.record([due], at, at)
    most, total, counts = together.take()
    most_singly, total_singly, counts_singly = singly.take()
    assert counts == counts_singly
    assert most_singly <= most <= most_singly + length
    assert total == pytest.approx(total_singly, abs=len(dues))


def test_taking_begins_anew() -> None:
    recorder = Recorder()
    recorder.record([0, 0], 5 * MS, 5 * MS)
    assert recorder.take()[0] == 5 * MS
    assert recorder.take() == (0, 0, [])


def test_a_history_sums_up_since_the_start_and_over_a_minute() -> None:
    history = History()
    history.add(0.0, 0.25, (2**20, 10**9, [0, 3]))
    history.add(30.0, 0.5, (2**21, 10**8, [1, 0, 2]))
    assert history.counts[:4] == [1, 3, 2, 0]
    assert history.total == pytest.approx(1.1)
    assert (history.most, history.lag) == (2**21 / 1e9, 0.5)
    history.expire(30.0 + WINDOW - 0.1)
    assert (history.most, history.lag) == (2**21 / 1e9, 0.5)
    assert history.quantiles(1 / 3)[0] == pytest.approx(BOUNDS[0])
    history.expire(30.0 + WINDOW)
    assert (history.most, history.lag, history.quantiles(0.5)) == (0.0, 0.0, [0.0])
    assert history.counts[:4] == [1, 3, 2, 0]


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=200))
def test_a_quantile_is_in_the_bucket_where_it_belongs(lates: list[int]) -> None:
    recorder, history = Recorder(), History()
    for late in lates:
        recorder.record([0], late, late)
    history.add(0.0, 0.0, recorder.take())
    lates.sort()
    for share in (0.5, 0.99):
        found = history.quantiles(share)[0]
        true = lates[math.ceil(share * len(lates)) - 1] / 1e9
        bound = bound_of(true)
        lower = BOUNDS[BOUNDS.index(bound) - 1] if bound != BOUNDS[0] else 0.0
        assert lower <= found <= min(bound, lates[-1] / 1e9)
    assert history.quantiles(1.0)[0] == pytest.approx(lates[-1] / 1e9)


def test_of_tasks_that_have_taken_their_first_steps_the_last_began_before_now() -> None:
    recorder = Recorder()
    recorder.record_until([100 * MS, 100 * MS], 100 * MS, lambda: 110 * MS)
    assert recorder.take()[:2] == (5 * MS, 5 * MS)
