"""How late timed tasks start, at a steady rate: alone, among many others, beside a busy one.

Tasks are due at regular intervals, 100, 1 k and 10 k a second; each returns how late it began by
the wall clock (start minus due), on a manager with 2 workers. "others" has far-off tasks pending in
the same workers; "busy" has a badly written task in one of the workers, which alternates between
5 ms of computing and 5 ms of sleep. Plain asyncio does the same in one loop, with `loop.call_at`
and `create_task`. A warm-up of a fifth of a second is left out.

Goals at 1 k and 10 k tasks/s, with the kernel's timer (Linux): p50 at most 0.25 ms, p99 2 ms.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta

from common import WORKERS, late_by, lateness, load, moment, parse, report, work

from aioscheduler import Manager

BEFORE = 500_000_000  # nanoseconds between scheduling and the first due time
WARM_UP = 0.2  # seconds


async def compute(seconds: float) -> None:
    """Be a bad neighbour."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        burst = time.monotonic() + 0.005
        while time.monotonic() < burst:
            pass
        await asyncio.sleep(0.005)


def due_times(rate: int, seconds: float) -> list[int]:
    first = time.time_ns() + BEFORE
    first -= first % 1000
    return [first + n * (10**9 // rate) for n in range(int(rate * seconds))]


async def by_manager(rate: int, seconds: float, others: int, busy: bool) -> list[int]:
    async with Manager(workers=WORKERS) as manager:
        await manager.map(work, range(1000))
        await load(manager, others, timedelta(hours=1))
        if others:
            await asyncio.sleep(others / 500_000)  # until the workers have read them
        if busy:
            manager.schedule(compute(seconds + 2))
        dues = due_times(rate, seconds)
        late = await manager.map(late_by, dues, [moment(due) for due in dues])
        await manager.close(0)
    return late[int(rate * WARM_UP) :]


async def by_asyncio(rate: int, seconds: float, others: int, busy: bool) -> list[int]:
    loop = asyncio.get_running_loop()
    for n in range(others):
        loop.call_later(3600, print, n)
    neighbour = loop.create_task(compute(seconds + 2)) if busy else None
    dues = due_times(rate, seconds)
    tasks: list[asyncio.Task[int]] = []
    shift = loop.time() - time.time_ns() / 1e9

    def start(due: int) -> None:
        tasks.append(loop.create_task(late_by(due)))

    for due in dues:
        loop.call_at(due / 1e9 + shift, start, due)
    while len(tasks) < len(dues):
        await asyncio.sleep(0.1)
    late = await asyncio.gather(*tasks)
    if neighbour is not None:
        neighbour.cancel()
    return late[int(rate * WARM_UP) :]


def main() -> int:
    options = parse(__doc__, "others", 1_000_000, 20_000)
    seconds = 0.4 if options.quick else 5.0
    rows: list[dict[str, object]] = []
    variants = (("alone", 0, False), ("others", options.size, False), ("busy", 0, True))
    for variant, count, busy in variants:
        for rate in (100, 1000, 10_000):
            if rate != 1000 and (options.quick or variant != "alone"):
                continue
            for who, contestant in (("Manager", by_manager), ("asyncio", by_asyncio)):
                late = asyncio.run(contestant(rate, seconds, count, busy))
                assert min(late) >= 0 or who == "asyncio", "a task began before its time"
                rows.append({"who": who, "tasks/s": rate, "beside": variant, **lateness(late)})
    report(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
