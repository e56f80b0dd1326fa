"""The contract between a manager and what runs its tasks: a worker, or its own loop.

Two links exist: `local.LocalLink` (schedulers in this loop) and `remote.RemoteLink` (a worker
process behind two pipes). A third, say an actor of another engine, needs to keep this contract
and nothing else; the manager does not know which one it has.
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
    """Who counts tasks: told by links, so that placement and limits are right."""

    def count_waiting(self, worker: int, scheduler: int, change: int) -> None:
        """So many more tasks wait to start; less than 0: so many fewer."""

    def count_ended(self, worker: int, scheduler: int, count: int) -> None:
        """`count` tasks have ended."""

    def count_emptied(self, worker: int) -> None:
        """No task is left there."""


class Shipper(Protocol):
    """Who turns what users call into what a link takes; the same for all links of a manager."""

    def take_record(self, options: Options | None, captured: Captured | None) -> Any:
        """Turn what goes with a task into what `take` and `Link.schedule_many` take.

        Args:
            options: The task's, if it has any.
            captured: What was captured for it, if anything was.
        """

    def take(self, coro: Any, record: Any = None) -> Any:
        """Turn a coroutine into a call for `Link.schedule`; nothing is changed if it raises.

        Args:
            coro: The coroutine.
            record: What `take_record` gave; None: nothing goes with it.
        """

    def take_function(self, function: Callable[..., Any]) -> Any:
        """Turn what `map` calls into what `Link.schedule_many` takes."""

    def take_arguments(self, args: tuple[Any, ...]) -> Any:
        """Turn the arguments of one call into what `Link.schedule_many` takes."""

    def take_plain(self, calls: list[tuple[Any, ...]]) -> list[Any] | None:
        """Turn those of many calls at once, if they need no care; None: take them singly."""


class LinkStats(NamedTuple):
    """What a link alone knows of its worker.

    Attributes:
        state: What the process there is doing.
        avoided: Whether new tasks are better sent elsewhere.
        pid: Of the process; None if there is none.
        running: Tasks that have started and not ended.
        counts: What has been counted there, by the names of `stats.COUNTS`.
        history: What the processes there have told of lateness.
        node: The machine that the process is on, if it is not this one.
        usage: What the process takes, CPU in per cent of a core and resident bytes, as that machine
            measures it; None: it is one of this machine, which is measured here.
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
    """Schedulers of one worker, or of this loop, numbered from 0."""

    @property
    def shipper(self) -> Shipper: ...

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to work in the running loop. What is scheduled earlier waits."""

    async def ready(self) -> None:
        """Return when tasks can run there.

        Raises:
            WorkerStartError: They never will.
        """

    def schedule(self, scheduler: int, due: int, when: datetime | int, call: Any) -> Task[Any]:
        """Accept a task.

        Args:
            scheduler: Where.
            due: Nanoseconds since the epoch.
            when: What the handle shows as its priority: a datetime, or `due`, or 0 in a queue.
            call: What `Shipper.take` gave.
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
        """Accept calls of one function, and return the number of the first; others follow on it.

        Args:
            outcomes: Told how they end.
            offset: The index there of the first.
            scheduler: Where.
            dues: Their due times in nanoseconds since the epoch, or one for all.
            function: What `take_function` gave.
            calls: What `take_arguments` gave; at most `room()`.
            record: Of all of them, as for `take`.
        """

    def room(self) -> int:
        """How many calls `schedule_many` takes at a time; at least one."""

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Return a handle on a task that has not ended, else None."""

    def withdraw(self, scheduler: int, number: int) -> bool:
        """Ask that a task end before it begins; False if it is known that it has, or has ended.

        Unlike a cancellation it never touches what has begun: a start on its way wins.
        """

    def detach(self, scheduler: int, number: int) -> Task[Any] | None:
        """Take the handle from a task that has one; its end is told to nobody."""

    def attach(self, task: Task[Any], scheduler: int, number: int) -> None:
        """Make a handle that of another task, of which nobody has one."""

    def attach_part(self, part: Part) -> None:
        """Have a batch be told the end of a task of which nobody has a handle."""

    def scheduler_of(self, number: int) -> int | None:
        """Return the scheduler of a task; None: it has ended."""

    def dispossess(self, scheduler: int, number: int) -> None:
        """Withdraw a task whose id another takes; what has begun goes on without it."""

    def infos(self, wanted: Wanted) -> Iterator[list[TaskInfo]]:
        """Yield what is known of the tasks that have not ended, some hundred at a time.

        Each is told of as it is when its list is made; what comes meanwhile may be left out.
        """

    async def flush(self) -> None:
        """Return when little enough waits to be sent."""

    def look_after(self, lag: float) -> None:
        """Is called once a tick, and told how late the host's loop was, in seconds."""

    def stats(self) -> LinkStats:
        """Return what `Manager.stats()` needs to know; may be called from any thread."""

    def kill(self, reason: Exception) -> None:
        """End every task as lost: the manager has failed, for this reason."""

    async def close(self, timeout: float | None) -> None:
        """Cancel what waits; let what runs finish for `timeout` seconds, then end it."""

    def adopt(self, scheduler: int, due: int, call: Any, alias: int | None) -> int:
        """Accept a task of which nobody has a handle.

        Args:
            scheduler: Where.
            due: Nanoseconds since the epoch.
            call: What there is to do.
            alias: A number that it was given already, by which references know it; None: it was
                not.

        Returns:
            The number that it has here.
        """

    def adopt_many(
        self, scheduler: int, dues: list[int], function: Any, calls: list[Any], record: Any
    ) -> int:
        """Accept calls of one function of which nobody has a handle; see `schedule_many`."""
