"""Tasks that block their worker's loop, for a while or for ever; they are found by name."""

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
    """Never end in the first attempt; return the number of the attempt in the others."""
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
    """A value that blocks where it is unpickled."""

    def __reduce__(self) -> Any:
        return call, ()


class Written:
    """A value that blocks where it is pickled in a worker."""

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
    """Stop the process within a step."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return "goes on"


async def sleep_together(when: float, seconds: float) -> None:
    """Take a step in the same turn as others with the same time."""
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
    """Make blocks be reported at the next check of the ticks; an initializer."""
    vars(workers_module("watch"))["BLOCKED_AFTER"] = 0.1
    logging.getLogger("aioscheduler").addHandler(handler())
