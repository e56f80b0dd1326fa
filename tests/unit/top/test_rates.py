from __future__ import annotations

from typing import Any

from aioscheduler._monitoring.statsserver import Snapshot
from aioscheduler.top.rates import SORTS, Rates, Track, done


def worker(number: int, finished: int = 0, late: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "worker": number,
        "finished": finished,
        "failed": 0,
        "cancelled": 0,
        "lost": 0,
        "lateness_sum": late,
        "lateness_buckets": [[0.001, 0], [None, finished]],
    } | more


def snapshot(*workers: dict[str, Any], pid: int = 1) -> Snapshot:
    total = {end: sum(w[end] for w in workers) for end in ("finished", "failed", "lost")}
    return Snapshot(pid, "ab", {"workers": list(workers), "cancelled": 0, **total})


def test_done_is_every_end() -> None:
    assert done({"finished": 1, "failed": 2, "cancelled": 4, "lost": 8, "running": 16}) == 15


def test_a_rate_is_the_difference_by_the_time_between() -> None:
    rates = Rates()
    rates.add(10.0, [snapshot(worker(0, 100), worker(1, 5))])
    first = snapshot(worker(0, 100))
    assert rates.track(first, 0).rate is None
    assert rates.track(first).rate is None
    rates.add(12.0, [snapshot(worker(0, 300), worker(1, 5))])
    assert rates.track(first, 0).rate == 100
    assert rates.track(first, 1).rate == 0
    assert rates.track(first).rate == 100
    assert list(rates.track(first, 0).rates) == [None, 100]


def test_a_replaced_worker_and_another_manager_never_make_a_rate_negative() -> None:
    track = Track()
    for at, count in enumerate((100, 150, 20, 50)):
        track.add(float(at), count, 0.0, count)
    assert list(track.rates) == [None, 50, None, 30]
    assert list(track.lates) == [None, 0, None, 0]


def test_two_samples_at_one_time_make_no_rate() -> None:
    track = Track()
    track.add(1.0, 5, 0.0, 5)
    track.add(1.0, 9, 0.0, 9)
    assert list(track.rates) == [None, None]


def test_samples_that_come_fast_are_compared_with_older_ones() -> None:
    track = Track()
    for tenth in range(20):
        track.add(tenth / 10, 10 * (tenth // 2 * 2), 0.0, 0)
    assert all(79 < rate < 121 for rate in list(track.rates)[6:] if rate is not None)


def test_lateness_is_the_mean_of_what_is_new_and_stays_until_the_next_push() -> None:
    track = Track()
    pushes = [(0, 0.0, 0), (1, 1.0, 10), (1.5, 1.0, 10), (2, 4.0, 20), (9, 4.0, 20)]
    for at, late, tasks in pushes:
        track.add(at, 0, late, tasks)
    assert list(track.lates) == [None, 0.1, 0.1, 0.3, None]


def test_a_manager_that_is_silent_is_remembered_and_one_that_has_gone_is_not() -> None:
    rates = Rates()
    shown = snapshot(worker(0, 10))
    silent = Snapshot(1, "ab", None)
    rates.add(0.0, [shown])
    rates.add(1.0, [silent])
    assert rates.last(silent) == shown.stats
    assert list(rates.track(silent, 0).rates) == [None, None]
    rates.add(2.0, [snapshot(worker(0, 30))])
    assert rates.track(silent, 0).rate == 10  # over the whole time
    rates.add(3.0, [])
    assert (rates.last(silent), list(rates.track(silent).rates)) == (None, [])
    rates.add(4.0, [silent])
    assert rates.last(silent) is None


def test_of_two_processes_with_one_id_each_has_its_own_rate() -> None:
    rates = Rates()
    one, two = snapshot(worker(0, 10)), snapshot(worker(0, 50), pid=2)
    rates.add(0.0, [one, two])
    rates.add(1.0, [snapshot(worker(0, 11)), snapshot(worker(0, 55), pid=2)])
    assert (rates.track(one).rate, rates.track(two).rate) == (1, 5)


def test_only_the_last_samples_are_kept() -> None:
    track = Track()
    for at in range(100):
        track.add(float(at), at, 0.0, 0)
    assert len(track.rates) == len(track.lates) == 60


def test_every_order_has_the_highest_first_but_that_of_places() -> None:
    slow, fast = Track(), Track()
    for track, speed in ((slow, 1), (fast, 9)):
        track.add(0.0, 0, 0.0, 0)
        track.add(1.0, speed, 0.0, 0)
    low = worker(0, cpu_percent=1.0, rss=1, pending=1, lateness_p99=0.1), slow
    high = worker(1, cpu_percent=2.0, rss=2, pending=2, lateness_p99=0.2), fast
    for name, order in SORTS.items():
        assert (order(*low) < order(*high)) == (name == "worker"), name
