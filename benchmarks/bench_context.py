"""The cost of `Manager(context=[request_id])`, with one short text for each task.

Far-off tasks are scheduled on a manager with one worker by single calls, and by `map`; and tasks
that are due at once are mapped and awaited. Each is measured in turn with nothing listed, with one
value for all, and (single calls) with a new value set before each. Figures are medians of the runs:
nanoseconds of the host's CPU time per task, and of elapsed time for those awaited. Compare the
figures of a row: there is no goal.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from common import SLICE, median, parse, report, work

from aioscheduler import Manager

FAR = timedelta(hours=1)
KINDS: tuple[str, ...] = ("nothing listed", "one value", "a value each")

request_id: ContextVar[str] = ContextVar("request_id")


async def by_schedule(manager: Manager, count: int, each: bool) -> float:
    """Schedule far-off tasks singly; return the CPU time in seconds."""
    spent = 0.0
    for start in range(0, count, SLICE):
        numbers = range(start, min(start + SLICE, count))
        begun = time.process_time()
        if each:
            for n in numbers:
                request_id.set(f"request-{n:08}")
                manager.schedule(work(n), FAR)
        else:
            for n in numbers:
                manager.schedule(work(n), FAR)
        spent += time.process_time() - begun
        await manager.flush()
    return spent


async def by_map(manager: Manager, count: int, each: bool) -> float:
    """Map far-off tasks; return the CPU time in seconds."""
    begun = time.process_time()
    manager.map(work, range(count), FAR)
    return time.process_time() - begun


async def awaited(manager: Manager, count: int, each: bool) -> float:
    """Map tasks and await them; return seconds."""
    begun = time.perf_counter()
    await manager.map(work, range(count))
    return time.perf_counter() - begun


WAYS: dict[str, Callable[[Manager, int, bool], Any]] = {
    "schedule(coro, when)": by_schedule,
    "map, far off": by_map,
    "map, awaited": awaited,
}


async def bench(count: int, runs: int) -> list[dict[str, object]]:
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        for way, run in WAYS.items():
            for kind in KINDS if run is by_schedule else KINDS[:2]:
                request_id.set("request-00000001")
                context = [] if kind == KINDS[0] else [request_id]
                async with Manager(workers=1, context=context) as manager:
                    await run(manager, SLICE, False)  # warm-up
                    seconds = await run(manager, count, kind == KINDS[2])
                    await manager.close(0)
                found.setdefault((way, kind), []).append(seconds / count * 1e9)
    return [
        {
            "what": way,
            **{
                f"{kind}, ns": median(found[way, kind]) if (way, kind) in found else None
                for kind in KINDS
            },
        }
        for way in WAYS
    ]


def main() -> int:
    options = parse(__doc__, "tasks", 200_000, 20_000)
    report(asyncio.run(bench(options.size, options.runs)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
