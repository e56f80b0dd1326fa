"""The public front: everything users call.

Manager ─► Router ─► link ═══════════ frames over pipes ═══════════► schedulers in a process
   │          └────► or a link to schedulers in this loop (workers=0)
   └─────► Fleet: start, ready, close; a worker that cannot start or is lost

Nothing is decided here: a docstring defines what a call means, and the code below it does it.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import secrets
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NoReturn,
    Self,
    TypeGuard,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from ._durable.records import Store
from ._monitoring.statscollector import StatsCollector
from ._monitoring.statsserver import StatsServer
from ._monitoring.statsserver import wanted as monitoring_wanted
from ._routing.admission import Admission
from ._routing.assembly import Seams
from ._routing.fleet import Fleet
from ._routing.keeper import Keeper
from ._routing.layout import Engine, check_count
from ._routing.placement import Placement
from ._routing.router import Router
from ._routing.settings import ManagerOptions, Settings, read_settings
from ._routing.submission import submit
from ._scheduling.coroutines import close_unstarted
from ._scheduling.loopthread import LoopThread
from ._scheduling.order import Order
from ._shipping.propagation import ContextItem
from .batch import Batch
from .deadletters import (
    DeadLetter,
    discard_letters,
    find_letter,
    list_letters,
    read_before,
    read_limit,
    read_reason,
)
from .errors import ManagerClosed, NotShippable, StoreError, UnknownTask, WorkerStartError
from .inspection import TaskInfo, list_tasks, read_wanted
from .options import TaskOptions
from .repeat import Repeat
from .rules import Rule
from .scheduler import QueuedScheduler, TimedScheduler, make_model, running_loop
from .stats import ManagerStats
from .task import State, Task, TaskRef

__all__ = ["Manager", "ManagerOptions", "When"]

A = TypeVar("A")
T = TypeVar("T")

if TYPE_CHECKING:
    import typing_extensions  # for type checkers: `typing` has defaults from Python 3.13

    from ._outpost.engine import Engine as OutpostEngine

    # Covariant, although it is a parameter of `schedule`: a function that accepts any manager also
    # accepts a manager of queues, which refuses a time at runtime.
    When = typing_extensions.TypeVar(  # noqa: PLC0105  users read it
        "When",
        bound=datetime | timedelta | None,
        covariant=True,
        default=datetime | timedelta | None,
    )
else:
    When = TypeVar("When")


class Manager(Generic[When]):
    """Schedules coroutines on worker processes, by default one per usable core.

    Tasks run in other processes than the caller's, on copies of their arguments.

    `async with` starts the manager, waits until it is ready, and closes it at the end; on an
    exception it cancels running tasks at once. It is not thread-safe: call its methods in the
    thread of its event loop, except `stats` and `schedule_threadsafe`.

    Args:
        schedulers: The total number of schedulers, 1 or more, spread evenly over the workers. By
            default four per worker for `TimedScheduler`; for the queues one, or one per worker
            if `workers` is given.
        max_tasks: The total number of tasks that may wait to start, 1 or more; None for no limit.
            Tasks scheduled by tasks are not limited by it.
        cls: `TimedScheduler`, `QueuedScheduler` or `LifoQueuedScheduler`. A manager of queues is a
            `Manager[None]` to type checkers, and accepts no `when`.
        *args: Passed to `cls`; its `max_tasks` applies to each scheduler.
        workers: The number of processes; by default one per usable core, at most `schedulers`. 0
            runs everything in the calling process and loop, the only choice on Windows.
        initializer: A function, or async function, called once in each worker before any task.
            If it returns an async context manager, that is entered before any task, and left
            after the last one when the worker shuts down in order.
        initargs: The arguments of `initializer`.
        loop_initializer: A function that makes the event loop of each worker, such as
            `uvloop.new_event_loop`; not with `workers=0`.
        on_worker_loss: The fate of tasks that had started when their worker died: with "fail"
            they end as `WorkerLost`, with "rerun" they run again. Tasks that had not started
            run in any case, in the worker's replacement.
        max_restarts: How many workers may be replaced, in how many seconds; one more, and the
            manager fails. With (0, 1.0) it fails at the first death.
        monitor: Whether `aioscheduler top` may watch the manager, on a socket that only this user
            can open. The environment variable AIOSCHEDULER_MONITOR=1 enables it for all managers.
        name: The manager's name in `ps`, `aioscheduler top`, metrics and messages; by default its
            id. Names need not be unique.
        max_running: The number of tasks that may run at a time on each scheduler, 1 or more; None
            for no limit. Due tasks beyond it stay pending, in the order of their due times. Not
            for queues, which run one task at a time.
        context: Context variables whose values travel with each task: captured when it is
            scheduled, set in each of its attempts, and captured again for tasks that it schedules.
            Each is a `ContextVar` that is a global of a module (or of `__main__`), or a pair of
            functions `(capture, restore)`: `capture()` returns a value that can travel, and
            `restore(value)` sets it, in the task's own context only. What `capture` raises is
            raised by `schedule`; what `restore` raises is the task's failure. The rest of a task's
            context is that of the worker's initializer; with `workers=0`, that of `schedule()`.
        max_tasks_per_worker: The number of tasks, 1 or more, after which a worker's process is
            recycled: it starts no more tasks, has 10 s to finish those that run, and is replaced,
            without counting towards `max_restarts`. A manager recycles one worker at a time.
        max_rss_per_worker: The resident memory in bytes, 1 or more, above which a worker's process
            is recycled. It is checked once a second.
        block_timeout: Seconds (a number over 0, or a timedelta) for which a task may block its
            worker's loop without awaiting. After that the process is ended, which counts towards
            `max_restarts`, and the task ends as `WorkerLost`, whatever `on_worker_loss` is. A task
            that holds the GIL meanwhile, as some C code does, goes unnoticed. By default blocking
            is only reported.
        forward_logs: Whether log records of workers are handled by the logging of this process,
            with the worker's process name in `record.processName`. Records beyond what it can
            handle are dropped and counted (`WorkerStats.logs_dropped`). Loggers in a worker have
            the levels that those here have when its process is started.
        store: The file that keeps the tasks of `@durable` functions until they have ended: a path,
            or a `SQLiteStore`. It outlives this process, and one manager uses it at a time. All
            other tasks are kept in memory only. Not for a `LifoQueuedScheduler`.
        engine: Where the workers run, if not on this machine: an `aioscheduler.ray.RayEngine`. It
            determines how many there are, as if `workers` had been given.
        **kwargs: Passed to `cls`.

    Raises:
        TypeError: A count is no int, a flag no bool, `cls` none of the three, the initializer not
            callable or a generator function, or an item of `context` neither variable nor pair.
        ValueError: A count or a choice is out of range; there are more workers than schedulers;
            `max_running` is given for queues, or an option of worker processes with `workers=0`;
            or `workers` differs from the number of workers of `engine`.
        NotShippable: The initializer, one of its arguments, or an item of `context` cannot travel.
    """

    @overload
    def __init__(
        self: Manager[datetime | timedelta | None],
        schedulers: int | None = ...,
        max_tasks: int | None = ...,
        cls: type[TimedScheduler] = ...,
        *args: int | None,
        prefer_utc: bool = ...,
        **options: Unpack[ManagerOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Manager[None],
        schedulers: int | None,
        max_tasks: int | None,
        cls: type[QueuedScheduler],
        *args: int | None,
        **options: Unpack[ManagerOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Manager[None],
        schedulers: int | None = ...,
        max_tasks: int | None = ...,
        *,
        cls: type[QueuedScheduler],
        **options: Unpack[ManagerOptions],
    ) -> None: ...
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
        on_worker_loss: Literal["fail", "rerun"] = "fail",
        max_restarts: tuple[int, float] = (5, 30.0),
        monitor: bool = False,
        name: str | None = None,
        max_running: int | None = None,
        context: Sequence[ContextItem] = (),
        max_tasks_per_worker: int | None = None,
        max_rss_per_worker: int | None = None,
        block_timeout: float | timedelta | None = None,
        forward_logs: bool = False,
        store: str | os.PathLike[str] | Store | None = None,
        engine: Engine | None = None,
        **kwargs: Any,
    ) -> None:
        seams: Seams | None = kwargs.pop("_seams", None)  # private: not in the signature
        if max_tasks is not None:
            check_count("max_tasks", max_tasks, 1)
        model = make_model(cls, args, kwargs)
        options = ManagerOptions(
            workers=workers,
            initializer=initializer,
            initargs=initargs,
            loop_initializer=loop_initializer,
            on_worker_loss=on_worker_loss,
            max_restarts=max_restarts,
            monitor=monitor,
            name=name,
            max_running=max_running,
            context=context,
            max_tasks_per_worker=max_tasks_per_worker,
            max_rss_per_worker=max_rss_per_worker,
            block_timeout=block_timeout,
            forward_logs=forward_logs,
            store=store,
            engine=engine,
        )
        settings = read_settings(model.order, model.prefer_utc, schedulers, options)
        self._id = secrets.token_hex(4)
        self._name = settings.name or self._id
        if seams is None:
            seams = _make_seams(settings, self._id)
        by_worker = model.order is Order.TIMED
        placement = Placement(settings.layout, by_worker, max_tasks, model.max_tasks)
        self._loop_thread = LoopThread("manager")
        self._router = Router(
            self._id,
            model.order,
            model.prefer_utc,
            placement,
            self._loop_thread,
            settings.propagation,
            seams.clock,
        )
        self._fleet = Fleet(self, self._id, settings, seams, self._router, self._unwatch)
        self._remotes = self._fleet.remotes  # whose processes `FakeManager` can end
        self._stats_collector = StatsCollector(
            self._id,
            self._name,
            self._router.links,
            placement,
            self._fleet.host,
            self._fleet.repeats,
            self._fleet.keeper,
        )
        self._stats_server: StatsServer | None = None
        if settings.monitor or monitoring_wanted():
            self._stats_server = StatsServer(self._id, self.stats, self._fleet.repeats.shown)

    # ---- life

    def start(self) -> None:
        """Start the workers and return at once; tasks scheduled meanwhile wait.

        Raises:
            RuntimeError: The manager was started before, or no event loop is running.
            ManagerClosed: The manager was closed.
            WorkerStartError: A process cannot be started: the system has no room for another, the
                `loop_initializer` cannot travel, or this process may have no children. The
                manager has failed then.
        """
        if self._loop_thread.loop is not None:
            self._loop_thread.check()
        self._router.check_open()
        if self._loop_thread.loop is not None:
            raise RuntimeError("this manager was started already; start() is called once")
        loop = running_loop("start()")
        self._loop_thread.enter(loop)
        self._fleet.start(loop)
        if self._stats_server is not None:
            self._stats_server.start(loop)

    async def ready(self) -> None:
        """Wait until every worker is ready.

        Raises:
            WorkerStartError: A worker could not start; the manager is closed then.
            StoreError: The store cannot be opened, or another host has it; the manager is closed
                then, no worker was started, and the file is unchanged.
            ManagerClosed: The manager was closed or has failed.
            RuntimeError: The manager was not started, or this is another thread or loop than its
                own.
        """
        self._loop_thread.check_inside("await manager.ready()")
        if self._loop_thread.loop is None:
            raise RuntimeError("start() comes before ready()")
        try:
            await self._fleet.ready()
        except (WorkerStartError, StoreError):
            await self.close(0)
            raise
        self._router.check_open()

    async def close(self, timeout: float = 10.0) -> None:
        """Stop for good, and leave no process behind. May be called again.

        Pending tasks are cancelled, except durable ones: on a manager with a store they stay in
        its file for the next host, and their handles end as `State.KEPT`. Running tasks may
        finish. Of several calls, the timeout of the first applies. If the manager's loop has
        already ended, the workers are ended here, at once, and tasks that had not ended are lost;
        those in the store are left as if the host had been killed.

        Args:
            timeout: Seconds, 0 or more, after which running tasks are cancelled. They have 0.4 s
                to clean up, and are then cancelled once more; those that still run half a second
                after the timeout are killed and end as `WorkerLost`. Durable ones that run then
                stay in the store and start again with the next host, or, with `on_loss="fail"`,
                become dead letters.

        Raises:
            TypeError: `timeout` is no number.
            ValueError: `timeout` is less than 0, or not finite.
            RuntimeError: The manager's loop runs in another thread, or the manager was started
                before this process was forked.
        """
        if not isinstance(timeout, int | float) or isinstance(timeout, bool):
            raise TypeError(f"timeout must be seconds, not {type(timeout).__name__}")
        if not timeout >= 0 or math.isinf(timeout):
            raise ValueError(f"timeout must be 0 seconds or more, and finite, not {timeout}")
        loop = self._loop_thread.loop
        if loop is not None and asyncio.get_running_loop() is not loop:
            if self._loop_thread.left_behind or not loop.is_closed():
                self._loop_thread.check()
            self._fleet.end_without_loop()
            return
        if self._router.closed is None:
            self._router.closed = ManagerClosed("this manager was closed; make a new one")
        await self._fleet.close(timeout)

    async def __aenter__(self) -> Self:
        self.start()
        try:
            await self.ready()
        except BaseException:
            await self.close(0)
            raise
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
        when: When | None = None,
        *,
        key: str | bytes | int | None = None,
        id: str | None = None,  # noqa: A002  the word for it
        replace: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Task[T]:
        """Schedule a coroutine to run in one of the workers.

        Args:
            coro: A coroutine that has not started. Its function and arguments are taken from it
                immediately, and it is closed; the worker recreates it. With `workers=0` it is run
                itself, and may be another awaitable.
            when: A datetime (a naive one is UTC, or local with `prefer_utc=False`), a timedelta
                from now, or None for at once. Queues accept only None.
            key: Tasks with the same key go to the same scheduler of the same worker. By default
                a task goes to the worker, or queue, with the fewest tasks that have not ended.
            id: Unique among the tasks of this manager that have not ended. If a task has it
                already, that task's handle is returned, and the new coroutine is closed. The id
                is free again when its task has ended, or was cancelled before its start.
            replace: Whether the task that has the id passes it to the new one. If that task waits,
                for its start or its next attempt, it ends cancelled; if it has begun, it goes on
                without the id.
            **options: `name`, `timeout`, `max_lateness`, `retry`; see `options.TaskOptions`. For a
                durable function, all but `name` are set by `@durable`.

        Returns:
            A handle, which may be dropped.

        Raises:
            NotShippable: The coroutine, something it needs, or a value of `context` cannot travel.
            NotDurable: On a manager with a store: the next host could not read an argument of a
                durable function, or the function wraps a durable one. It is a `NotShippable`.
            StoreError: The store cannot be written at present, and too much is unsaved already.
            BaseException: Whatever a `capture` of `context` raises, with a note.
            ValueError: The time has passed, an option is invalid, or `replace` is True without an
                id.
            TypeError: `coro` is no coroutine, or has started; `when`, `key` or an option has the
                wrong type; `when` or `max_lateness` was given for a queue; or `timeout`, `retry`
                or `max_lateness` for a durable function.
            TaskLimitReached: `max_tasks` tasks are waiting, in all or on the scheduler.
            ManagerClosed: The manager was closed or has failed.
            RuntimeError: Called from a thread other than the manager's.
        """
        if id is None and replace is False:
            return self._router.schedule(coro, when, key, options)
        return self._router.schedule_once(coro, when, key, options, id, replace)

    def schedule_threadsafe(
        self,
        coro: Awaitable[T],
        when: When | None = None,
        *,
        key: str | bytes | int | None = None,
        id: str | None = None,  # noqa: A002  the word for it
        replace: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Future[T]:
        """Schedule a coroutine from any thread, such as a plain `def` endpoint of FastAPI.

        The coroutine is taken apart later, in the manager's loop: do not change its arguments
        after this call. In the loop's own thread use `schedule`: waiting for this future there
        would block the loop.

        Args:
            coro: As for `schedule`.
            when: As for `schedule`.
            key: As for `schedule`.
            id: As for `schedule`.
            replace: As for `schedule`.
            **options: As for `schedule`.

        Returns:
            A future with the task's result or failure. An error that `schedule` would raise is
            its exception. Cancelling it cancels the task for all who have its handle or a future
            of it, including callers that gave the same id.

        Raises:
            ManagerClosed: The manager was closed or has failed, or its loop has ended.
            RuntimeError: The manager was not started.
            BaseException: A `capture` of `context` raised it in this thread, and it is no
                `Exception`: a KeyboardInterrupt, for example.
        """
        schedule: Callable[..., Task[T]] = partial(
            self._router.schedule, when=when, key=key, options=options
        )
        if id is not None or replace is not False:
            schedule = partial(
                self._router.schedule_once,
                when=when,
                key=key,
                options=options,
                id_=id,
                replace=replace,
            )
        return self._fleet.abroad.schedule(coro, schedule, options.get("name"))

    @overload
    def map(
        self,
        func: Callable[[A], Coroutine[Any, Any, T]],
        iterable: Iterable[A],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[TaskOptions],
    ) -> Batch[T]: ...
    @overload
    def map(
        self,
        func: Callable[[A], T],
        iterable: Iterable[A],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[TaskOptions],
    ) -> Batch[T]: ...
    @overload
    def map(
        self,
        func: Callable[[A], Coroutine[Any, Any, T]],
        iterable: Iterable[A],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
        return_exceptions: bool,
        **options: Unpack[TaskOptions],
    ) -> Batch[T | BaseException]: ...
    @overload
    def map(
        self,
        func: Callable[[A], T],
        iterable: Iterable[A],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
        return_exceptions: bool,
        **options: Unpack[TaskOptions],
    ) -> Batch[T | BaseException]: ...
    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        when: When | Sequence[When | None] | None = None,
        *,
        key: str | bytes | int | None = None,
        return_exceptions: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Batch[Any]:
        """Schedule `func(item)` in the workers for each item.

        This costs a fraction of as many calls of `schedule`. For a long stream, map slices of it
        and `await flush()` between them.

        If an item is refused, the tasks already scheduled by this call are cancelled, and the
        error names the item's index.

        Args:
            func: A plain or async function, or any other callable.
            iterable: The items; consumed at once.
            when: As for `schedule`; one for all, or a sequence with one for each item.
            key: As for `schedule`; one for all.
            return_exceptions: Whether the batch returns failures, `asyncio.CancelledError`
                included, among the results instead of raising them, as `asyncio.gather` does.
            **options: As for `schedule`; they apply to each task.

        Returns:
            A handle on all the tasks, which may be dropped.

        Raises:
            NotShippable: `func`, an item, something they need, or a value of `context` cannot
                travel.
            BaseException: As for `schedule`.
            ValueError: A time has passed, or `when` and the items differ in length.
            TypeError: As for `schedule`; or `func` is not callable, or `return_exceptions` is no
                bool.
            TaskLimitReached: `max_tasks` tasks are waiting, in all or on the scheduler.
            ManagerClosed: The manager was closed or has failed.
            RuntimeError: Called from a thread other than the manager's.
        """
        items = _iterate("map", func, iterable)
        calls = zip(items, strict=True)
        return submit(self._router, func, calls, when, key, options, return_exceptions)

    @overload
    def starmap(
        self,
        func: Callable[..., Coroutine[Any, Any, T]],
        iterable: Iterable[Iterable[Any]],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[TaskOptions],
    ) -> Batch[T]: ...
    @overload
    def starmap(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[TaskOptions],
    ) -> Batch[T]: ...
    @overload
    def starmap(
        self,
        func: Callable[..., Coroutine[Any, Any, T]],
        iterable: Iterable[Iterable[Any]],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
        return_exceptions: bool,
        **options: Unpack[TaskOptions],
    ) -> Batch[T | BaseException]: ...
    @overload
    def starmap(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
        return_exceptions: bool,
        **options: Unpack[TaskOptions],
    ) -> Batch[T | BaseException]: ...
    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        when: When | Sequence[When | None] | None = None,
        *,
        key: str | bytes | int | None = None,
        return_exceptions: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Batch[Any]:
        """Schedule `func(*args)` in the workers for each `args` of the iterable; see `map`."""
        items = _iterate("starmap", func, iterable)
        calls = map(_arguments, itertools.count(), items)
        return submit(self._router, func, calls, when, key, options, return_exceptions, "starmap")

    def task(self, ref: TaskRef) -> Task[Any]:
        """Return the handle of a task that has not ended.

        Raises:
            UnknownTask: The task has ended, or the reference is damaged, another manager's, or no
                longer valid.
            TypeError: `ref` is no reference.
            RuntimeError: Called from a thread other than the manager's.
        """
        self._loop_thread.check()
        link, scheduler, number = self._router.locate(ref)
        task = link.find(scheduler, number)
        if task is None:
            raise UnknownTask(f"{ref} has ended, or never was; keep its handle to ask it later")
        return task

    def cancel(self, task: Task[Any] | TaskRef) -> bool:
        """Request a task's cancellation; return False if it is known to have ended.

        A pending task never starts; inside a running one `CancelledError` is raised. The handle
        ends when the worker has confirmed the cancellation. Another manager's task is left alone,
        and False returned.

        Raises:
            UnknownTask: The reference is damaged, another manager's, or no longer valid.
            TypeError: `task` is neither a handle nor a reference.
            RuntimeError: Called from a thread other than the manager's.
        """
        self._loop_thread.check("manager.cancel, task")
        if isinstance(task, TaskRef):
            link, scheduler, number = self._router.locate(task)
            return link.cancel(scheduler, number)
        return _is_own(self._router, "cancel", task) and task.cancel()

    def reschedule(self, task: Task[Any] | TaskRef, when: datetime | timedelta | None) -> bool:
        """Request another due time for a pending task; it is ordered by the new one.

        Like a cancellation this is a request: a start that is already on its way wins. A requested
        cancellation stays in force.

        Args:
            task: A handle or a reference. Another manager's task is left alone, and False
                returned.
            when: As for `schedule`.

        Returns:
            False if the task is known to have begun, to have ended, or to be about to end.

        Raises:
            ValueError: The time has passed.
            TypeError: `when` is no time, this is a manager of queues, or `task` is neither a
                handle nor a reference.
            UnknownTask: The reference is damaged, another manager's, or no longer valid.
            RuntimeError: Called from a thread other than the manager's.
        """
        self._loop_thread.check("manager.reschedule, task, when")
        if isinstance(task, TaskRef):
            due = self._router.new_due(when)
            link, scheduler, number = self._router.locate(task)
            return link.reschedule(scheduler, number, due)
        return _is_own(self._router, "reschedule", task) and task.reschedule(when)

    async def find(self, id: str) -> Task[Any] | None:  # noqa: A002
        """Return the handle of the task with this id; None if no task has it.

        Raises:
            TypeError: The id is no str.
            StoreError: The store, where the task may be, cannot be read or was closed meanwhile.
            RuntimeError: Awaited in another thread or loop than the manager's.
        """
        self._loop_thread.check_inside("await manager.find(id)")
        if not isinstance(id, str):
            raise TypeError(f"an id is a str, not {type(id).__name__}")
        return await self._router.find(str.__str__(id))  # a subclass's own methods may raise

    def tasks(
        self,
        *,
        name: str | None = None,
        id_prefix: str | None = None,
        state: State | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[TaskInfo]:
        """List the tasks that have not ended: `async for info in manager.tasks(): ...`.

        A task that exists throughout the iteration is listed exactly once; one that comes, goes or
        changes its state meanwhile, at most once. The order is undefined. The loop runs in
        between, so that a million tasks do not block it. Tasks on a damaged page of a store are
        left out, with a log message.

        Args:
            name: Only tasks with exactly this name.
            id_prefix: Only tasks whose id starts with this.
            state: Only tasks in this state, PENDING or RUNNING: all others have ended.
            limit: The maximum number of tasks, 0 or more.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: The limit is less than 0.
            StoreError: The store cannot be read; raised by the iteration.
            RuntimeError: Called from a thread or loop other than the manager's.
        """
        self._loop_thread.check_inside("async for info in manager.tasks()")
        wanted = read_wanted(name, id_prefix, state, limit)
        keeper = self._router.keeper
        shelf = keeper.shelf if keeper is not None and keeper.is_open else None
        return list_tasks(self._router.links, wanted, limit, shelf)

    # ---- repeats

    def repeat(
        self,
        coro: Awaitable[Any],
        rule: Rule,
        *,
        id: str,  # noqa: A002  the word for it
        key: str | bytes | int | None = None,
        missed: Literal["once", "all", "skip"] = "once",
        overlap: Literal["skip", "queue", "allow"] = "skip",
        jitter: float | timedelta = 0.0,
        until: datetime | None = None,
        times: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> Repeat:
        """Run a coroutine at all times of a rule, until the repeat is cancelled.

        The coroutine is taken apart once, and each run is a task of its own, with the same
        arguments. Inside, `current_due()` is the time of the rule, the *nominal* time. A repeat is
        no task: `len` and `join()` count only its runs, each from its due time on, and `max_tasks`
        refuses none of them. With a durable function, on a manager with a store, a repeat is in
        the file and outlives the host; any other is in memory. Call this at each start of the
        program.

        Args:
            coro: As for `schedule`; even with `workers=0`, a coroutine of an async def function.
            rule: `Every`, `Cron`, or an object with `next(after: datetime) -> datetime | None` and
                a `str()` that identifies it. If it raises, or returns no later time, the repeat is
                paused, with the `reason` in its handle. A store keeps an `Every`, and a `Cron` in
                a named time zone; with any other rule a repeat resumes at the next start when this
                is called again.
            id: The id of the repeat; ids of tasks are separate. If a repeat has it already, its
                coroutine and rule are replaced, and its handle is returned. With an unchanged rule
                (by its text) its next time is kept, passed or not; with another, it counts from
                now.
            key: As for `schedule`.
            missed: How to treat nominal times that passed, by more than 10 s and `jitter`, while
                no host ran, the machine slept or its clock was set forward: "once" runs once for
                the latest of them, "all" once for each, one after another, "skip" not at all. A
                manager that is merely busy is late, and misses nothing.
            overlap: How to treat a nominal time at which the previous run has not ended, its
                further attempts included: "skip" omits it, "queue" makes it wait for its turn,
                "allow" runs it at the same time.
            jitter: Seconds, 0 or more, or a timedelta: each run is due later by up to this much,
                by a hash of id and time that is the same at each start.
            until: The last possible nominal time, an aware datetime.
            times: The number of runs, 1 or more.
            **options: As for `schedule`. `max_lateness` counts from the due time of a run, even of
                a missed one: it limits what `missed` makes up for.

        Returns:
            A handle, which may be dropped.

        Raises:
            ValueError: An argument is out of range, or an option is invalid.
            TypeError: An argument has the wrong type, or this is a manager of queues.
            NotShippable: As for `schedule`.
            NotDurable: As for `schedule`.
            StoreError: As for `schedule`.
            BaseException: As for `schedule`.
            ManagerClosed: The manager was closed or has failed.
            RuntimeError: Called from a thread other than the manager's.
        """
        return self._fleet.repeats.repeat(
            *(coro, rule, id, key, missed, overlap, jitter, until, times, options)
        )

    def repeats(self) -> list[Repeat]:
        """Return all repeats in the order of their creation, those with no next time included.

        The repeats in a store are known once `ready()` has returned.

        Raises:
            RuntimeError: Called from a thread other than the manager's.
        """
        self._loop_thread.check("manager.repeats")
        return list(self._fleet.repeats)

    # ---- durable tasks

    async def sync(self) -> None:
        """Wait until all durable tasks scheduled so far are on disk.

        Tasks that have ended are deleted from it. Many concurrent calls cost as much as one.

        Raises:
            StoreError: Some of them can never be written.
            TypeError: The manager has no store.
            RuntimeError: Awaited in another thread or loop than the manager's.
        """
        keeper = _keeper_of(self._router, "await manager.sync()")
        await self._fleet.repeats.ready()
        await keeper.stored(None)

    def dead_letters(
        self, *, reason: str | None = None, limit: int | None = None
    ) -> AsyncIterator[DeadLetter]:
        """List the durable tasks that cannot go on: `async for letter in manager.dead_letters():`.

        Letters on a damaged page are left out, with a log message.

        Args:
            reason: Only letters with this reason; see `DeadLetter`.
            limit: The maximum number of letters, 0 or more.

        Raises:
            TypeError: An argument has the wrong type, or the manager has no store.
            ValueError: There is no such reason, or the limit is less than 0.
            StoreError: The store cannot be read; raised by the iteration.
            RuntimeError: Called from a thread or loop other than the manager's.
        """
        keeper = _keeper_of(self._router, "async for letter in manager.dead_letters()")
        return list_letters(keeper, read_reason(reason), read_limit(limit))

    async def requeue(
        self, letter_or_row: DeadLetter | int, when: datetime | timedelta | None = None
    ) -> Task[Any]:
        """Schedule the task of a dead letter again, with its arguments, key and id, as attempt 1.

        Args:
            letter_or_row: The letter, or its number in the store.
            when: As for `schedule`.

        Returns:
            A handle on the task, which may be dropped.

        Raises:
            ValueError: Another task has the letter's id now, or the time has passed.
            UnknownTask: The dead letter no longer exists.
            TypeError: An argument has the wrong type, or the manager has no store.
            TaskLimitReached: As for `schedule`.
            StoreError: The store cannot be read.
            ManagerClosed: The manager was closed or has failed.
            RuntimeError: Awaited in another thread or loop than the manager's.
        """
        keeper = _keeper_of(self._router, "await manager.requeue(letter)")
        letter = await find_letter(keeper, letter_or_row)
        holder = None if letter.id is None else await self._router.find(letter.id)
        self._router.check_open()
        return Admission(self._router, keeper).requeue(letter, when, holder)

    async def discard(
        self,
        letter_or_row: DeadLetter | int | None = None,
        *,
        reason: str | None = None,
        before: datetime | None = None,
    ) -> int:
        """Delete dead letters for good; without arguments, all of them.

        Args:
            letter_or_row: A letter, or its number in the store; None for all that match the other
                arguments.
            reason: Only letters with this reason.
            before: Only tasks that became dead letters before this time, an aware datetime.

        Returns:
            The number of letters deleted; they are gone from the disk by then.

        Raises:
            UnknownTask: The dead letter no longer exists.
            TypeError: An argument has the wrong type, or the manager has no store.
            ValueError: There is no such reason.
            StoreError: The store cannot be read or written.
            RuntimeError: Awaited in another thread or loop than the manager's.
        """
        keeper = _keeper_of(self._router, "await manager.discard(letter)")
        return await discard_letters(
            keeper, letter_or_row, read_reason(reason), read_before(before)
        )

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the store, as it is now, to a new file while tasks run.

        Nothing else is written meanwhile, for a second or two per 250 MB on a fast disk: tasks go
        on, but `stored()` and `close()` wait, as do tasks with an id or `on_loss="fail"` before
        they begin. If the host is killed meanwhile, tasks that have begun in that time are not
        among those that the next host suspects of having caused it.

        Args:
            path: The path of the copy; no file may exist there.

        Raises:
            StoreError: The copy cannot be written, or the path exists.
            TypeError: The manager has no store.
            RuntimeError: Awaited in another thread or loop than the manager's.
        """
        keeper = _keeper_of(self._router, "await manager.backup(path)")
        await self._fleet.repeats.ready()
        await keeper.backup(os.fspath(path))

    async def flush(self) -> None:
        """Wait until the backlog of tasks to send and to save is short; await this in long loops.

        Raises:
            RuntimeError: Awaited in another thread or loop than the manager's.
        """
        self._loop_thread.check_inside("await manager.flush()")
        await asyncio.sleep(0)
        for link in self._router.links:
            await link.flush()
        if self._router.keeper is not None:
            await self._router.keeper.commits.settle()

    async def join(self) -> None:
        """Wait until every accepted task has ended, those scheduled by tasks included.

        Tasks in the store whose function belongs to a script, and is not defined in this program
        yet, are not counted: it may still be, in the first minute.

        Raises:
            RuntimeError: The manager was not started within a second, or this is awaited in
                another thread or loop than the manager's.
        """
        self._loop_thread.check_inside("await manager.join()")
        await self._router.join()

    def stats(self) -> ManagerStats:
        """Return counts, lateness, CPU and memory of the workers and of this process.

        May be called from any thread, thousands of times a second. Counts are current; the
        lateness that workers push is up to a second old, and psutil's figures up to 0.25 s.
        """
        return self._stats_collector.stats()

    def __len__(self) -> int:
        """Return the number of tasks that wait to start, counted as in `join`."""
        return self._router.placement.all_waiting

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        state = (
            "closed"
            if self._router.closed
            else "running"
            if self._loop_thread.loop
            else "not started"
        )
        return f"<Manager {self._name} {state}, {len(self)} tasks waiting>"

    def __reduce__(self) -> NoReturn:
        # For its own tasks, the catalog replaces a manager with its proxy before pickling it.
        raise NotShippable("a manager travels only to its own tasks, where it is their proxy")

    # ---- inside

    def _unwatch(self) -> None:
        if self._stats_server is not None:
            self._stats_server.close()


