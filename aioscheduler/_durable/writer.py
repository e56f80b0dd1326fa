"""The thread that touches the file, so that the loop never waits for a disk.

    loop:    submit(call, then) ─► … ─► then(result, error)
    thread:                      call()

It knows nothing of stores: it makes calls one at a time, in the order of their submission.
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
"""A callback in the loop: it receives the result of a call, or None and what it raised."""


class Writer:
    """A daemon thread that makes calls, one after another."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Then[Any]] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._stopped = False
        self._pid = 0  # of the process in which the thread lives

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to make calls, and report them to `loop`.

        Raises:
            StoreError: No thread can be started.
        """
        thread = Thread(target=self._run, args=(loop,), name="aioscheduler-store", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise StoreError(f"no thread can be had to write to the store: {error}") from error
        self._thread, self._pid = thread, os.getpid()

    def submit(self, call: Callable[[], T], then: Then[T]) -> None:
        """Schedule a call behind those before it, and call `then` in the loop with its result.

        If the loop is closed by then, `then` is not called.

        Raises:
            StoreError: It would never be made: the writer was not started, or has ended, or this
                process was forked from the writer's.
        """
        if self._thread is not None and os.getpid() != self._pid:
            raise StoreError(
                f"this process was forked from {self._pid}, which has the store open: a forked "
                "process cannot use it, and needs a manager of its own with another file"
            )
        if self._thread is None or self._stopped or not self._thread.is_alive():
            raise StoreError("the store is not open: its writer has ended, or was not started")
        self._jobs.put((call, then))

    def stop(self) -> None:
        """Accept no more calls; the thread ends after those submitted. May be repeated."""
        if not self._stopped:
            self._stopped = True
            self._jobs.put(None)

    def join(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds for the thread to end; return whether it has."""
        if self._thread is None or os.getpid() != self._pid:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while (job := self._jobs.get()) is not None:
            result, error = _make(job[0])
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(job[1], result, error)
            del job, result, error  # not kept while waiting for the next


class InlineWriter:
    """A writer without a thread, for a loop on virtual time.

    A call is made as it is submitted, and its result reported in a later turn of the loop.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to make calls, and report them to `loop`."""
        self._loop = loop

    def submit(self, call: Callable[[], T], then: Then[T]) -> None:
        """Make a call, and schedule `then` in the loop with its result.

        Raises:
            StoreError: The writer was not started, or was stopped.
        """
        if self._loop is None:
            raise StoreError("the store is not open: its writer has ended, or was not started")
        result, error = _make(call)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon(then, result, error)

    def stop(self) -> None:
        """Accept no more calls. May be repeated."""
        self._loop = None

    def join(self, timeout: float | None = None) -> bool:
        """Return True, as nothing is under way."""
        return True


def _make(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001  whatever it is, it must reach the loop
        return None, error


async def ask(
    writer: Writer | InlineWriter, loop: asyncio.AbstractEventLoop, call: Callable[[], T]
) -> T:
    """Make a call by a writer, and return its result.

    Args:
        writer: The writer.
        loop: The running loop.
        call: The call.

    Raises:
        Exception: Whatever it raises.
        StoreError: It is never made.
    """
    answer: asyncio.Future[T] = loop.create_future()

    def then(result: Any, error: BaseException | None) -> None:
        if isinstance(error, StopIteration):  # a future does not accept it
            error = RuntimeError(repr(error))
        if not answer.done():
            answer.set_result(result) if error is None else answer.set_exception(error)

    writer.submit(call, then)
    return await answer
