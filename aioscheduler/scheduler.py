"""The three schedulers of one event loop. To use every core, put a `Manager` in their place."""

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
    """Counts nothing: there is one scheduler, and its engine knows what waits."""

    def count_waiting(self, worker: int, scheduler: int, change: int) -> None: ...
    def count_ended(self, worker: int, scheduler: int, count: int) -> None: ...
    def count_emptied(self, worker: int) -> None: ...


class _Scheduler:
    """What the three have in common: a link with one engine, a limit, a life."""

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
        """Whether it runs: started, and not closed."""
        return self._link.loop is not None and not self._closed

    def __len__(self) -> int:
        """How many tasks wait to start."""
        return self._link.engines[0].pending

    def __bool__(self) -> bool:
        return True

    def start(self) -> None:
        """Begin to run tasks.

        Raises:
            RuntimeError: It was started before, or no event loop is running.
            ManagerClosed: It was closed.
        """
        if self._loop_thread.loop is not None:
            self._loop_thread.check()
        if self._closed:
            raise ManagerClosed(f"this {type(self).__name__} was closed; make a new one")
        if self._link.loop is not None:
            raise RuntimeError(f"this {type(self).__name__} was started already")
        loop = running_loop("start()")
        self._loop_thread.enter(loop)
        self._link.start(loop)

    def cancel(self, task: Task[Any]) -> bool:
        """Cancel a pending or running task; False if it has ended or is not of this scheduler.

        Raises:
            TypeError: It is no handle.
            RuntimeError: It is called in another thread than that of the loop.
        """
        self._loop_thread.check("scheduler.cancel, task")
        if not isinstance(task, Task):
            raise TypeError(f"cancel() takes what schedule() gave, not {type(task).__name__}")
        return task._home is self._link and task.cancel()

    async def close(self) -> None:
        """Stop for good: cancels the pending tasks, waits for the running ones without limit."""
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
            self._link.kill(ManagerClosed("the event loop of this scheduler was closed before"))
            return
        if loop is not None:
            self._loop_thread.check_inside()
        self._closed = True
        before = self._count_cancelled()
        await self._link.close(timeout)
        if cancelled := self._count_cancelled() - before:
            log.info(
                "the close() of a %s cancelled %s unfinished tasks",
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
        max_tasks: How many tasks may wait at a time, 1 or more; None for no limit.
        prefer_utc: Whether a naive datetime is UTC; else it is local time.
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
            when: A datetime (a naive one as `prefer_utc` says), or a timedelta from now;
                None is at once.
            **options: `name`, `timeout`, `max_lateness`, `retry`; see `options.TaskOptions`.

        Raises:
            ValueError: The time has passed, or an option cannot mean anything.
            TypeError: `coro` cannot be awaited from its beginning, `when` is no time, or an
                option is of a wrong type.
            TaskLimitReached: `max_tasks` tasks are waiting.
            ManagerClosed: The scheduler was closed.
            RuntimeError: It is called in another thread than that of the loop.
        """
        return self._schedule(coro, when, options)


class QueuedScheduler(_Scheduler):
    """Runs one coroutine at a time, first in, first out.

    Args:
        max_tasks: How many tasks may wait at a time, 1 or more; None for no limit.
    """

    order = Order.FIFO

    def __init__(self, max_tasks: int | None = None) -> None:
        super().__init__(max_tasks)

    def schedule(
        self, coro: Awaitable[T], when: None = None, **options: Unpack[TaskOptions]
    ) -> Task[T]:
        """Have `coro` run when its turn comes.

        Args:
            coro: A coroutine that has not started, or another awaitable.
            when: None: a queue runs tasks in turn.
            **options: `name`, `timeout`, `retry`; see `options.TaskOptions`.

        Raises:
            ValueError: An option cannot mean anything.
            TypeError: `coro` cannot be awaited from its beginning, a time was given, or an option
                is of a wrong type, or `max_lateness`.
            TaskLimitReached: `max_tasks` tasks are waiting.
            ManagerClosed: The scheduler was closed.
            RuntimeError: It is called in another thread than that of the loop.
        """
        return self._schedule(coro, when, options)


class LifoQueuedScheduler(QueuedScheduler):
    """Runs one coroutine at a time, last in, first out.

    Args:
        max_tasks: How many tasks may wait at a time, 1 or more; None for no limit.
    """

    order = Order.LIFO


def make_model(
    cls: type[TimedScheduler] | type[QueuedScheduler], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TimedScheduler | QueuedScheduler:
    """Give a scheduler as each of a manager's is to be: it knows what its words mean.

    Args:
        cls: Which of the three.
        args: What it takes.
        kwargs: The same, and whatever the manager did not know.

    Raises:
        TypeError: `cls` is none of the three, or does not take that.
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
    return cls(*args, **kwargs)  # refuses wrong values, and reads the right ones
