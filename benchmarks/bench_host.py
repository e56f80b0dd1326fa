"""The limit of one host: the cost of a task in host and worker, and how many workers it can feed.

No-ops with results run on 2 real workers, by `map` and by single calls of `schedule`; measured is
the CPU time of a task in the host (h) and in its worker (w). The model: the host is one thread, so
it feeds at most 1/h tasks a second; a worker whose tasks compute for d runs 1/(w + d); so the host
is saturated by (w + d)/h workers.

The check: workers are replaced by sinks, which answer at once and run nothing, one and several
of them on this machine; the host is then the bottleneck, and its rate should be near 1/h for any
number of sinks that leaves it a core to itself. Figures are medians of the runs.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable

from common import SLICE, WORKERS, cpu_seconds, median, parse, report, work, workers
from sink import sinks

from aioscheduler import Manager


async def by_map(manager: Manager, count: int) -> None:
    await manager.map(work, range(count))


async def by_schedule(manager: Manager, count: int) -> None:
    tasks = []
    for n in range(count):
        tasks.append(manager.schedule(work(n)))
        if n % SLICE == 0:
            await manager.flush()
    for task in tasks:
        await task


CONTESTANTS: dict[str, Callable[[Manager, int], Awaitable[None]]] = {
    "map": by_map,
    "schedule": by_schedule,
}


async def measure(call: str, processes: int, count: int) -> tuple[float, float, float]:
    """Return the µs of CPU per task in the host and in all workers, and tasks a second."""
    contestant = CONTESTANTS[call]
    async with Manager(workers=processes) as manager:
        await contestant(manager, count // 5)
        theirs = workers()
        before = time.perf_counter(), time.process_time(), cpu_seconds(theirs)
        await contestant(manager, count)
        after = time.perf_counter(), time.process_time(), cpu_seconds(theirs)
    wall, host_cpu, workers_cpu = (b - a for a, b in zip(before, after, strict=True))
    return host_cpu / count * 1e6, workers_cpu / count * 1e6, count / wall


def main() -> int:
    options = parse(__doc__, "tasks", 400_000, 30_000)
    logging.getLogger("aioscheduler").setLevel(logging.CRITICAL)  # sinks do not tick
    rows: list[dict[str, object]] = []
    for call in CONTESTANTS:
        for kind, processes in (("real", WORKERS), ("sinks", 1), ("sinks", 2), ("sinks", 8)):
            runs = []
            for _ in range(options.runs):
                if kind == "sinks":
                    with sinks():
                        runs.append(asyncio.run(measure(call, processes, options.size)))
                else:
                    runs.append(asyncio.run(measure(call, processes, options.size)))
            host, worker, rate = (median(list(column)) for column in zip(*runs, strict=True))
            rows.append(
                {
                    "call": call,
                    "workers": f"{processes} {kind}",
                    "host us": host,
                    "worker us": worker,
                    "tasks/s": rate,
                    "1/h": 1e6 / host,
                    "full with, no-op": worker / host,
                    "full with, 1 ms": (worker + 1000) / host,
                }
            )
    report(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
