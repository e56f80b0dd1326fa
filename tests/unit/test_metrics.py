from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from aioscheduler import stats
from aioscheduler._scheduling.lateness import BOUNDS
from aioscheduler.metrics import ManagerCollector

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "docs/grafana-dashboard.json").read_text())
UNITS = ("seconds", "bytes", "ratio")

WORKER = stats.WorkerStats(
    worker=0,
    state=stats.WorkerState.READY,
    pid=4242,
    cpu_percent=50.0,
    rss=1 << 20,
    schedulers=4,
    pending=5,
    running=1,
    finished=20,
    failed=3,
    cancelled=2,
    lost=0,
    restarts=1,
    retried=6,
    too_late=2,
    recycled=0,
    logs_dropped=0,
    kept=0,
    lateness_p50=0.25,
    lateness_p99=0.5,
    lateness_max=0.75,
    lateness_sum=7.5,
    lateness_buckets=((1.6384e-05, 0), (0.5, 24), (math.inf, 26)),
    loop_lag=0.125,
    node="n1",
)

PAGE = """\
# HELP aioscheduler_tasks_total Tasks that have ended.
# TYPE aioscheduler_tasks_total counter
aioscheduler_tasks_total{outcome="finished",worker="0"} 20.0
aioscheduler_tasks_total{outcome="failed",worker="0"} 3.0
aioscheduler_tasks_total{outcome="cancelled",worker="0"} 2.0
aioscheduler_tasks_total{outcome="lost",worker="0"} 0.0
aioscheduler_tasks_total{outcome="kept",worker="0"} 0.0
# HELP aioscheduler_tasks_pending Tasks waiting to start.
# TYPE aioscheduler_tasks_pending gauge
aioscheduler_tasks_pending{worker="0"} 5.0
# HELP aioscheduler_tasks_running Tasks that have started and not ended.
# TYPE aioscheduler_tasks_running gauge
aioscheduler_tasks_running{worker="0"} 1.0
# HELP aioscheduler_worker_restarts_total How many times the worker's process was replaced.
# TYPE aioscheduler_worker_restarts_total counter
aioscheduler_worker_restarts_total{worker="0"} 1.0
# HELP aioscheduler_task_retries_total Failed attempts that are followed by another.
# TYPE aioscheduler_task_retries_total counter
aioscheduler_task_retries_total{worker="0"} 6.0
# HELP aioscheduler_tasks_too_late_total \
Tasks not started because they were too late; also in `failed`.
# TYPE aioscheduler_tasks_too_late_total counter
aioscheduler_tasks_too_late_total{worker="0"} 2.0
# HELP aioscheduler_worker_recycles_total How often the process was recycled; not in `restarts`.
# TYPE aioscheduler_worker_recycles_total counter
aioscheduler_worker_recycles_total{worker="0"} 0.0
# HELP aioscheduler_log_records_dropped_total Log records dropped as the host could not keep up.
# TYPE aioscheduler_log_records_dropped_total counter
aioscheduler_log_records_dropped_total{worker="0"} 0.0
# HELP aioscheduler_task_lateness_seconds Time from the due time of a task to its start.
# TYPE aioscheduler_task_lateness_seconds histogram
aioscheduler_task_lateness_seconds_bucket{le="1.6384e-05",worker="0"} 0.0
aioscheduler_task_lateness_seconds_bucket{le="0.5",worker="0"} 24.0
aioscheduler_task_lateness_seconds_bucket{le="+Inf",worker="0"} 26.0
aioscheduler_task_lateness_seconds_count{worker="0"} 26.0
aioscheduler_task_lateness_seconds_sum{worker="0"} 7.5
# HELP aioscheduler_loop_lag_seconds \
Greatest lateness of the worker's event loop over the last minute.
# TYPE aioscheduler_loop_lag_seconds gauge
aioscheduler_loop_lag_seconds{worker="0"} 0.125
# HELP aioscheduler_worker_state 1 for the state of the worker's process, 0 for the others.
# TYPE aioscheduler_worker_state gauge
aioscheduler_worker_state{state="starting",worker="0"} 0.0
aioscheduler_worker_state{state="ready",worker="0"} 1.0
aioscheduler_worker_state{state="silent",worker="0"} 0.0
aioscheduler_worker_state{state="draining",worker="0"} 0.0
aioscheduler_worker_state{state="restarting",worker="0"} 0.0
aioscheduler_worker_state{state="stopped",worker="0"} 0.0
# HELP aioscheduler_worker_node \
1, with the machine that the worker's process runs on, if it is not the host's.
# TYPE aioscheduler_worker_node gauge
aioscheduler_worker_node{node="n1",worker="0"} 1.0
# HELP aioscheduler_worker_cpu_ratio \
CPU time per time of the worker's process; 1 is one core.
# TYPE aioscheduler_worker_cpu_ratio gauge
aioscheduler_worker_cpu_ratio{worker="0"} 0.5
# HELP aioscheduler_worker_resident_memory_bytes \
Resident memory of the worker's process, shared pages included.
# TYPE aioscheduler_worker_resident_memory_bytes gauge
aioscheduler_worker_resident_memory_bytes{worker="0"} 1.048576e+06
# HELP aioscheduler_host_loop_lag_seconds \
Greatest lateness of the manager's event loop over the last minute.
# TYPE aioscheduler_host_loop_lag_seconds gauge
aioscheduler_host_loop_lag_seconds 0.25
# HELP aioscheduler_host_cpu_ratio \
CPU time per time of the manager's process; 1 is one core.
# TYPE aioscheduler_host_cpu_ratio gauge
aioscheduler_host_cpu_ratio 0.1
# HELP aioscheduler_host_resident_memory_bytes \
Resident memory of the manager's process, shared pages included.
# TYPE aioscheduler_host_resident_memory_bytes gauge
aioscheduler_host_resident_memory_bytes 2.097152e+06
# HELP aioscheduler_store_tasks Tasks in the file of the store.
# TYPE aioscheduler_store_tasks gauge
aioscheduler_store_tasks 12.0
# HELP aioscheduler_store_dead_letters Durable tasks that cannot go on.
# TYPE aioscheduler_store_dead_letters gauge
aioscheduler_store_dead_letters 3.0
# HELP aioscheduler_store_unsaved Changes of durable tasks that are not on disk yet.
# TYPE aioscheduler_store_unsaved gauge
aioscheduler_store_unsaved 1.0
# HELP aioscheduler_store_commit_p50_seconds \
Duration of commits: the median of the last thousand.
# TYPE aioscheduler_store_commit_p50_seconds gauge
aioscheduler_store_commit_p50_seconds 0.001
# HELP aioscheduler_store_commit_p99_seconds \
Duration of commits: the 99th percentile of the last thousand.
# TYPE aioscheduler_store_commit_p99_seconds gauge
aioscheduler_store_commit_p99_seconds 0.25
# HELP aioscheduler_store_size_bytes Size of the file, its log included.
# TYPE aioscheduler_store_size_bytes gauge
aioscheduler_store_size_bytes 4096.0
# HELP aioscheduler_repeats Repeats that have not been cancelled.
# TYPE aioscheduler_repeats gauge
aioscheduler_repeats 7.0
# HELP aioscheduler_repeats_paused Repeats that are paused, for whatever reason.
# TYPE aioscheduler_repeats_paused gauge
aioscheduler_repeats_paused 2.0
# HELP aioscheduler_repeat_runs_total Runs that were entered.
# TYPE aioscheduler_repeat_runs_total counter
aioscheduler_repeat_runs_total 900.0
# HELP aioscheduler_repeat_skips_total Nominal times that were skipped.
# TYPE aioscheduler_repeat_skips_total counter
aioscheduler_repeat_skips_total 5.0
"""

