"""What a task can ask about itself: who it is, when it was due, and its manager.

The same functions serve in a worker process and with `workers=0`; what stands behind the manager
is an `Upstream`: the worker, or the manager itself. A scheduler without a manager tells its tasks
the times alone.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import datetime, timedelta
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Unpack

from ._scheduling.clock import to_datetime
from ._scheduling.coroutines import close_unstarted
from ._scheduling.loopthread import LoopThread
from .options import TaskOptions
from .task import TaskRef


class Upstream(Protocol):
    """Takes what tasks schedule."""

    def schedule_inside(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        origin: TaskRef | None,
        options: TaskOptions,
        id_: str | None,
        replace: bool,
    ) -> TaskRef:
        """As `ManagerProxy.schedule`; `origin` is the task that asks."""

    def cancel_inside(self, ref: TaskRef) -> bool:
        """As `ManagerProxy.cancel`."""


SchedulerContext = tuple["ManagerProxy | None", str, int, int, Callable[[], int]]
"""What the tasks of one scheduler have in common: the manager's proxy (None without a manager), the
fields of a reference except the number, and the clock.
"""

Running = tuple[SchedulerContext, int, int, int]
"""The context of its scheduler, its number, its due time (0 in a queue) and its attempt."""

running: ContextVar[Running] = ContextVar("aioscheduler_running")


class ManagerProxy:
    """The manager as its tasks see it: `current_manager()`, or a manager among their arguments."""

    def __init__(self, upstream: Upstream, loop_thread: LoopThread) -> None:
        self._upstream = upstream
        self._loop_thread = loop_thread

    def schedule(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None = None,
        *,
        key: str | bytes | int | None = None,
        id: str | None = None,  # noqa: A002  the word for it
        replace: bool = False,
        **options: Unpack[TaskOptions],
    ) -> TaskRef:
        """Schedule a task from inside a task.

        It is not counted against the manager's `max_tasks`. Once the scheduling task has ended,
        the new one is as safe as any that the host accepted.

        Args:
            coro: As for `Manager.schedule`.
            when: As for `Manager.schedule`.
            key: Where it runs; without one, on the scheduler of the task that schedules it.
            id: As for `Manager.schedule`.
            replace: As for `Manager.schedule`.
            **options: As for `Manager.schedule`.

        Returns:
            A reference that leads to the new task, or to the one that has the id. It cannot be
            awaited: the outcome goes to the host, whose `manager.task(ref)` gives a handle.

        Raises:
            NotShippable: The coroutine, something it needs, or a value of `context` cannot travel.
            ValueError: The time has passed, an option cannot mean anything, or `replace` is True
                without an id.
            TypeError: `when`, `key` or an option is of a wrong type, or `when` or `max_lateness`
                was given to a queue.
            ManagerClosed: With `workers=0`: the manager was closed, or has failed.
            RuntimeError: It is called in another thread than that of the tasks.
        """
        if get_ident() != self._loop_thread.ident:
            try:
                self._loop_thread.check("manager.schedule, coro")
            except RuntimeError:
                close_unstarted(coro)
                raise
        found = running.get(None)
        origin = None
        if found is not None and found[0][0] is self:
            origin = _ref(found)
        return self._upstream.schedule_inside(coro, when, key, origin, options, id, replace)

    def cancel(self, ref: TaskRef) -> bool:
        """Ask for a task's cancellation; False if it is known here to have ended.

        Raises:
            TypeError: `ref` is no reference.
            UnknownTask: It is another manager's.
            RuntimeError: It is called in another thread than that of the tasks.
        """
        self._loop_thread.check("manager.cancel, ref")
        if not isinstance(ref, TaskRef):
            raise TypeError(f"cancel() takes a TaskRef here, not {type(ref).__name__}")
        return self._upstream.cancel_inside(ref)

    if not TYPE_CHECKING:  # a checker is to tell of the name itself

        def __getattr__(self, name: str) -> NoReturn:
            """Say what there is, to who looks for the manager itself."""
            told = f"{type(self).__name__!r} object has no attribute {name!r}"
            if not name.startswith("_"):
                told += (
                    ": inside a task a manager has schedule() and cancel() alone, and all else is "
                    "for the program that has made it"
                )
            raise AttributeError(told, name=name, obj=self)


def current_task() -> TaskRef:
    """Give the reference of the task that calls this.

    Raises:
        RuntimeError: It is called outside a manager's task.
    """
    return _ref(_of_manager("current_task"))


def current_manager() -> ManagerProxy:
    """Give the proxy of the manager whose task calls this.

    Raises:
        RuntimeError: It is called outside a manager's task.
    """
    proxy = _of_manager("current_manager")[0][0]
    assert proxy is not None
    return proxy


def current_attempt() -> int:
    """Give how many times the task that calls this has been started, this time included.

    Raises:
        RuntimeError: It is called outside a task.
    """
    return _running("current_attempt")[3]


def current_due() -> datetime | None:
    """Give the time for which the task that calls this was scheduled, in aware UTC.

    Returns:
        The due time, however late the task has started; None in a queue.

    Raises:
        RuntimeError: It is called outside a task.
    """
    due = _running("current_due")[2]
    return to_datetime(due) if due else None


def now() -> datetime:
    """Give the present in aware UTC; inside a task, by the clock of its manager or scheduler.

    With a `testing.FakeClock` that is the fake one, so that what a task computes from it is right.
    """
    found = running.get(None)
    return to_datetime(time.time_ns() if found is None else found[0][4]())


def _ref(found: Running) -> TaskRef:
    (_, manager, worker, scheduler, _), number, _, _ = found
    return TaskRef(manager, worker, scheduler, number)


def _running(caller: str) -> Running:
    found = running.get(None)
    if found is None:
        raise RuntimeError(
            f"{caller}() is for tasks: call it inside the coroutine that was scheduled"
        )
    return found


def _of_manager(caller: str) -> Running:
    found = running.get(None)
    if found is None or found[0][0] is None:
        raise RuntimeError(
            f"{caller}() is for tasks that a Manager runs: call it inside the scheduled coroutine"
        )
    return found
