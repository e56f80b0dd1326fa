"""The event loop that a manager or scheduler belongs to, and the thread in which that loop runs.

Managers and schedulers are not thread-safe, so a call from another thread is refused before it has
changed anything. The rule: a call is wrong if the loop runs, and runs in another thread. Before
the start, and between two runs of the loop, any thread may call.

Garbage collection may run code (`__del__`, callbacks of weak references) in any thread and at any
point: such code may only append to a deque, or to the loop with `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

START_PATIENCE = 1.0  # seconds that a caller may wait for a manager that was not started

_INSTEAD = {
    "manager": "call schedule_threadsafe(), which is for any thread, or hand the call to the loop: "
    "asyncio.run_coroutine_threadsafe(manager.close(), loop)",
    "scheduler": "hand the call to it: loop.call_soon_threadsafe(scheduler.schedule, coro)",
    "task's manager": "hand the call to it: loop.call_soon_threadsafe(manager.schedule, coro)",
}
_CALLBACK = "hand the call to it: loop.call_soon_threadsafe({})"
_COROUTINE = (
    "hand it a coroutine that has `{}`: asyncio.run_coroutine_threadsafe(coro, loop); to schedule, "
    "schedule_threadsafe() is for every thread"
)


class LoopThread:
    """Checks that calls are made in the right thread.

    Args:
        what: The owner of the loop, in words: a key of `_INSTEAD`.

    Attributes:
        loop: The loop; None before the start.
        left_behind: Whether this process was forked from the one that started the loop.
        ident: The thread in which the loop was last seen to run; 0 if unknown. A call in that
            thread is right, and hot paths check nothing else: comparing it costs 23 ns on Python
            3.11, getting the running loop 133 ns.
    """

    def __init__(self, what: str) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ident: int = 0
        self._what = what
        self.left_behind = False
        _all.add(self)

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind to the running loop and its thread."""
        self.loop, self.ident = loop, threading.get_ident()

    def check(self, call: str = "", advice: str = _CALLBACK) -> None:
        """Refuse a call in a wrong thread or process, or after the loop was closed.

        Args:
            call: The function and its arguments, for `advice`; if empty, `_INSTEAD` advises.
            advice: How to make the call in the loop.

        Raises:
            RuntimeError: The call is refused; the message says what to do instead.
        """
        loop = self.loop
        if loop is None:
            if _in_worker:
                raise RuntimeError(
                    f"this {self._what} was never started in this worker process, which has "
                    "imported a copy of it; inside a task use current_manager()"
                )
        elif self.left_behind:
            raise RuntimeError(
                f"this {self._what} was started before this process was forked and belongs to its "
                "parent; make and start one here"
            )
        elif loop.is_closed():
            raise RuntimeError(
                f"the event loop of this {self._what} is closed; make a new {self._what} in the "
                "coroutine that asyncio.run() runs, and close it there"
            )
        elif asyncio._get_running_loop() is loop:
            self.ident = threading.get_ident()
        elif loop.is_running():
            instead = advice.format(call) if call else _INSTEAD[self._what]
            raise RuntimeError(
                f"this {self._what} was called in thread {threading.current_thread().name!r}, and "
                f"its event loop runs in another; {instead}"
            )

    def check_inside(self, call: str = "") -> None:
        """Refuse to wait anywhere but in the loop itself.

        Args:
            call: How a coroutine waits, for advice; if empty, `_INSTEAD` advises.

        Raises:
            RuntimeError: The wait is refused; the message says what to do instead.
        """
        self.check(call, _COROUTINE)
        if self.loop is not None and asyncio._get_running_loop() is not self.loop:
            raise RuntimeError(
                f"this {self._what} belongs to another event loop, which is not running; wait "
                "for it in the loop in which it was started"
            )

    def make_waiter(self) -> asyncio.Future[None]:
        """Return a future for waiting for an event in the loop.

        It fails if start() is not called within the next second, because nothing can happen then.

        Raises:
            RuntimeError: Another loop is running.
        """
        self.check_inside()
        running = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = running.create_future()
        if self.loop is None and self._what == "manager":
            patience = running.call_later(START_PATIENCE, self._expect_start, waiter)
            waiter.add_done_callback(lambda _: patience.cancel())
        return waiter

    def _expect_start(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done():
            return
        if self.loop is None:
            waiter.set_exception(
                RuntimeError(
                    "this manager has not been started, so its tasks do not run: call start(), or "
                    "use `async with Manager(...) as manager:`"
                )
            )
        elif self.loop is not waiter.get_loop():
            waiter.set_exception(RuntimeError("this manager was started in another event loop"))


class Waiters(list[asyncio.Future[None]]):
    """The waiters for one event."""

    __slots__ = ()

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        """Wait for the event; raise the waiter's exception if it fails.

        Args:
            waiter: A future made for this call.
        """
        self.append(waiter)
        try:
            await waiter
        except BaseException:  # the wait was given up
            self[:] = [other for other in self if other is not waiter]
            raise

    def wake(self) -> None:
        """Wake all waiters: the event has happened."""
        waiters = self[:]
        self.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def call_in_loop(
    loop: asyncio.AbstractEventLoop | None, callback: Callable[..., Any], *args: Any
) -> None:
    """Schedule a callback in a loop, from any thread and from garbage collection."""
    if loop is not None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to notify
            loop.call_soon_threadsafe(callback, *args)


def enter_worker() -> None:
    """Note that this is a worker process: objects made by its imports are not the host's."""
    global _in_worker  # noqa: PLW0603  a process is a worker or it is not
    _in_worker = True


_in_worker = False
_all: weakref.WeakSet[LoopThread] = weakref.WeakSet()


def _leave_behind() -> None:
    for each in _all:
        if each.loop is not None:
            each.left_behind, each.ident = True, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_behind)
