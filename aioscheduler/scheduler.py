"""The three schedulers for one event loop. To use every core, use a `Manager` instead."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from difflib import get_close_matches
from threading import get_ident
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar, Unpack

from ._routing.layout import check_count, check_flag
from ._routing.local import LocalLink
from ._routing.placement import limit_reached
from ._routing.settings import ManagerOptions
from ._scheduling.coroutines import close_unstarted
from ._scheduling.loopthread import LoopThread
from ._scheduling.order import Order, due_time, new_due_time
from .errors import ManagerClosed
from .options import TaskOptions, read_options
from .task import State, Task

T = TypeVar("T")

log: logging.Logger = logging.getLogger("aioscheduler")


def running_loop(what: str) -> asyncio.AbstractEventLoop:
    """Return the running loop.

    Raises:
        RuntimeError: There is none.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            f"{what} needs a running event loop: call it inside the coroutine "
            "that asyncio.run() runs"
        ) from None


class _NoCounter:
    """Counts nothing: the only scheduler's engine knows its pending tasks."""

    def count_waiting(self, worker: int, scheduler: int, change: int) -> None: ...
    def count_ended(self, worker: int, scheduler: int, count: int) -> None: ...
    def count_emptied(self, worker: int) -> None: ...


class _Scheduler:
    """The base of the three: a link with one engine, a limit, start and close."""

    order: ClassVar[Order]
    prefer_utc: bool = True

    def __init__(self, max_tasks: int | None, clock: Callable[[], int] = time.time_ns) -> None:
        if max_tasks is not None:
            check_count("max_tasks", max_tasks, 1)
        self.max_tasks = max_tasks
        self._clock = clock
        self._loop_thread = LoopThread("scheduler")
        self._link = LocalLink(self.order, 1, _NoCounter(), self._loop_thread, self._new_due, clock)
        self._closed = False

    @property
    def is_started(self) -> bool:
        """Whether it has been started and not closed."""
        return self._link.loop is not None and not self._closed

    def __len__(self) -> int:
        """Return the number of pending tasks."""
        return self._link.engines[0].pending

    def __bool__(self) -> bool:
        return True

    def start(self) -> None:
        """Start running tasks.

        Raises:
            RuntimeError: It was already started, or no event loop is running.
            ManagerClosed: It was closed.
        """
        if self._loop_thread.loop is not None:
            self._loop_thread.check()
        if self._closed:
            raise ManagerClosed(f"this {type(self).__name__} was closed; make a new one")
        if self._link.loop is not None:
            raise RuntimeError(f"this {type(self).__name__} was already started")
        loop = running_loop("start()")
        self._loop_thread.enter(loop)
        self._link.start(loop)

    def cancel(self, task: Task[Any]) -> bool:
        """Cancel a pending or running task.

        Args:
            task: A handle from `schedule`.

        Returns:
            False if the task has ended or belongs to another scheduler.

        Raises:
            TypeError: `task` is not a handle.
            RuntimeError: Called outside the loop's thread.
        """
        self._loop_thread.check("scheduler.cancel, task")
        if not isinstance(task, Task):
            raise TypeError(f"cancel() takes a Task from schedule(), not {type(task).__name__}")
        return task._home is self._link and task.cancel()

    async def close(self) -> None:
        """Stop for good: cancel pending tasks and wait, without limit, for running ones."""
        await self._close(None)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close(None if error is None else 0)

    async def _close(self, timeout: float | None) -> None:
        loop = self._loop_thread.loop
        if loop is not None and loop.is_closed() and not self._loop_thread.left_behind:
            self._closed = True
            self._link.kill(ManagerClosed("the event loop of this scheduler was closed before it"))
            return
        if loop is not None:
            self._loop_thread.check_inside()
        self._closed = True
        before = self._count_cancelled()
        await self._link.close(timeout)
        if cancelled := self._count_cancelled() - before:
            log.info(
                "close() of a %s cancelled %s unfinished tasks",
                type(self).__name__,
                f"{cancelled:,}",
            )

    def _new_due(self, when: datetime | timedelta | None) -> int:
        return new_due_time(self.order, when, self._clock(), self.prefer_utc)

    def _count_cancelled(self) -> int:
        return self._link.stats().counts[State.CANCELLED.value]

    def _schedule(
        self, coro: Awaitable[T], when: datetime | timedelta | None, options: TaskOptions
    ) -> Task[T]:
        try:
            loop_thread = self._loop_thread
            if get_ident() != loop_thread.ident or loop_thread.loop.is_closed():  # type: ignore[union-attr]  # it has a loop if it has a thread
                loop_thread.check()
            if self._closed:
                raise ManagerClosed(f"this {type(self).__name__} was closed; make a new one")
            read = read_options(options, self.order) if options else None
            shipper = self._link.shipper
            call = shipper.take(coro, None if read is None else shipper.take_record(read))
            due = due_time(self.order, when, self._clock(), self.prefer_utc)
            if self.max_tasks is not None and len(self) >= self.max_tasks:
                raise limit_reached(self.max_tasks)
        except BaseException:
            close_unstarted(coro)
            raise
        return self._link.schedule(0, due, when if isinstance(when, datetime) else due, call)


