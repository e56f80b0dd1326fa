"""Users' programs with modules of their own, which change from one deploy to the next.

Run in their folder as `python durable_programs.py DEED PATH MODULES …`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from datetime import timedelta
from typing import Any

from aioscheduler import DeadLetter, Manager, SQLiteStore

kept: list[Manager] = []
"""Managers that are kept until the program ends."""


def letter_of(letter: DeadLetter) -> list[Any]:
    return [letter.name, letter.reason, letter.attempts, letter.text]


async def put(path: str, modules: str, *calls: str) -> None:
    """Schedule calls such as `jobs.work(1)`, for the next host, and die."""
    known = {name: importlib.import_module(name) for name in modules.split()}
    async with Manager(store=path, workers=0) as manager:
        for call in calls:
            manager.schedule(eval(call, dict(known)), timedelta(seconds=1))
        await manager.sync()
        os.kill(os.getpid(), signal.SIGKILL)


async def leave(path: str, modules: str, count: str, workers: str) -> None:
    """Schedule many calls of `jobs.work`, and exit at once, without a close."""
    work = importlib.import_module(modules).work
    manager = Manager(store=path, workers=int(workers))
    manager.start()
    await manager.ready()
    for number in range(int(count)):
        manager.schedule(work(number), timedelta(hours=1))
    kept.append(manager)


async def run(path: str, modules: str, workers: str, requeue: str = "") -> None:
    """Import modules, requeue dead letters of a reason, run all tasks, and print what is left."""
    for name in modules.split():
        importlib.import_module(name)
    store = SQLiteStore(path, wait=30)
    async with Manager(store=store, workers=int(workers), max_restarts=(0, 1.0)) as manager:
        if requeue:
            for letter in [letter async for letter in manager.dead_letters(reason=requeue)]:
                await manager.requeue(letter)
        await manager.join()
        await manager.sync()
        found = [letter_of(letter) async for letter in manager.dead_letters()]
        print(json.dumps([manager.stats().stored, found]))


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    asyncio.run({"put": put, "run": run, "leave": leave}[sys.argv[1]](*sys.argv[2:]))  # type: ignore[operator]
