"""What a manager tells a worker process at its start.

Here is only what stays the same for the whole life of the process. What belongs to the process
itself (its pipes, its black box, its clock) is passed beside it, and all that changes comes in
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
    """The configuration of one worker process, to which it travels by multiprocessing's pickle.

    Attributes:
        manager: The manager's id.
        order: What each scheduler runs next.
        layout: How many schedulers each worker of the manager has.
        prefer_utc: What a naive datetime means, to tasks that schedule others.
        host: The process id of the one that it ends with: the host, or, on another machine, the
            outpost there.
        handed: What of the initializer's arguments only a new process can be given.
        max_running: How many timed tasks may run at a time on each scheduler; None for any number.
        name: The manager's name, if it was given one.
        measured: Whether the process tells its size, for `max_rss_per_worker`.
        block_timeout: Seconds that a task may keep its loop busy; None for as long as it likes.
        forward_logs: Whether the process tells the host what is logged there.
        log_levels: With `forward_logs`, the level of each logger of the host that has one, by name,
            as they are when the process is launched; set then.
        worker: The slot of this worker, from 0.
        generation: Which process of its slot this is, from 0.
        has_store: Whether the manager has a store, for the durable tasks that tasks schedule.
        held: What the process holds until it ends, if anything: the lock of the store.
        confirmed: Whether every task waits for the host's word (CONFIRM) before it begins: for a
            process that may live on when it was given up.
        node: The machine that it is on, if that is not the host's; for messages.
        clock_lead: What the host's clock is ahead of the machine's monotonic one, in nanoseconds;
            None: the machine is the host's, and has its clock.
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
        """How many schedulers this worker has."""
        return self.layout[self.worker]

    @property
    def process_name(self) -> str:
        """What multiprocessing, messages and log records call the process."""
        return f"aioscheduler-{self.name or self.manager}-{self.worker}"

    @property
    def short_name(self) -> str:
        """What `ps` shows, which takes 15 bytes: of a long name the beginning."""
        number = f"-{self.worker}"
        name = (self.name or "aiosched").encode()[: 15 - len(number)]
        return name.decode(errors="ignore") + number
