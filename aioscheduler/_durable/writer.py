"""The thread that touches the file, so that the loop never waits for a disk.

    loop:    submit(call, then) ─► … ─► then(result, error)
    thread:                      call()

It knows nothing of stores: it makes calls in the order in which they were submitted, one at a time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from ..errors import StoreError

T = TypeVar("T")
Then = Callable[[T | None, BaseException | None], object]
"""Is called in the loop with what a call returned, or with None and what it raised."""


class Writer:
    """A daemon thread that makes calls, one after another."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Then[Any]] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._stopped = False
        self._pid = 0  # in which the thread lives

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to make calls, and to tell `loop` of them.

        Raises:
            StoreError: There is no room for a thread.
        """
        thread = Thread(target=self._run, args=(loop,), name="aioscheduler-store", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise StoreError(f"no thread can be had to write to the store: {error}") from error
        self._thread, self._pid = thread, os.getpid()

    def submit(self, call: Callable[[], T], then: Then[T]) -> None:
        """Have a call made when those before it have been, and its result told in the loop.

        If the loop is closed by then, nobody is told.

        Raises:
            StoreError: It would never be made: the writer was not started, or has ended, or this
                process was forked from that in which it lives.
        """
        if self._thread is not None and os.getpid() != self._pid:
            raise StoreError(
                f"this process was forked from {self._pid}, which has the store open: a forked "
                "process cannot use it, and needs a manager of its own with another file"
            )
        if self._thread is None or self._stopped or not self._thread.is_alive():
            raise StoreError("nobody writes to the store any more, or yet: it is not open")
        self._jobs.put((call, then))

    def stop(self) -> None:
        """Take no more calls; the thread ends when it has made those it has. May be repeated."""
        if not self._stopped:
            self._stopped = True
            self._jobs.put(None)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended, at most so many seconds; return whether it has."""
        if self._thread is None or os.getpid() != self._pid:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while (job := self._jobs.get()) is not None:
            result, error = _make(job[0])
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(job[1], result, error)
            del job, result, error  # not kept while waiting for the next


class InlineWriter:
    """The same without a thread, for a loop whose time is not that of the world.

    A call is made as it is submitted, and its result is told in a later turn of the loop.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to make calls, and to tell `loop` of them."""
        self._loop = loop

    def submit(self, call: Callable[[], T], then: Then[T]) -> None:
        """Make a call, and have its result told in the loop.

        Raises:
            StoreError: The writer was not started, or was stopped.
        """
        if self._loop is None:
            raise StoreError("nobody writes to the store any more, or yet: it is not open")
        result, error = _make(call)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon(then, result, error)

    def stop(self) -> None:
        """Take no more calls. May be repeated."""
        self._loop = None

    def join(self, timeout: float | None = None) -> bool:
        """Return True, as nothing is under way."""
        return True


def _make(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001  whatever it is, the loop is to know
        return None, error


async def ask(
    writer: Writer | InlineWriter, loop: asyncio.AbstractEventLoop, call: Callable[[], T]
) -> T:
    """Have a call made, and return what it returns.

    Args:
        writer: Makes it.
        loop: The running one.
        call: What is called.

    Raises:
        Exception: What it raises.
        StoreError: It is never made.
    """
    answer: asyncio.Future[T] = loop.create_future()

    def then(result: Any, error: BaseException | None) -> None:
        if isinstance(error, StopIteration):  # which no future takes
            error = RuntimeError(repr(error))
        if not answer.done():
            answer.set_result(result) if error is None else answer.set_exception(error)

    writer.submit(call, then)
    return await answer
