"""Tasks that know how many run beside them, and that wait until they are released."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aioscheduler import current_task

BEGUN: list[int] = []
"""Numbers of the tasks that have begun to wait, in this process."""

GATES: dict[int, asyncio.Event] = {}
"""The events that release them, by number; a task without one waits for ever."""

_crowds: Counter[int] = Counter()  # by scheduler of this process


@contextmanager
def _in_the_crowd() -> Iterator[int]:
    """Count this task in; yield how many run on its scheduler, itself included."""
    scheduler = current_task().scheduler
    _crowds[scheduler] += 1
    try:
        yield _crowds[scheduler]
    finally:
        _crowds[scheduler] -= 1


async def wait(number: int) -> int:
    with _in_the_crowd() as crowd:
        BEGUN.append(number)
        await GATES.setdefault(number, asyncio.Event()).wait()
        return crowd


async def nap(seconds: float) -> int:
    with _in_the_crowd() as crowd:
        await asyncio.sleep(seconds)
        return crowd


def look(number: int) -> int:
    with _in_the_crowd() as crowd:
        return crowd


async def nap_and_fail(seconds: float) -> None:
    with _in_the_crowd() as crowd:
        await asyncio.sleep(seconds)
        raise LookupError(crowd)


def fail(number: int) -> None:
    with _in_the_crowd() as crowd:
        raise LookupError(crowd)


async def be_long_in_going(seconds: float) -> int:
    """Sleep for long; when cancelled, clean up for some seconds."""
    with _in_the_crowd():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(seconds)
        raise AssertionError("nobody has cancelled it")


def look_or_die(number: int, deadly: int) -> int:
    if number == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return look(number)
