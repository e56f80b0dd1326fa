"""The stats of a manager, from fake links and a fake meter."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from aioscheduler._monitoring.processmeter import Usage
from aioscheduler._monitoring.statscollector import StatsCollector
from aioscheduler._routing.link import LinkStats
from aioscheduler._routing.placement import Placement
from aioscheduler._scheduling.lateness import BOUNDS, History
from aioscheduler.stats import COUNTS, REPEAT_FIGURES, STORE_FIGURES, WorkerState

MS = 1_000_000


class Link:
    def __init__(self, stats: LinkStats) -> None:
        self._stats = stats

    def stats(self) -> LinkStats:
        return self._stats


class ProcessMeter:
    """Returns as many megabytes as the process's pid."""

    def __init__(self) -> None:
        self.asked: list[set[int]] = []

    def read(self, pids: Iterable[int]) -> dict[int, Usage]:
        self.asked.append(set(pids))
        return {pid: Usage(pid / 100, pid << 20) for pid in self.asked[-1]}


FIGURES = {name: number for number, name in enumerate(REPEAT_FIGURES, 30)}
REPEATS: Any = SimpleNamespace(figures=lambda: FIGURES)


def make(*stats: LinkStats, layout: list[int]) -> tuple[StatsCollector, Placement, ProcessMeter]:
    placement, meter = Placement(layout, by_worker=True), ProcessMeter()
    links: Any = [Link(each) for each in stats]
    collector = StatsCollector("ab", "bots", links, placement, History(), REPEATS)
    collector._process_meter = meter  # type: ignore[assignment]
    return collector, placement, meter


def link_stats(pid: int | None, **more: Any) -> LinkStats:
    told = LinkStats(WorkerState.READY, False, pid, 0, Counter(), History())
    return told._replace(**more)


def test_each_worker_is_listed_and_the_totals_are_their_sums() -> None:
    counts = Counter(finished=5, failed=4, cancelled=3, lost=2)
    collector, placement, _ = make(
        link_stats(700, running=3, counts=counts),
        link_stats(
            800,
            running=1,
            counts=Counter(
                lost=10, restarts=6, retried=7, too_late=1, recycled=2, logs_dropped=8, kept=9
            ),
        ),
        layout=[2, 1],
    )
    for place, count in ((0, 4), (1, 5), (2, 6)):
        placement.added(place, count)
    stats = collector.stats()
    first, second = stats.workers
    assert (first.worker, first.schedulers, first.pending, first.running) == (0, 2, 9, 3)
    assert (first.finished, first.failed, first.cancelled, first.lost) == (5, 4, 3, 2)
    assert (second.worker, second.schedulers, second.pending, second.running) == (1, 1, 6, 1)
    assert (second.finished, second.lost, second.restarts) == (0, 10, 6)
    totals = [getattr(stats, name) for name in COUNTS]
    assert totals == [15, 4, 5, 4, 3, 12, 9, 6, 7, 1, 2, 8]
    assert (stats.manager, stats.name) == ("ab", "bots")
    assert {getattr(stats, name) for name in STORE_FIGURES} == {0}
    assert {name: getattr(stats, name) for name in REPEAT_FIGURES} == FIGURES
    json.dumps(stats.as_dict(), allow_nan=False)


def test_the_figures_of_a_store_are_there() -> None:
    figures = {name: number for number, name in enumerate(STORE_FIGURES, 3)}
    shelved = Counter(pending=7, cancelled=2)
    shelf = SimpleNamespace(counter=SimpleNamespace(figures=lambda: shelved))
    keeper: Any = SimpleNamespace(figures=lambda: figures, shelf=shelf)
    collector = StatsCollector(
        "ab", "bots", [], Placement([1], by_worker=True), History(), REPEATS, keeper
    )
    stats = collector.stats()
    assert {name: getattr(stats, name) for name in STORE_FIGURES} == figures
    # Tasks at no worker are counted, too.
    assert (stats.pending, stats.cancelled, stats.finished) == (7, 2, 0)


def test_the_host_and_its_workers_are_measured_at_once() -> None:
    own = os.getpid()
    collector, _, meter = make(link_stats(700), link_stats(None), layout=[1, 1])
    stats = collector.stats()
    assert meter.asked == [{own, 700}]
    assert (stats.workers[0].cpu_percent, stats.workers[0].rss) == (7.0, 700 << 20)
    assert (stats.host.pid, stats.host.rss) == (own, own << 20)


def test_a_place_without_a_process_takes_nothing() -> None:
    collector, _, _ = make(link_stats(None, state=WorkerState.RESTARTING), layout=[1])
    (worker,) = collector.stats().workers
    assert (worker.pid, worker.cpu_percent, worker.rss) == (None, 0.0, 0)
    assert worker.state is WorkerState.RESTARTING


def test_with_no_workers_of_its_own_the_host_is_measured_once() -> None:
    collector, _, meter = make(link_stats(os.getpid()), layout=[4])
    stats = collector.stats()
    assert meter.asked == [{os.getpid()}]
    assert stats.workers[0].rss == stats.host.rss


def test_lateness_is_that_of_the_workers_history() -> None:
    history = History()
    counts = [0] * len(BOUNDS)
    counts[0], counts[10] = 98, 2
    history.add(100.0, 0.25, (12 * MS, 100 * MS, counts))
    collector, _, _ = make(link_stats(700, history=history), layout=[1])
    (worker,) = collector.stats().workers
    assert worker.lateness_p50 < BOUNDS[0]
    assert BOUNDS[9] < worker.lateness_p99 < BOUNDS[10]
    assert (worker.lateness_max, worker.loop_lag) == (0.012, 0.25)
    assert worker.lateness_sum == pytest.approx(0.1)
    assert worker.lateness_buckets[0] == (BOUNDS[0], 98)
    assert worker.lateness_buckets[10:] == tuple((bound, 100) for bound in BOUNDS[10:])


def test_the_lag_of_the_hosts_loop_is_its_own() -> None:
    collector, _, _ = make(link_stats(700), layout=[1])
    collector._host.add(100.0, 0.5, (0, 0, []))
    stats = collector.stats()
    assert (stats.host.loop_lag, stats.workers[0].loop_lag) == (0.5, 0.0)


def test_stats_are_of_their_moment() -> None:
    counts: Counter[str] = Counter()
    collector, placement, _ = make(link_stats(700, counts=counts), layout=[1])
    before = collector.stats()
    placement.added(0)
    counts["finished"] += 1
    after = collector.stats()
    assert (before.pending, before.finished) == (0, 0)
    assert (after.pending, after.finished) == (1, 1)