FIGURES: dict[str, Any] = {
    "stored": 12,
    "dead_letters": 3,
    "unsaved": 1,
    "commit_p50": 0.001,
    "commit_p99": 0.25,
    "store_bytes": 4096,
    "repeats": 7,
    "repeats_paused": 2,
    "repeats_ran": 900,
    "repeats_skipped": 5,
}


class Fixed:
    """A manager whose stats never change."""

    def __init__(self, *workers: stats.WorkerStats, name: str = "ab") -> None:
        totals: Any = {
            name: sum(getattr(worker, name) for worker in workers) for name in stats.COUNTS
        }
        self.asked = 0
        self._stats = stats.ManagerStats(
            "ab", name, workers, stats.HostStats(4241, 10.0, 2 << 20, 0.25), **totals, **FIGURES
        )

    def stats(self) -> stats.ManagerStats:
        self.asked += 1
        return self._stats


def registry_of(*collectors: ManagerCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


def families(collector: ManagerCollector) -> dict[str, Metric]:
    """Return the samples of a scrape, parsed."""
    text = generate_latest(registry_of(collector)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_the_page_is_as_written_here() -> None:
    assert generate_latest(registry_of(ManagerCollector(Fixed(WORKER)))).decode() == PAGE


def test_the_page_of_openmetrics_is_valid() -> None:
    second = dataclasses.replace(WORKER, worker=1)
    collector = ManagerCollector({'a "quoted" name\n': Fixed(WORKER, second), "b": Fixed(WORKER)})
    # The client has no types for this format.
    page = openmetrics.generate_latest(registry_of(collector)).decode()  # type: ignore[no-untyped-call]
    found = list(openmetrics_families(page))  # type: ignore[no-untyped-call]
    assert [family.name for family in found] == [family.name for family in collector.describe()]
    managers = {sample.labels["manager"] for family in found for sample in family.samples}
    assert managers == {'a "quoted" name\n', "b"}


def test_names_and_units_are_conventional() -> None:
    for family in ManagerCollector(Fixed(WORKER)).collect():
        assert re.fullmatch(r"aioscheduler_[a-z]+(_[a-z0-9]+)*", family.name)
        assert family.documentation.endswith(".")
        measured = family.name.rpartition("_")[2] if family.type != "counter" else ""
        assert family.unit == (measured if measured in UNITS else ""), family.name
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
            assert set(sample.labels) <= {"worker", "outcome", "state", "le", "node"}
            others = ("aioscheduler_host_", "aioscheduler_store_", "aioscheduler_repeat")
            of_worker = not sample.name.startswith(others)
            assert of_worker == ("worker" in sample.labels)


def test_the_page_of_documents_has_every_name() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    for family in ManagerCollector(Fixed(WORKER)).describe():
        name = family.name + "_total" * (family.type == "counter")
        assert f"| `{name}` | {family.type} |" in page, name


def test_a_histogram_counts_up_to_infinity() -> None:
    buckets = tuple((bound, 3 * k) for k, bound in enumerate(BOUNDS))
    worker = dataclasses.replace(WORKER, lateness_buckets=buckets)
    samples = families(ManagerCollector(Fixed(worker)))[
        "aioscheduler_task_lateness_seconds"
    ].samples
    told = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
    assert told == list(buckets)
    assert told == sorted(told)
    count = next(s.value for s in samples if s.name.endswith("_count"))
    assert told[-1] == (math.inf, count)


def test_every_worker_and_state_has_its_samples() -> None:
    workers = [
        dataclasses.replace(WORKER, worker=worker, state=state)
        for worker, state in enumerate(stats.WorkerState)
    ]
    found = families(ManagerCollector(Fixed(*workers)))["aioscheduler_worker_state"].samples
    assert len(found) == len(workers) ** 2
    ones = {(s.labels["worker"], s.labels["state"]) for s in found if s.value == 1}
    assert ones == {(str(worker.worker), worker.state.value) for worker in workers}


def test_registering_asks_no_manager() -> None:
    manager = Fixed(WORKER)
    registry = CollectorRegistry(auto_describe=True)  # as in the client's own registry
    registry.register(ManagerCollector(manager))
    assert manager.asked == 0
    generate_latest(registry)
    assert manager.asked == 1


def test_one_name_can_be_asked_for() -> None:
    restricted = registry_of(ManagerCollector(Fixed(WORKER))).restricted_registry(
        ["aioscheduler_tasks_pending"]
    )
    assert [family.name for family in restricted.collect()] == ["aioscheduler_tasks_pending"]


def test_several_managers_share_a_page() -> None:
    first, second = Fixed(WORKER), Fixed(dataclasses.replace(WORKER, pending=7))
    collector = ManagerCollector({"reminders": first, "sessions": second})
    text = generate_latest(registry_of(collector)).decode()
    assert 'aioscheduler_tasks_pending{manager="reminders",worker="0"} 5.0\n' in text
    assert 'aioscheduler_tasks_pending{manager="sessions",worker="0"} 7.0\n' in text
    assert 'aioscheduler_host_cpu_ratio{manager="sessions"} 0.1\n' in text
    names = re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)
    assert len(names) == len(set(names))


def test_the_name_of_a_single_manager_is_a_label_if_it_was_given_one() -> None:
    named = generate_latest(registry_of(ManagerCollector(Fixed(WORKER, name="bots")))).decode()
    assert 'aioscheduler_tasks_pending{manager="bots",worker="0"} 5.0\n' in named
    assert 'aioscheduler_host_cpu_ratio{manager="bots"} 0.1\n' in named
    assert named.count('manager="bots"') == sum(
        not line.startswith("#") for line in named.splitlines()
    )


def test_a_second_collector_is_refused_until_the_first_has_gone() -> None:
    registry = CollectorRegistry()
    first = ManagerCollector(Fixed(WORKER))
    registry.register(first)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(ManagerCollector({"other": Fixed(WORKER)}))
    registry.unregister(first)
    registry.register(ManagerCollector({"other": Fixed(WORKER)}))


@pytest.mark.parametrize("wrong", [None, "manager", [Fixed()], {1: Fixed()}, {"a": 1}])
def test_what_is_no_manager_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(TypeError, match="takes a Manager, or a dict of managers by name"):
        ManagerCollector(wrong)


def test_the_package_does_without_the_client() -> None:
    program = """
import sys
sys.modules["prometheus_client"] = None
import aioscheduler
try:
    import aioscheduler.metrics
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "the extra aioscheduler[metrics]" in done.stdout


def test_the_client_is_imported_only_for_metrics() -> None:
    program = "import aioscheduler, sys; print('prometheus_client' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert done.stdout == "False\n"


# ---- the dashboard


def expressions() -> list[str]:
    """Return the dashboard's queries."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = DASHBOARD["templating"]["list"]
    return found + [v["query"]["query"] for v in variables if v["type"] == "query"]


def exported() -> dict[str, set[str]]:
    """Return the names of all samples with their labels, including those that a scrape adds."""
    collector = ManagerCollector({"a": Fixed(WORKER)})
    return {
        sample.name: set(sample.labels) | {"instance"}
        for family in collector.collect()
        for sample in family.samples
    }


def test_the_dashboard_asks_for_what_there_is() -> None:
    names = exported()
    asked = set()
    for expression in expressions():
        selectors = re.findall(r"(aioscheduler\w*)(?:\{(.*?)\})?", expression)
        assert selectors, expression
        for name, matchers in selectors:
            labels = set(re.findall(r'(\w+)=~?"', matchers))
            grouped = re.findall(r"by \((.*?)\)", expression)
            labels.update(label for group in grouped for label in group.split(", "))
            assert labels <= names[name], expression
            asked.add(name)
    assert asked == names.keys() - {"aioscheduler_worker_node"}  # joined with another metric


def test_the_dashboard_fits_any_grafana() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert {"DS_PROMETHEUS", "manager", "worker"} <= variables
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used == variables | {"__rate_interval", "__all"}
    for panel in panels:
        sources = [panel, *panel["targets"]]
        assert {source["datasource"]["uid"] for source in sources} == {"${DS_PROMETHEUS}"}
        assert panel["title"]
        assert panel["description"].endswith(".")
    places = {
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }
    assert len(places) == sum(p["gridPos"]["w"] * p["gridPos"]["h"] for p in panels)
    assert max(x for x, _ in places) == 23
