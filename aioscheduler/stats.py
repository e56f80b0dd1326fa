"""The result of `Manager.stats()`: frozen plain values, ready for JSON.

A counter is named in three places: a field of `WorkerStats` and `ManagerStats`, the table
`COUNTS`, and the line that counts it (`counts["retried"] += 1`, in a link or a supervisor). The
sums, the metrics and the columns of `aioscheduler top` follow from the table.
"""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum, auto
from typing import Any, NamedTuple


class Kind(StrEnum):
    """The kind of a count.

    Attributes:
        NOW: Tasks in one state now: it goes up and down. The others only grow.
        OUTCOME: Tasks that ended in one way; each task is counted in exactly one of these.
        EVENT: How many times something happened.
    """

    NOW = auto()
    OUTCOME = auto()
    EVENT = auto()


class Count(NamedTuple):
    """The description of a count.

    Attributes:
        kind: Its kind.
        help: What it counts, in a sentence.
        metric: Its Prometheus name, after `aioscheduler_`; all outcomes are labels of one metric.
        head: The heading of its column in `aioscheduler top`; "" for no column.
        short: The same, for narrow terminals.
        rare: Whether `top` hides the column while it is 0 everywhere.
    """

    kind: Kind
    help: str
    metric: str
    head: str = ""
    short: str = ""
    rare: bool = False


COUNTS = {
    "pending": Count(Kind.NOW, "Tasks waiting to start.", "tasks_pending", "pending", "pending"),
    "running": Count(
        Kind.NOW, "Tasks that have started and not ended.", "tasks_running", "running", "run"
    ),
    "finished": Count(Kind.OUTCOME, "Tasks that returned.", "tasks"),
    "failed": Count(Kind.OUTCOME, "Tasks that raised.", "tasks", "failed", "fail"),
    "cancelled": Count(Kind.OUTCOME, "Tasks that were cancelled.", "tasks"),
    "lost": Count(
        Kind.OUTCOME, "Tasks that ended as `WorkerLost`.", "tasks", "lost", "lost", rare=True
    ),
    "kept": Count(
        Kind.OUTCOME, "Durable tasks that stay in the store for the next manager.", "tasks"
    ),
    "restarts": Count(
        Kind.EVENT,
        "How many times the worker's process was replaced.",
        "worker_restarts",
        "restarts",
        "rst",
    ),
    "retried": Count(
        Kind.EVENT,
        "Failed attempts that are followed by another.",
        "task_retries",
        "retried",
        "retry",
        rare=True,
    ),
    "too_late": Count(
        Kind.EVENT,
        "Tasks not started because they were too late; also in `failed`.",
        "tasks_too_late",
        "too late",
        "late",
        rare=True,
    ),
    "recycled": Count(
        Kind.EVENT,
        "How often the process was recycled; not in `restarts`.",
        "worker_recycles",
        "recycled",
        "rcy",
        rare=True,
    ),
    "logs_dropped": Count(
        Kind.EVENT,
        "Log records dropped as the host could not keep up.",
        "log_records_dropped",
        "logs dropped",
        "drop",
        rare=True,
    ),
}
"""The counts of each worker's slot, which are summed for the manager, by field name."""

OUTCOMES = tuple(name for name, count in COUNTS.items() if count.kind is Kind.OUTCOME)
"""The counts of tasks that have ended, each named like the value of a `task.State`."""


class Figure(NamedTuple):
    """The description of a figure of the whole manager.

    Attributes:
        metric: Its Prometheus name, after `aioscheduler_`.
        help: What it is, in a sentence.
        unit: Its unit, with which the name ends; "" for a plain number.
        grows: Whether it only grows.
    """

    metric: str
    help: str
    unit: str = ""
    grows: bool = False


STORE_FIGURES = {
    "stored": Figure("store_tasks", "Tasks in the file of the store."),
    "dead_letters": Figure("store_dead_letters", "Durable tasks that cannot go on."),
    "unsaved": Figure("store_unsaved", "Changes of durable tasks that are not on disk yet."),
    "commit_p50": Figure(
        "store_commit_p50_seconds",
        "Duration of commits: the median of the last thousand.",
        "seconds",
    ),
    "commit_p99": Figure(
        "store_commit_p99_seconds",
        "Duration of commits: the 99th percentile of the last thousand.",
        "seconds",
    ),
    "store_bytes": Figure("store_size_bytes", "Size of the file, its log included.", "bytes"),
}
"""The figures of a store: fields of `ManagerStats`, with their help for metrics."""

REPEAT_FIGURES = {
    "repeats": Figure("repeats", "Repeats that have not been cancelled."),
    "repeats_paused": Figure("repeats_paused", "Repeats that are paused, for whatever reason."),
    "repeats_ran": Figure("repeat_runs", "Runs that were entered.", grows=True),
    "repeats_skipped": Figure("repeat_skips", "Nominal times that were skipped.", grows=True),
}
"""The figures of repeats, in the same way."""


