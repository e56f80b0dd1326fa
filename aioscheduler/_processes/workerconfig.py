"""The configuration that a manager passes to a worker process at its start.

It holds only what stays the same for the life of the process. What belongs to the process itself
(its pipes, its black box, its clock) is passed separately, and everything that changes comes in
frames.

    Manager (all workers) ─ replace(worker=) ─► handle ─ replace(generation=) ─► process ─► Worker
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._scheduling.order import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The configuration of one worker process, sent to it by multiprocessing's pickle.

    Attributes:
        manager: The manager's id.
        order: The order in which each scheduler runs its tasks.
        layout: The number of schedulers of each worker of the manager.
        prefer_utc: Whether naive datetimes are UTC, for tasks that schedule others.
        host: The pid of the process with which it ends: the host or, on another machine, the
            outpost there.
        handed: The objects among the initializer's arguments that only a new process can inherit.
        max_running: How many timed tasks may run at once on each scheduler; None for no limit.
        name: The manager's name, if it has one.
        measured: Whether the process reports its size, for `max_rss_per_worker`.
        block_timeout: Seconds that a task may block the loop; None for no limit.
        forward_logs: Whether the process sends its log records to the host.
        log_levels: With `forward_logs`, the level of each logger of the host that has one, by name,
            at the time when the process is started.
        worker: The slot of this worker, from 0.
        generation: Which process of its slot this is, from 0.
        has_store: Whether the manager has a store, for the durable tasks that tasks schedule.
        held: What the process must keep open until it ends, if anything: the lock of the store.
        confirmed: Whether every task waits for CONFIRM before it begins: for a process that may
            live on after it was given up.
        node: Its machine, if not the host's; for messages.
        clock_lead: How far the host's clock is ahead of the machine's monotonic clock, in
            nanoseconds; None on the host's machine, whose clock it shares.
    """

    manager: str
    order: Order
    layout: tuple[int, ...]
    prefer_utc: bool
    host: int
    handed: tuple[Any, ...] = ()
    max_running: int | None = None
    name: str | None = None
    measured: bool = False
    block_timeout: float | None = None
    forward_logs: bool = False
    log_levels: Mapping[str, int] = field(default_factory=dict)
    worker: int = 0
    generation: int = 0
    confirmed: bool = False
    has_store: bool = False
    held: Any = None
    node: str | None = None
    clock_lead: int | None = None

    @property
    def schedulers(self) -> int:
        """The number of this worker's schedulers."""
        return self.layout[self.worker]

    @property
    def process_name(self) -> str:
        """The name of the process in multiprocessing, messages and log records."""
        return f"aioscheduler-{self.name or self.manager}-{self.worker}"

    @property
    def short_name(self) -> str:
        """The name that `ps` shows, 15 bytes at most: a long one is cut."""
        number = f"-{self.worker}"
        name = (self.name or "aiosched").encode()[: 15 - len(number)]
        return name.decode(errors="ignore") + number
