"""Bytes of memory per pending task, in all processes together.

A fresh process for each row schedules N far-off tasks with one small argument, waits until the
workers have read them, and reports the growth of the resident memory of itself and its 2 workers,
divided by N, for 10 thousand, 1 million and `--pending` (a size that may not fit in free memory is
left out): single calls of `Manager.schedule`; `map` with one due time; `map` with a random due time
within a day for each, by a seed; all with the handles dropped; "held" keeps the handles or the
batches. The peers are timers of plain asyncio (`loop.call_later` of a function) and aioscheduler
1.4.2 (a fifth as many; in an environment of its own, where a Python up to 3.10 is found).

Goal: at 1 M at most 300 bytes with small arguments.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import peer_142
import psutil
from common import SEED, SLICE, WORKERS, parse, report, rss, work, workers

from aioscheduler import Manager

FAR = timedelta(days=1)
STEPS = (10_000, 1_000_000)
MOST_BYTES = 1000  # per task: no contestant takes more, at least with many tasks
KEPT: list[Any] = []


async def by_schedule(manager: Manager, count: int, keep: Callable[[Any], None]) -> None:
    for n in range(count):
        keep(manager.schedule(work(n), FAR))
        if n % SLICE == 0:
            await manager.flush()


async def by_map(manager: Manager, count: int, keep: Callable[[Any], None]) -> None:
    for start in range(0, count, SLICE):
        keep(manager.map(work, range(start, min(start + SLICE, count)), FAR))
        await manager.flush()


async def by_map_each(manager: Manager, count: int, keep: Callable[[Any], None]) -> None:
    generator = random.Random(SEED)
    for start in range(0, count, SLICE):
        items = range(start, min(start + SLICE, count))
        spans = [FAR + timedelta(seconds=generator.random() * 86_400) for _ in items]
        keep(manager.map(work, items, spans))
        await manager.flush()


VARIANTS = {
    "Manager.schedule": (by_schedule, False),
    "Manager.schedule, held": (by_schedule, True),
    "Manager.map": (by_map, False),
    "Manager.map, held": (by_map, True),
    "Manager.map, when per item": (by_map_each, False),
}


async def manager_bytes(who: str, count: int) -> tuple[float, float]:
    """Return the bytes per task in the host and in the workers."""
    contestant, held = VARIANTS[who]
    me = [psutil.Process()]
    async with Manager(workers=WORKERS) as manager:
        await contestant(manager, WORKERS * 4, lambda _: None)  # warm-up
        gc.collect()
        before = rss(me), rss(workers())
        await contestant(manager, count, KEPT.append if held else lambda _: None)
        await manager.flush()
        # A worker that answers has read all that was sent before.
        await manager.map(work, range(WORKERS * 100))
        await asyncio.sleep(1)
        gc.collect()
        after = rss(me), rss(workers())
        await manager.close(0)
    return (after[0] - before[0]) / count, (after[1] - before[1]) / count


async def asyncio_bytes(count: int) -> tuple[float, None]:
    loop = asyncio.get_running_loop()
    me = [psutil.Process()]
    before = rss(me)
    for n in range(count):
        loop.call_later(86_400, print, n)
    return (rss(me) - before) / count, None


def measure(who: str, count: int) -> tuple[float, float | None] | None:
    """Measure in this process, which cannot be used again."""
    if who in VARIANTS:
        return asyncio.run(manager_bytes(who, count))
    if who == "asyncio call_later":
        return asyncio.run(asyncio_bytes(count))
    made = peer_142.run("memory", count // 5)
    return None if made is None else (made["bytes"], None)


def main() -> int:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
        return 0
    options = parse(__doc__, "pending", 10_000_000, 20_000)
    rows = []
    for size in sorted({min(few, options.size) for few in STEPS} | {options.size}):
        if size * MOST_BYTES > psutil.virtual_memory().available:
            print(f"{size:,} pending may not fit in free memory: left out", file=sys.stderr)
            continue
        for who in (*VARIANTS, "asyncio call_later", "aioscheduler 1.4.2"):
            command = [sys.executable, __file__, "--measure", who, str(size)]
            begun = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            figures = json.loads(done.stdout)
            if figures is not None:
                rows.append(
                    {
                        "who": who,
                        "pending": size // 5 if "1.4.2" in who else size,
                        "host bytes": figures[0],
                        "workers bytes": figures[1],
                        "bytes": figures[0] + (figures[1] or 0.0),
                        "s": time.perf_counter() - begun,
                    }
                )
    report(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
