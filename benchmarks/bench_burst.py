"""Many tasks due at one instant: how fast they are worked off, and their median lateness.

Tasks are scheduled singly for one instant in the near future; each returns how late it began by
the wall clock. The rate is their number divided by the lateness of the last. `Manager` has 2
workers; plain asyncio (`loop.call_at` and `create_task`), APScheduler 3's `AsyncIOScheduler` (fewer
jobs) and aioscheduler 1.4.2 (half as many; in an environment of its own, where a Python up to 3.10
is found) have one loop, which is all they can use. All take turns; figures are medians of three
runs.

Goal: at least 8 times the rate of 1.4.2.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import peer_142
from apscheduler.schedulers.asyncio import (  # type: ignore[import-untyped]  # no type information
    AsyncIOScheduler,
)
from common import SLICE, WORKERS, late_by, median, moment, parse, report, work

from aioscheduler import Manager


def instant(count: int, per_second: int) -> int:
    """Return a due time, in nanoseconds, before which `count` tasks can be scheduled."""
    due = time.time_ns() + 10**9 + count * 10**9 // per_second
    return due - due % 1000


async def by_manager(count: int) -> list[int]:
    async with Manager(workers=WORKERS) as manager:
        await manager.map(work, range(SLICE))
        due = instant(count, 100_000)
        when = moment(due)
        tasks = []
        for n in range(count):
            tasks.append(manager.schedule(late_by(due), when))
            if n % SLICE == 0:
                await manager.flush()
        assert time.time_ns() < due, "this machine is too slow to schedule them in time"
        late = [await task for task in tasks]
    assert min(late) >= 0, "a task began before its time"
    return late


async def by_asyncio(count: int) -> list[int]:
    loop = asyncio.get_running_loop()
    due = instant(count, 100_000)
    at = loop.time() + (due - time.time_ns()) / 1e9
    tasks: list[asyncio.Task[int]] = []
    for _ in range(count):
        loop.call_at(at, lambda: tasks.append(loop.create_task(late_by(due))))
    while len(tasks) < count:
        await asyncio.sleep(0.1)
    return await asyncio.gather(*tasks)


async def by_apscheduler(count: int) -> list[int]:
    scheduler = AsyncIOScheduler(timezone="UTC")
    scheduler.start()
    late: list[int] = []
    due = instant(count, 2000)

    async def job() -> None:
        late.append(time.time_ns() - due)

    for _ in range(count):
        scheduler.add_job(job, "date", run_date=moment(due), misfire_grace_time=None)
    while len(late) < count:
        await asyncio.sleep(0.1)
    scheduler.shutdown()
    return late


def measure(contestant: Callable[[int], Awaitable[list[int]]], count: int) -> tuple[float, float]:
    """Return the rate, and the median lateness in milliseconds."""

    async def run() -> list[int]:
        return await contestant(count)

    late = sorted(asyncio.run(run()))
    return count / late[-1] * 1e9, late[count // 2] / 1e6


def measure_142(count: int) -> tuple[float, float] | None:
    made = peer_142.run("burst", count)
    return None if made is None else (made["tasks/s"], made["p50 ms"])


def main() -> int:
    options = parse(__doc__, "tasks", 200_000, 20_000)
    count = options.size
    contestants: dict[str, tuple[int, Callable[[], tuple[float, float] | None]]] = {
        "Manager": (count, lambda: measure(by_manager, count)),
        "asyncio, one process": (count, lambda: measure(by_asyncio, count)),
        "APScheduler, one process": (count // 100, lambda: measure(by_apscheduler, count // 100)),
        "aioscheduler 1.4.2, one process": (count // 2, lambda: measure_142(count // 2)),
    }
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(3):
        for who, (_, contestant) in contestants.items():
            figures = contestant()
            if figures is not None:
                found.setdefault(who, []).append(figures)
    ours = median([rate for rate, _ in found["Manager"]])
    rows = []
    for who, runs in found.items():
        rate = median([rate for rate, _ in runs])
        rows.append(
            {
                "who": who,
                "due at once": contestants[who][0],
                "tasks/s": rate,
                "p50 ms": median([late for _, late in runs]),
                "Manager is x": ours / rate,
            }
        )
    report(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
