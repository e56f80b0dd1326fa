"""Prometheus metrics from `Manager.stats()`. Needs the extra `aioscheduler[metrics]`.

    Manager.stats() ◄── collect() ◄── registry ◄── GET /metrics ◄── Prometheus

Nothing is counted here, and nothing runs between two scrapes. The rules for names follow
https://prometheus.io/docs/practices/naming:

1. Base units, and the unit is the last word before `_total`.
2. A sum over the labels of a name is meaningful. So the host has its own names instead of
   `worker="host"`: with `workers=0` it is also the process of worker 0, and would be summed twice.
3. Totals over workers are not exported: `sum()` in Prometheus computes them.
4. Neither are quantiles: those of workers cannot be summed, the buckets of a histogram can.
5. What changes while a worker goes on counting is no label of its counts: the machine that it is
   on has its own metric, to be joined with the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from .stats import (
    COUNTS,
    OUTCOMES,
    REPEAT_FIGURES,
    STORE_FIGURES,
    Kind,
    ManagerStats,
    WorkerState,
    WorkerStats,
)

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ImportError as _error:
    raise ImportError(
        "aioscheduler.metrics needs prometheus_client, of the extra aioscheduler[metrics]",
        name=_error.name,
    ) from _error


class Observed(Protocol):
    """A `Manager`, or another object with its `stats`."""

    def stats(self) -> ManagerStats: ...


class ManagerCollector(Collector):
    """Exports one or more managers to a `prometheus_client` registry.

        REGISTRY.register(ManagerCollector(manager))
        REGISTRY.register(ManagerCollector({"reminders": first, "sessions": second}))

    Use one collector for several managers: a page may have each name only once, so a registry
    refuses a second collector. It may be scraped from any thread, before `start()` and after
    `close()`. The manager is kept alive until `registry.unregister(collector)`.

    Args:
        manager: A manager, or managers by name: then each sample has the name as its label
            `manager`. A single manager has the label only if it was given a name
            (`Manager(name=)`): its id changes with each run and would add series each time.

    Raises:
        TypeError: `manager` is neither, or a name is no str.
    """

    def __init__(self, manager: Observed | Mapping[str, Observed]) -> None:
        self._manager = dict(manager) if isinstance(manager, Mapping) else manager
        managers = self._manager if isinstance(self._manager, dict) else {"": manager}
        for name, observed in managers.items():
            if not isinstance(name, str) or not callable(getattr(observed, "stats", None)):
                raise TypeError(
                    "ManagerCollector takes a Manager, or a dict of managers by name (str), "
                    f"not {manager!r}"
                )

    def describe(self) -> Iterable[Metric]:
        """Return the names without samples, so that registering calls no manager."""
        return _Page(()).families()

    def collect(self) -> Iterable[Metric]:
        """Return the current samples."""
        if isinstance(self._manager, dict):
            samples = [((name,), manager.stats()) for name, manager in self._manager.items()]
            page = _Page(("manager",))
        else:
            stats = self._manager.stats()
            named = stats.name != stats.manager
            samples = [((stats.name,), stats)]
            page = _Page(("manager",) if named else ())
        for labels, stats in samples:
            page.add(labels[: len(page.labels)], stats)
        return page.families()


class _Page:
    """The metrics of one scrape.

    Args:
        labels: The names of the labels of all samples.
    """

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        worker = (*labels, "worker")
        self.tasks = CounterMetricFamily(
            "aioscheduler_tasks", "Tasks that have ended.", labels=(*worker, "outcome")
        )
        self.counts = {
            name: (GaugeMetricFamily if count.kind is Kind.NOW else CounterMetricFamily)(
                f"aioscheduler_{count.metric}", count.help, labels=worker
            )
            for name, count in COUNTS.items()
            if count.kind is not Kind.OUTCOME
        }
        self.lateness = HistogramMetricFamily(
            "aioscheduler_task_lateness_seconds",
            "Time from the due time of a task to its start.",
            labels=worker,
            unit="seconds",
        )
        self.lag = GaugeMetricFamily(
            "aioscheduler_loop_lag_seconds",
            "Greatest lateness of the worker's event loop over the last minute.",
            labels=worker,
            unit="seconds",
        )
        self.state = GaugeMetricFamily(
            "aioscheduler_worker_state",
            "1 for the state of the worker's process, 0 for the others.",
            labels=(*worker, "state"),
        )
        self.node = GaugeMetricFamily(
            "aioscheduler_worker_node",
            "1, with the machine that the worker's process runs on, if it is not the host's.",
            labels=(*worker, "node"),
        )
        self.cpu = GaugeMetricFamily(
            "aioscheduler_worker_cpu_ratio",
            "CPU time per time of the worker's process; 1 is one core.",
            labels=worker,
            unit="ratio",
        )
        self.memory = GaugeMetricFamily(
            "aioscheduler_worker_resident_memory_bytes",
            "Resident memory of the worker's process, shared pages included.",
            labels=worker,
            unit="bytes",
        )
        self.host_lag = GaugeMetricFamily(
            "aioscheduler_host_loop_lag_seconds",
            "Greatest lateness of the manager's event loop over the last minute.",
            labels=labels,
            unit="seconds",
        )
        self.host_cpu = GaugeMetricFamily(
            "aioscheduler_host_cpu_ratio",
            "CPU time per time of the manager's process; 1 is one core.",
            labels=labels,
            unit="ratio",
        )
        self.host_memory = GaugeMetricFamily(
            "aioscheduler_host_resident_memory_bytes",
            "Resident memory of the manager's process, shared pages included.",
            labels=labels,
            unit="bytes",
        )

        self.figures = {
            name: (CounterMetricFamily if figure.grows else GaugeMetricFamily)(
                f"aioscheduler_{figure.metric}", figure.help, labels=labels, unit=figure.unit
            )
            for name, figure in (STORE_FIGURES | REPEAT_FIGURES).items()
        }

    def families(self) -> list[Metric]:
        """Return all metrics, in the order above."""
        _, tasks, counts, *others, figures = vars(self).values()
        return [tasks, *counts.values(), *others, *figures.values()]

    def add(self, labels: tuple[str, ...], stats: ManagerStats) -> None:
        """Add one manager's samples."""
        self.host_lag.add_metric(labels, stats.host.loop_lag)
        self.host_cpu.add_metric(labels, stats.host.cpu_percent / 100)
        self.host_memory.add_metric(labels, stats.host.rss)
        for name, figure in self.figures.items():
            figure.add_metric(labels, getattr(stats, name))
        for worker in stats.workers:
            self._add_worker((*labels, str(worker.worker)), worker)

    def _add_worker(self, labels: tuple[str, ...], stats: WorkerStats) -> None:
        # States and outcomes that do not apply are 0: a series that comes and goes has no sum.
        for outcome in OUTCOMES:
            self.tasks.add_metric((*labels, outcome), getattr(stats, outcome))
        for state in WorkerState:
            self.state.add_metric((*labels, state.value), stats.state == state)
        for name, family in self.counts.items():
            family.add_metric(labels, getattr(stats, name))
        # "Less late than" stands for Prometheus's "at most": they differ by one nanosecond.
        buckets = [(_le(bound), count) for bound, count in stats.lateness_buckets]
        self.lateness.add_metric(labels, buckets, stats.lateness_sum)
        self.lag.add_metric(labels, stats.loop_lag)
        if stats.node is not None:
            self.node.add_metric((*labels, stats.node), 1)
        self.cpu.add_metric(labels, stats.cpu_percent / 100)
        self.memory.add_metric(labels, stats.rss)


def _le(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else str(bound)
