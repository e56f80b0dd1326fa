"""How long starting and closing take: `Manager`, and pools of the same number of processes.

Start is from the call to the first result, with 1 and 2 processes; close is from the call of close
to its return. Figures are medians of the runs, in milliseconds. Most of the start is Python's own.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import aiomultiprocess  # type: ignore[import-untyped]  # ships no type information
from common import median, parse, report, work

from aioscheduler import Manager


async def manager_life(processes: int) -> tuple[float, float]:
    begun = time.perf_counter()
    manager = Manager(workers=processes)
    manager.start()
    await manager.schedule(work(1))
    started = time.perf_counter()
    await manager.close()
    return started - begun, time.perf_counter() - started


async def pool_life(processes: int) -> tuple[float, float]:
    begun = time.perf_counter()
    async with aiomultiprocess.Pool(processes) as pool:
        await pool.apply(work, (1,))
        started = time.perf_counter()
        pool.close()
        await pool.join()
    return started - begun, time.perf_counter() - started


async def executor_life(processes: int) -> tuple[float, float]:
    begun = time.perf_counter()
    executor = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    executor.submit(abs, 1).result()
    started = time.perf_counter()
    executor.shutdown()
    return started - begun, time.perf_counter() - started


CONTESTANTS: dict[str, Callable[[int], Awaitable[tuple[float, float]]]] = {
    "Manager": manager_life,
    "aiomultiprocess.Pool": pool_life,
    "ProcessPoolExecutor": executor_life,
}


async def bench(most: int, runs: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for processes in range(1, most + 1):
        lives: dict[str, list[tuple[float, float]]] = {}
        for _ in range(runs):
            for who, contestant in CONTESTANTS.items():
                lives.setdefault(who, []).append(await contestant(processes))
        rows += [
            {
                "who": who,
                "processes": processes,
                "start ms": 1000 * median([start for start, _ in figures]),
                "close ms": 1000 * median([close for _, close in figures]),
            }
            for who, figures in lives.items()
        ]
    return rows


def main() -> int:
    options = parse(__doc__, "processes", 2, 1)
    report(asyncio.run(bench(options.size, options.runs)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
