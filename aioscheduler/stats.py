"""What `Manager.stats()` gives: frozen, plain values, fit for JSON.

A counter has its name in three places: a field of `WorkerStats` and `ManagerStats`, the table
`COUNTS`, and the line that counts it (`counts["retried"] += 1`, in a link or a supervisor). The
sums, the metrics and the columns of `aioscheduler top` follow from the table.
"""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum, auto
from typing import Any, NamedTuple


class Kind(StrEnum):
    """What a count is of.

    Attributes:
        NOW: Tasks that are there now: it goes up and down. The others only grow.
        OUTCOME: Tasks that ended in one way; each task is counted in one of these.
        EVENT: How many times something happened.
    """

    NOW = auto()
    OUTCOME = auto()
    EVENT = auto()


class Count(NamedTuple):
    """What is known of a count but its value.

    Attributes:
        kind: What it is of.
        help: What it counts, in a sentence.
        metric: Its name for Prometheus, after `aioscheduler_`; outcomes are labels of one.
        head: Of its column in `aioscheduler top`; "": it has none.
        short: The same, where there is little room.
        rare: Whether `top` has the column only while it is not 0 everywhere.
    """

    kind: Kind
    help: str
    metric: str
    head: str = ""
    short: str = ""
    rare: bool = False


COUNTS = {
    "pending": Count(Kind.NOW, "Tasks that wait to start.", "tasks_pending", "pending", "pending"),
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
        "Attempts that failed and are followed by another.",
        "task_retries",
        "retried",
        "retry",
        rare=True,
    ),
    "too_late": Count(
        Kind.EVENT,
        "Tasks that did not start, as they were too late; also in `failed`.",
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
        "Log records that were too many for the host.",
        "log_records_dropped",
        "logs dropped",
        "drop",
        rare=True,
    ),
}
"""What is counted in each worker's slot, and summed up for the manager: by its name there."""

OUTCOMES = tuple(name for name, count in COUNTS.items() if count.kind is Kind.OUTCOME)
"""The counts of tasks that have ended; each is the value of a `task.State`."""


class Figure(NamedTuple):
    """What is known of a figure of the whole manager but its value.

    Attributes:
        metric: Its name for Prometheus, after `aioscheduler_`.
        help: What it is, in a sentence.
        unit: Of it, which the name ends with; "": it is a number.
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
        "How long commits took: the median of the last thousand.",
        "seconds",
    ),
    "commit_p99": Figure(
        "store_commit_p99_seconds",
        "How long commits took: all but the slowest hundredth.",
        "seconds",
    ),
    "store_bytes": Figure(
        "store_size_bytes", "Size of the file, with what belongs to it.", "bytes"
    ),
}
"""What is known of a store: fields of `ManagerStats`, with their help for metrics."""

REPEAT_FIGURES = {
    "repeats": Figure("repeats", "What repeats."),
    "repeats_paused": Figure("repeats_paused", "What of it stands still, for whatever reason."),
    "repeats_ran": Figure("repeat_runs", "Runs that were entered.", grows=True),
    "repeats_skipped": Figure("repeat_skips", "Nominal times that were not run.", grows=True),
}
"""What is known of what repeats, in the same way."""


class _Plain:
    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it: tuples as lists, an infinite bound as None."""
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
    """What the process in a worker's slot is doing.

    Attributes:
        STARTING: It has not answered yet.
        READY: It runs tasks.
        SILENT: It has not answered for some seconds: it is stopped, or a task keeps its loop busy.
        DRAINING: It was told to end (SIGTERM), and lets finish what runs.
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
    """One worker's slot. Counters never go back, whatever becomes of its process.

    With `workers=0` the one worker is the calling process, with all schedulers.

    Attributes:
        worker: The slot, from 0.
        state: What its process is doing.
        pid: Of its process; None while there is none.
        cpu_percent: 100 is one core; since the last time it was measured, at least 0.25 s ago.
        rss: Resident bytes, shared pages included.
        schedulers: How many it has.
        pending: Tasks that wait to start.
        running: Tasks that have started and not ended.
        finished: Tasks that returned.
        failed: Tasks that raised.
        cancelled: Tasks that were cancelled.
        lost: Tasks that ended as `WorkerLost`.
        restarts: How many times the worker's process was replaced.
        retried: Attempts that failed and are followed by another.
        too_late: Tasks that did not start, as they were too late; also in `failed`.
        recycled: How often the process was recycled; not in `restarts`.
        logs_dropped: Log records that were too many for the host.
        kept: Durable tasks that stay in the store for the next manager.
        lateness_p50: Seconds from due time to start, the median over the last minute. Like all of
            its kind it is pushed once a second, and 0.0 for queues, where no task is late.
        lateness_p99: The same, of all but the latest hundredth.
        lateness_max: The same, of the latest task.
        lateness_sum: How late all tasks since the start were together, in seconds.
        lateness_buckets: Pairs of an upper bound in seconds, the last infinite, and how many tasks
            since the start were less late than that.
        loop_lag: The most that the loop was late for its tick, over the last minute, in seconds.
        node: The machine that its process is on, with `engine=`; None: the host's, or none yet.
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
    """The process that has the manager; its attributes are those of `WorkerStats`."""

    pid: int
    cpu_percent: float
    rss: int
    loop_lag: float


@dataclasses.dataclass(frozen=True, slots=True)
class ManagerStats(_Plain):
    """A manager, its workers and the totals over them; see `WorkerStats`.

    Attributes:
        manager: Its id, as in references to its tasks.
        name: The name that it was given, or its id.
        workers: One for each worker.
        host: The calling process.
        stored: Tasks in the store's file; 0 without a store, as all of these. Of one that has
            failed, or was closed, they are what was last known.
        dead_letters: Dead letters in it.
        unsaved: Changes of durable tasks that are not on disk yet.
        commit_p50: Seconds that a commit took, the median of the last thousand.
        commit_p99: The same, of all but the slowest hundredth.
        store_bytes: The size of the file, with what belongs to it.
        repeats: How many repeats there are.
        repeats_paused: How many of them stand still, for whatever reason.
        repeats_ran: Runs of them that this manager has entered.
        repeats_skipped: Nominal times that it has left out.
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
