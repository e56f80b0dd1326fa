"""Functions that fail until some attempt, for the tests of retries; workers find them by name."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from aioscheduler import Retry, TaskRef, current_attempt, current_due, current_manager, now


def steady(seconds: float = 10, **more: Any) -> Retry:
    """Make all waits the same."""
    alike = {"wait_initial": seconds, "wait_max": seconds, "wait_jitter": 0}
    return Retry(**(alike | more))


class Failed(LookupError):
    """A failure that workers find by name."""


async def fail_until(
    attempt: int, error: type[BaseException] = Failed
) -> tuple[int, datetime | None, datetime, int]:
    """Fail until an attempt, which returns its number, its due time, the present, its process."""
    if current_attempt() < attempt:
        raise error(f"attempt {current_attempt()}")
    return current_attempt(), current_due(), now(), os.getpid()


def fail_plainly(attempt: int) -> int:
    """Fail until an attempt, which returns its number."""
    if current_attempt() < attempt:
        raise Failed(f"attempt {current_attempt()}")
    return current_attempt()


async def die_then_fail(dying: int) -> None:
    """End the process in an attempt, and fail in the others."""
    if current_attempt() == dying:
        os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.Event().wait()
    raise Failed(f"attempt {current_attempt()}")


async def when() -> datetime:
    return now()


def briefly(error: BaseException) -> float | bool:
    return isinstance(error, Failed) and 0.01


async def schedule_inside(attempt: int, by_value: bool) -> TaskRef:
    """Schedule a task that is retried for between half a second and a minute."""
    seconds = 0.02
    on: Any = (lambda error: isinstance(error, Failed) and seconds) if by_value else briefly
    after = timedelta(seconds=0.5)
    return current_manager().schedule(fail_until(attempt), after, retry=Retry(on, attempts=9))


class Unreadable:
    """A predicate that needs something a worker does not have."""

    def __call__(self, error: BaseException) -> bool:
        return True

    def __reduce__(self) -> Any:
        return import_module, ("no_such_module",)


class Reduced(Exception):
    """An exception that pickles itself, and loses its notes."""

    def __reduce__(self) -> Any:
        return Reduced, self.args


async def schedule_one() -> None:
    current_manager().schedule(fail_until(2), timedelta(days=1), retry=steady(on=LookupError))


async def repeat(_: int) -> None:
    await schedule_one()
