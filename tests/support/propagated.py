"""Tasks that report the context they see: functions that workers find by name."""

from __future__ import annotations

import asyncio
import decimal
import os
import signal
from contextvars import ContextVar
from typing import Any

from aioscheduler import current_attempt, current_manager

request_id: ContextVar[Any] = ContextVar("request_id", default="-")
unlisted: ContextVar[str] = ContextVar("unlisted", default="nothing")

Seen = tuple[Any, int]


def precision() -> int:
    return decimal.getcontext().prec


def set_precision(value: int) -> None:
    decimal.setcontext(decimal.Context(prec=value))


CONTEXT: Any = [request_id, (precision, set_precision)]
"""The `context` of the tests: a variable, and a pair for what is no context variable."""


def look(_: object = None) -> Seen:
    """Return the values, and leave others behind."""
    seen = request_id.get(), decimal.getcontext().prec
    request_id.set("left behind")
    set_precision(3)
    return seen


async def look_later(_: object = None) -> Seen:
    seen = look()
    await asyncio.sleep(0)
    return seen


async def look_twice(_: object = None) -> tuple[Seen, Seen]:
    """Look again when others in this process have begun, and have looked."""
    first = request_id.get(), precision()
    await asyncio.sleep(0.1)
    return first, (request_id.get(), precision())


async def look_in_thread() -> Seen:
    return await asyncio.to_thread(look)


async def look_again(failing: int) -> tuple[int, Seen]:
    """Fail some times, and leave values that another attempt must not see."""
    seen = look()
    if current_attempt() <= failing:
        raise LookupError(f"attempt {current_attempt()}")
    return current_attempt(), seen


async def look_after_death(note: str) -> tuple[int, Seen]:
    """End the process in the first attempt, if `note` names a file that does not exist."""
    seen = look()
    if not os.path.exists(note):
        with open(note, "w"):
            os.kill(os.getpid(), signal.SIGKILL)
            await asyncio.sleep(60)
    return current_attempt(), seen


async def block(note: str) -> None:
    """Note in a file that it has begun, and go on for long."""
    with open(note, "w"):
        await asyncio.sleep(60)


async def schedule_look(word: str) -> tuple[Seen, Any]:
    """Schedule a task from inside, with a context of its own."""
    seen = request_id.get(), decimal.getcontext().prec
    request_id.set(word)
    set_precision(7)
    ref = current_manager().schedule(tell(), id=word)
    look()
    return seen, ref


async def tell() -> Seen:
    await asyncio.sleep(0.2)  # the test has its handle then
    return await look_later()


async def both(_: object = None) -> tuple[Any, str]:
    return request_id.get(), unlisted.get()


class Unreadable:
    """A value that cannot be unpickled in a worker, or anywhere."""

    def __reduce__(self) -> Any:
        return _refuse_to_be_read, ()


def _refuse_to_be_read() -> None:
    raise LookupError("this cannot be read")


def refuse_to_restore(value: object) -> None:
    if value == "refused":
        raise LookupError(f"{value} cannot be restored")
