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
import math
import multiprocessing.util
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, overload

from .batch import Batch, Outcomes
from .coroutines import close_unstarted
from .definitions import HostCatalog
from .engine import Order, due_time
from .errors import ManagerClosed, NotShippable, TaskLimitReached, UnknownTask, WorkerStartError
from .layout import check_count, lay_out
from .link import Link
from .local import LocalLink
from .outbox import FRAME_BYTES
from .placement import Placement
from .process import end_workers
from .remote import RemoteLink
from .scheduler import LifoQueuedScheduler, QueuedScheduler, TimedScheduler, running_loop
from .shipping import HostShipper
from .task import Task, TaskRef

T = TypeVar("T")

Whens = datetime | timedelta | Sequence[datetime | timedelta] | None
"""One time for all of a batch, or one for each."""


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
        layout, local = lay_out(cls.order, schedulers, workers)
        self._order = cls.order
        self._prefer_utc = model.prefer_utc
        self._max_tasks = max_tasks
        self._max_each = model.max_tasks
        self._placement = Placement(layout, by_worker=cls.order is Order.TIMED)
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
            self._links = [
                LocalLink(
                    cls.order, layout[0], self, time.time_ns, self._id, boot, self, self._break
                )
            ]
        else:
            self._shipper = HostShipper(HostCatalog())
            self._shipper.catalog.owner = self
            call = None
            if initializer is not None:
                call = self._shipper.take_call(initializer, tuple(initargs))
            config = {
                "manager": self._id,
                "order": cls.order.value,
                "layout": layout,
                "prefer_utc": self._prefer_utc,
                "host": os.getpid(),
            }
            self._remotes = [
                RemoteLink(
                    worker,
                    {**config, "worker": worker},
                    self._shipper,
                    self,
                    self._id,
                    call,
                    loop_initializer,
                    self._worker_lost,
                    self._asked_inside,
                )
                for worker in range(len(layout))
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
            due = due_time(self._order, when, time.time_ns(), self._prefer_utc)
            place = self._place(key)
            cargo = self._take(coro)
        except BaseException:
            close_unstarted(coro)
            raise
        shown = when if isinstance(when, datetime) else due
        return self._link_of(place, 1).schedule(
            self._placement.scheduler_of[place], due, shown, cargo
        )

    @overload
    def map(
        self,
        func: Callable[[Any], Coroutine[Any, Any, T]],
        iterable: Iterable[Any],
        when: Whens = ...,
        *,
        key: str | bytes | int | None = ...,
    ) -> Batch[T]: ...
    @overload
    def map(
        self,
        func: Callable[[Any], T],
        iterable: Iterable[Any],
        when: Whens = ...,
        *,
        key: str | bytes | int | None = ...,
    ) -> Batch[T]: ...
    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        when: Whens = None,
        *,
        key: str | bytes | int | None = None,
    ) -> Batch[Any]:
        """Has `func(item)` called in the workers for each item.

        It costs a fraction of as many calls of `schedule`. For a long stream, map slices of it
        and `await flush()` between them.

        Args:
            func: A plain or async function, or any other callable.
            iterable: The items; consumed at once.
            when: As for `schedule`; one for all or one per item.
            key: As for `schedule`; one for all.

        Raises:
            Exception: As `schedule`, naming the index of the item that was refused; what had
                been sent of this call is cancelled. ValueError: `when` has another length.
        """
        return self._submit(func, [(item,) for item in iterable], when, key)

    @overload
    def starmap(
        self,
        func: Callable[..., Coroutine[Any, Any, T]],
        iterable: Iterable[Iterable[Any]],
        when: Whens = ...,
        *,
        key: str | bytes | int | None = ...,
    ) -> Batch[T]: ...
    @overload
    def starmap(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        when: Whens = ...,
        *,
        key: str | bytes | int | None = ...,
    ) -> Batch[T]: ...
    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        when: Whens = None,
        *,
        key: str | bytes | int | None = None,
    ) -> Batch[Any]:
        """Has `func(*args)` called in the workers for each `args` of the iterable; see `map`."""
        return self._submit(func, [tuple(args) for args in iterable], when, key)

    def task(self, ref: TaskRef) -> Task[Any]:
        """Gives the handle of a task that has not ended.

        Raises:
            UnknownTask: It has ended, or the reference is damaged or another manager's.
            TypeError: `ref` is no reference.
        """
        task = self._link_to(ref).find(ref.scheduler, ref.number)
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
        """
        if isinstance(task, TaskRef):
            return self._link_to(task).cancel(task.scheduler, task.number)
        if not isinstance(task, Task):
            raise TypeError(
                f"cancel() takes what schedule() gave, or a TaskRef, not {type(task).__name__}"
            )
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

    # ---- placing

    def _submit(
        self,
        func: Callable[..., Any],
        calls: list[tuple[Any, ...]],
        when: Whens,
        key: str | bytes | int | None,
    ) -> Batch[Any]:
        if self._closed:
            raise self._refusal()
        if not callable(func):
            raise TypeError(f"map() takes a function and its items, not {type(func).__name__}")
        count = len(calls)
        dues = self._dues(when, count)
        front = self._links[0]
        function = front.take_function(func)
        outcomes = Outcomes(count)
        batch: Batch[Any] = Batch(outcomes)
        # Small batches, too, are to use every scheduler.
        share = -(-count // (4 * len(self._placement.loads))) if key is None else count
        sent = 0
        try:
            while sent < count:
                try:
                    place = self._place(key)
                except (ValueError, TypeError) as refusal:
                    raise _name_item(sent, refusal) from refusal
                room = min(share, front.room(), self._limit_left(place))
                cargo = _take_some(front, calls, sent, room)
                until = sent + len(cargo)
                self._link_of(place, len(cargo)).schedule_many(
                    outcomes,
                    sent,
                    self._placement.scheduler_of[place],
                    dues[sent:until] if isinstance(dues, list) else dues,
                    function,
                    cargo,
                )
                sent = until
        except BaseException:
            batch.cancel()
            raise
        return batch

    def _dues(self, when: Whens, count: int) -> int | list[int]:
        now = time.time_ns()
        if when is None or isinstance(when, datetime | timedelta):
            return due_time(self._order, when, now, self._prefer_utc)
        times = list(when)
        if len(times) != count:
            raise ValueError(f"when has {len(times)} times for {count} items; give one each")
        dues: list[int] = []
        try:
            for each in times:
                dues.append(due_time(self._order, each, now, self._prefer_utc))  # noqa: PERF401
        except (ValueError, TypeError) as refusal:
            raise _name_item(len(dues), refusal) from refusal
        return dues

    def _link_of(self, place: int, count: int) -> Link:
        """Counts tasks at a place and gives its link."""
        self._placement.added(place, count)
        return self._links[self._placement.worker_of[place]]

    def _link_to(self, ref: TaskRef) -> Link:
        if not isinstance(ref, TaskRef):
            raise TypeError(f"a TaskRef is needed, not {type(ref).__name__}")
        if ref.manager != self._id:
            raise UnknownTask(f"{ref} is a task of another manager; ask that one")
        _, worker, scheduler, number = ref
        if not (
            all(type(field) is int for field in (worker, scheduler, number))
            and 0 <= worker < len(self._links)
            and (worker, scheduler) in self._placement
            and number >= 0
        ):
            raise UnknownTask(f"{ref} is damaged: this manager has no such scheduler or number")
        return self._links[worker]

    def _limit_left(self, place: int) -> int:
        """How many more tasks may wait at a place."""
        placement, left = self._placement, FRAME_BYTES
        if self._max_tasks is not None:
            left = self._max_tasks - placement.all_waiting
        if self._max_each is not None:
            left = min(left, self._max_each - placement.waiting[place])
        return left

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

    # ---- what tasks ask of their manager

    def schedule_inside(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        origin: TaskRef | None,
    ) -> TaskRef:
        """The desk of tasks in this process (inside.Desk)."""
        try:
            if self._closed:
                raise self._refusal()
            due = due_time(self._order, when, time.time_ns(), self._prefer_utc)
            place = origin.scheduler if origin is not None else 0
            if key is not None:
                place = self._placement.choose_by_key(key)
            cargo = self._take(coro)
        except BaseException:
            close_unstarted(coro)
            raise
        task = self._link_of(place, 1).schedule(place, due, due, cargo)
        assert task.ref is not None
        return task.ref

    def cancel_inside(self, ref: TaskRef) -> bool:
        """The desk of tasks in this process (inside.Desk)."""
        return self.cancel(ref)

    def _asked_inside(self, what: str, *fields: Any) -> None:
        """Takes a request from a worker."""
        if what == "cancel":
            worker, scheduler, number = fields
            self._links[worker].cancel(scheduler, number)
        elif not self._closed:
            place, due, function, payload, alias = fields
            with self._shipper.catalog.change():
                number = self._shipper.catalog.adopt(function)
            placement = self._placement
            placement.added(place)
            link = self._remotes[placement.worker_of[place]]
            link.adopt(placement.scheduler_of[place], due, number, payload, alias)

    def __reduce__(self) -> NoReturn:
        # The catalog of its own tasks replaces it by its proxy before this is asked.
        raise NotShippable("a manager travels only to its own tasks, where it is their proxy")

    # ---- inside

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
        for link in self._links:
            link.kill(reason)
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
                end_workers,
                args=(processes, [link.pipe.descriptors for link in self._remotes]),
                exitpriority=10,  # before multiprocessing waits for its children
            )


def _take_some(front: Link, calls: list[tuple[Any, ...]], start: int, room: int) -> list[Any]:
    """Turns calls into cargo: at most `room`, and as many as fit a frame."""
    cargo: list[Any] = []
    size = 0
    try:
        for args in calls[start : start + room]:
            taken = front.take_arguments(args)
            cargo.append(taken)
            size += len(taken)
            if size > FRAME_BYTES:
                break
    except (ValueError, TypeError) as refusal:
        raise _name_item(start + len(cargo), refusal) from refusal
    return cargo


def _name_item(index: int, refusal: Exception) -> Exception:
    """Says in a refusal which item of a batch it is for."""
    kinds = (NotShippable, TaskLimitReached, ValueError, TypeError)
    kind = next(kind for kind in kinds if isinstance(refusal, kind))
    return kind(f"item {index}: {refusal}")
