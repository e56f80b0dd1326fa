"""Durable functions that write down what they do, and a host to be killed.

python lasting.py STORE LOG
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

from aioscheduler import Manager, current_attempt, current_manager, durable

HOUR = 3600.0
FAR = timedelta(days=300)


def write(log: str, word: str) -> bool:
    """Append a line, whole, whoever else does; return whether it was there before."""
    before = word in Path(log).read_text().splitlines()
    with Path(log).open("a") as file:
        file.write(f"{word}\n")
    return before


@durable("note")
async def note(log: str, word: str) -> None:
    write(log, word)


@durable("linger")
async def linger(log: str, word: str) -> None:
    """Hang, but not the second time."""
    if not write(log, word):
        await asyncio.sleep(HOUR)
    write(log, f"attempt {current_attempt()}")


@durable("linger once", on_loss="fail")
async def linger_once(log: str, word: str) -> None:
    write(log, word)
    await asyncio.sleep(HOUR)


@durable("crash")
async def crash(log: str) -> None:
    write(log, "crash")
    os._exit(3)


@durable("chain")
async def chain(log: str) -> None:
    """Schedule the next one, and hang; the second time that one is scheduled again."""
    again = write(log, "chain")
    current_manager().schedule(chain(log), FAR, id="next")
    if not again:
        await asyncio.sleep(HOUR)


BEGUN = {"rerun", "once", "chain", *(f"soon{n}" for n in range(50))}


async def host(store: str, log: str) -> None:
    """Have some tasks begun, some ended and some waiting, all of them stored; then be killed."""
    async with Manager(store=store, workers=2) as manager:
        manager.schedule(linger(log, "rerun"))
        manager.schedule(linger_once(log, "once"))
        manager.schedule(chain(log))
        for n in range(50):
            manager.schedule(note(log, f"soon{n}"))
        manager.schedule(note(log, "far"), FAR, id="far")
        while not set(Path(log).read_text().splitlines()) >= BEGUN:
            await asyncio.sleep(0.01)
        for n in range(50):
            manager.schedule(note(log, f"late{n}"), timedelta(seconds=2))
        await manager.sync()
        print("stored", flush=True)
        await asyncio.sleep(HOUR)


if __name__ == "__main__":
    asyncio.run(host(*sys.argv[1:]))
