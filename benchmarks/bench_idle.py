"""Wake-ups and CPU of an idle manager: N far-off tasks pending, 2 workers.

Wake-ups are the voluntary context switches of all threads of a process, as the kernel counts
them, over some idle seconds. Linux only.

Goal: at most 2 a second in a worker, at most 1 + workers in the host, with 1 M pending.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

import psutil
from common import WORKERS, cpu_seconds, load, parse, report, work, workers

from aioscheduler import Manager


def switches(process: psutil.Process) -> int:
    threads = (psutil.Process(thread.id) for thread in process.threads())
    return sum(int(thread.num_ctx_switches().voluntary) for thread in threads)


async def bench(count: int, seconds: float) -> list[dict[str, object]]:
    async with Manager(workers=WORKERS) as manager:
        await load(manager, count, timedelta(days=1))
        await manager.map(work, range(100))
        await asyncio.sleep(2)
        names = {f"worker {n}": worker for n, worker in enumerate(workers(), 1)}
        processes = {"host": psutil.Process(), **names}
        before = {name: (switches(p), cpu_seconds([p])) for name, p in processes.items()}
        await asyncio.sleep(seconds)
        after = {name: (switches(p), cpu_seconds([p])) for name, p in processes.items()}
        await manager.close(0)
    return [
        {
            "process": name,
            "pending": count,
            "wake-ups/s": (after[name][0] - before[name][0]) / seconds,
            "cpu %": 100 * (after[name][1] - before[name][1]) / seconds,
        }
        for name in processes
    ]


def main() -> int:
    options = parse(__doc__, "pending", 1_000_000, 20_000)
    report(asyncio.run(bench(options.size, 1.0 if options.quick else 20.0)), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
