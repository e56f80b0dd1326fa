"""What a task can ask about itself: its reference, its due time and attempt, and its manager.

The same functions serve in a worker process and with `workers=0`; behind the proxy is an
`Upstream`: the worker, or the manager itself. Without a manager, the tasks of a scheduler have
`current_due`, `current_attempt` and `now` only.
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
    """What accepts tasks scheduled by tasks."""

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
        """As `ManagerProxy.schedule`; `origin` is the calling task."""

    def cancel_inside(self, ref: TaskRef) -> bool:
        """As `ManagerProxy.cancel`."""


SchedulerContext = tuple["ManagerProxy | None", str, int, int, Callable[[], int]]
"""What the tasks of one scheduler share: the manager's proxy (None without a manager), the fields
of a reference except the number, and the clock.
"""

Running = tuple[SchedulerContext, int, int, int]
"""A task's scheduler context, its number, its due time (0 in a queue) and its attempt."""

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

        The new task does not count towards the manager's `max_tasks`. Once the scheduling task has
        ended, the new one is as safe as any that the host accepted.

        Args:
            coro: As for `Manager.schedule`.
            when: As for `Manager.schedule`.
            key: As for `Manager.schedule`, but by default the new task goes to the scheduler of
                the task that schedules it.
            id: As for `Manager.schedule`.
            replace: As for `Manager.schedule`.
            **options: As for `Manager.schedule`.

        Returns:
            A reference to the new task, or to the one that has the id. It cannot be awaited: the
            outcome goes to the host, where `manager.task(ref)` returns a handle.

        Raises:
            NotShippable: The coroutine, something it needs, or a value of `context` cannot travel.
            ValueError: The time has passed, an option is invalid, or `replace` is True without an
                id.
            TypeError: `when`, `key` or an option has the wrong type, or `when` or `max_lateness`
                was given for a queue.
            ManagerClosed: With `workers=0`: the manager was closed or has failed.
            RuntimeError: Called from a thread other than that of the tasks.
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
        """Request a task's cancellation; return False if it is known here to have ended.

        Raises:
            TypeError: `ref` is no reference.
            UnknownTask: The reference is another manager's.
            RuntimeError: Called from a thread other than that of the tasks.
        """
        self._loop_thread.check("manager.cancel, ref")
        if not isinstance(ref, TaskRef):
            raise TypeError(f"cancel() takes a TaskRef here, not {type(ref).__name__}")
        return self._upstream.cancel_inside(ref)

    if not TYPE_CHECKING:  # type checkers must report unknown names themselves

        def __getattr__(self, name: str) -> NoReturn:
            """Raise an error that names what there is, for callers that expect a whole manager."""
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if not name.startswith("_"):
                text += (
                    ": inside a task a manager has only schedule() and cancel(); all else is for "
                    "the program that made it"
                )
            raise AttributeError(text, name=name, obj=self)


def current_task() -> TaskRef:
    """Return the reference of the calling task.

    Raises:
        RuntimeError: Called outside a manager's task.
    """
    return _ref(_of_manager("current_task"))


def current_manager() -> ManagerProxy:
    """Return the proxy of the calling task's manager.

    Raises:
        RuntimeError: Called outside a manager's task.
    """
    proxy = _of_manager("current_manager")[0][0]
    assert proxy is not None
    return proxy


def current_attempt() -> int:
    """Return how many times the calling task has been started, this time included: 1 or more.

    Raises:
        RuntimeError: Called outside a task.
    """
    return _running("current_attempt")[3]


def current_due() -> datetime | None:
    """Return the time for which the calling task was scheduled, in aware UTC.

    Returns:
        The due time, however late the task started; None in a queue.

    Raises:
        RuntimeError: Called outside a task.
    """
    due = _running("current_due")[2]
    return to_datetime(due) if due else None


def now() -> datetime:
    """Return the current time in aware UTC; inside a task, by its manager's or scheduler's clock.

    With a `testing.FakeClock` that is the fake clock, so that times computed from it are right.
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
