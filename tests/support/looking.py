"""Tasks that inspect their own worker from inside, as its watchdog does from another thread.

They are in a module that can be imported by name, as the worker is no plain value.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from contextvars import Context
from typing import Any

from aioscheduler import current_task
from aioscheduler._processes.process import workers_module

steps = workers_module("steps")

workers: list[Any] = []
heard: list[Any] = []


def look() -> None:
    loop = asyncio.get_running_loop()
    step = steps.find_step(loop, threading.get_ident())
    heard.append(steps.describe(step, workers[0].name_own(step.current)))
    heard.append(steps.stack_of(sys._getframe()))
    heard.append(steps.owner_of(step))


async def give() -> None: ...


async def first_step() -> object:
    look()
    return current_task()


async def later_step() -> object:
    await asyncio.sleep(0)
    return await first_step()


async def own_task() -> object:
    return await asyncio.create_task(first_step())


async def look_alone() -> None:
    look()


async def task_of_nobody() -> None:
    await asyncio.create_task(look_alone(), context=Context())


async def callback() -> object:
    asyncio.get_running_loop().call_soon(look)
    await asyncio.sleep(0)
    return current_task()


async def callback_of_nobody() -> None:
    asyncio.get_running_loop().call_soon(look, context=Context())
    await asyncio.sleep(0)


def write_slowly(number: int) -> object:
    """A result that inspects while the worker encodes it."""
    return Slow(number)


class Slow:
    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        if workers:
            look()
        return Slow, (self.number,)
