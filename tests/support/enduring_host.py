"""Hosts of durable tasks, which tests kill: run as `python enduring_host.py DEED PATH …`."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from enduring import (
    clean,
    escape,
    fork,
    hold,
    hold_once,
    kill_host,
    lines_of,
    note,
    note_once,
    step,
)

from aioscheduler import Manager, SQLiteStore, State, StoreLocked
from aioscheduler._durable.records import Batch, Begun

HOUR = timedelta(hours=1)


def tell(*words: object) -> None:
    print(*words, flush=True)


async def heed() -> None:
    """Wait for a line from the test, or the end of its lines."""
    await asyncio.to_thread(sys.stdin.readline)


class Doomed(SQLiteStore):
    """A store that kills its host at the commit of a chosen batch."""

    def __init__(self, path: str, meant: Callable[[Batch], bool], after: bool) -> None:
        super().__init__(path, wait=30)
        self._meant, self._after = meant, after

    def commit(self, batch: Batch) -> None:
        meant = self._meant(batch)
        if not meant or self._after:
            super().commit(batch)
        if meant:
            os.kill(os.getpid(), signal.SIGKILL)


def begins(batch: Batch) -> bool:
    return any(each.begun is Begun.ONCE for each in batch.updates)


def ends(batch: Batch) -> bool:
    return bool(batch.strikes)


async def doomed(path: str, log: str, function: str, meant: str, moment: str) -> None:
    """Run one task, the same in each life, and die at the commit of its start or its end."""
    store = Doomed(path, {"begins": begins, "ends": ends}[meant], moment == "after")
    async with Manager(store=store, workers=1) as manager:
        manager.schedule({"note": note, "note_once": note_once}[function](log, "task"), id="task")
        await heed()


async def fill(path: str, log: str) -> None:
    """Schedule tasks for ever, and print how many are on disk."""
    async with Manager(store=path, workers=1) as manager:
        number = 0
        while True:
            tasks = [
                manager.schedule(note(log, number + n), HOUR, id=str(number + n)) for n in range(8)
            ]
            await asyncio.gather(*(task.stored() for task in tasks))
            number += 8
            tell(number)


async def at_once(path: str, log: str) -> None:
    """Schedule a task, and die in the same turn of the loop."""
    async with Manager(store=path, workers=1) as manager:
        manager.schedule(note(log, "never"), HOUR)
        os.kill(os.getpid(), signal.SIGKILL)


async def hold_two(path: str, log: str, gate: str) -> None:
    """Run two long tasks, whose starts are on record."""
    async with Manager(store=path, workers=1) as manager:
        both = (
            manager.schedule(hold(log, "rerun", gate)),
            manager.schedule(hold_once(log, "fail", gate)),
        )
        for task in both:
            while task.state is not State.RUNNING:
                await asyncio.sleep(0.005)
        for n in range(3):  # a task that outlives a commit is marked as begun
            await manager.schedule(note(log, f"later {n}"), HOUR).stored()
        tell("running", *(worker.pid for worker in manager.stats().workers))
        await heed()


async def cancel(path: str, log: str, gate: str, workers: str) -> None:
    """Cancel a running task with a long clean-up, and print it when that is on disk."""
    async with Manager(store=path, workers=int(workers)) as manager:
        task = manager.schedule(clean(log, "task", gate), id="task")
        while "task 1" not in lines_of(Path(log)):
            await asyncio.sleep(0.005)
        task.cancel()
        while "task cleans up" not in lines_of(Path(log)):
            await asyncio.sleep(0.005)
        await manager.sync()
        tell(task.state.value)
        await heed()


async def poison(path: str, log: str, workers: str, folder: str) -> None:
    """Schedule, the first time, a task that kills its host among others; run all there are."""
    host = Path(folder, "host")
    host.write_text(str(os.getpid()))
    store = SQLiteStore(path, wait=30)
    async with Manager(store=store, workers=int(workers)) as manager:
        if not lines_of(Path(log)):
            for number in range(20):
                manager.schedule(note(log, number), timedelta(seconds=0.5))
            manager.schedule(kill_host(log, str(host)), timedelta(seconds=0.5))
            await manager.sync()
        await manager.join()
        tell(*[letter.reason async for letter in manager.dead_letters()])


async def chain(path: str, log: str) -> None:
    """Run a chain of tasks, each of which schedules the next."""
    async with Manager(store=SQLiteStore(path, wait=30), workers=1) as manager:
        if not lines_of(Path(log)):
            manager.schedule(step(log, 0), id="chain 0")
        tell("ready")
        await manager.join()


async def bear(path: str, log: str) -> None:
    """Run a task whose child outlives host and worker."""
    async with Manager(store=path, workers=1) as manager:
        await manager.schedule(fork(log))
        tell("born")
        await heed()


async def lose_worker(path: str, log: str) -> None:
    """Run a task that outlives the host in its worker."""
    async with Manager(store=path, workers=1) as manager:
        await manager.schedule(escape(log)).stored()
        tell("stored")
        await heed()


async def keep(path: str, log: str) -> None:
    """Keep the store open, with a task in it, until the test writes; or print why it cannot."""
    async with Manager(store=path, workers=1) as manager:
        task = manager.schedule(note(log, "kept"), HOUR, id="kept")
        await task.stored()

        def say_why(ended: object) -> None:
            tell(type(task.exception()).__name__)

        task.add_done_callback(say_why)
        tell("open", *(worker.pid for worker in manager.stats().workers))
        await heed()
        task.remove_done_callback(say_why)
    tell("closed")


async def try_to_open(path: str) -> None:
    try:
        async with Manager(store=SQLiteStore(path, wait=0), workers=1):
            tell("open")
    except StoreLocked as error:
        tell("StoreLocked", *error.pids)


async def full(path: str, log: str) -> None:
    """Run tasks while the disk is full, and when it no longer is.

    A limit on the size of files simulates the disk.
    """
    async with Manager(store=path, workers=1) as manager:
        await manager.schedule(note(log, "before"))
        await manager.sync()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        task = manager.schedule(note(log, "meanwhile"))
        tell(await task)  # though nothing can be written
        held = manager.schedule(note_once(log, "once"))
        early = manager.schedule(note(log, "later"), HOUR, id="later")
        stored = asyncio.ensure_future(early.stored())
        while not manager.stats().unsaved:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        tell(held.done(), stored.done(), manager.stats().unsaved > 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        await stored
        tell(await held)
        await manager.sync()
        tell(manager.stats().unsaved, manager.stats().stored)
        os.kill(os.getpid(), signal.SIGKILL)


async def forked(path: str, log: str) -> None:
    """Fork while the store is open; the child tries to use it."""
    async with Manager(store=path, workers=1) as manager:
        await manager.schedule(note(log, "before"), HOUR).stored()
        child = os.fork()
        if not child:
            try:
                manager.schedule(note(log, "of the child"), HOUR)
            except RuntimeError as error:
                say_and_end(type(error).__name__)
            say_and_end("accepted")
        os.waitpid(child, 0)
        await manager.schedule(note(log, "after"), HOUR).stored()
        tell(manager.stats().stored)
    tell("closed")


def say_and_end(word: str) -> None:
    tell(word)
    os._exit(0)


DEEDS: dict[str, Callable[..., Awaitable[Any]]] = {
    each.__name__: each
    for each in (
        *(
            doomed,
            fill,
            at_once,
            hold_two,
            cancel,
            poison,
            chain,
            bear,
            lose_worker,
            keep,
            try_to_open,
            full,
            forked,
        ),
    )
}

if __name__ == "__main__":
    asyncio.run(DEEDS[sys.argv[1]](*sys.argv[2:]))  # type: ignore[arg-type]
