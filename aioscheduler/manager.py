"""The front: what users call, and the life of the workers behind it.

Manager ─► Router ─► link ═══════════ frames over pipes ═══════════► schedulers in a process
   │          └────► or a link to schedulers in this loop (workers=0)
   └ start, ready, close; what happens when a worker cannot begin or is lost
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import logging
import math
import multiprocessing.connection
import multiprocessing.util
import os
import secrets
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NoReturn,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from ._monitoring.monitor import Monitor
from ._monitoring.monitor import wanted as monitoring_wanted
from ._monitoring.observer import Observer
from ._processes.incarnation import Incarnation, Launch
from ._processes.process import Alive, end_workers
from ._processes.supervisor import RestartBudget
from ._processes.workerconfig import WorkerConfig
from ._routing.layout import check_count, check_flag, lay_out
from ._routing.local import LocalLink
from ._routing.placement import Placement
from ._routing.remote import RemoteLink
from ._routing.router import Router
from ._routing.threadsafe import ThreadFuture
from ._scheduling.alarm import next_tick
from ._scheduling.coroutines import close_unstarted
from ._scheduling.loopthread import LoopThread
from ._scheduling.order import Order
from ._shipping.definitions import HostCatalog
from ._shipping.shipping import HostShipper
from ._transport.pipe import abandon
from .batch import Batch
from .errors import ManagerClosed, NotShippable, UnknownTask, WorkerStartError
from .options import TaskOptions
from .scheduler import LifoQueuedScheduler, QueuedScheduler, TimedScheduler, running_loop
from .stats import ManagerStats
from .task import State, Task, TaskRef

A = TypeVar("A")
T = TypeVar("T")

if TYPE_CHECKING:
    import typing_extensions  # of the checker: `typing` has defaults from Python 3.13

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

log: logging.Logger = logging.getLogger("aioscheduler")


def _launch_processes(
    config: WorkerConfig, loop_initializer: Callable[[], Any] | None, alive: Alive
) -> Launch:
    return partial(Incarnation, config, loop_initializer, alive)


class Seams(NamedTuple):
    """What a manager has of the machine; with others (`testing`) it needs neither time nor process.

    Attributes:
        clock: Returns the present in nanoseconds since the epoch.
        launcher: Returns what makes the processes of a worker's place.
    """

    clock: Callable[[], int] = time.time_ns
    launcher: Callable[[WorkerConfig, Callable[[], Any] | None, Alive], Launch] = _launch_processes


class ManagerOptions(TypedDict, total=False):
    """What `Manager` takes by keyword, whatever its `cls`; for checkers."""

    workers: int | None
    initializer: Callable[..., Any] | None
    initargs: Sequence[Any]
    loop_initializer: Callable[[], Any] | None
    on_worker_loss: Literal["fail", "rerun"]
    max_restarts: tuple[int, float]
    monitor: bool


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
        **kwargs: For `cls`.

    Raises:
        TypeError: A count is no int, a flag no bool, `cls` none of the three, or the initializer
            cannot be called, or is a generator function.
        ValueError: A count or a choice is out of range, or there are more workers than
            schedulers.
        NotShippable: The initializer or one of its arguments cannot travel.
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
        **kwargs: Any,
    ) -> None:
        seams: Seams = kwargs.pop("_seams", Seams())  # private: not in the signature
        if cls not in (TimedScheduler, QueuedScheduler, LifoQueuedScheduler):
            raise TypeError(
                f"cls must be TimedScheduler, QueuedScheduler or LifoQueuedScheduler, not {cls!r}"
            )
        if max_tasks is not None:
            check_count("max_tasks", max_tasks, 1)
        signature = inspect.signature(cls)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"Manager() {error}; what it does not take itself goes to "
                f"{cls.__name__}({', '.join(signature.parameters)})"
            ) from None
        model = cls(*args, **kwargs)  # refuses wrong values, and reads the right ones
        layout, local = lay_out(cls.order, schedulers, workers)
        budget = _restart_budget(max_restarts)
        if on_worker_loss not in ("fail", "rerun"):
            raise ValueError(f'on_worker_loss must be "fail" or "rerun", not {on_worker_loss!r}')
        check_flag("monitor", monitor)
        if initializer is not None:
            _check_initializer(initializer)
        if isinstance(initargs, str | bytes) or not isinstance(initargs, Iterable):
            raise TypeError(f"initargs must be a tuple, such as ({initargs!r},), not {initargs!r}")
        self._id = secrets.token_hex(4)
        placement = Placement(layout, cls.order is Order.TIMED, max_tasks, model.max_tasks)
        self._loop_thread = LoopThread("manager")
        self._router = Router(
            self._id, cls.order, model.prefer_utc, placement, self._loop_thread, seams.clock
        )
        self._abroad: set[ThreadFuture[Any]] = set()  # what other threads wait for
        self._ready_awaited = False
        self._closing: asyncio.Task[None] | None = None
        self._finalizer: multiprocessing.util.Finalize | None = None
        self._watch: weakref.ref[asyncio.TimerHandle] | None = None
        self._remotes: list[RemoteLink] = []
        self._alive: Alive = {}
        if loop_initializer is not None and not callable(loop_initializer):
            raise TypeError(
                f"loop_initializer is a function that makes a loop, not {loop_initializer!r}; "
                "leave out the ()"
            )
        if local:
            if loop_initializer is not None:
                raise ValueError("loop_initializer is for worker processes; workers=0 has none")
            boot = (initializer, tuple(initargs)) if initializer is not None else None
            router = self._router
            router.links = [
                LocalLink(
                    cls.order,
                    layout[0],
                    router,
                    self._loop_thread,
                    seams.clock,
                    self._id,
                    boot,
                    router,
                    self._break,
                )
            ]
        else:
            catalog = HostCatalog()
            catalog.owner = self
            shipper = HostShipper(catalog)
            call = None
            if initializer is not None:
                call = shipper.take_call(initializer, tuple(initargs))
            config = WorkerConfig(
                manager=self._id,
                order=cls.order,
                layout=tuple(layout),
                prefer_utc=model.prefer_utc,
                host=os.getpid(),
                handed=tuple(catalog.handed),  # by `take_call`
            )
            remotes = self._remotes
            remotes += [
                RemoteLink(
                    worker,
                    schedulers,
                    seams.launcher(replace(config, worker=worker), loop_initializer, self._alive),
                    budget,
                    shipper,
                    self._router,
                    self._loop_thread,
                    self._id,
                    call,
                    on_worker_loss == "rerun",
                    self._break,
                    partial(self._router.asked_inside, remotes, catalog),
                )
                for worker, schedulers in enumerate(layout)
            ]
            self._router.links = remotes

        self._observer = Observer(self._id, self._router.links, placement)
        self._monitor: Monitor | None = None
        if monitor or monitoring_wanted():
            self._monitor = Monitor(self._id, self.stats)

    # ---- life

    def start(self) -> None:
        """Starts the workers and returns at once; what is scheduled meanwhile waits.

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
        try:
            for link in self._router.links:
                link.start(loop)
        except BaseException as error:
            reason = WorkerStartError(f"a worker process could not be started: {error}")
            reason.__cause__ = error
            self._break(reason)
            if isinstance(error, Exception):
                raise reason from error
            raise
        finally:
            self._guard_exit()
        self._look_after(loop, loop.time(), _LoopEnd(loop, self._loop_ended))
        if self._monitor is not None:
            self._monitor.start(loop)

    async def ready(self) -> None:
        """Returns when every worker answers.

        Raises:
            WorkerStartError: One of them could not begin; the manager is closed then.
            ManagerClosed: It was closed, or has failed.
            RuntimeError: It was not started, or this is another loop or thread.
        """
        self._loop_thread.check_inside()
        if self._loop_thread.loop is None:
            raise RuntimeError("start() comes before ready()")
        self._ready_awaited = True
        try:
            await asyncio.gather(*(link.ready() for link in self._router.links))
        except WorkerStartError:
            await self.close(0)
            raise
        self._router.check_open()

    async def close(self, timeout: float = 10.0) -> None:
        """Stops for good, and leaves no process behind. May be called again.

        Pending tasks are cancelled. Running ones may finish. Of several calls the timeout of
        the first holds. When the manager's loop has ended before, the workers are ended here, at
        once, and what had not ended is lost.

        Args:
            timeout: Seconds, 0 or more, after which running tasks are cancelled. They have 0.4 s
                to clean up, and are then cancelled once more; what still runs half a second after
                the timeout is killed and ends as `WorkerLost`.

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
            self._end_without_loop()
            return
        if self._router.closed is None:
            self._router.closed = ManagerClosed("this manager was closed; make a new one")
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(timeout))
        await asyncio.shield(self._closing)

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
        **options: Unpack[TaskOptions],
    ) -> Task[T]:
        """Has a coroutine run in one of the workers.

        Args:
            coro: A coroutine that has not started. Its function and arguments are taken from
                it, here and now, and it is closed; the worker makes it anew. With `workers=0`
                it runs itself, and may be another awaitable.
            when: A datetime (a naive one is UTC, or local with `prefer_utc=False`) or a
                timedelta from now; None is at once. Queues take none.
            key: Tasks of the same key go to the same scheduler of the same worker. By default
                a task goes to the worker, or queue, with the fewest that have not ended.
            **options: `name`, `timeout`, `max_lateness`; see `options.TaskOptions`.

        Returns:
            A handle, which may be dropped.

        Raises:
            NotShippable: The coroutine, or something it needs, cannot travel.
            ValueError: The time has passed, or an option cannot mean anything.
            TypeError: `coro` is no coroutine, or has started; `when`, `key` or an option is of a
                wrong type; or `when` or `max_lateness` was given to a queue.
            TaskLimitReached: `max_tasks` tasks are waiting, in all or on the scheduler.
            ManagerClosed: The manager was closed, or has failed.
            RuntimeError: It is called in another thread than that of the loop.
        """
        return self._router.schedule(coro, when, key, options)

    def schedule_threadsafe(
        self,
        coro: Awaitable[T],
        when: When | None = None,
        *,
        key: str | bytes | int | None = None,
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
            **options: As for `schedule`.

        Returns:
            A future with the task's result or failure. What `schedule` would refuse is its
            exception. Cancelling it cancels the task.

        Raises:
            ManagerClosed: The manager was closed, or has failed, or its loop has ended.
            RuntimeError: The manager was not started.
        """
        loop = self._loop_thread.loop
        try:
            if loop is None or self._loop_thread.left_behind:
                self._loop_thread.check()
                raise RuntimeError("start() comes before schedule_threadsafe()")
            self._router.check_open()
        except BaseException:
            close_unstarted(coro)
            raise

        def schedule(coro: Awaitable[T]) -> Task[T]:
            return self._router.schedule(coro, when, key, options)

        future = ThreadFuture(loop, self._abroad, schedule, coro, options.get("name"))
        try:
            future.send()
        except RuntimeError:
            self._loop_ended()
            self._router.check_open()
        if self._router.closed is not None and future.is_on_its_way:
            # It was closed just now, and perhaps its loop never turns again.
            future.give_up(self._router.closed)
        return future

    @overload
    def map(
        self,
        func: Callable[[A], Coroutine[Any, Any, T]],
        iterable: Iterable[A],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
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
        **options: Unpack[TaskOptions],
    ) -> Batch[T]: ...
    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        when: When | Sequence[When | None] | None = None,
        *,
        key: str | bytes | int | None = None,
        **options: Unpack[TaskOptions],
    ) -> Batch[Any]:
        """Has `func(item)` called in the workers for each item.

        It costs a fraction of as many calls of `schedule`. For a long stream, map slices of it
        and `await flush()` between them.

        If an item is refused, what was sent of this call is cancelled, and the error names the
        item's index.

        Args:
            func: A plain or async function, or any other callable.
            iterable: The items; consumed at once.
            when: As for `schedule`; one for all, or a sequence with one for each item.
            key: As for `schedule`; one for all.
            **options: As for `schedule`; for each.

        Returns:
            The handle on all of them, which may be dropped.

        Raises:
            NotShippable: `func`, an item, or something they need, cannot travel.
            ValueError: A time has passed, or `when` has another length than the items.
            TypeError: As for `schedule`, or `func` cannot be called.
            TaskLimitReached: `max_tasks` tasks are waiting, in all or on the scheduler.
            ManagerClosed: The manager was closed, or has failed.
            RuntimeError: It is called in another thread than that of the loop.
        """
        items = _iterate("map", func, iterable)
        return self._router.submit(func, ((item,) for item in items), when, key, options)

    @overload
    def starmap(
        self,
        func: Callable[..., Coroutine[Any, Any, T]],
        iterable: Iterable[Iterable[Any]],
        when: When | Sequence[When | None] | None = ...,
        *,
        key: str | bytes | int | None = ...,
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
        **options: Unpack[TaskOptions],
    ) -> Batch[T]: ...
    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        when: When | Sequence[When | None] | None = None,
        *,
        key: str | bytes | int | None = None,
        **options: Unpack[TaskOptions],
    ) -> Batch[Any]:
        """Has `func(*args)` called in the workers for each `args` of the iterable; see `map`."""
        items = _iterate("starmap", func, iterable)
        calls = map(_arguments, itertools.count(), items)
        return self._router.submit(func, calls, when, key, options)

    def task(self, ref: TaskRef) -> Task[Any]:
        """Gives the handle of a task that has not ended.

        Raises:
            UnknownTask: It has ended, or the reference is damaged or another manager's.
            TypeError: `ref` is no reference.
            RuntimeError: It is called in another thread than that of the loop.
        """
        self._loop_thread.check()
        task = self._router.link_to(ref).find(ref.scheduler, ref.number)
        if task is None:
            raise UnknownTask(f"{ref} has ended, or never was; keep its handle to ask it later")
        return task

    def cancel(self, task: Task[Any] | TaskRef) -> bool:
        """Asks for a task's cancellation; False if it is known to have ended.

        A pending task never starts; inside a running one `CancelledError` is raised. The handle
        ends when the worker has confirmed it. Another manager's task is left alone: False.

        Raises:
            UnknownTask: A reference is damaged or another manager's.
            TypeError: It is neither a handle nor a reference.
            RuntimeError: It is called in another thread than that of the loop.
        """
        self._loop_thread.check("manager.cancel, task")
        if isinstance(task, TaskRef):
            return self._router.link_to(task).cancel(task.scheduler, task.number)
        if not isinstance(task, Task):
            raise TypeError(
                f"cancel() takes what schedule() gave, or a TaskRef, not {type(task).__name__}"
            )
        return task._home in self._router.links and task.cancel()

    async def flush(self) -> None:
        """Returns when little enough waits to be sent to the workers: call it in long loops.

        Raises:
            RuntimeError: It is awaited in another thread or loop than that of the manager.
        """
        self._loop_thread.check_inside()
        await asyncio.sleep(0)
        for link in self._router.links:
            await link.flush()

    async def join(self) -> None:
        """Returns when every accepted task has ended, those scheduled by tasks included.

        Raises:
            RuntimeError: Nobody has started the manager within a second; or it is awaited in
                another thread or loop than that of the manager.
        """
        self._loop_thread.check_inside()
        await self._router.join()

    def stats(self) -> ManagerStats:
        """Gives counts, lateness, CPU and memory of the workers and of this process.

        It may be called from any thread, thousands of times a second: counts are those of now,
        what workers push of lateness is up to a second old, and psutil's figures 0.25 s.
        """
        return self._observer.stats()

    def __len__(self) -> int:
        """How many tasks wait to start."""
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
        return f"<Manager {self._id} {state}, {len(self)} tasks waiting>"

    def __reduce__(self) -> NoReturn:
        # The catalog of its own tasks replaces it by its proxy before this is asked.
        raise NotShippable("a manager travels only to its own tasks, where it is their proxy")

    # ---- inside

    async def _close(self, timeout: float) -> None:
        before = self._count_cancelled()
        await asyncio.gather(*(link.close(timeout) for link in self._router.links))
        if cancelled := self._count_cancelled() - before:
            log.info("%r: its close() cancelled %s unfinished tasks", self, f"{cancelled:,}")
        watch = self._watch() if self._watch is not None else None
        if watch is not None:
            watch.cancel()
        if self._monitor is not None:
            self._monitor.close()
        if self._finalizer is not None:
            self._finalizer.cancel()

    def _count_cancelled(self) -> int:
        return sum(link.vitals().counts[State.CANCELLED.value] for link in self._router.links)

    def _look_after(self, loop: asyncio.AbstractEventLoop, planned: float, end: _LoopEnd) -> None:
        """Looks once a tick whether the workers answer, and how late this loop is."""
        now = loop.time()
        self._loop_thread.check()  # the loop may have moved to another thread
        lag = max(0.0, now - planned)
        self._observer.host.add(now, lag, (0, 0, []))
        for link in self._router.links:
            link.look_after(lag)
        self._router.placement.avoid([link.vitals().avoided for link in self._router.links])
        if self._router.closed is None or self._closing is not None:
            at = next_tick(now)
            self._watch = weakref.ref(loop.call_at(at, self._look_after, loop, at, end))

    def _break(self, reason: Exception) -> None:
        """Fails everything, loudly."""
        router = self._router
        if router.closed is not None and router.closed.__cause__ is not None:
            return
        why = getattr(reason, "__notes__", [str(reason)])[0]
        router.closed = ManagerClosed(f"this manager has failed: {why}")
        router.closed.__cause__ = reason
        unfinished = router.placement.all_loads
        for link in self._router.links:
            link.kill(reason)
        for future in self._abroad.copy():
            future.relay()
        told = self._ready_awaited and isinstance(reason, WorkerStartError)
        if self._loop_thread.loop is not None and not told:
            self._loop_thread.loop.call_exception_handler(
                {
                    "message": f"{self!r} has failed, and its {unfinished} unfinished tasks "
                    "with it; make a new one",
                    "exception": reason,
                }
            )

    def _loop_ended(self) -> None:
        """The loop is closed, or will not run any more: nothing can end."""
        if self._router.closed is None:
            if self._router.placement.all_loads:
                log.warning(
                    "%r was not closed before its event loop ended; its unfinished tasks never end",
                    self,
                )
            self._router.closed = ManagerClosed(
                "the event loop of this manager is closed; make a new manager, and close it before "
                "its loop ends"
            )
        for descriptors in self._alive.values():
            abandon(descriptors)  # which a worker reads as the end
        for future in self._abroad.copy():
            future.give_up(self._router.closed)

    def _end_without_loop(self) -> None:
        """Ends the workers when the loop cannot: it is closed, or does not run."""
        lives = [remote.supervisor.life for remote in self._remotes]
        end_workers(self._alive)
        self._loop_ended()
        reason = self._router.closed
        assert reason is not None
        for link in self._router.links:
            with contextlib.suppress(
                RuntimeError
            ):  # of the closed loop, from what was half done there
                link.kill(reason)
        for life in lives:
            if isinstance(life, Incarnation):
                with contextlib.suppress(RuntimeError):
                    life.bury()
        for remote in self._remotes:
            remote.settle_all(None, lost=True)
        if self._monitor is not None:
            self._monitor.close()
        if self._finalizer is not None:
            self._finalizer.cancel()

    def _guard_exit(self) -> None:
        """Has the workers ended with the interpreter, or with this object, without close()."""
        if self._remotes:
            self._finalizer = multiprocessing.util.Finalize(
                self,
                end_workers,
                args=(self._alive,),
                exitpriority=10,  # before multiprocessing waits for its children
            )


