"""The contract between a manager and what runs its tasks: a worker, or its own loop.

There are two links: `local.LocalLink` (schedulers in this loop) and `remote.RemoteLink` (a worker
process behind two pipes). A third, say to an actor of another engine, need only keep this contract;
the manager does not know which one it has.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from .._scheduling.lateness import History
from .._shipping.propagation import Captured
from ..home import Home
from ..inspection import TaskInfo, Wanted
from ..options import Options
from ..outcomes import Outcomes, Part
from ..stats import WorkerState
from ..task import Task


class LoadCounter(Protocol):
    """Counts tasks as links report them, for placement and limits."""

    def count_waiting(self, worker: int, scheduler: int, change: int) -> None:
        """Change the number of pending tasks."""

    def count_ended(self, worker: int, scheduler: int, count: int) -> None:
        """Count `count` tasks as ended."""

    def count_emptied(self, worker: int) -> None:
        """Count all tasks of a worker as ended."""


class Shipper(Protocol):
    """Turns users' coroutines into calls for links; one for all links of a manager."""

    def take_record(self, options: Options | None, captured: Captured | None) -> Any:
        """Make a record for `take` and `Link.schedule_many`.

        Args:
            options: The task's options, if it has any.
            captured: The values captured for it, if any.
        """

    def take(self, coro: Any, record: Any = None) -> Any:
        """Turn a coroutine into a call for `Link.schedule`; nothing is changed if it raises.

        Args:
            coro: The coroutine.
            record: The result of `take_record`; None: no record.
        """

    def take_function(self, function: Callable[..., Any]) -> Any:
        """Turn the function of a `map` into one for `Link.schedule_many`."""

    def take_arguments(self, args: tuple[Any, ...]) -> Any:
        """Turn the arguments of one call into a payload for `Link.schedule_many`."""

    def take_plain(self, calls: list[tuple[Any, ...]]) -> list[Any] | None:
        """Turn the arguments of many plain calls at once; None: take them one by one."""


class LinkStats(NamedTuple):
    """What only a link knows of its worker.

    Attributes:
        state: The state of the worker.
        avoided: Whether new tasks should avoid the worker.
        pid: The id of its process; None if there is none.
        running: How many tasks have started and not ended.
        counts: Counters, by the names of `stats.COUNTS`.
        history: The lateness that its processes have reported.
        node: The machine of the process, if it is not this one.
        usage: CPU in per cent of a core, and resident bytes, as measured on that machine; None: the
            process is on this machine, and is measured here.
    """

    state: WorkerState
    avoided: bool
    pid: int | None
    running: int
    counts: Counter[str]
    history: History
    node: str | None = None
    usage: tuple[float, int] | None = None


class Link(Home, Protocol):
    """The schedulers of one worker, or of this loop, numbered from 0."""

    @property
    def shipper(self) -> Shipper: ...

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start in the running loop. Tasks may be scheduled earlier, and wait."""

    async def ready(self) -> None:
        """Wait until tasks can run.

        Raises:
            WorkerStartError: They never will.
        """

    def schedule(self, scheduler: int, due: int, when: datetime | int, call: Any) -> Task[Any]:
        """Accept a task.

        Args:
            scheduler: The scheduler.
            due: Due time in nanoseconds since the epoch.
            when: The due time for the handle: a datetime, or `due`, or 0 in a queue.
            call: The result of `Shipper.take`.
        """

    def schedule_many(
        self,
        outcomes: Outcomes,
        offset: int,
        scheduler: int,
        dues: int | list[int],
        function: Any,
        calls: list[Any],
        record: Any,
    ) -> int:
        """Accept calls of one function; return the number of the first, others are consecutive.

        Args:
            outcomes: Notified of their ends.
            offset: The index of the first there.
            scheduler: The scheduler.
            dues: Their due times in nanoseconds since the epoch, or one for all.
            function: The result of `take_function`.
            calls: Results of `take_arguments`; at most `room()`.
            record: One for all, as for `take`.
        """

    def room(self) -> int:
        """Return how many calls `schedule_many` accepts at a time; at least one."""

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Return a handle on a task that has not ended, else None."""

    def withdraw(self, scheduler: int, number: int) -> bool:
        """Ask that a task end before it begins; False if it is known to have begun or ended.

        Unlike a cancellation it never affects a task that has begun: a start on its way wins.
        """

    def detach(self, scheduler: int, number: int) -> Task[Any] | None:
        """Remove and return the handle of a task, if any; nobody is notified of its end."""

    def attach(self, task: Task[Any], scheduler: int, number: int) -> None:
        """Make a handle that of another task, which has none."""

    def attach_part(self, part: Part) -> None:
        """Make a batch the listener of a task that has no handle."""

    def scheduler_of(self, number: int) -> int | None:
        """Return the scheduler of a task; None: it has ended."""

    def dispossess(self, scheduler: int, number: int) -> None:
        """Withdraw a task that loses its id to another; if it has begun it goes on without it."""

    def infos(self, wanted: Wanted) -> Iterator[list[TaskInfo]]:
        """Yield information on unfinished tasks, a few hundred at a time.

        Each list shows its tasks at the moment it is made; tasks added meanwhile may be left out.
        """

    async def flush(self) -> None:
        """Wait until the send buffer is short."""

    def look_after(self, lag: float) -> None:
        """Do the regular work; called once a tick, with the host loop's lateness in seconds."""

    def stats(self) -> LinkStats:
        """Return the figures for `Manager.stats()`; may be called from any thread."""

    def kill(self, reason: Exception) -> None:
        """End every task as lost: the manager has failed, for this reason."""

    async def close(self, timeout: float | None) -> None:
        """Cancel pending tasks; give running ones `timeout` seconds to finish, then end them."""

    def adopt(self, scheduler: int, due: int, call: Any, alias: int | None) -> int:
        """Accept a task that has no handle.

        Args:
            scheduler: The scheduler.
            due: Due time in nanoseconds since the epoch.
            call: The call.
            alias: A number that it was given earlier, and that references use; None: there is none.

        Returns:
            Its number here.
        """

    def adopt_many(
        self, scheduler: int, dues: list[int], function: Any, calls: list[Any], record: Any
    ) -> int:
        """Accept calls of one function that have no handles; see `schedule_many`."""
