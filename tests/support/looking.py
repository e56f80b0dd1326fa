"""Tasks that look at their own worker from inside, as its watchdog does from another thread.

In a module that can be imported by name, for the worker is no plain value.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aioscheduler import current_task
from aioscheduler._processes.process import workers_module

main = workers_module("main")

workers: list[Any] = []
heard: list[str] = []


def look() -> None:
    loop = asyncio.get_running_loop()
    heard.append(workers[0].describe_current(loop))
    heard.append(main._stack_of(sys._getframe()))


async def give() -> None: ...


async def first_step() -> object:
    look()
    return current_task()


async def later_step() -> object:
    await asyncio.sleep(0)
    return await first_step()


async def own_task() -> None:
    await asyncio.create_task(first_step())


async def callback() -> None:
    asyncio.get_running_loop().call_soon(look)
    await asyncio.sleep(0)