class _LoopEnd:
    """Notices that the loop is closed: it lives in a timer of the loop, and nowhere else."""

    def __init__(self, loop: asyncio.AbstractEventLoop, loop_ended: Callable[[], None]) -> None:
        self._loop = loop
        self._loop_ended = loop_ended

    def __del__(self) -> None:
        if self._loop.is_closed():
            self._loop_ended()


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


def _check_initializer(initializer: object) -> None:
    if not callable(initializer):
        raise TypeError(f"initializer must be a function, not {initializer!r}")
    function: Any = initializer
    while isinstance(function, partial):
        function = function.func
    if getattr(function, "__globals__", None) is vars(contextlib):
        function = inspect.unwrap(function)  # @contextmanager was around it
    for body in (function, type(function).__call__):
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise TypeError(
                f"initializer must not contain a yield, as {initializer!r} does: nothing of it "
                "would run; move what comes before the yield to a function of its own"
            )


def _restart_budget(max_restarts: tuple[int, float]) -> RestartBudget:
    if not isinstance(max_restarts, tuple | list) or len(max_restarts) != 2:
        raise TypeError(f"max_restarts must be (how many, in seconds), not {max_restarts!r}")
    most, period = max_restarts
    check_count("max_restarts[0]", most, 0)
    if not isinstance(period, int | float) or not 0 < period < math.inf:
        raise ValueError(f"max_restarts[1] must be seconds, more than 0, not {period!r}")
    return RestartBudget(most, period)
