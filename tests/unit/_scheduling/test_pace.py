from __future__ import annotations

from aioscheduler._scheduling.pace import MAX_SLICE, SLICE_TIME, Pace


def test_a_slice_grows_while_it_is_short_and_shrinks_when_it_is_long() -> None:
    pace, now = Pace(), 0
    lengths = [pace.next_length(now)]
    for took in [0] * 6 + [SLICE_TIME + 1] * 10 + [SLICE_TIME // 2] * 2:
        pace.begin(now)
        now += took
        lengths.append(pace.next_length(now))
    assert lengths == [
        16,
        32,
        64,
        128,
        256,
        256,
        256,
        *(2**n for n in range(7, -1, -1)),
        1,
        1,
        1,
        1,
    ]
    assert max(lengths) == MAX_SLICE


def test_time_before_its_beginning_or_after_its_end_does_not_count() -> None:
    pace = Pace()
    pace.begin(0)
    assert pace.next_length(10 * SLICE_TIME) == 8
    assert pace.next_length(20 * SLICE_TIME) == 8  # it waits to be announced
    pace.begin(30 * SLICE_TIME)
    assert pace.next_length(30 * SLICE_TIME) == 16
    pace.begin(40 * SLICE_TIME)
    pace.pause()
    assert pace.next_length(50 * SLICE_TIME) == 16


def test_a_slice_that_goes_on_has_begun_before() -> None:
    pace = Pace()
    pace.begin(0)
    pace.begin(SLICE_TIME)
    assert pace.next_length(SLICE_TIME + 1) == 8
