"""The claim of aioscheduler 1.4.2, "up to 20 finishing per second" at 10 million timers, tested.

A `Manager(20)` is loaded with N pending tasks: half of them due together at an instant after the
measurements, half far off; another has 10 thousand. Then, on both in turn, the cost of one more
task is measured: single `schedule` calls of far-off tasks, until the workers have read them;
no-ops by `map`, due at once, with results; cancelling by handles, confirmed. Figures are medians of
the runs. Then the benchmark waits for the half that is due, and cancels the rest. After loading,
the host calls `gc.freeze()`, as a program with millions of objects should: else each full
collection scans all of them.

Goals: 10 M pending on a machine with 24 GiB; at least 50 k/s finishing meanwhile, and at least
90 % of the rate at 10 k; no cost above 1.5 times that at 10 k.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from datetime import timedelta

import psutil
from common import SLICE, WORKERS, median, moment, parse, report, rss, work, workers

from aioscheduler import Batch, Manager, Task

FAR = timedelta(days=1)
FEW = 10_000
LOADED_PER_SECOND = 250_000  # at the very least


async def taken_in(manager: Manager) -> None:
    """Wait until the workers have read everything."""
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


async def measure(managers: list[Manager], sample: int, runs: int) -> list[dict[str, float]]:
    """Return the rates of each manager, measured in turn."""
    rates: list[dict[str, list[float]]] = [
        {"schedule/s": [], "finish/s": [], "cancel/s": []} for _ in managers
    ]
    for run in range(runs + 1):
        for manager, found in zip(managers, rates, strict=True):
            accepted, tasks = await schedule(manager, sample)
            finished = await finish(manager, 2 * sample)
            cancelled = await cancel(tasks)
            if run:  # the first is the warm-up
                for values, rate in zip(
                    found.values(), (accepted, finished, cancelled), strict=True
                ):
                    values.append(rate)
    return [{what: median(values) for what, values in found.items()} for found in rates]


async def load(manager: Manager, count: int, due: int) -> list[Batch[int]]:
    """Schedule half for the instant, dropping the handles, and half far off; return these."""
    far = []
    for start in range(0, count // 2, SLICE):
        items = range(start, min(start + SLICE, count // 2))
        manager.map(work, items, moment(due))
        far.append(manager.map(work, items, FAR))
        await manager.flush()
    return far


async def bench(count: int, sample: int, runs: int) -> list[dict[str, object]]:
    async with Manager(20, workers=WORKERS) as small, Manager(20, workers=WORKERS) as manager:
        few = small.map(work, range(min(FEW, count)), FAR)
        (warm,) = await measure([small], sample, 1)
        measuring = sum(6 * (runs + 1) * sample / rate for rate in warm.values()) + 1
        due = time.time_ns() + int((count / LOADED_PER_SECOND + measuring) * 1e9) // 1000 * 1000
        begun = time.perf_counter()
        far = await load(manager, count, due)
        await taken_in(manager)
        loaded = count / (time.perf_counter() - begun)
        gc.freeze()
        pending = len(manager)
        memory = rss([psutil.Process(), *workers()])
        at_few, at_many = await measure([small, manager], sample, runs)
        assert time.time_ns() < due, "this machine is too slow: fewer --pending"
        await asyncio.sleep((due - time.time_ns()) / 1e9)
        near = pending - sum(map(len, far))
        while len(manager) > pending - near:
            await asyncio.sleep(0.01)
        worked_off = near / (time.time_ns() - due) * 1e9
        begun = time.perf_counter()
        left = len(manager)
        for batch in far:
            batch.cancel()
            await asyncio.sleep(0)
        await manager.join()
        cancelled = left / (time.perf_counter() - begun)
        gc.unfreeze()
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
        rows.append({"pending": pending, "what": what, "rate": rate, "x of few": None})
    return rows


def main() -> int:
    options = parse(__doc__, "pending", 10_000_000, 200_000)
    sample = 10_000 if options.quick else 100_000
    report(asyncio.run(bench(options.size, sample, options.runs)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
