"""CPU-bound tasks of about 1 ms on 1 and 2 workers, beside the most that the machine can do.

The task is a fixed amount of arithmetic that takes 1 ms on this machine. The manager runs N of them
by `map` on 1 and 2 workers; "bare processes" runs the same in 1 and 2 processes of
`multiprocessing` that share the tasks evenly and do not communicate: two cores of a virtual machine
are rarely twice as fast as one. The four take turns; figures are medians of the runs.

Goal: at least 1.85 times one worker.
"""

from __future__ import annotations

import asyncio
import sys
import time
from multiprocessing import get_context

from common import WORKERS, median, parse, report

from aioscheduler import Manager


def compute(steps: int) -> int:
    total = 0
    for step in range(steps):
        total += step * step
    return total


def compute_many(count: int, steps: int) -> None:
    for _ in range(count):
        compute(steps)


def steps_of_a_millisecond() -> int:
    steps = 20_000
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        compute(steps)
        times.append(time.perf_counter() - begun)
    return int(steps * 0.001 / min(times))


async def by_manager(manager: Manager, count: int, steps: int) -> float:
    begun = time.perf_counter()
    await manager.map(compute, [steps] * count)
    return count / (time.perf_counter() - begun)


def by_processes(processes: int, count: int, steps: int) -> float:
    with get_context("spawn").Pool(processes) as pool:
        pool.starmap(compute_many, [(10, steps)] * processes, chunksize=1)
        begun = time.perf_counter()
        pool.starmap(compute_many, [(count // processes, steps)] * processes, chunksize=1)
        return count / (time.perf_counter() - begun)


async def bench(count: int, runs: int) -> list[dict[str, object]]:
    steps = steps_of_a_millisecond()
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(runs):
        for number in (1, WORKERS):
            async with Manager(workers=number) as manager:
                await manager.map(compute, [steps] * 50)
                rate = await by_manager(manager, count, steps)
            rates.setdefault(("Manager", number), []).append(rate)
            rate = by_processes(number, count, steps)
            rates.setdefault(("bare processes", number), []).append(rate)
    return [
        {
            "who": who,
            "processes": number,
            "tasks/s": median(values),
            "x one": median(values) / median(rates[who, 1]),
        }
        for (who, number), values in sorted(rates.items())
    ]


def main() -> int:
    options = parse(__doc__, "tasks", 3000, 300)
    report(asyncio.run(bench(options.size, options.runs)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
