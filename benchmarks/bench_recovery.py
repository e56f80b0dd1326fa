"""How long a killed worker's tasks wait: from the kill to the first run on its replacement.

A manager with one worker has N far-off tasks pending. The worker is killed again and again, right
after a task due at once was scheduled; that task returns when it began. The wait is the start of an
interpreter and the transfer of N tasks. Figures are the median, the 99th percentile and the
maximum, in milliseconds; beside them those of starting a bare interpreter that imports asyncio.

Goal: p99 under 1 s with 100 k pending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

from common import load, parse, report, work, workers

from aioscheduler import Manager


async def began() -> int:
    return time.time_ns()


async def recoveries(pending: int, kills: int) -> list[int]:
    found = []
    async with Manager(workers=1, max_restarts=(10**9, 1.0)) as manager:
        await load(manager, pending, timedelta(days=1))
        for _ in range(kills):
            await manager.map(work, range(100))
            (worker,) = workers()
            killed = time.time_ns()
            os.kill(worker.pid, signal.SIGKILL)
            found.append(await manager.schedule(began()) - killed)
        assert len(manager) == pending
        await manager.close(0)
    return found


def bare_start() -> int:
    begun = time.perf_counter_ns()
    subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
    return time.perf_counter_ns() - begun


def main() -> int:
    options = parse(__doc__, "pending", 100_000, 5_000)
    logging.getLogger("aioscheduler").setLevel(logging.CRITICAL)
    kills = 5 if options.quick else 50
    rows: list[dict[str, object]] = []
    for what, pending, times in (
        (
            "first run on the replacement",
            options.size,
            asyncio.run(recoveries(options.size, kills)),
        ),
        ("a bare interpreter's start", None, [bare_start() for _ in range(kills)]),
    ):
        times.sort()
        rows.append(
            {
                "what": what,
                "pending": pending,
                "times": kills,
                "p50 ms": times[len(times) // 2] / 1e6,
                "p99 ms": times[len(times) * 99 // 100] / 1e6,
                "max ms": times[-1] / 1e6,
            }
        )
    report(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
