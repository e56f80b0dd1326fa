"""What a task can ask about itself: who it is, and its manager.

The same two functions serve in a worker process and with `workers=0`; what stands behind them
is a `Desk`: the worker, or the manager itself.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from datetime import datetime, timedelta
from threading import get_ident
from typing import Any, Protocol

from .coroutines import close_unstarted
from .loopthread import LoopThread
from .task import TaskRef


class Desk(Protocol):
    """Takes what tasks schedule."""

    def schedule_inside(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        origin: TaskRef | None,
    ) -> TaskRef:
        """As `ManagerProxy.schedule`; `origin` is the task that asks."""

    def cancel_inside(self, ref: TaskRef) -> bool:
        """As `ManagerProxy.cancel`."""


Place = tuple["ManagerProxy", str, int, int]
"""The manager's proxy, and the fields of a reference but for the number."""

Running = tuple[Place, int]
"""Where the running task is, and its number."""

running: ContextVar[Running] = ContextVar("aioscheduler_running")


class ManagerProxy:
    """The manager as its tasks see it: `current_manager()`, or a manager among their arguments."""

    def __init__(self, desk: Desk, loop_thread: LoopThread) -> None:
        self._desk = desk
        self._loop_thread = loop_thread

    def schedule(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None = None,
        *,
        key: str | bytes | int | None = None,
    ) -> TaskRef:
        """Schedules a task from inside a task.

        It is not counted against the manager's `max_tasks`. Once the scheduling task has ended,
        the new one is as safe as any that the host accepted.

        Args:
            coro: As for `Manager.schedule`.
            when: As for `Manager.schedule`.
            key: Where it runs; without one, on the scheduler of the task that schedules it.

        Returns:
            The reference of the new task. It cannot be awaited: the outcome goes to the host, whose
            `manager.task(ref)` gives a handle.

        Raises:
            NotShippable: The coroutine, or something it needs, cannot travel.
            ValueError: The time has passed.
            TypeError: `when` or `key` is of a wrong type, or `when` was given to a queue.
            RuntimeError: It is called in another thread than that of the tasks.
        """
        if get_ident() != self._loop_thread.ident:
            try:
                self._loop_thread.check()
            except RuntimeError:
                close_unstarted(coro)
                raise
        found = running.get(None)
        origin = None
        if found is not None and found[0][0] is self:
            origin = _ref(found)
        return self._desk.schedule_inside(coro, when, key, origin)

    def cancel(self, ref: TaskRef) -> bool:
        """Asks for a task's cancellation; False if it is known here to have ended.

        Raises:
            TypeError: `ref` is no reference.
            UnknownTask: It is another manager's.
            RuntimeError: It is called in another thread than that of the tasks.
        """
        self._loop_thread.check()
        if not isinstance(ref, TaskRef):
            raise TypeError(f"cancel() takes a TaskRef here, not {type(ref).__name__}")
        return self._desk.cancel_inside(ref)


def current_task() -> TaskRef:
    """Gives the reference of the task that calls this.

    Raises:
        RuntimeError: It is called outside a manager's task.
    """
    return _ref(_running("current_task"))


def current_manager() -> ManagerProxy:
    """Gives the proxy of the manager whose task calls this.

    Raises:
        RuntimeError: It is called outside a manager's task.
    """
    return _running("current_manager")[0][0]


def _ref(found: Running) -> TaskRef:
    (_, manager, worker, scheduler), number = found
    return TaskRef(manager, worker, scheduler, number)


def _running(caller: str) -> Running:
    found = running.get(None)
    if found is None:
        raise RuntimeError(
            f"{caller}() is for tasks that a Manager runs: call it inside the scheduled coroutine"
        )
    return found
