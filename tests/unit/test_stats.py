from __future__ import annotations

import dataclasses
import json
import math

import pytest

from aioscheduler import HostStats, ManagerStats, WorkerState, WorkerStats
from aioscheduler.stats import COUNTS, OUTCOMES, REPEAT_FIGURES, STORE_FIGURES
from aioscheduler.task import ENDED

WORKER = WorkerStats(
    worker=0,
    state=WorkerState.READY,
    pid=12,
    cpu_percent=1.5,
    rss=1000,
    schedulers=4,
    pending=1,
    running=2,
    finished=3,
    failed=4,
    cancelled=5,
    lost=6,
    restarts=7,
    retried=8,
    too_late=9,
    recycled=10,
    logs_dropped=11,
    kept=12,
    lateness_p50=0.1,
    lateness_p99=0.2,
    lateness_max=0.3,
    lateness_sum=0.4,
    lateness_buckets=((0.5, 1), (math.inf, 2)),
    loop_lag=0.6,
)


def test_they_are_frozen_and_compare_by_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        WORKER.pending = 2  # type: ignore[misc]
    assert dataclasses.replace(WORKER) == WORKER


def test_as_dict_is_fit_for_strict_json() -> None:
    stats = ManagerStats("ab", "bots", (WORKER,), HostStats(1, 0.0, 2, 0.0), *range(18))
    made = stats.as_dict()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["workers"] == [WORKER.as_dict()]
    assert made["host"] == {"pid": 1, "cpu_percent": 0.0, "rss": 2, "loop_lag": 0.0}
    assert made["workers"][0]["state"] == "ready"
    assert made["workers"][0]["lateness_buckets"] == [[0.5, 1], [None, 2]]
    assert list(made) == [field.name for field in dataclasses.fields(ManagerStats)]


def test_every_count_is_a_field_with_its_words() -> None:
    of_workers = {field.name: field.type for field in dataclasses.fields(WorkerStats)}
    others = {"manager", "name", "workers", "host", *STORE_FIGURES, *REPEAT_FIGURES}
    assert {field.name for field in dataclasses.fields(ManagerStats)} - others == set(COUNTS)
    words = " ".join((WorkerStats.__doc__ or "").split())
    for name, count in COUNTS.items():
        assert of_workers[name] == "int"
        assert f" {name}: {count.help}" in words


def test_every_figure_is_a_field_of_the_manager_s() -> None:
    of_manager = [field.name for field in dataclasses.fields(ManagerStats)]
    figures = [*STORE_FIGURES, *REPEAT_FIGURES]
    assert of_manager[-len(figures) :] == figures
    words = ManagerStats.__doc__ or ""
    assert all(f" {name}: " in words for name in figures)


def test_every_end_of_a_task_is_counted() -> None:
    assert set(OUTCOMES) == {state.value for state in ENDED}
