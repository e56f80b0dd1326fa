"""What an initializer opens for tasks to share: entered before the first, left after the last.

    initializer() ─► its result, awaited ─┬─► no lifespan: that was all
                                          └─► __aenter__ ─► tasks run ─► leave() ─► __aexit__
                                                               └─► ends by itself ─► `ended`

All of it is one asyncio task: cancel scopes, `asyncio.timeout` and task groups must be left in the
task that has entered them. The shape is that of the lifespans of web frameworks (ASGI).
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

_enclosing: ContextVar[Lifespan] = ContextVar("_enclosing")  # of what runs in it, and its children


class Lifespan:
    """Calls an initializer, and keeps open what it returns.

    Args:
        initializer: The function, plain or async.
        args: Its arguments.
        ended: Called with the reason if what it has opened ends before it is left.

    Attributes:
        context: With the variables that it has set; what is copied from it sees them.
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
        self._error: BaseException | None = None  # that kept it from being entered
        self._task: asyncio.Task[None] | None = None
        self._is_entered = False
        self._leaving = False

    async def enter(self) -> None:
        """Return when the initializer is through, and what it has returned is entered.

        Raises:
            BaseException: What the initializer or `__aenter__` has raised.
        """
        if self._leaving:  # it was cancelled before it could begin
            return
        loop = asyncio.get_running_loop()
        self._entered, self._left = loop.create_future(), loop.create_future()
        self._task = loop.create_task(self._live(), context=self.context)
        self._task.add_done_callback(self._tell_entered)  # also if it was cancelled too early
        try:
            await self._entered
        except asyncio.CancelledError:
            if not self._is_entered:  # else it is left in order
                self.cancel()
            raise
        if self._error is not None:
            raise self._error

    async def leave(self, patience: float | None) -> None:
        """Return when it was left, or was given up; at once if nothing of it is there.

        What is still being entered is cancelled, and may clean up as long.

        Args:
            patience: Seconds after which it is cancelled, once more; None for never.
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
                "task that is not cancelled? close(timeout) gives it more, after the tasks"
                if self._is_entered
                else "%s is cancelled once more: it has not ended within %.1f s",
                self.describe(),
                patience,
            )
            self._task.cancel()
            await asyncio.wait([self._task], timeout=LAST_WORDS)

    def cancel(self) -> None:
        """Cancel the initializer, or what it has opened: not in order, but it may clean up."""
        self._leaving = True
        if self._task is not None:
            self._task.cancel()

    def encloses_caller(self) -> bool:
        """Whether what calls this runs in it, or in an asyncio task that was made in it."""
        return _enclosing.get(None) is self

    async def wait_inside(self, closing: asyncio.Future[None]) -> None:
        """Return when it is to be left, or the end of which that is a part is over.

        So far may wait what runs in it: it is not left before that has ended.
        """
        await asyncio.wait([self._left, closing], return_when=asyncio.FIRST_COMPLETED)

    def describe(self) -> str:
        """Name what takes its time."""
        if not self._is_entered:
            return "the initializer"
        return "the lifespan that the initializer has returned"

    def runs_in(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether that is the task in which it is entered and left."""
        return task is not None and task is self._task

    async def _live(self) -> None:
        """Be entered and left; never raise."""
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
                    if not self._leaving:  # it has swallowed its cancellation
                        await self._left
        except BaseException as raised:  # noqa: BLE001  a user's code may raise anything
            error = raised
        if not self._is_entered:
            if entering and error is not None:
                with suppress(Exception):  # its class may forbid it
                    BaseException.add_note(
                        error,
                        f"the {entering} that the initializer has returned was entered as a "
                        "lifespan; return nothing that is open already",
                    )
            self._error = error
            if self._entered.cancelled():  # nobody hears of it
                self._tell(error, "when it was cancelled")
        elif not self._leaving:
            what = type(error).__name__
            with suppress(BaseException):  # its class may raise anything, and it is to be told
                what = repr(error)
            reason = RuntimeError(f"{self.describe()} has ended before its tasks: {what}")
            reason.__cause__ = error
            self._ended(reason)
        else:
            self._tell(error, "when it was left")

    def _tell(self, error: BaseException | None, when: str) -> None:
        if error is not None and not isinstance(error, asyncio.CancelledError):
            log.error("%s failed %s", self.describe(), when, exc_info=error)

    def _tell_entered(self, task: asyncio.Task[None] | None = None) -> None:
        if self._entered.done():
            return
        if task is not None and task.cancelled() and not self._leaving:  # by somebody else
            self._error = asyncio.CancelledError("the initializer was cancelled before it began")
        self._entered.set_result(None)


def time_to_leave(began: float, timeout: float | None, now: float) -> float | None:
    """Return the seconds that a lifespan has after the tasks of its worker; None: all the time.

    Args:
        began: When the tasks were told to end.
        timeout: Seconds that they had; those that were cancelled then have left it some more.
        now: The present, by the same clock.
    """
    return None if timeout is None else max(LAST_WORDS, began + timeout + CLEANUP_TIME - now)


def _check(opened: object) -> None:
    """Refuse what looks like a lifespan and of which nothing would run.

    Raises:
        TypeError: It is a generator, or made of one, that is not async.
    """
    generator = getattr(opened, "gen", None) if isinstance(opened, AbstractContextManager) else None
    for body in (opened, generator):
        if inspect.isasyncgen(body) or inspect.isgenerator(body):
            raise TypeError(
                f"the initializer has returned {opened!r}, of which nothing would run; decorate "
                "an async generator function with @contextlib.asynccontextmanager"
            )


STEP: CodeType = Lifespan._live.__code__
"""What calls the initializer, and what it has opened."""
