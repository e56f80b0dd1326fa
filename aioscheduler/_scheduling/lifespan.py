"""What an initializer opens for tasks to share: entered before the first, left after the last.

    initializer() ─► its result, awaited ─┬─► no lifespan: nothing more to do
                                          └─► __aenter__ ─► tasks run ─► leave() ─► __aexit__
                                                               └─► ends by itself ─► `ended`

All of it runs in one asyncio task: cancel scopes, `asyncio.timeout` and task groups must be left
in the task that entered them. The design is that of lifespans in web frameworks (ASGI).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from contextvars import Context, ContextVar, copy_context
from types import CodeType
from typing import Any

from .ending import CLEANUP_TIME, LAST_WORDS

log: logging.Logger = logging.getLogger("aioscheduler")

_enclosing: ContextVar[Lifespan] = ContextVar("_enclosing")  # seen by code in it, and its children


class Lifespan:
    """Calls an initializer, and keeps open what it returns.

    Args:
        initializer: The function, plain or async.
        args: Its arguments.
        ended: Called with the reason if what it has opened ends before it is left.

    Attributes:
        context: The context with the variables that it has set; copies of it see them.
    """

    def __init__(
        self,
        initializer: Callable[..., Any],
        args: tuple[Any, ...],
        ended: Callable[[Exception], None],
    ) -> None:
        self.context: Context = copy_context()
        self.context.run(_enclosing.set, self)
        self._initializer = initializer
        self._args = args
        self._ended = ended
        self._error: BaseException | None = None  # why it was not entered
        self._task: asyncio.Task[None] | None = None
        self._is_entered = False
        self._leaving = False

    async def enter(self) -> None:
        """Run the initializer, and enter its result.

        Raises:
            BaseException: Whatever the initializer or `__aenter__` raises.
        """
        if self._leaving:  # cancelled before it could begin
            return
        loop = asyncio.get_running_loop()
        self._entered, self._left = loop.create_future(), loop.create_future()
        self._task = loop.create_task(self._live(), context=self.context)
        self._task.add_done_callback(self._tell_entered)  # also if it was cancelled too early
        try:
            await self._entered
        except asyncio.CancelledError:
            if not self._is_entered:  # otherwise it is left in order
                self.cancel()
            raise
        if self._error is not None:
            raise self._error

    async def leave(self, patience: float | None) -> None:
        """Leave it in order, or give it up; return at once if there is nothing to leave.

        If it is still being entered it is cancelled, and has the same time to clean up.

        Args:
            patience: Seconds after which it is cancelled (once more); None for never.
        """
        if self._task is None or self._task.done():
            return
        if not (self._is_entered or self._leaving):
            self.cancel()
        self._leaving = True
        if not self._left.done():
            self._left.set_result(None)
        await asyncio.wait([self._task], timeout=patience)
        if not self._task.done():
            log.warning(
                "%s is cancelled: it was not left within %.1f s; does it wait for a background "
                "task that is not cancelled? a longer close(timeout) leaves it more time"
                if self._is_entered
                else "%s is cancelled once more: it has not ended within %.1f s",
                self.describe(),
                patience,
            )
            self._task.cancel()
            await asyncio.wait([self._task], timeout=LAST_WORDS)

    def cancel(self) -> None:
        """Cancel the initializer, or what it has opened, out of order; it may clean up."""
        self._leaving = True
        if self._task is not None:
            self._task.cancel()

    def encloses_caller(self) -> bool:
        """Return whether the caller runs in it, or in an asyncio task that was made in it."""
        return _enclosing.get(None) is self

    async def wait_inside(self, closing: asyncio.Future[None]) -> None:
        """Wait until it must be left, or until `closing` is done.

        Code that runs in it may wait no longer: it is not left before that code has ended.
        """
        await asyncio.wait([self._left, closing], return_when=asyncio.FIRST_COMPLETED)

    def describe(self) -> str:
        """Return what it is at this stage, in words, for messages."""
        if not self._is_entered:
            return "the initializer"
        return "the lifespan that the initializer has returned"

    def runs_in(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether `task` is the one in which it is entered and left."""
        return task is not None and task is self._task

    async def _live(self) -> None:
        """Enter it, wait, and leave it; never raise."""
        error: BaseException | None = None
        entering = ""
        try:
            opened = self._initializer(*self._args)
            if inspect.isawaitable(opened):
                opened = await opened
            _check(opened)
            if hasattr(type(opened), "__aenter__") and hasattr(type(opened), "__aexit__"):
                entering = type(opened).__qualname__
                async with opened:
                    self._is_entered = True
                    self._tell_entered()
                    if not self._leaving:  # otherwise it swallowed its cancellation
                        await self._left
        except BaseException as raised:  # noqa: BLE001  a user's code may raise anything
            error = raised
        if not self._is_entered:
            if entering and error is not None:
                with suppress(Exception):  # the error's class may forbid notes
                    BaseException.add_note(
                        error,
                        f"the {entering} that the initializer has returned was entered as a "
                        "lifespan; return nothing that is open already",
                    )
            self._error = error
            if self._entered.cancelled():  # nobody awaits it any more
                self._log_failure(error, "when it was cancelled")
        elif not self._leaving:
            what = type(error).__name__
            with suppress(BaseException):  # its class may raise anything; the end is still reported
                what = repr(error)
            reason = RuntimeError(f"{self.describe()} has ended before its tasks: {what}")
            reason.__cause__ = error
            self._ended(reason)
        else:
            self._log_failure(error, "when it was left")

    def _log_failure(self, error: BaseException | None, when: str) -> None:
        if error is not None and not isinstance(error, asyncio.CancelledError):
            log.error("%s failed %s", self.describe(), when, exc_info=error)

    def _tell_entered(self, task: asyncio.Task[None] | None = None) -> None:
        if self._entered.done():
            return
        if task is not None and task.cancelled() and not self._leaving:  # by somebody else
            self._error = asyncio.CancelledError("the initializer was cancelled before it began")
        self._entered.set_result(None)


def time_to_leave(began: float, timeout: float | None, now: float) -> float | None:
    """Return the seconds that a lifespan has after the tasks of its worker; None: no limit.

    Args:
        began: When the end of the tasks began, in seconds.
        timeout: Seconds that they had to finish; their time to clean up is added.
        now: The present, by the same clock.
    """
    return None if timeout is None else max(LAST_WORDS, began + timeout + CLEANUP_TIME - now)


def _check(opened: object) -> None:
    """Refuse an object that looks like a lifespan but would never run.

    Raises:
        TypeError: It is a generator, or a plain context manager made of one.
    """
    generator = getattr(opened, "gen", None) if isinstance(opened, AbstractContextManager) else None
    for body in (opened, generator):
        if inspect.isasyncgen(body) or inspect.isgenerator(body):
            raise TypeError(
                f"the initializer has returned {opened!r}, which would never run; decorate "
                "an async generator function with @contextlib.asynccontextmanager"
            )


STEP: CodeType = Lifespan._live.__code__
"""The code that calls the initializer, and enters and leaves its result."""
