"""Functions that tests ship: they are found by name, as those of a user's module.

Functions of a test's own file would go by value, with copies of the file's globals.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextvars import ContextVar
from typing import Any

from raising import Raises, throw_in_host

from aioscheduler import current_task
from aioscheduler._shipping.workercatalog import WorkerCatalog

word: ContextVar[str] = ContextVar("word", default="none")
ran: list[Any] = []
running: set[Any] = set()
HOSTS: list[Any] = []
"""Models of a host; tasks report to the last one."""


def leave_a_word(text: str) -> str:
    before = word.get()
    word.set(text)
    return f"{before}, {asyncio.current_task()}"


async def leave_a_word_later(text: str) -> str:
    before = word.get()
    word.set(text)
    await asyncio.sleep(0)
    return f"{before} {word.get()} {current_task().number}"


def call_later(text: str) -> Any:
    word.set("of the call")
    return leave_a_word_later(text)


def note(number: int) -> None:
    ran.append(number)


async def note_later(number: int) -> None:
    ran.append(number)


async def end_when(path: str, how: str) -> None:
    """End this process as soon as a file exists: with status 0, or by a signal."""
    while not os.path.exists(path):
        await asyncio.sleep(0.005)
    if how == "exit":
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


async def end_as(how: str) -> Any:
    """End in the given way, in a worker or here."""
    await asyncio.sleep(0)
    if how == "fails":
        raise LookupError(how)
    if how == "cannot be read":
        return Raises(throw_in_host, ValueError)
    if how == "waits":
        await asyncio.sleep(60)
    if how == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    return how


def exhausted(number: int) -> int:
    return next(iter([]))


class Counting:
    """An exception with a state of its own."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, number: int) -> int:
        self.calls += 1
        return self.calls


async def trace(what: Any, together: bool = True) -> None:
    ran.append(what)
    running.add(what)
    assert together or len(running) == 1
    await asyncio.sleep(0)
    running.remove(what)


async def trace_alone(what: Any) -> None:
    await trace(what, together=False)


async def trace_and_fail(what: Any) -> None:
    ran.append(what)
    raise LookupError(what)


async def act(padding: bytes, nap: int, fails: bool) -> int:
    number = current_task().number
    try:
        HOSTS[-1].began(number)
    except BaseException as error:
        HOSTS[-1].faults.append(error)  # raised, it would be the failure of this task
        raise
    try:
        for _ in range(nap):
            await asyncio.sleep(0)
    finally:
        HOSTS[-1].running.remove(number)
    if fails:
        raise LookupError(number)
    return number


def ask_host(error: BaseException) -> bool | float:
    """The predicate of a `Retry`."""
    return HOSTS[-1].answer()  # type: ignore[no-any-return]


def decode_with_another(payload: bytes) -> Any:
    return WorkerCatalog().decode(payload)


class Cancelling:
    """A callable object that ends as if cancelled: when it is called, or awaited."""

    def __init__(self, later: bool) -> None:
        self._later = later

    def __call__(self, n: int) -> object:
        if self._later:
            return self._cancel()
        raise asyncio.CancelledError

    async def _cancel(self) -> None:
        raise asyncio.CancelledError
