"""Failures that nobody awaits: they go to the loop's exception handler, never into silence.

Whose they are is not known here; who holds the failure says it in words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NoReturn

from .loopthread import tell

log: logging.Logger = logging.getLogger("aioscheduler")

TASK = "scheduled_task"
"""Where a handler finds whose failure it is: "task" is one of asyncio's own by convention."""


class Unseen:
    """Reports a failure when its handle is dropped before anybody asked for the outcome.

    It is told by garbage collection, in whatever thread: the report is the loop's to make.

    Args:
        *args: Of `report`.

    Attributes:
        seen: Whether somebody has asked.
    """

    __slots__ = ("_args", "seen")

    def __init__(self, *args: Any) -> None:
        self._args = args
        self.seen = False

    def __del__(self) -> None:
        if not self.seen:
            tell(self._args[0], report, *self._args)


def report(
    loop: asyncio.AbstractEventLoop | None,
    who: str,
    value: Any,
    decode: Callable[[Any], object] | None,
    task: dict[str, Any] | None = None,
) -> None:
    """Hand a failure that nobody awaits to the loop's exception handler."""
    tell_unheard(loop, f"{who}: its failure was never awaited", value, decode, task)


def describe(name: str, id_: str | None, ref: object) -> dict[str, Any]:
    """Return what a handler is told of a task."""
    return {"name": name, "id": id_, "ref": ref}


def tell_unheard(
    loop: asyncio.AbstractEventLoop | None,
    message: str,
    value: Any,
    decode: Callable[[Any], object] | None,
    task: dict[str, Any] | None = None,
) -> None:
    """Hand a failure to the loop's exception handler, which may raise without harm here.

    Args:
        loop: Whose handler is called; in its thread.
        message: What has happened.
        value: The failure, or what `decode` makes it from.
        decode: May raise, which is then the failure.
        task: Whose it is, as `describe` says it; None: not that of one task.
    """
    if loop is None:
        return
    try:
        error = decode(value) if decode else value
    except BaseException as unreadable:  # noqa: BLE001  a user's class may raise anything here
        error = unreadable
    context = {"message": message, "exception": error}
    if task is not None:
        context[TASK] = task
    try:
        if loop.is_running() and asyncio._get_running_loop() is not loop:
            loop.call_soon_threadsafe(loop.call_exception_handler, context)
        else:
            loop.call_exception_handler(context)
    except BaseException as raised:
        # A loop lets SystemExit and the like out of its handler: it is to end by them, but not
        # from the midst of what we do here.
        if loop.is_running():
            loop.call_soon_threadsafe(throw, raised)
        else:
            log.exception("%s; and the loop's exception handler raised", message)


def throw(error: BaseException) -> NoReturn:
    """Raise what a loop is to end by, as a callback of that loop."""
    raise error
