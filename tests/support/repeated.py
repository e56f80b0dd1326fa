"""Functions that tests repeat, and a record of their runs, in the test's process."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from aioscheduler import Retry, current_attempt, current_due, durable

done: list[tuple[Any, datetime | None]] = []
"""The runs and their times; a test clears it."""

gates: dict[str, asyncio.Event] = {}
"""The gates that `hold` waits for, by name."""


async def note(value: Any) -> Any:
    done.append((value, current_due()))
    return value


async def hold(name: str) -> str:
    done.append((name, current_due()))
    await gates[name].wait()
    return name


async def fail(value: Any) -> None:
    done.append((value, current_due()))
    raise ValueError(f"no {value}")


async def retried(value: Any, good: int) -> Any:
    done.append((value, current_due()))
    if current_attempt() < good:
        raise ValueError(f"not yet {value}")
    return value


@durable("repeated.note")
async def kept(value: Any) -> Any:
    return await note(value)


@durable("repeated.hold")
async def kept_hold(name: str) -> str:
    return await hold(name)


@durable("repeated.late", max_lateness=3600)
async def kept_late(value: Any) -> Any:
    return await note(value)


@durable("repeated.once", on_loss="fail")
async def kept_once(value: Any) -> Any:
    return await note(value)


@durable("repeated.retried", retry=Retry(attempts=3, wait_initial=5, wait_jitter=0))
async def kept_retried(value: Any, good: int) -> Any:
    return await retried(value, good)


class Own:
    """A user's rule: every few minutes, up to an end.

    Args:
        minutes: Minutes between times.
        until: The time after which there is none.
        fails: The time after which it raises.
    """

    def __init__(
        self, minutes: int, until: datetime | None = None, fails: datetime | None = None
    ) -> None:
        self.minutes = minutes
        self.until = until
        self.fails = fails

    def next(self, after: datetime) -> datetime | None:
        if self.fails is not None and after >= self.fails:
            raise LookupError("no more")
        found = after + timedelta(minutes=self.minutes)
        return None if self.until is not None and found > self.until else found

    def __str__(self) -> str:
        return f"own {self.minutes}"
