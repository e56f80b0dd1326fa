"""Failures that nobody awaits: reported to the loop's exception handler, never silenced.

Their tasks are unknown here; callers name them in words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NoReturn

from .loopthread import call_in_loop

log: logging.Logger = logging.getLogger("aioscheduler")

TASK = "scheduled_task"
"""The key of the failed task in a handler's context, where asyncio uses "task" for its own."""


class Unseen:
    """Reports a failure whose handle is dropped before anybody asked for the outcome.

    Garbage collection may run it in any thread, so the loop must make the report.

    Args:
        *args: The arguments of `report`.

    Attributes:
        seen: Whether somebody has asked for the outcome.
    """

    __slots__ = ("_args", "seen")

    def __init__(self, *args: Any) -> None:
        self._args = args
        self.seen = False

    def add(self, words: str, key: str, value: object) -> None:
        """Add to the words that name the task, and to its description."""
        loop, who, outcome, decode, task = self._args
        self._args = loop, f"{who}, {words}", outcome, decode, {**task, key: value}

    def __del__(self) -> None:
        if not self.seen:
            call_in_loop(self._args[0], report, *self._args)


def report(
    loop: asyncio.AbstractEventLoop | None,
    who: str,
    value: Any,
    decode: Callable[[Any], object] | None,
    task: dict[str, Any] | None = None,
) -> None:
    """Report a failure that nobody awaits to the loop's exception handler."""
    report_unheard(loop, f"{who}: its failure was never awaited", value, decode, task)


def describe(name: str, id_: str | None, ref: object) -> dict[str, Any]:
    """Return the description of a task that exception handlers find under `TASK`."""
    return {"name": name, "id": id_, "ref": ref}


def report_unheard(
    loop: asyncio.AbstractEventLoop | None,
    message: str,
    value: Any,
    decode: Callable[[Any], object] | None,
    task: dict[str, Any] | None = None,
) -> None:
    """Report a failure to the loop's exception handler, which may raise without harm here.

    Args:
        loop: The loop whose handler is called, in its thread.
        message: What has happened.
        value: The failure, or the input of `decode`.
        decode: Makes the failure from `value`; if it raises, that is the failure.
        task: The task that failed, as `describe` returns it; None: more than one.
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
        # A loop lets SystemExit and the like out of its handler: they must end the loop, but not
        # in the middle of our caller.
        if loop.is_running():
            loop.call_soon_threadsafe(throw, raised)
        else:
            log.exception("%s; and the loop's exception handler raised", message)


def throw(error: BaseException) -> NoReturn:
    """Raise, as a callback of a loop, the error that must end that loop."""
    raise error