def _is_own(router: Router, call: str, task: object) -> TypeGuard[Task[Any]]:
    if not isinstance(task, Task):
        hint = "; for an id: await manager.find(id)" if isinstance(task, str) else ""
        wrong = type(task).__name__
        raise TypeError(f"{call}() takes a Task or a TaskRef, not {wrong}{hint}")
    shelf = None if router.keeper is None else router.keeper.shelf
    return task._home in router.links or task._home is shelf


def _keeper_of(router: Router, call: str) -> Keeper:
    """Return the keeper of the manager's store.

    Raises:
        TypeError: The manager has no store.
        RuntimeError: The manager was not started, or this is another thread or loop.
    """
    router.loop_thread.check_inside(call)
    if router.keeper is None:
        raise TypeError("this manager has no store: make it with Manager(store=...)")
    if router.loop_thread.loop is None:
        raise RuntimeError("the store of this manager is opened by start(): call that first")
    return router.keeper


def _iterate(call: str, func: object, iterable: Iterable[Any]) -> Iterator[Any]:
    try:
        return iter(iterable)
    except TypeError as error:
        close_unstarted(func)  # possibly a coroutine, given instead of a function
        raise TypeError(
            f"{call}() takes a function and an iterable of items, such as a list; {error}"
        ) from error


def _arguments(index: int, args: Iterable[Any]) -> tuple[Any, ...]:
    """Return the arguments of one call of `starmap`."""
    try:
        return tuple(args)
    except TypeError as error:
        raise TypeError(
            f"item {index}: starmap() takes the arguments of each call in a tuple, such as (1,), "
            f"and map() single items; {error}"
        ) from error


def _make_seams(settings: Settings, manager: str) -> Seams:
    """Return the seams that make workers on this machine, or where the engine runs them."""
    if settings.engine is None:
        return Seams()
    from ._outpost.outposts import Outposts  # imported only if there is an engine

    may_run_again = settings.rerun or settings.store is not None
    outposts = Outposts(cast("OutpostEngine", settings.engine), manager, may_run_again)
    return Seams(process_maker=outposts.process_maker, elsewhere=outposts)
