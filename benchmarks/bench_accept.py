"""Tasks a second that a manager accepts, and cancels.

Far-off tasks are scheduled on a manager with one worker (so that the host has a core of its
own): by single calls of `schedule(coro, when)`, by `map` with one time, and by `map` with a time
for each item; the time includes a flush after each slice. Then, with five times as many tasks
pending, single ones are cancelled by their handles, until the worker has confirmed the last. Plain
asyncio does the same with `loop.call_later` and `TimerHandle.cancel`. All take turns; figures are
medians of the runs.

Goals: schedule 300 k/s, map with one time 1 M/s, with one per item 500 k/s, cancel 200 k/s.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from common import SLICE, load, median, parse, report, work

from aioscheduler import Manager

FAR = timedelta(hours=1)
GOALS = {
    "schedule(coro, when)": 300_000,
    "map, one when": 1_000_000,
    "map, when per item": 500_000,
    "cancel": 200_000,
}


async def by_schedule(manager: Manager, count: int) -> None:
    for n in range(count):
        manager.schedule(work(n), FAR)
        if n % SLICE == 0:
            await manager.flush()


async def by_map(manager: Manager, count: int) -> None:
    await load(manager, count, FAR)


async def by_map_each(manager: Manager, count: int) -> None:
    spans = [FAR + timedelta(seconds=n) for n in range(SLICE)]
    for start in range(0, count, SLICE):
        manager.map(work, range(start, start + SLICE), spans)
        await manager.flush()


async def by_asyncio(count: int) -> list[asyncio.TimerHandle]:
    loop = asyncio.get_running_loop()
    return [loop.call_later(3600, print, n) for n in range(count)]


async def rate(count: int, contestant: Callable[[Manager, int], Awaitable[None]]) -> float:
    async with Manager(workers=1) as manager:
        await contestant(manager, SLICE)  # warm-up
        begun = time.perf_counter()
        await contestant(manager, count)
        seconds = time.perf_counter() - begun
        await manager.close(0)
    return count / seconds


async def cancel_rate(count: int, pending: int) -> float:
    async with Manager(workers=1) as manager:
        await load(manager, pending, FAR)
        tasks = [manager.schedule(work(n), FAR) for n in range(count)]
        await manager.flush()
        begun = time.perf_counter()
        for n, task in enumerate(tasks):
            assert task.cancel()
            if n % SLICE == 0:
                await manager.flush()
        while not tasks[-1].done():  # one worker confirms them in order
            await asyncio.sleep(0.001)
        assert all(task.cancelled() for task in tasks)
        seconds = time.perf_counter() - begun
        await manager.close(0)
    return count / seconds


async def bench(count: int, pending: int, runs: int) -> list[dict[str, object]]:
    rates: dict[str, list[float]] = {}
    peers: dict[str, list[float]] = {}
    for _ in range(runs):
        for name, contestant in zip(GOALS, (by_schedule, by_map, by_map_each), strict=False):
            rates.setdefault(name, []).append(await rate(count, contestant))
            begun = time.perf_counter()
            handles = await by_asyncio(count)
            peers.setdefault(name, []).append(count / (time.perf_counter() - begun))
        rates.setdefault("cancel", []).append(await cancel_rate(count // 2, pending))
        begun = time.perf_counter()
        for handle in handles:
            handle.cancel()
        peers.setdefault("cancel", []).append(count / (time.perf_counter() - begun))
    return [
        {
            "what": name,
            "per s": median(values),
            "goal": GOALS[name],
            "asyncio in one loop, per s": median(peers[name]),
        }
        for name, values in rates.items()
    ]


def main() -> int:
    options = parse(__doc__, "tasks", 200_000, 20_000)
    report(asyncio.run(bench(options.size, options.size * 5, options.runs)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
