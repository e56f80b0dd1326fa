"""The front: what users call.

Manager ─► Router ─► link ═══════════ frames over pipes ═══════════► schedulers in a process
   │          └────► or a link to schedulers in this loop (workers=0)
   └─────► Fleet: start, ready, close; what happens when a worker cannot begin or is lost

Nothing is decided here: what a call means is said in its docstring, and done where it points to.
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
    import typing_extensions  # of the checker: `typing` has defaults from Python 3.13

    from ._outpost.engine import Engine as OutpostEngine

    # Covariant, though it is what `schedule` takes: a function for any manager may be given one of
    # queues, which refuses a time when it gets one.
    When = typing_extensions.TypeVar(  # noqa: PLC0105  users read it
        "When",
        bound=datetime | timedelta | None,
        covariant=True,
        default=datetime | timedelta | None,
    )
else:
    When = TypeVar("When")


class Manager(Generic[When]):
    """Runs coroutines on the schedulers of several worker processes.

    It is 1.4.2's manager with the cores of the machine: what is scheduled runs in another
    process, on copies of its arguments.

    `async with` starts it and waits until it is ready, and closes it at the end; left by an
    exception, it cancels what runs at once. It is not thread-safe: all is called in the thread
    of its event loop, `stats` excepted.

    Args:
        schedulers: How many schedulers in all, 1 or more, spread evenly over the workers. By
            default four per worker for `TimedScheduler`; for the queues one, or one per worker
            if `workers` is given.
        max_tasks: How many tasks may wait to start, in all, 1 or more; None for no limit. What
            tasks schedule themselves is not limited by it.
        cls: `TimedScheduler`, `QueuedScheduler` or `LifoQueuedScheduler`. A manager of queues is a
            `Manager[None]` to type checkers, and takes no `when`.
        *args: For `cls`; its `max_tasks` holds for each scheduler.
        workers: How many processes; by default one per usable core, at most `schedulers`. 0
            runs everything in the calling process and loop, which is all there is on Windows.
        initializer: A function, or async function, called once in each worker before any task.
            If what it returns is an async context manager, that is entered before any task, and
            left after the last one, when the worker ends in order.
        initargs: Its arguments.
        loop_initializer: Makes the event loop of each worker, as `uvloop.new_event_loop` does;
            not with `workers=0`.
        on_worker_loss: What becomes of tasks that had started when their worker died: with
            "fail" they end as `WorkerLost`, with "rerun" they run again. What had not started
            runs in any case, in the worker's replacement.
        max_restarts: How many workers may be replaced, and in how many seconds; one more, and the
            manager fails. (0, 1.0): the first death is the end.
        monitor: Whether `aioscheduler top` may watch it, on a socket that only this user can
            open. The environment variable AIOSCHEDULER_MONITOR=1 says so for all managers.
        name: What the manager is called in `ps`, `aioscheduler top`, metrics and messages; by
            default by its id. Names need not differ.
        max_running: How many tasks may run at a time on each scheduler, 1 or more; None for no
            limit. What is due beyond it waits, in the order of due times, and is pending. Not for
            queues, which run one at a time.
        context: Context variables whose values go with each task: taken when it is scheduled, set
            in each of its attempts, and taken again by what it schedules. Each is a `ContextVar`
            that a module (or `__main__`) has as a global, or a pair of functions
            `(capture, restore)`: `capture()` returns a value that can travel, `restore(value)`
            sets it, in the task's own context alone; what they raise comes out of `schedule`, or is
            the task's failure. All else a task has from the worker's initializer; with `workers=0`,
            from the whole context of its `schedule()`.
        max_tasks_per_worker: After how many tasks, 1 or more, a worker's process is recycled: it
            starts no more, has 10 s for what runs, and is replaced, outside `max_restarts`. One
            of the manager's at a time.
        max_rss_per_worker: Bytes of resident memory above which it is, 1 or more. It is looked at
            once a second.
        block_timeout: Seconds (a number over 0, or a timedelta) that a task may keep its worker's
            loop busy, with no await in between. Then the process is ended, and counted by
            `max_restarts`: the task ends as `WorkerLost`, whatever `on_worker_loss` says. What
            holds the GIL meanwhile, as some C code does, is not noticed. By default it is only
            reported.
        forward_logs: Whether what workers log is handled by the logging of this process, which
            has their process's name in `record.processName`. Not more than it can take: what is
            dropped is counted (`WorkerStats.logs_dropped`). Workers' loggers have the levels that
            those here have when a process is started.
        store: The file in which the tasks of `@durable` functions are kept until they have ended:
            a path, or a `SQLiteStore`. It outlives this process, and one manager has it at a time.
            All other tasks are in memory alone. Not for a `LifoQueuedScheduler`.
        engine: Where the workers run, if not on this machine: an `aioscheduler.ray.RayEngine`. It
            says how many there are, and counts as `workers` given.
        **kwargs: For `cls`.

    Raises:
        TypeError: A count is no int, a flag no bool, `cls` none of the three, or the initializer
            cannot be called, or is a generator function; or `context` lists something else.
        ValueError: A count or a choice is out of range, there are more workers than schedulers,
            `max_running` is given for queues, or what is for worker processes with `workers=0`; or
            `workers` is not the number that `engine` has.
        NotShippable: The initializer, one of its arguments, or what `context` lists cannot travel.
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
        """Start the workers and return at once; what is scheduled meanwhile waits.

        Raises:
            RuntimeError: It was started before, or no event loop is running.
            ManagerClosed: It was closed.
            WorkerStartError: A process cannot be had: the system has no room for another, the
                loop_initializer cannot travel, or this process may have no children. The manager
                has failed then.
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
        """Return when every worker answers.

        Raises:
            WorkerStartError: One of them could not begin; the manager is closed then.
            StoreError: The store cannot be opened, or another host has it; the manager is closed
                then, no worker was started, and the file is as it was.
            ManagerClosed: It was closed, or has failed.
            RuntimeError: It was not started, or this is another loop or thread.
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

        Pending tasks are cancelled, but for durable ones: on a manager with a store they stay in
        its file for the next host, and their handles end as `State.KEPT`. Running ones may finish.
        Of several calls the timeout of the first holds. When the manager's loop has ended before,
        the workers are ended here, at once, and what had not ended is lost, or, if it is in the
        store, as if the host had been killed.

        Args:
            timeout: Seconds, 0 or more, after which running tasks are cancelled. They have 0.4 s
                to clean up, and are then cancelled once more; what still runs half a second after
                the timeout is killed and ends as `WorkerLost`. Durable ones that run then stay in
                the store, and begin again with the next host, or, with `on_loss="fail"`, are dead
                letters.

        Raises:
            TypeError: `timeout` is no number.
            ValueError: `timeout` is less than 0, or not finite.
            RuntimeError: The manager's loop runs in another thread, or it was started before this
                process was forked.
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
        """Have a coroutine run in one of the workers.

        Args:
            coro: A coroutine that has not started. Its function and arguments are taken from
                it, here and now, and it is closed; the worker makes it anew. With `workers=0`
                it runs itself, and may be another awaitable.
            when: A datetime (a naive one is UTC, or local with `prefer_utc=False`) or a
                timedelta from now; None is at once. Queues take none.
            key: Tasks of the same key go to the same scheduler of the same worker. By default
                a task goes to the worker, or queue, with the fewest that have not ended.
            id: Unique among the tasks of this manager that have not ended. If one has it, its
                handle is returned, and the new coroutine is closed. The id is free again when its
                task has ended, and once it was cancelled before its start.
            replace: The task that has the id gives it to the new one. If it waits, for its start
                or its next attempt, it ends cancelled; what has begun goes on, without the id.
            **options: `name`, `timeout`, `max_lateness`, `retry`; see `options.TaskOptions`. A
                durable function has all but `name` from `@durable`.

        Returns:
            A handle, which may be dropped.

        Raises:
            NotShippable: The coroutine, something it needs, or a value of `context` cannot travel.
            NotDurable: On a manager with a store: the next host could not read an argument of a
                durable function, or the function wraps one. It is a `NotShippable`.
            StoreError: The store cannot be written for now, and too much waits for that.
            BaseException: Whatever a `capture` of `context` raises, with a note.
            ValueError: The time has passed, an option cannot mean anything, or `replace` is True
                without an id.
            TypeError: `coro` is no coroutine, or has started; `when`, `key` or an option is of a
                wrong type; `when` or `max_lateness` was given to a queue; or `timeout`, `retry` or
                `max_lateness` at the call of a durable function.
            TaskLimitReached: `max_tasks` tasks are waiting, in all or on the scheduler.
            ManagerClosed: The manager was closed, or has failed.
            RuntimeError: It is called in another thread than that of the loop.
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

        The coroutine is taken to the manager's loop as it is, and is taken apart there: what it
        was called with must not be changed after this call. In the loop's own thread use
        `schedule`: waiting for this future there would block the loop.

        Args:
            coro: As for `schedule`.
            when: As for `schedule`.
            key: As for `schedule`.
            id: As for `schedule`.
            replace: As for `schedule`.
            **options: As for `schedule`.

        Returns:
            A future with the task's result or failure. What `schedule` would refuse is its
            exception. Cancelling it cancels the task, for all who have its handle or a future of
            it, as those have whose call gave its id.

        Raises:
            ManagerClosed: The manager was closed, or has failed, or its loop has ended.
            RuntimeError: The manager was not started.
            BaseException: What a `capture` of `context` raises in this thread and is no
                `Exception`, such as KeyboardInterrupt.
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
        """Have `func(item)` called in the workers for each item.

        It costs a fraction of as many calls of `schedule`. For a long stream, map slices of it
        and `await flush()` between them.

        If an item is refused, what was sent of this call is cancelled, and the error names the
        item's index.

        Args:
            func: A plain or async function, or any other callable.
            iterable: The items; consumed at once.
            when: As for `schedule`; one for all, or a sequence with one for each item.
            key: As for `schedule`; one for all.
            return_exceptions: Whether the batch gives failures in the place of results, as
                `asyncio.gather` does, instead of raising them; `asyncio.CancelledError`, too.
            **options: As for `schedule`; for each.

        Returns:
            The handle on all of them, which may be dropped.

        Raises:
            NotShippable: `func`, an item, something they need, or a value of `context` cannot
                travel.
            BaseException: As for `schedule`.
            ValueError: A time has passed, or `when` has another length than the items.
            TypeError: As for `schedule`; `func` cannot be called, or `return_exceptions` is no
                bool.
            TaskLimitReached: `max_tasks` tasks are waiting, in all or on the scheduler.
            ManagerClosed: The manager was closed, or has failed.
            RuntimeError: It is called in another thread than that of the loop.
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
        """Have `func(*args)` called in the workers for each `args` of the iterable; see `map`."""
        items = _iterate("starmap", func, iterable)
        calls = map(_arguments, itertools.count(), items)
        return submit(self._router, func, calls, when, key, options, return_exceptions, "starmap")

    def task(self, ref: TaskRef) -> Task[Any]:
        """Return the handle of a task that has not ended.

        Raises:
            UnknownTask: It has ended, or the reference is damaged, another manager's, or leads
                nowhere any more.
            TypeError: `ref` is no reference.
            RuntimeError: It is called in another thread than that of the loop.
        """
        self._loop_thread.check()
        link, scheduler, number = self._router.locate(ref)
        task = link.find(scheduler, number)
        if task is None:
            raise UnknownTask(f"{ref} has ended, or never was; keep its handle to ask it later")
        return task

    def cancel(self, task: Task[Any] | TaskRef) -> bool:
        """Ask for a task's cancellation; False if it is known to have ended.

        A pending task never starts; inside a running one `CancelledError` is raised. The handle
        ends when the worker has confirmed it. Another manager's task is left alone: False.

        Raises:
            UnknownTask: A reference is damaged, another manager's, or leads nowhere any more.
            TypeError: It is neither a handle nor a reference.
            RuntimeError: It is called in another thread than that of the loop.
        """
        self._loop_thread.check("manager.cancel, task")
        if isinstance(task, TaskRef):
            link, scheduler, number = self._router.locate(task)
            return link.cancel(scheduler, number)
        return _is_own(self._router, "cancel", task) and task.cancel()

    def reschedule(self, task: Task[Any] | TaskRef, when: datetime | timedelta | None) -> bool:
        """Ask that a task that waits start at another time, in the order of the new time.

        It is a request, as a cancellation is: a start that is on its way already wins. What was
        asked to be cancelled stays so.

        Args:
            task: A handle or a reference. Another manager's task is left alone: False.
            when: As for `schedule`.

        Returns:
            False if it is known to have begun, to have ended, or that it is to end.

        Raises:
            ValueError: The time has passed.
            TypeError: `when` is no time, this manager is of queues, or `task` is neither a handle
                nor a reference.
            UnknownTask: A reference is damaged, another manager's, or leads nowhere any more.
            RuntimeError: It is called in another thread than that of the loop.
        """
        self._loop_thread.check("manager.reschedule, task, when")
        if isinstance(task, TaskRef):
            due = self._router.new_due(when)
            link, scheduler, number = self._router.locate(task)
            return link.reschedule(scheduler, number, due)
        return _is_own(self._router, "reschedule", task) and task.reschedule(when)

    async def find(self, id: str) -> Task[Any] | None:  # noqa: A002
        """Return the handle of the task that has an id; None if no task has it.

        Raises:
            TypeError: The id is no str.
            StoreError: The store cannot be read where that task may be, or was closed meanwhile.
            RuntimeError: It is awaited in another thread or loop than that of the manager.
        """
        self._loop_thread.check_inside("await manager.find(id)")
        if not isinstance(id, str):
            raise TypeError(f"an id is a str, not {type(id).__name__}")
        return await self._router.find(str.__str__(id))  # what a class made of it may raise

    def tasks(
        self,
        *,
        name: str | None = None,
        id_prefix: str | None = None,
        state: State | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[TaskInfo]:
        """List the tasks that have not ended: `async for info in manager.tasks(): ...`.

        What is there from the beginning to the end of it is given exactly once; what comes, goes
        or changes its state meanwhile, at most once. There is no order. The loop turns in between,
        so that a million tasks do not hold it up. What of a store is on a damaged page is left out,
        and the log says so.

        Args:
            name: Only those of exactly this name.
            id_prefix: Only those with an id that begins so.
            state: Only those in this state, PENDING or RUNNING: others have ended.
            limit: So many at most.

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: The limit is less than 0.
            StoreError: The store cannot be read; raised by the iteration.
            RuntimeError: It is called in another thread or loop than that of the manager.
        """
        self._loop_thread.check_inside("async for info in manager.tasks()")
        wanted = read_wanted(name, id_prefix, state, limit)
        keeper = self._router.keeper
        shelf = keeper.shelf if keeper is not None and keeper.is_open else None
        return list_tasks(self._router.links, wanted, limit, shelf)

    # ---- what repeats

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
        """Run a coroutine at all times of a rule, until it is cancelled.

        It is taken apart once, and each run is a task of its own, with the same arguments. Inside,
        `current_due()` is the time of the rule, the *nominal* time. A repeat is no task: `len` and
        `join()` know of its runs alone, from the time at which each is due, and `max_tasks` refuses
        none of them. Of a durable function, on a manager with a store, a repeat is in the file and
        outlives the host; any other one is in memory. Call it at each start of the program.

        Args:
            coro: As for `schedule`; with `workers=0`, too, a coroutine of an async def function.
            rule: `Every`, `Cron`, or an object with `next(after: datetime) -> datetime | None` and
                a `str()` by which it is recognised. If it raises, or gives no later time, the
                repeat is paused, and its `reason` says why. A store keeps an `Every`, and a `Cron`
                in a zone that has a name; with any other rule a repeat goes on at the next start
                when this is called again.
            id: Of the repeat; tasks have other ids. If one has it, what it does and its rule are
                replaced, and its handle is given. With an unchanged rule (by its text) its next
                time is kept, passed or not; with another it counts from now on.
            key: As for `schedule`.
            missed: What becomes of nominal times that passed, by more than 10 s and `jitter`, while
                no host ran, the machine slept or its clock was set forward: "once" is one run for
                the latest of them, "all" one for each, one after another, "skip" none. A manager
                that is busy is late, and misses nothing.
            overlap: What becomes of a nominal time at which the run before has not ended, its
                further attempts included: "skip" leaves it out, "queue" has it wait for its turn,
                "allow" runs it at the same time.
            jitter: Seconds, 0 or more, or a timedelta: each run is due up to so much later, by a
                hash of id and time: the same at each start.
            until: The last possible nominal time, an aware datetime.
            times: How many runs it has, 1 or more.
            **options: As for `schedule`. `max_lateness` counts from when a run was due, also for
                one that was missed: it is the limit of what `missed` makes up for.

        Returns:
            A handle, which may be dropped.

        Raises:
            ValueError: Something is out of range, or an option cannot mean anything.
            TypeError: Something is of a wrong type, or this is a manager of queues.
            NotShippable: As `schedule`.
            NotDurable: As `schedule`.
            StoreError: As `schedule`.
            BaseException: As `schedule`.
            ManagerClosed: The manager was closed, or has failed.
            RuntimeError: It is called in another thread than that of the loop.
        """
        return self._fleet.repeats.repeat(
            *(coro, rule, id, key, missed, overlap, jitter, until, times, options)
        )

    def repeats(self) -> list[Repeat]:
        """List what repeats, in the order in which it was begun, what has no next time included.

        What is in a store is known once `ready()` has returned.

        Raises:
            RuntimeError: It is called in another thread than that of the loop.
        """
        self._loop_thread.check("manager.repeats")
        return list(self._fleet.repeats)

    # ---- durable tasks

    async def sync(self) -> None:
        """Return when everything that was scheduled so far, and is durable, is on disk.

        What has ended by then is struck. Many calls at a time cost as much as one.

        Raises:
            StoreError: It never will be.
            TypeError: The manager has no store.
            RuntimeError: It is awaited in another thread or loop than that of the manager.
        """
        keeper = _keeper_of(self._router, "await manager.sync()")
        await self._fleet.repeats.ready()
        await keeper.stored(None)

    def dead_letters(
        self, *, reason: str | None = None, limit: int | None = None
    ) -> AsyncIterator[DeadLetter]:
        """List the durable tasks that cannot go on: `async for letter in manager.dead_letters():`.

        What is on a damaged page is left out, and the log says so.

        Args:
            reason: Only those of one reason; see `DeadLetter`.
            limit: So many at most.

        Raises:
            TypeError: An argument is of a wrong type, or the manager has no store.
            ValueError: There is no such reason, or the limit is less than 0.
            StoreError: The store cannot be read; raised by the iteration.
            RuntimeError: It is called in another thread or loop than that of the manager.
        """
        keeper = _keeper_of(self._router, "async for letter in manager.dead_letters()")
        return list_letters(keeper, read_reason(reason), read_limit(limit))

    async def requeue(
        self, letter_or_row: DeadLetter | int, when: datetime | timedelta | None = None
    ) -> Task[Any]:
        """Schedule the task of a dead letter anew, with its arguments, key and id, as attempt 1.

        Args:
            letter_or_row: Which.
            when: As for `schedule`.

        Raises:
            ValueError: Another task has its id now, or the time has passed.
            UnknownTask: There is no such dead letter any more.
            TypeError: An argument is of a wrong type, or the manager has no store.
            TaskLimitReached: As `schedule`.
            StoreError: The store cannot be read.
            ManagerClosed: The manager was closed, or has failed.
            RuntimeError: It is awaited in another thread or loop than that of the manager.
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
        """Drop dead letters for good: without arguments all of them.

        Args:
            letter_or_row: Which one; None: all that the other arguments mean.
            reason: Only those of one reason.
            before: Only those that became dead letters before this time, an aware datetime.

        Returns:
            How many; they are gone from the disk, too.

        Raises:
            UnknownTask: There is no such dead letter any more.
            TypeError: An argument is of a wrong type, or the manager has no store.
            ValueError: There is no such reason.
            StoreError: The store cannot be read or written.
            RuntimeError: It is awaited in another thread or loop than that of the manager.
        """
        keeper = _keeper_of(self._router, "await manager.discard(letter)")
        return await discard_letters(
            keeper, letter_or_row, read_reason(reason), read_before(before)
        )

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the store to a new file, as it is now, while tasks run.

        Nothing else is written meanwhile, which takes a second or two for 250 MB on a quick disk:
        tasks go on, but `stored()` waits, as do tasks with an id or of `on_loss="fail"` before they
        begin, and `close()`. If the host is killed meanwhile, what has begun in that time is not
        among those of which the next host suspects that they have done it.

        Args:
            path: Of the copy; nothing may be there.

        Raises:
            StoreError: It cannot be written, or something is there.
            TypeError: The manager has no store.
            RuntimeError: It is awaited in another thread or loop than that of the manager.
        """
        keeper = _keeper_of(self._router, "await manager.backup(path)")
        await self._fleet.repeats.ready()
        await keeper.backup(os.fspath(path))

    async def flush(self) -> None:
        """Return when little enough waits to be sent to the workers: call it in long loops.

        Raises:
            RuntimeError: It is awaited in another thread or loop than that of the manager.
        """
        self._loop_thread.check_inside("await manager.flush()")
        await asyncio.sleep(0)
        for link in self._router.links:
            await link.flush()
        if self._router.keeper is not None:
            await self._router.keeper.commits.settle()

    async def join(self) -> None:
        """Return when every accepted task has ended, those scheduled by tasks included.

        Not counted are tasks in the store whose function was defined in a script, and is not
        defined in this program yet: it may still be, in the first minute.

        Raises:
            RuntimeError: Nobody has started the manager within a second; or it is awaited in
                another thread or loop than that of the manager.
        """
        self._loop_thread.check_inside("await manager.join()")
        await self._router.join()

    def stats(self) -> ManagerStats:
        """Return counts, lateness, CPU and memory of the workers and of this process.

        It may be called from any thread, thousands of times a second: counts are those of now,
        what workers push of lateness is up to a second old, and psutil's figures 0.25 s.
        """
        return self._stats_collector.stats()

    def __len__(self) -> int:
        """How many tasks wait to start; see `join` for what in a store is not counted."""
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
        # The catalog of its own tasks replaces it by its proxy before this is asked.
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
    """Return what has the store.

    Raises:
        TypeError: There is none.
        RuntimeError: It was not started, or this is another thread or loop.
    """
    router.loop_thread.check_inside(call)
    if router.keeper is None:
        raise TypeError("this manager has no store: make it with Manager(store=...)")
    if router.loop_thread.loop is None:
        raise RuntimeError("the store of this manager is opened by start(), which comes first")
    return router.keeper


def _iterate(call: str, func: object, iterable: Iterable[Any]) -> Iterator[Any]:
    try:
        return iter(iterable)
    except TypeError as error:
        close_unstarted(func)  # a coroutine in its place
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
    """Return what workers are made by: on this machine, or where the engine has them."""
    if settings.engine is None:
        return Seams()
    from ._outpost.outposts import Outposts  # who has no engine need not pay for it

    may_run_again = settings.rerun or settings.store is not None
    outposts = Outposts(cast("OutpostEngine", settings.engine), manager, may_run_again)
    return Seams(process_maker=outposts.process_maker, elsewhere=outposts)