class _Plain:
    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return everything in the form of JSON: tuples as lists, an infinite bound as None."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]  # of its dataclasses
        }


def _plain(value: Any) -> Any:
    if isinstance(value, _Plain):
        return value.as_dict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, WorkerState):
        return value.value
    return None if value == math.inf else value


class WorkerState(StrEnum):
    """The state of the process in a worker's slot.

    Attributes:
        STARTING: It has not answered yet.
        READY: It runs tasks.
        SILENT: It has not answered for some seconds: it is stopped, or a task blocks its loop.
        DRAINING: It is ending (SIGTERM, or it is recycled), and finishes its running tasks first.
        RESTARTING: It has died, and the next one is being started.
        STOPPED: It has ended, and no other follows.
    """

    STARTING = "starting"
    READY = "ready"
    SILENT = "silent"
    DRAINING = "draining"
    RESTARTING = "restarting"
    STOPPED = "stopped"


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerStats(_Plain):
    """One worker's slot. Its counters never decrease, even when its process is replaced.

    With `workers=0` the only worker is the calling process, with all schedulers.

    Attributes:
        worker: The slot, from 0.
        state: The state of its process.
        pid: The process id; None while there is no process.
        cpu_percent: CPU use since the last measurement, at least 0.25 s ago; 100 is one core.
        rss: Resident memory in bytes, shared pages included.
        schedulers: The number of its schedulers.
        pending: Tasks waiting to start.
        running: Tasks that have started and not ended.
        finished: Tasks that returned.
        failed: Tasks that raised.
        cancelled: Tasks that were cancelled.
        lost: Tasks that ended as `WorkerLost`.
        restarts: How many times the worker's process was replaced.
        retried: Failed attempts that are followed by another.
        too_late: Tasks not started because they were too late; also in `failed`.
        recycled: How often the process was recycled; not in `restarts`.
        logs_dropped: Log records dropped as the host could not keep up.
        kept: Durable tasks that stay in the store for the next manager.
        lateness_p50: Seconds from due time to start, the median over the last minute. All lateness
            figures are updated once a second, and are 0 for queues, where no task is late.
        lateness_p99: The same, the 99th percentile.
        lateness_max: The same, the maximum.
        lateness_sum: The lateness of all tasks since the start, added up, in seconds.
        lateness_buckets: Pairs of an upper bound in seconds, the last infinite, and the number of
            tasks since the start that were less late than that.
        loop_lag: The longest delay of the loop's tick over the last minute, in seconds.
        node: The machine of its process, with `engine=`; None for the host's, or if there is no
            process yet.
    """

    worker: int
    state: WorkerState
    pid: int | None
    cpu_percent: float
    rss: int
    schedulers: int
    pending: int
    running: int
    finished: int
    failed: int
    cancelled: int
    lost: int
    restarts: int
    retried: int
    too_late: int
    recycled: int
    logs_dropped: int
    kept: int
    lateness_p50: float
    lateness_p99: float
    lateness_max: float
    lateness_sum: float
    lateness_buckets: tuple[tuple[float, int], ...]
    loop_lag: float
    node: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class HostStats(_Plain):
    """The host, the process with the manager; see `WorkerStats` for its attributes."""

    pid: int
    cpu_percent: float
    rss: int
    loop_lag: float


@dataclasses.dataclass(frozen=True, slots=True)
class ManagerStats(_Plain):
    """A manager, its workers and the totals over them; see `WorkerStats`.

    Attributes:
        manager: Its id, as in references to its tasks.
        name: The option `name`; by default its id.
        workers: One entry for each worker.
        host: The calling process.
        stored: Tasks in the store's file. This and the other figures of the store are 0 without
            one, and the last known values once it has failed or was closed.
        dead_letters: Dead letters in the file.
        unsaved: Changes of durable tasks that are not on disk yet.
        commit_p50: Duration of a commit in seconds, the median of the last thousand.
        commit_p99: The same, the 99th percentile.
        store_bytes: The size of the file in bytes, its log included.
        repeats: The number of repeats that have not been cancelled.
        repeats_paused: How many of them are paused, for whatever reason.
        repeats_ran: Runs that this manager has entered.
        repeats_skipped: Nominal times that it has skipped.
    """

    manager: str
    name: str
    workers: tuple[WorkerStats, ...]
    host: HostStats
    pending: int
    running: int
    finished: int
    failed: int
    cancelled: int
    lost: int
    restarts: int
    retried: int
    too_late: int
    recycled: int
    logs_dropped: int
    kept: int
    stored: int = 0
    dead_letters: int = 0
    unsaved: int = 0
    commit_p50: float = 0.0
    commit_p99: float = 0.0
    store_bytes: int = 0
    repeats: int = 0
    repeats_paused: int = 0
    repeats_ran: int = 0
    repeats_skipped: int = 0
