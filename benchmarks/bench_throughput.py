"""Tasks a second from end to end, against the peers.

An async no-op that returns its argument is run N times on 2 processes and all results are
collected: through `Manager.map`, and through single calls of `Manager.schedule`; "plain function"
maps one that is not async; "no results" drops the handles and waits with `join()`; "uvloop" runs
the workers on that loop, where it is installed. The peers get the same function and the same
number of processes, and fewer calls where they are slow: `aiomultiprocess.Pool.map`;
`concurrent.futures.ProcessPoolExecutor` and loky, by `map` with their best chunk size here, 500
(they run plain functions only, so they get one that does nothing); APScheduler 3's
`AsyncIOScheduler`, one job per call, in one process; and `loop.call_at` with `create_task`, a
hand-written timer, in one process. The contestants take turns, after a warm-up with processes
started; figures are the median of the runs, and its ratio to aiomultiprocess.

Goals: `map` at least 7 times aiomultiprocess on Python 3.11, 10 times on 3.12 and later; `map` of a
plain function at least 14 times on 3.13.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import aiomultiprocess  # type: ignore[import-untyped]  # ships no type information
import loky  # type: ignore[import-untyped]  # ships no type information
from apscheduler.schedulers.asyncio import (  # type: ignore[import-untyped]  # no type information
    AsyncIOScheduler,
)
from common import SLICE, WORKERS, median, parse, plain_work, report, work

from aioscheduler import Manager

try:
    from uvloop import new_event_loop
except ImportError:  # not on every system
    new_event_loop = None  # type: ignore[assignment]

CHUNK = 500


async def by_map(manager: Manager, count: int) -> None:
    assert len(await manager.map(work, range(count))) == count


async def by_map_of_plain(manager: Manager, count: int) -> None:
    assert len(await manager.map(plain_work, range(count))) == count


async def by_map_without_results(manager: Manager, count: int) -> None:
    for start in range(0, count, SLICE):
        manager.map(work, range(start, min(start + SLICE, count)))
        await manager.flush()
    await manager.join()


async def by_schedule(manager: Manager, count: int) -> None:
    tasks = []
    for n in range(count):
        tasks.append(manager.schedule(work(n)))
        if n % SLICE == 0:
            await manager.flush()
    for n, task in enumerate(tasks):
        assert await task == n


async def by_schedule_without_results(manager: Manager, count: int) -> None:
    for n in range(count):
        manager.schedule(work(n))
        if n % SLICE == 0:
            await manager.flush()
    await manager.join()


async def by_pool(pool: aiomultiprocess.Pool, count: int) -> None:
    assert len(await pool.map(work, range(count))) == count


async def by_executor(executor: Executor, count: int) -> None:
    assert len(list(executor.map(plain_work, range(count), chunksize=CHUNK))) == count


async def by_asyncio(count: int) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    results = []

    def finished(task: asyncio.Task[int]) -> None:
        results.append(task.result())
        if len(results) == count:
            done.set_result(None)

    def start(n: int) -> None:
        loop.create_task(work(n)).add_done_callback(finished)

    now = loop.time()
    for n in range(count):
        loop.call_at(now, start, n)
    await done


async def by_apscheduler(scheduler: Any, count: int) -> None:
    left = count
    done = asyncio.get_running_loop().create_future()

    async def job() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    for _ in range(count):
        scheduler.add_job(job, misfire_grace_time=None)
    await done


Contestant = Callable[[int], Awaitable[None]]


async def bench(count: int, runs: int) -> list[dict[str, object]]:
    apscheduler = AsyncIOScheduler(timezone="UTC")
    apscheduler.start()
    executor = ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))
    loky_executor = loky.ProcessPoolExecutor(WORKERS)
    async with Manager(workers=WORKERS) as manager, aiomultiprocess.Pool(WORKERS) as pool:
        # Each with a divisor of `count` that leaves what it can do in a second or so.
        contestants: dict[str, tuple[Contestant, int]] = {
            "Manager.map": (lambda n: by_map(manager, n), 1),
            "Manager.map, plain function": (lambda n: by_map_of_plain(manager, n), 1),
            "Manager.map, no results": (lambda n: by_map_without_results(manager, n), 1),
            "Manager.schedule": (lambda n: by_schedule(manager, n), 1),
            "Manager.schedule, no results": (lambda n: by_schedule_without_results(manager, n), 1),
            "aiomultiprocess.Pool.map": (lambda n: by_pool(pool, n), 5),
            "ProcessPoolExecutor.map": (lambda n: by_executor(executor, n), 1),
            "loky map": (lambda n: by_executor(loky_executor, n), 1),
            "APScheduler, one process": (lambda n: by_apscheduler(apscheduler, n), 100),
            "asyncio call_at, one process": (by_asyncio, 1),
        }
        rates = await take_turns(contestants, count, runs)
    if new_event_loop is not None:
        async with Manager(workers=WORKERS, loop_initializer=new_event_loop) as manager:
            on_uvloop = await take_turns(
                {"Manager.map, uvloop": (lambda n: by_map(manager, n), 1)}, count, runs
            )
        rates.update(on_uvloop)
    apscheduler.shutdown()
    executor.shutdown()
    loky_executor.shutdown()
    base = rates["aiomultiprocess.Pool.map"]
    return [{"who": who, "tasks/s": rate, "x pool": rate / base} for who, rate in rates.items()]


async def take_turns(
    contestants: dict[str, tuple[Contestant, int]], count: int, runs: int
) -> dict[str, float]:
    rates: dict[str, list[float]] = {}
    for run in range(runs + 1):
        for name, (contestant, divisor) in contestants.items():
            size = count // divisor if run else max(1, count // divisor // 10)  # first: warm-up
            begun = time.perf_counter()
            await contestant(size)
            if run:
                rates.setdefault(name, []).append(size / (time.perf_counter() - begun))
    return {name: median(values) for name, values in rates.items()}


def main() -> int:
    options = parse(__doc__, "tasks", 300_000, 50_000)
    report(asyncio.run(bench(options.size, options.runs)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
