"""What repeats: the cost of one that waits, and of a run; how late it is; how it is restored.

Each row is measured in a process of its own, with 2 workers where it is a `Manager`; the medians of
the runs are given.

"bytes" and "put µs": `--pending` of them are made that have a day to go, each with its own argument
(and id); the growth of the resident memory of all processes, and their CPU time, by their number.
Every tenth of the peer's, which take long. "Cron" has 1,440 rules in one zone.

"run µs", "p50 ms", "p99 ms": a thousand others repeat each second, evenly spread over it, for some
seconds; the CPU time of all processes by the number of runs, and how long after its time a run has
begun. Of plain tasks a thousand are scheduled singly for each second, some ahead.

"ready ms", "stall ms": a manager opens a file that has all of them; the time until `ready()`
returns, and the longest time for which its event loop did nothing else meanwhile. With an empty
file beside it.

The peer is APScheduler 3 with jobs of the trigger "interval", in one process, as it has no others.
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
SLICE = 1000  # of them are made between two turns of the loop
RATE = 1000  # runs a second
SECOND = 10**9
LATE: list[int] = []  # nanoseconds, of the runs in this process

Rows = dict[str, float | None]


async def note(start: int) -> None:
    """The task that notes how late it is: its time is full seconds after its start."""
    LATE.append((time.time_ns() - start) % SECOND)


@durable("note")
async def durable_note(start: int) -> None:
    """The same, and it outlives the host."""
    await note(start)


def take_late() -> list[int]:
    """Return what was noted in this process."""
    found = LATE.copy()
    LATE.clear()
    return found


async def late_of(manager: Manager) -> list[int]:
    """Return what was noted in all workers."""
    # Enough of them that each worker has some.
    parts = await manager.starmap(take_late, [()] * (WORKERS * 32))
    return [late for part in parts for late in part]


# ---- what is measured


async def waiting(put: Callable[[int], Any], count: int, settle: Callable[[], Any]) -> Rows:
    """Make what waits for a day; return what each takes."""
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
    """Have some run each second; return what a run takes, and how late it is.

    Args:
        begin: Begins one that has its first time then, in nanoseconds.
        seconds: For so long; the first one is warm-up.
        late: Gives what was noted.
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
    """Open a file; return how long that takes, and how long the loop did nothing else."""
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
    await asyncio.sleep(0.1)  # for what has begun
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
    """Measure in another process, which is used up by it."""
    command = [sys.executable, __file__, "--measure", *what]
    found: Rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def number(who: str, size: int) -> int:
    """Return how many of them wait."""
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
