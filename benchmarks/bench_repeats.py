"""Repeats: the cost of a waiting one and of a run, their lateness, and the time to restore them.

Each row is measured in a process of its own, with 2 workers for a `Manager`; figures are medians of
the runs.

"bytes" and "put µs": `--pending` repeats are made, with a day to go and each with its own argument
(and id); the growth of the resident memory of all processes, and their CPU time, per repeat. The
peer, which is slow, makes a tenth of them. "Cron" has 1,440 rules in one zone.

"run µs", "p50 ms", "p99 ms": a thousand others repeat each second, evenly spread over it, for some
seconds; the CPU time of all processes per run, and how late runs begin. Of plain tasks a thousand a
second are scheduled singly, some ahead.

"ready ms", "stall ms": a manager opens a file that has all of them; the time until `ready()`
returns, and the longest time for which its event loop was blocked meanwhile. An empty file is
beside it.

The peer is APScheduler 3 with jobs of the trigger "interval", in its only process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from apscheduler.schedulers.asyncio import (  # type: ignore[import-untyped]  # no type information
    AsyncIOScheduler,
)
from common import WORKERS, cpu_seconds, median, moment, parse, report, rss, workers

from aioscheduler import Cron, Every, Manager, durable

FAR = timedelta(days=1)
SLICE = 1000  # repeats made between two turns of the loop
RATE = 1000  # runs a second
SECOND = 10**9
LATE: list[int] = []  # nanoseconds, of the runs in this process

Rows = dict[str, float | None]


async def note(start: int) -> None:
    """Note how late this run is: its time is whole seconds after `start`."""
    LATE.append((time.time_ns() - start) % SECOND)


@durable("note")
async def durable_note(start: int) -> None:
    """Do the same in a durable task."""
    await note(start)


def take_late() -> list[int]:
    """Return what was noted in this process, and forget it."""
    found = LATE.copy()
    LATE.clear()
    return found


async def late_of(manager: Manager) -> list[int]:
    """Return what was noted in all workers."""
    # Enough tasks for each worker to get some.
    parts = await manager.starmap(take_late, [()] * (WORKERS * 32))
    return [late for part in parts for late in part]


# ---- measurements


async def waiting(put: Callable[[int], Any], count: int, settle: Callable[[], Any]) -> Rows:
    """Make repeats that wait for a day; return the cost of each."""
    for n in range(WORKERS * 4):
        put(-1 - n)  # warm-up
    await asyncio.sleep(1)
    processes = [psutil.Process(), *workers()]
    gc.collect()
    memory, cpu = rss(processes), cpu_seconds(processes)
    for n in range(count):
        put(n)
        if n % SLICE == 0:
            await settle()
    await settle()
    await asyncio.sleep(1)
    cpu = cpu_seconds(processes) - cpu
    gc.collect()
    memory = rss(processes) - memory
    return {"bytes": max(memory, 0) / count, "put us": cpu / count * 1e6}


async def running(
    begin: Callable[[int], None], seconds: float, late: Callable[[], Awaitable[list[int]]]
) -> Rows:
    """Have some run each second; return the cost of a run, and the lateness.

    Args:
        begin: Begins a repeat with this first time, in nanoseconds.
        seconds: How long; the first second is warm-up.
        late: Returns the lateness that was noted.
    """
    first = (time.time_ns() // SECOND + 2) * SECOND
    for n in range(RATE):
        begin(first + n * (SECOND // RATE) // 1000 * 1000)
    await asyncio.sleep((first - time.time_ns()) / SECOND + 1)
    await late()
    processes = [psutil.Process(), *workers()]
    cpu = cpu_seconds(processes)
    await asyncio.sleep(seconds)
    cpu = cpu_seconds(processes) - cpu
    found = sorted(await late())
    return {
        "run us": cpu / len(found) * 1e6,
        "p50 ms": found[len(found) // 2] / 1e6,
        "p99 ms": found[len(found) * 99 // 100] / 1e6,
    }


async def restored(path: str) -> Rows:
    """Open a file; return how long that takes, and for how long the loop was blocked."""
    gaps: list[float] = []

    async def turn() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    turning = asyncio.create_task(turn())
    await asyncio.sleep(0.1)
    gaps.clear()
    begun = time.perf_counter()
    async with Manager(workers=WORKERS, store=path) as manager:
        ready = time.perf_counter() - begun
        turning.cancel()
        await asyncio.wait([turning])
        stall = max(gaps)
        await manager.close(0)
    return {"ready ms": ready * 1e3, "stall ms": stall * 1e3}


# ---- the contestants


async def by_tasks(count: int, seconds: float, folder: str) -> Rows:
    async with Manager(workers=WORKERS) as manager:
        found = await waiting(lambda n: manager.schedule(note(n), FAR), count, manager.flush)
        await manager.close(0)
    async with Manager(workers=WORKERS) as manager:
        feeding: list[asyncio.Task[None]] = []

        async def feed(due: int) -> None:
            while True:
                manager.schedule(note(due), moment(due))
                due += SECOND
                await asyncio.sleep((due - time.time_ns()) / SECOND - 0.5)

        def begin(due: int) -> None:
            feeding.append(asyncio.create_task(feed(due)))

        found |= await running(begin, seconds, lambda: late_of(manager))
        for task in feeding:
            task.cancel()
        await manager.close(0)
    return found


async def by_repeats(count: int, seconds: float, folder: str) -> Rows:
    async with Manager(workers=WORKERS) as manager:
        found = await waiting(
            lambda n: manager.repeat(note(n), Every(FAR), id=f"user:{n}"), count, manager.flush
        )
        await manager.close(0)
    async with Manager(workers=WORKERS) as manager:

        def begin(due: int) -> None:
            manager.repeat(note(due), Every(1, start=moment(due)), id=f"run:{due}")

        found |= await running(begin, seconds, lambda: late_of(manager))
        await manager.close(0)
    return found


async def by_crons(count: int, seconds: float, folder: str) -> Rows:
    async with Manager(workers=WORKERS) as manager:

        def put(n: int) -> None:
            rule = Cron(f"{n % 60} {n // 60 % 24} * * *", "Europe/Berlin")
            manager.repeat(note(n), rule, id=f"user:{n}")

        found = await waiting(put, count, manager.flush)
        await manager.close(0)
    return found


async def by_durable(count: int, seconds: float, folder: str) -> Rows:
    path = str(Path(folder, "tasks.db"))
    async with Manager(workers=WORKERS, store=path) as manager:
        found = await waiting(
            lambda n: manager.repeat(durable_note(n), Every(FAR), id=f"user:{n}"),
            count,
            manager.sync,
        )
        await manager.sync()
        await manager.close(0)
    found |= await asyncio.to_thread(measure, "restored", path)
    async with Manager(workers=WORKERS, store=str(Path(folder, "others.db"))) as manager:

        def begin(due: int) -> None:
            manager.repeat(durable_note(due), Every(1, start=moment(due)), id=f"run:{due}")

        found |= await running(begin, seconds, lambda: late_of(manager))
        await manager.close(0)
    return found


async def by_nothing(count: int, seconds: float, folder: str) -> Rows:
    path = str(Path(folder, "tasks.db"))
    async with Manager(workers=WORKERS, store=path):
        pass
    return await asyncio.to_thread(measure, "restored", path)


async def by_apscheduler(count: int, seconds: float, folder: str) -> Rows:
    async def settle() -> None:
        await asyncio.sleep(0)

    async def late() -> list[int]:
        return take_late()

    scheduler = AsyncIOScheduler(timezone="UTC")
    scheduler.start()

    def put(n: int) -> None:
        scheduler.add_job(note, "interval", days=1, args=[n], id=f"user:{n}")

    found = await waiting(put, count, settle)
    scheduler.remove_all_jobs()

    def begin(due: int) -> None:
        start = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=due // 1000)
        scheduler.add_job(note, "interval", seconds=1, start_date=start, args=[due], id=str(due))

    found |= await running(begin, seconds, late)
    scheduler.remove_all_jobs()
    await asyncio.sleep(0.1)  # for runs that have begun
    scheduler.shutdown()
    return found


PEER = "APScheduler 3, interval"
CONTESTANTS = {
    "Manager.schedule": by_tasks,
    "Manager.repeat": by_repeats,
    "Manager.repeat, Cron": by_crons,
    "Manager.repeat, durable": by_durable,
    "an empty file": by_nothing,
    PEER: by_apscheduler,
}


def measure(*what: str) -> Rows:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, "--measure", *what]
    found: Rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def number(who: str, size: int) -> int:
    """Return how many repeats wait."""
    return {"an empty file": 0, PEER: size // 10}.get(who, size)


def main() -> int:
    if sys.argv[1:2] == ["--measure"]:
        if sys.argv[2] == "restored":
            print(json.dumps(asyncio.run(restored(sys.argv[3]))))
            return 0
        who, count, seconds = sys.argv[2:5]
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(CONTESTANTS[who](int(count), float(seconds), folder))
        print(json.dumps(found))
        return 0
    options = parse(__doc__, "pending", 100_000, 2_000)
    figures: dict[str, list[Rows]] = {who: [] for who in CONTESTANTS}
    for _ in range(options.runs):
        for who in CONTESTANTS:
            seconds = "1" if options.quick else "5"
            figures[who].append(measure(who, str(number(who, options.size)), seconds))
    columns = ("bytes", "put us", "run us", "p50 ms", "p99 ms", "ready ms", "stall ms")
    rows = []
    for who, runs in figures.items():
        row: dict[str, Any] = {"who": who, "number": number(who, options.size)}
        for column in columns:
            values = [value for run in runs if (value := run.get(column)) is not None]
            row[column.replace(" us", " µs")] = median(values) if values else None
        rows.append(row)
    report(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
