"""Tasks that keep their worker's loop busy, for a while or for good; they are found by name."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextvars import Context
from typing import Any

from aioscheduler import current_attempt
from aioscheduler._processes.process import workers_module

FOR_GOOD = 60.0  # seconds


async def innocent() -> int:
    """Never ends in its first attempt; returns which one it was in the others."""
    if current_attempt() == 1:
        await asyncio.sleep(FOR_GOOD)
    return current_attempt()


async def sleep(seconds: float = FOR_GOOD) -> float:
    time.sleep(seconds)  # noqa: ASYNC251  as no good task would
    return seconds


async def sleep_later() -> None:
    await asyncio.sleep(0.1)
    await sleep()


async def spin() -> None:
    while True:
        pass


def call() -> None:
    time.sleep(FOR_GOOD)


async def make_a_task() -> None:
    await asyncio.create_task(sleep())


async def leave_a_callback() -> None:
    asyncio.get_running_loop().call_soon(call)
    await asyncio.sleep(FOR_GOOD)


async def leave_a_callback_of_nobody() -> None:
    asyncio.get_running_loop().call_soon(call, context=Context())
    await asyncio.sleep(FOR_GOOD)


class Read:
    """Blocks where it is read."""

    def __reduce__(self) -> Any:
        return call, ()


class Written:
    """Blocks where it is written, in a worker."""

    def __init__(self, host: int) -> None:
        self.host = host

    def __reduce__(self) -> Any:
        if os.getpid() != self.host:
            call()
        return Written, (self.host,)


async def give(value: Any) -> Any:
    return value


async def fail() -> None:
    raise LookupError


def ask_long(error: BaseException) -> bool:
    """The predicate of a `Retry`."""
    call()
    return True


async def stop_itself() -> str:
    """Is in its step for as long as the process is stopped."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return "goes on"


async def sleep_together(when: float, seconds: float) -> None:
    """Have its step in the same turn as others that are given the same time."""
    await asyncio.sleep(when - time.monotonic())
    await sleep(seconds)


async def fork_and_wait() -> int:
    """Return the exit status of a child that keeps its copy of the loop busy."""
    child = os.fork()
    if not child:
        time.sleep(1.0)  # noqa: ASYNC251
        os._exit(7)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    return os.waitstatus_to_exitcode(status)


class Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise LookupError("no handler for this")


class Waits(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        os.write(2, b"it waits\n")
        time.sleep(FOR_GOOD)


def add_handler(handler: type[logging.Handler]) -> None:
    """An initializer; what blocks is reported at the next look at the ticks."""
    vars(workers_module("watch"))["BLOCKED_AFTER"] = 0.1
    logging.getLogger("aioscheduler").addHandler(handler())
