"""The claim of aioscheduler 1.4.2, "up to 20 finishing per second" at 10 million timers, tried.

A `Manager(20)` is loaded with N pending tasks: half of them due together at an instant after the
measurements, half far off. With 10 thousand pending, and then with N, it is measured what one
more task costs: single `schedule` calls of far-off tasks, accepted and taken in by the workers;
no-ops by `map`, due at once, with results; cancelling by handles, confirmed. Each is the median
of the runs. Then the half that is due is waited for, and the rest is cancelled.

Goals: 10 M pending on a machine with 24 GiB; at least 50 k/s finishing meanwhile, and at least
90 % of the rate at 10 k; no cost more than 1.5 times that at 10 k.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta

import psutil
from common import SLICE, WORKERS, median, moment, parse, report, rss, work, workers

from aioscheduler import Batch, Manager, Task

FAR = timedelta(days=1)
FEW = 10_000
LOADED_PER_SECOND = 150_000  # at the very least


async def taken_in(manager: Manager) -> None:
    """Waits until the workers have read everything."""
    await manager.flush()
    await manager.map(work, range(100))


async def finish(manager: Manager, count: int) -> float:
    begun = time.perf_counter()
    await manager.map(work, range(count))
    return count / (time.perf_counter() - begun)


async def schedule(manager: Manager, count: int) -> tuple[float, list[Task[int]]]:
    tasks = []
    begun = time.perf_counter()
    for n in range(count):
        tasks.append(manager.schedule(work(n), FAR))
        if n % SLICE == 0:
            await manager.flush()
    await taken_in(manager)
    return count / (time.perf_counter() - begun), tasks


async def cancel(tasks: list[Task[int]]) -> float:
    begun = time.perf_counter()
    for n, task in enumerate(tasks):
        task.cancel()
        if n % SLICE == 0:
            await asyncio.sleep(0)
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.001)
    return len(tasks) / (time.perf_counter() - begun)


async def measure(manager: Manager, sample: int, runs: int) -> dict[str, float]:
    rates: dict[str, list[float]] = {"schedule/s": [], "finish/s": [], "cancel/s": []}
    await finish(manager, sample)  # warm-up
    for _ in range(runs):
        accepted, tasks = await schedule(manager, sample)
        rates["schedule/s"].append(accepted)
        rates["finish/s"].append(await finish(manager, sample))
        rates["cancel/s"].append(await cancel(tasks))
    return {what: median(values) for what, values in rates.items()}


async def load(manager: Manager, count: int, due: int) -> list[Batch[int]]:
    """Half for the instant, whose handles are dropped, half far off."""
    far = []
    for start in range(0, count // 2, SLICE):
        items = range(start, min(start + SLICE, count // 2))
        manager.map(work, items, moment(due))
        far.append(manager.map(work, items, FAR))
        await manager.flush()
    return far


async def bench(count: int, sample: int, runs: int) -> list[dict[str, object]]:
    async with Manager(20, workers=WORKERS) as manager:
        few = manager.map(work, range(min(FEW, count)), FAR)
        at_few = await measure(manager, sample, runs)
        measuring = sum(3 * runs * sample / rate for rate in at_few.values()) + 1
        due = time.time_ns() + int((count / LOADED_PER_SECOND + measuring) * 1e9) // 1000 * 1000
        begun = time.perf_counter()
        far = await load(manager, count - len(few), due)
        await taken_in(manager)
        loaded = count / (time.perf_counter() - begun)
        pending = len(manager)
        memory = rss([psutil.Process(), *workers()])
        at_many = await measure(manager, sample, runs)
        left = len(manager) - (pending - len(few)) // 2 - len(few)
        assert time.time_ns() < due, "this machine is too slow: fewer --pending"
        await asyncio.sleep((due - time.time_ns()) / 1e9)
        while len(manager) > pending - left:
            await asyncio.sleep(0.01)
        worked_off = left / (time.time_ns() - due) * 1e9
        begun = time.perf_counter()
        tasks_left = len(manager)
        for batch in (few, *far):
            batch.cancel()
            await asyncio.sleep(0)
        await manager.join()
        cancelled = tasks_left / (time.perf_counter() - begun)
    rows: list[dict[str, object]] = [
        {"pending": len(few), "what": what, "rate": rate, "x of few": 1.0}
        for what, rate in at_few.items()
    ]
    rows += [
        {"pending": pending, "what": what, "rate": rate, "x of few": rate / at_few[what]}
        for what, rate in at_many.items()
    ]
    for what, rate in (
        ("loaded/s by map", loaded),
        ("due half worked off/s", worked_off),
        ("far half cancelled/s", cancelled),
        ("memory, bytes a task", memory / pending),
    ):
        rows.append({"pending": pending, "what": what, "rate": rate, "x of few": 0.0})
    return rows


def main() -> int:
    options = parse(__doc__, "pending", 10_000_000, 200_000)
    sample = 10_000 if options.quick else 100_000
    report(asyncio.run(bench(options.size, sample, options.runs)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
