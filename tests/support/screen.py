"""Managers with figures that a test chooses, and `aioscheduler top` of them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from aioscheduler._monitoring.statsserver import Snapshot
from aioscheduler.stats import COUNTS, HostStats, ManagerStats, WorkerState, WorkerStats
from aioscheduler.top.rates import Rates
from aioscheduler.top.table import View, draw


def worker(number: int, finished: int = 0, **more: Any) -> WorkerStats:
    values: dict[str, Any] = {
        "worker": number,
        "state": WorkerState.READY,
        "pid": 1000 + number,
        "cpu_percent": 45.2,
        "rss": 28_600_000,
        "schedulers": 4,
        "pending": 1_234_567,
        "running": 12,
        "finished": finished,
        "failed": 0,
        "cancelled": 0,
        "lost": 0,
        "restarts": 0,
        "retried": 0,
        "too_late": 0,
        "recycled": 0,
        "logs_dropped": 0,
        "kept": 0,
        "lateness_p50": 0.00008,
        "lateness_p99": 0.0012,
        "lateness_max": 0.5,
        "lateness_sum": finished * 0.001,
        "lateness_buckets": ((0.001, finished), (float("inf"), finished)),
        "loop_lag": 0.001,
    }
    return WorkerStats(**(values | more))


def snapshot(
    *workers: WorkerStats,
    pid: int = 77,
    manager: str = "0a1b2c3d",
    name: str = "",
    repeats: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> Snapshot:
    totals = {name: sum(getattr(w, name) for w in workers) for name in COUNTS}
    host = HostStats(pid, 12.0, 36_000_000, 0.002)
    stats = ManagerStats(
        manager=manager, name=name or manager, workers=workers, host=host, **totals, **more
    )
    told = stats.as_dict() | {"next_repeats": repeats}
    return Snapshot(pid, manager, json.loads(json.dumps(told, allow_nan=False)))


def render(
    snapshots: list[Snapshot],
    width: int = 140,
    height: int | None = None,
    view: View | None = None,
    rates: Rates | None = None,
    styles: bool = False,
    **more: Any,
) -> list[str]:
    """Draw, and return the lines."""
    if rates is None:
        rates = Rates()
        rates.add(0.0, snapshots)
    file = io.StringIO()
    console = Console(
        width=width, file=file, color_system="standard" if styles else None, _environ={}
    )
    console.print(draw(snapshots, rates, view or View(), width, height, **more), end="")
    return file.getvalue().splitlines()


def sampled(seconds: int, *workers: WorkerStats) -> tuple[list[Snapshot], Rates]:
    """Return workers that have run ten tasks a second for some seconds."""
    rates = Rates()
    shown: list[Snapshot] = []
    for second in range(seconds + 1):
        more = [{"finished": 10 * second, "lateness_sum": 0.01 * second}] * len(workers)
        shown = [snapshot(*(_with(w, m) for w, m in zip(workers, more, strict=True)))]
        rates.add(float(second), shown)
    return shown, rates


def _with(stats: WorkerStats, more: dict[str, Any]) -> WorkerStats:
    values = {name: getattr(stats, name) for name in stats.__slots__}
    buckets = ((float("inf"), more["finished"]),)
    return WorkerStats(**(values | more | {"lateness_buckets": buckets}))
