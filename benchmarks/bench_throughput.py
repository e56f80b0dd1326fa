"""Tasks a second from end to end, with results, against aiomultiprocess and plain asyncio.

An async no-op that returns its argument is run N times on 2 processes, and all results are
collected: through `Manager.map`, through single calls of `Manager.schedule`, through
`aiomultiprocess.Pool.map`; and in one process through `loop.call_at` with `create_task`, as one
writes a timer by hand. The contestants run in turn, after a warm-up with processes started; what
is given is the median of the runs, and the ratio to the pool.

Goals: `map` at least 4 times the pool on Python 3.11, 12 times on 3.12 and later.
"""

from __future__ import annotations

import asyncio
import sys
import time

import aiomultiprocess  # type: ignore[import-untyped]  # ships no type information
from common import median, parser, report

from aioscheduler import Manager

WORKERS = 2


async def work(n: int) -> int:
    return n


async def by_map(manager: Manager, count: int) -> None:
    assert len(await manager.map(work, range(count))) == count


async def by_schedule(manager: Manager, count: int) -> None:
    tasks = []
    for n in range(count):
        tasks.append(manager.schedule(work(n)))
        if n % 5000 == 0:
            await manager.flush()
    for n, task in enumerate(tasks):
        assert await task == n


async def by_pool(pool: aiomultiprocess.Pool, count: int) -> None:
    assert len(await pool.map(work, range(count))) == count


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


async def bench(count: int, runs: int) -> list[dict[str, object]]:
    rates: dict[str, list[float]] = {}
    async with Manager(workers=WORKERS) as manager, aiomultiprocess.Pool(WORKERS) as pool:
        contestants = {
            "Manager.map": lambda n: by_map(manager, n),
            "Manager.schedule": lambda n: by_schedule(manager, n),
            "aiomultiprocess.Pool.map": lambda n: by_pool(pool, n // 5),
            "asyncio, one process": by_asyncio,
        }
        for run in range(runs + 1):
            for name, contestant in contestants.items():
                size = count if run else count // 10  # the first is the warm-up
                begun = time.perf_counter()
                await contestant(size)
                seconds = time.perf_counter() - begun
                done = size // 5 if "Pool" in name else size
                if run:
                    rates.setdefault(name, []).append(done / seconds)
    pool_rate = median(rates["aiomultiprocess.Pool.map"])
    return [
        {"who": name, "tasks/s": median(values), "x pool": median(values) / pool_rate}
        for name, values in rates.items()
    ]


def main() -> int:
    options = parser(__doc__).parse_args()
    count, runs = (50_000, 3) if options.quick else (300_000, 5)
    report(asyncio.run(bench(count, runs)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
