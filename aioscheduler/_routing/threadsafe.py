"""Tasks scheduled by other threads: there and back.

another thread                  │ the manager's loop
                                │
schedule_threadsafe ─► future ──┼─► schedule ─► task
         future.cancel() ───────┼─► task.cancel()
         future.result() ◄──────┼── relay, when the task has ended
                                │   give_up, when the loop or the manager has
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

from .._scheduling.coroutines import check_awaitable, close_unstarted, name_of
from .._scheduling.loopthread import call_in_loop
from .._scheduling.unheard import TASK, describe
from .._shipping.propagation import Propagation
from ..task import State, Task
from .router import Router

T = TypeVar("T")


class Abroad:
    """The futures of other threads' tasks on one manager.

    Args:
        router: The manager's router.
        loop_ended: Called when a thread finds the loop closed.
    """

    def __init__(self, router: Router, loop_ended: Callable[[], None]) -> None:
        self._router = router
        self._loop_ended = loop_ended
        self._unfinished: set[ThreadFuture[Any]] = set()

    def schedule(
        self,
        coro: Awaitable[T],
        schedule: Callable[..., Task[T]],
        name: str | None,
    ) -> Future[T]:
        """Schedule one task, from any thread; see `Manager.schedule_threadsafe`.

        Args:
            coro: The coroutine.
            schedule: Schedule it, in the loop, with the values captured in the calling thread.
            name: The task's name, for the report of its failure; None: that of the function.
        """
        router, loop_thread = self._router, self._router.loop_thread
        loop = loop_thread.loop
        try:
            if loop is None or loop_thread.left_behind:
                loop_thread.check()
                raise RuntimeError("start() comes before schedule_threadsafe()")
            router.check_open()
            if router.propagation is not None:
                schedule = _capture_for(schedule, router.propagation)
        except BaseException:
            close_unstarted(coro)
            raise

        future = ThreadFuture(loop, self._unfinished, schedule, coro, name)
        try:
            future.send()
        except RuntimeError:
            self._loop_ended()
            router.check_open()
        if router.closed is not None and future.is_on_its_way:
            # It was closed just now, and its loop may never turn again.
            future.give_up(router.closed)
        try:
            return future
        finally:
            del future, schedule  # they hold what capturing raised, and that this frame

    def relay(self) -> None:
        """Relay all outcomes now: the loop may not turn again to do it."""
        for future in self._unfinished.copy():
            future.relay()

    def give_up(self, reason: Exception) -> None:
        """End all futures, as nothing else will."""
        for future in self._unfinished.copy():
            future.give_up(reason)


def _capture_for(
    schedule: Callable[..., Task[T]], propagation: Propagation
) -> Callable[[Awaitable[T]], Task[T]]:
    """Capture a task's context values in this thread; an exception becomes its refusal.

    Raises:
        BaseException: Not an Exception: a Ctrl-C is for this thread.
    """
    try:
        return partial(schedule, captured=propagation.capture())
    except Exception as error:  # noqa: BLE001  a user's function may raise anything
        return partial(_refuse, error)


def _refuse(refusal: Exception, coro: Awaitable[Any]) -> NoReturn:
    close_unstarted(coro)
    try:
        raise refusal
    finally:
        del refusal  # its traceback holds this frame


class ThreadFuture(Future[T]):
    """The future on which another thread waits.

    Args:
        loop: The manager's loop.
        unfinished: The futures that are not done, this one included.
        schedule: Schedule the coroutine, in the loop.
        coro: The coroutine.
        name: The task's name, for the report of its failure; None: that of the function.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        unfinished: set[ThreadFuture[Any]],
        schedule: Callable[[Awaitable[T]], Task[T]],
        coro: Awaitable[T],
        name: str | None = None,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._unfinished = unfinished
        self._schedule: Callable[[Awaitable[T]], Task[T]] | None = schedule
        self._coro: Awaitable[T] | None = coro
        self._task: Task[T] | None = None
        self._notified = False
        # It is checked later, in the loop.
        self._name = str.__str__(name) if isinstance(name, str) else name_of(coro)
        self._awaited = False
        self._unheard = False  # a failure that nobody has asked for
        # From here on it ends with the loop or the manager.
        unfinished.add(self)

    def result(self, timeout: float | None = None) -> T:
        """As `concurrent.futures.Future.result`; in the loop's own thread only once it is done.

        Raises:
            RuntimeError: It is not done, and waiting here would block the loop.
        """
        self._expect(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `concurrent.futures.Future.exception`; see `result`."""
        self._expect(timeout)
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """As `concurrent.futures.Future.add_done_callback`."""
        self._unheard, self._awaited = False, True
        super().add_done_callback(fn)

    def _expect(self, timeout: float | None) -> None:
        self._unheard, self._awaited = False, True
        waits = timeout is None or timeout > 0
        if waits and not self.done() and asyncio._get_running_loop() is self._loop:
            raise RuntimeError(
                "waiting here blocks the event loop that should run the task; in the loop's own "
                "thread use schedule() and await its handle"
            )

    def __del__(self) -> None:
        if self._unheard:
            task = self._task
            # It was refused if it has no task.
            id_, ref = (None, None) if task is None else (task.id, task.ref)
            context = {
                "message": f"{self._name}: it failed or was refused, and nobody asked for it",
                "exception": super().exception(0),
                TASK: describe(self._name, id_, ref),
            }
            call_in_loop(self._loop, self._loop.call_exception_handler, context)

    @property
    def is_on_its_way(self) -> bool:
        """Whether the coroutine has not reached the loop yet."""
        return self._schedule is not None

    def send(self) -> None:
        """Send the coroutine to the loop.

        Raises:
            RuntimeError: The loop is closed.
        """
        # A task in this process runs in the context of this thread: `call_soon_threadsafe` copies
        # its caller's context.
        self._loop.call_soon_threadsafe(self._arrive)

    def cancel(self) -> bool:
        """Cancel the task; False if it has ended. Any thread may call this."""
        cancelled = super().cancel()
        if cancelled:
            call_in_loop(self._loop, self._take_cancellation)
        return cancelled

    def relay(self) -> None:
        """Relay the outcome of the task, if it has ended."""
        task = self._task
        if task is None or not task.done() or self.done():
            return
        self._unfinished.discard(self)
        with suppress(InvalidStateError):  # it was cancelled just now
            if task.cancelled():
                super().cancel()
                self._notify()
                return
            # Nothing may be raised here: a traceback would hold this frame, and so this future,
            # which holds the failure: once dropped, it would be reported only by a garbage
            # collection.
            try:
                error = task.exception()
            except KeyboardInterrupt as interrupt:  # a Ctrl-C while the outcome was read
                error = interrupt
            if error is None:
                self.set_result(task.result())
            else:
                # For tasks lost with a worker the manager makes a single report.
                self._unheard = task.state is State.FAILED and not self._awaited
                self.set_exception(error)

    def give_up(self, reason: Exception) -> None:
        """End the future, as nothing else will."""
        self.relay()
        self._unfinished.discard(self)
        close_unstarted(self._coro)
        self._schedule = self._coro = None
        with suppress(InvalidStateError):
            self.set_exception(reason)
        if self.cancelled():
            self._notify()

    def _arrive(self) -> None:
        schedule, coro = self._schedule, self._coro
        self._schedule = self._coro = None
        if schedule is None or self.done():
            close_unstarted(coro)
            return
        try:
            check_awaitable(coro, "schedule_threadsafe")
            self._task = schedule(coro)  # type: ignore[arg-type]  # it is an awaitable
        except BaseException as refusal:
            self._unfinished.discard(self)
            with suppress(InvalidStateError):
                self._unheard = not self._awaited
                self.set_exception(refusal)
            del self, schedule  # which the refusal's traceback would keep alive
            if isinstance(refusal, KeyboardInterrupt):  # a Ctrl-C, which is for the loop, too
                raise
        else:
            self._task.add_done_callback(lambda _: self.relay())

    def _take_cancellation(self) -> None:
        self._unfinished.discard(self)
        self._notify()
        if self._task is not None:
            self._task.cancel()

    def _notify(self) -> None:
        """Notify `concurrent.futures.wait`, once."""
        if not self._notified:
            self._notified = True
            self.set_running_or_notify_cancel()
