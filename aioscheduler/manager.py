"""The front: takes tasks in one event loop and has them run on every core.

schedule(work(1), when)
    │ due time, limits          (clock, here)
    │ place                     (placement)
    │ cargo: function + bytes   (shipping)
    ▼
  link to a worker ═══════════ frames over pipes ═══════════► schedulers in a process
  or to this loop (workers=0)
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing.connection
import multiprocessing.util
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from .clock import to_ns
from .coroutines import close_unstarted
from .engine import Order
from .errors import ManagerClosed, TaskLimitReached, WorkerStartError
from .link import Link
from .local import LocalLink
from .pipe import abandon
from .placement import Placement
from .process import WorkerProcess
from .remote import RemoteLink
from .scheduler import (
    LifoQueuedScheduler,
    QueuedScheduler,
    TimedScheduler,
    check_count,
    running_loop,
)
from .shipping import Shipper
from .task import Task

T = TypeVar("T")

TIMED_PER_WORKER = 4
EXIT_GRACE = 1.0  # seconds workers have to end when the host ends without close()


class Manager:
    """Runs coroutines on the schedulers of several worker processes.

    Call it from one event loop only. It is 1.4.2's manager with the cores of the machine: what
    is scheduled runs in another process, on copies of its arguments.

    Args:
        schedulers: How many schedulers in all, spread evenly over the workers. By default four
            per worker for `TimedScheduler`; for the queues one, or one per worker if `workers`
            is given.
        max_tasks: How many tasks may wait to start, in all; None for no limit.
        cls: `TimedScheduler`, `QueuedScheduler` or `LifoQueuedScheduler`.
        *args: For `cls`; its `max_tasks` holds for each scheduler.
        workers: How many processes; by default one per usable core, at most `schedulers`. 0
            runs everything in the calling process and loop, which is all there is on Windows.
        initializer: A function, or async function, called once in each worker before any task.
        initargs: Its arguments.
        loop_initializer: Makes the event loop of each worker, as `uvloop.new_event_loop` does.
        **kwargs: For `cls`.

    Raises:
        TypeError: A count is no int, or `cls` none of the three.
        ValueError: A count is out of range, or there are more workers than schedulers.
        NotShippable: The initializer or one of its arguments cannot travel.
    """

    def __init__(
        self,
        schedulers: int | None = None,
        max_tasks: int | None = None,
        cls: type[TimedScheduler] | type[QueuedScheduler] = TimedScheduler,
        *args: Any,
        workers: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Sequence[Any] = (),
        loop_initializer: Callable[[], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if cls not in (TimedScheduler, QueuedScheduler, LifoQueuedScheduler):
            raise TypeError(
                f"cls must be TimedScheduler, QueuedScheduler or LifoQueuedScheduler, not {cls!r}"
            )
        if max_tasks is not None:
            check_count("max_tasks", max_tasks, 1)
        model = cls(*args, **kwargs)  # refuses wrong arguments, and reads the right ones
        layout, local = _lay_out(cls.order, schedulers, workers)
        self._timed = cls.order is Order.TIMED
        self._prefer_utc = model.prefer_utc
        self._max_tasks = max_tasks
        self._max_each = model.max_tasks
        self._placement = Placement(layout, by_worker=self._timed)
        self._id = secrets.token_hex(4)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._cause: Exception | None = None
        self._ready_awaited = False
        self._closing: asyncio.Task[None] | None = None
        self._joiners: list[asyncio.Future[None]] = []
        self._finalizer: multiprocessing.util.Finalize | None = None
        self._links: list[Link]
        self._remotes: list[RemoteLink] = []
        if local:
            if loop_initializer is not None:
                raise ValueError("loop_initializer is for worker processes; workers=0 has none")
            boot = (initializer, tuple(initargs)) if initializer is not None else None
            self._links = [LocalLink(cls.order, layout[0], self, manager=self._id, boot=boot)]
        else:
            shipper = Shipper()
            call = None
            if initializer is not None:
                call = shipper.take_call(initializer, tuple(initargs))
            self._remotes = [
                RemoteLink(
                    worker,
                    cls.order,
                    count,
                    shipper,
                    self,
                    self._id,
                    call,
                    loop_initializer,
                    self._worker_lost,
                )
                for worker, count in enumerate(layout)
            ]
            self._links = list(self._remotes)
        self._take = self._links[0].take

    # ---- life

    def start(self) -> None:
        """Starts the workers and returns at once; what is scheduled meanwhile waits.

        Raises:
            RuntimeError: It was started before, or no event loop is running.
            ManagerClosed: It was closed.
            WorkerStartError: The system has no room for another process.
        """
        if self._closed:
            raise self._refusal()
        if self._loop is not None:
            raise RuntimeError("this manager was started already; start() is called once")
        loop = self._loop = running_loop("start()")
        try:
            for link in self._links:
                link.start(loop)
        except OSError as error:
            reason = WorkerStartError(f"a worker process could not be started: {error}")
            self._break(reason)
            raise reason from error
        finally:
            self._guard_exit()

    async def ready(self) -> None:
        """Returns when every worker answers.

        Raises:
            WorkerStartError: One of them could not begin; the manager is closed then.
            RuntimeError: It was not started.
        """
        if self._loop is None:
            raise RuntimeError("start() comes before ready()")
        self._ready_awaited = True
        try:
            await asyncio.gather(*(link.ready() for link in self._links))
        except WorkerStartError:
            await self.close(0)
            raise

    async def close(self, timeout: float = 10.0) -> None:
        """Stops for good, and leaves no process behind. May be called again.

        Pending tasks are cancelled. Running ones may finish.

        Args:
            timeout: Seconds, 0 or more, after which running tasks are cancelled; what then
                still runs half a second later is killed and ends as `WorkerLost`.
        """
        if not isinstance(timeout, int | float) or isinstance(timeout, bool):
            raise TypeError(f"timeout must be seconds, not {type(timeout).__name__}")
        if not timeout >= 0 or math.isinf(timeout):
            raise ValueError(f"timeout must be 0 seconds or more, and finite, not {timeout}")
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(timeout))
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        self.start()
        await self.ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self.close(0)

    # ---- tasks

    def schedule(
        self,
        coro: Awaitable[T],
        when: datetime | timedelta | None = None,
        *,
        key: str | bytes | int | None = None,
    ) -> Task[T]:
        """Has a coroutine run in one of the workers.

        Args:
            coro: A coroutine that has not started. Its function and arguments are taken from
                it, here and now, and it is closed; the worker makes it anew.
            when: A datetime (a naive one is UTC, or local with `prefer_utc=False`) or a
                timedelta from now; None is at once. Queues take none.
            key: Tasks of the same key go to the same scheduler of the same worker.

        Returns:
            A handle, which may be dropped.

        Raises:
            NotShippable: The coroutine, or something it needs, cannot travel.
            ValueError: The time has passed.
            TypeError: `when` or `key` is of a wrong type, or `when` was given to a queue.
            TaskLimitReached: `max_tasks` tasks are waiting.
            ManagerClosed: The manager was closed, or has failed.
        """
        try:
            if self._closed:
                raise self._refusal()
            due = 0
            if self._timed:
                due = time.time_ns()
                if when is not None:
                    due = to_ns(when, due, self._prefer_utc)
            elif when is not None:
                raise TypeError("a queue runs tasks in turn and takes no time: leave out when")
            place = self._place(key)
            cargo = self._take(coro)
        except BaseException:
            close_unstarted(coro)
            raise
        placement = self._placement
        placement.added(place)
        shown = when if isinstance(when, datetime) else due
        link = self._links[placement.worker_of[place]]
        return link.schedule(placement.scheduler_of[place], due, shown, cargo)

    def cancel(self, task: Task[Any]) -> bool:
        """Asks for a task's cancellation; False if it has ended or belongs to somebody else.

        A pending task never starts; inside a running one `CancelledError` is raised. The handle
        ends when the worker has confirmed it.
        """
        if not isinstance(task, Task):
            raise TypeError(f"cancel() takes what schedule() gave, not {type(task).__name__}")
        return task._home in self._links and task.cancel()

    async def flush(self) -> None:
        """Returns when little enough waits to be sent to the workers: call it in long loops."""
        await asyncio.sleep(0)
        for link in self._links:
            await link.flush()

    async def join(self) -> None:
        """Returns when every accepted task has ended."""
        while self._placement.all_loads:
            joiner = running_loop("join()").create_future()
            self._joiners.append(joiner)
            await joiner

    def __len__(self) -> int:
        """How many tasks wait to start."""
        return self._placement.all_waiting

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._loop else "not started"
        return f"<Manager {self._id} {state}, {len(self)} tasks waiting>"

    # ---- what links tell (link.Tally)

    def started(self, worker: int, scheduler: int, count: int) -> None:
        self._placement.started(worker, scheduler, count)

    def ended(self, worker: int, scheduler: int, count: int) -> None:
        self._placement.ended(worker, scheduler, count)
        if self._joiners and not self._placement.all_loads:
            self._wake_joiners()

    def emptied(self, worker: int) -> None:
        self._placement.emptied(worker)
        if not self._placement.all_loads:
            self._wake_joiners()

    # ---- inside

    def _place(self, key: str | bytes | int | None) -> int:
        placement, each = self._placement, self._max_each
        if self._max_tasks is not None and placement.all_waiting >= self._max_tasks:
            raise TaskLimitReached(
                f"max_tasks={self._max_tasks} tasks are waiting already; "
                "wait for some to start, or raise the limit"
            )
        place = placement.choose() if key is None else placement.choose_by_key(key)
        if each is not None and placement.waiting[place] >= each:
            if key is None:
                place = placement.waiting.index(min(placement.waiting))
            if placement.waiting[place] >= each:
                raise TaskLimitReached(
                    f"the scheduler has max_tasks={each} tasks waiting already; "
                    "wait for some to start, or raise the limit"
                )
        return place

    def _wake_joiners(self) -> None:
        joiners, self._joiners = self._joiners, []
        for joiner in joiners:
            if not joiner.done():
                joiner.set_result(None)

    def _refusal(self) -> ManagerClosed:
        if self._cause is None:
            return ManagerClosed("this manager was closed; make a new one")
        refusal = ManagerClosed(f"this manager has failed: {self._cause}")
        refusal.__cause__ = self._cause
        return refusal

    async def _close(self, timeout: float) -> None:
        await asyncio.gather(*(link.close(timeout) for link in self._links))
        self._wake_joiners()
        if self._finalizer is not None:
            self._finalizer.cancel()

    def _worker_lost(self, link: RemoteLink, reason: Exception) -> None:
        self._break(reason)

    def _break(self, reason: Exception) -> None:
        """Fails everything, loudly."""
        if self._cause is not None or self._loop is None:
            return
        self._closed, self._cause = True, reason
        unfinished = self._placement.all_loads
        for link in self._remotes:
            link.kill()
        if not (self._ready_awaited and isinstance(reason, WorkerStartError)):
            self._loop.call_exception_handler(
                {
                    "message": f"{self!r} has failed, and its {unfinished} unfinished tasks "
                    "with it; make a new one",
                    "exception": reason,
                }
            )

    def _guard_exit(self) -> None:
        """Has the workers ended with the interpreter, or with this object, without close()."""
        processes = [link.process for link in self._remotes if link.process is not None]
        if processes:
            self._finalizer = multiprocessing.util.Finalize(
                self,
                _end_workers,
                args=(processes, [link.pipe.descriptors for link in self._remotes]),
                exitpriority=10,  # before multiprocessing waits for its children
            )


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _lay_out(order: Order, schedulers: int | None, workers: int | None) -> tuple[list[int], bool]:
    """Gives the number of schedulers of each worker, and whether that is this process."""
    if schedulers is not None:
        check_count("schedulers", schedulers, 1)
    if workers is not None:
        check_count("workers", workers, 0)
    if sys.platform == "win32":
        if workers:
            raise ValueError("worker processes do not run on Windows; use workers=0")
        workers = 0
    local = workers == 0
    if order is not Order.TIMED and schedulers is None:
        schedulers = workers or 1
    if workers is None:
        workers = usable_cores() if schedulers is None else min(usable_cores(), schedulers)
    workers = workers or 1
    if schedulers is None:
        schedulers = TIMED_PER_WORKER * workers
    if workers > schedulers:
        raise ValueError(
            f"workers={workers} is more than schedulers={schedulers}: each worker needs one"
        )
    each, more = divmod(schedulers, workers)
    return [each + (worker < more) for worker in range(workers)], local


def _end_workers(processes: list[WorkerProcess], descriptors: list[list[int]]) -> None:
    """Ends workers whose manager is gone; no loop runs any more, so this may block, briefly."""
    for pair in descriptors:
        abandon(pair)  # which a worker reads as the end
    deadline = time.monotonic() + EXIT_GRACE
    for process in processes:
        with contextlib.suppress(ValueError):  # it was closed: it has ended
            multiprocessing.connection.wait(
                [process.sentinel], timeout=max(0.0, deadline - time.monotonic())
            )
            process.kill()
            process.aio_process.join()
