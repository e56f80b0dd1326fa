"""Collects a manager's stats: its counts, its workers' reports, and psutil's measurements."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from .._routing.keeper import Keeper
from .._routing.link import Link, LinkStats
from .._routing.placement import Placement
from .._routing.repeats import Repeats
from .._scheduling.lateness import BOUNDS, History
from ..stats import COUNTS, STORE_FIGURES, HostStats, ManagerStats, WorkerStats
from .processmeter import NOTHING, ProcessMeter, Usage


class StatsCollector:
    """Collects a manager's stats; may be called from any thread, like everything that it reads.

    Args:
        manager: The manager's id.
        name: Its name.
        links: One for each worker.
        placement: The source of the counts of pending tasks.
        host: The history of the host's loop.
        repeats: The manager's repeats.
        keeper: The keeper of the store, if there is one.
    """

    def __init__(
        self,
        manager: str,
        name: str,
        links: Sequence[Link],
        placement: Placement,
        host: History,
        repeats: Repeats,
        keeper: Keeper | None = None,
    ) -> None:
        self._repeats = repeats
        self._keeper = keeper
        self._host = host
        self._manager = manager
        self._name = name
        self._links = links
        self._placement = placement
        self._process_meter = ProcessMeter()

    def stats(self) -> ManagerStats:
        """Return the current stats."""
        pid = os.getpid()
        links = [link.stats() for link in self._links]
        here = (v.pid for v in links if v.pid is not None and v.usage is None)
        usage = self._process_meter.read({pid, *here})
        workers = tuple(
            _sum_up(worker, link, self._placement, usage) for worker, link in enumerate(links)
        )
        shelved = Counter[str]() if self._keeper is None else self._keeper.shelf.counter.figures()
        return ManagerStats(
            manager=self._manager,
            name=self._name,
            workers=workers,
            host=HostStats(pid, *usage[pid], self._host.lag),
            **(_NO_STORE if self._keeper is None else self._keeper.figures()),
            **self._repeats.figures(),
            **{
                name: sum((getattr(worker, name) for worker in workers), shelved[name])
                for name in COUNTS
            },
        )


_NO_STORE = dict.fromkeys(STORE_FIGURES, 0)


def _sum_up(
    worker: int, stats: LinkStats, placement: Placement, usage: dict[int, Usage]
) -> WorkerStats:
    history = stats.history
    waiting = placement.waiting_at(worker)
    counts = {name: stats.counts[name] for name in COUNTS}  # 0 if never counted
    counts |= {"pending": sum(waiting), "running": stats.running}
    cpu_percent, rss = stats.usage or usage.get(stats.pid or 0, NOTHING)
    p50, p99 = history.quantiles(0.5, 0.99)
    return WorkerStats(
        worker=worker,
        state=stats.state,
        pid=stats.pid,
        cpu_percent=cpu_percent,
        rss=rss,
        schedulers=len(waiting),
        lateness_p50=p50,
        lateness_p99=p99,
        lateness_max=history.most,
        lateness_sum=history.total,
        lateness_buckets=tuple(zip(BOUNDS, accumulate(history.counts), strict=True)),
        loop_lag=history.lag,
        node=stats.node,
        **counts,
    )