class TimedScheduler(_Scheduler):
    """Runs each coroutine at its time, never early; equal times in the order of scheduling.

    Args:
        max_tasks: How many tasks may be pending at once, 1 or more; None for no limit.
        prefer_utc: Whether naive datetimes are UTC; otherwise they are local time.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: `max_tasks` is less than 1.
    """

    order = Order.TIMED

    def __init__(self, max_tasks: int | None = None, prefer_utc: bool = True) -> None:
        super().__init__(max_tasks)
        check_flag("prefer_utc", prefer_utc)
        self.prefer_utc: bool = prefer_utc

    def schedule(
        self,
        coro: Awaitable[T],
        when: datetime | timedelta | None = None,
        **options: Unpack[TaskOptions],
    ) -> Task[T]:
        """Schedule `coro` for `when`.

        Args:
            coro: A coroutine that has not started, or another awaitable.
            when: A datetime (a naive one is UTC or local time, by `prefer_utc`), or a timedelta
                from now; None means at once.
            **options: `name`, `timeout`, `max_lateness`, `retry`; see `options.TaskOptions`.

        Returns:
            A handle on the task, which may be dropped.

        Raises:
            ValueError: The time has passed, or an option is out of range.
            TypeError: `coro` is not awaitable or has already started, `when` is not a time, or an
                option is unknown or has the wrong type.
            TaskLimitReached: `max_tasks` tasks are pending.
            ManagerClosed: The scheduler was closed.
            RuntimeError: Called outside the loop's thread.
        """
        return self._schedule(coro, when, options)


class QueuedScheduler(_Scheduler):
    """Runs one coroutine at a time, first in, first out.

    Args:
        max_tasks: How many tasks may be pending at once, 1 or more; None for no limit.

    Raises:
        TypeError: `max_tasks` is not an int.
        ValueError: `max_tasks` is less than 1.
    """

    order = Order.FIFO

    def __init__(self, max_tasks: int | None = None) -> None:
        super().__init__(max_tasks)

    def schedule(
        self, coro: Awaitable[T], when: None = None, **options: Unpack[TaskOptions]
    ) -> Task[T]:
        """Queue `coro` to run when its turn comes.

        Args:
            coro: A coroutine that has not started, or another awaitable.
            when: Must be None: a queue runs tasks in turn.
            **options: `name`, `timeout`, `retry`; see `options.TaskOptions`.

        Returns:
            A handle on the task, which may be dropped.

        Raises:
            ValueError: An option is out of range.
            TypeError: `coro` is not awaitable or has already started, a time was given, or an
                option is unknown, has the wrong type or is `max_lateness`.
            TaskLimitReached: `max_tasks` tasks are pending.
            ManagerClosed: The scheduler was closed.
            RuntimeError: Called outside the loop's thread.
        """
        return self._schedule(coro, when, options)


class LifoQueuedScheduler(QueuedScheduler):
    """Runs one coroutine at a time, last in, first out.

    Args:
        max_tasks: How many tasks may be pending at once, 1 or more; None for no limit.

    Raises:
        TypeError: `max_tasks` is not an int.
        ValueError: `max_tasks` is less than 1.
    """

    order = Order.LIFO


def make_model(
    cls: type[TimedScheduler] | type[QueuedScheduler], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TimedScheduler | QueuedScheduler:
    """Return a model of a manager's schedulers: its class validates and reads their arguments.

    Args:
        cls: One of the three classes.
        args: Its positional arguments.
        kwargs: Its keyword arguments: all that the manager does not know.

    Raises:
        TypeError: `cls` is none of the three, or does not accept an argument.
        ValueError: A value is out of range.
    """
    if cls not in (TimedScheduler, QueuedScheduler, LifoQueuedScheduler):
        raise TypeError(
            f"cls must be TimedScheduler, QueuedScheduler or LifoQueuedScheduler, not {cls!r}"
        )
    signature = inspect.signature(cls)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        unknown = kwargs.keys() - signature.parameters.keys()
        words = ManagerOptions.__annotations__
        near = [word for key in unknown for word in get_close_matches(key, words, 1)]
        raise TypeError(
            f"Manager() {error}; what it does not take itself goes to "
            f"{cls.__name__}({', '.join(signature.parameters)})"
            + (f"; did you mean {' and '.join(near)}?" if near else "")
        ) from None
    return cls(*args, **kwargs)
