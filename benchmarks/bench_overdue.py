"""How fast tasks are worked off that were due while no host was running.

A file of `--tasks` durable no-ops that were due in the last hour is made by SQL, with our schema
and counts. A manager with 2 workers in a process of its own opens it; "s" is from the call of
`Manager` until all have run and are deleted from the file, and "peak MB" the peak memory of host
and workers meanwhile, above that with an empty file. Beside it, in turn, as many plain no-ops on a
manager without a store until all have run, scheduled singly by `schedule`, as those of the file
were once, and by `map` in slices; no handles are kept.

Figures are medians of the runs. The files are in the standard library's folder of temporary files
(TMPDIR), and are removed.

Goals: at 10 million at most 300 MB above an empty manager; 0.7 of the rate of plain ones that are
scheduled singly.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from common import SLICE, WORKERS, median, parse, report, rss, work, workers
from stored import build, check_disk

from aioscheduler import Manager

HOUR = 3600 * 10**9  # nanoseconds
SECONDS = 0.1  # between two samples of the memory

EMPTY, SINGLY = "an empty file", "plain, singly"
CONTESTANTS = ((EMPTY, True), ("overdue", True), (SINGLY, False), ("plain, by map", False))
"""The contestants, and whether each has a file."""


async def measure(path: str, count: int, singly: bool) -> dict[str, float]:
    """Work off the tasks of a file, or plain ones; this process cannot be used again."""
    begun = time.perf_counter()
    async with Manager(workers=WORKERS, store=path or None) as manager:
        processes = [psutil.Process(), *workers()]
        most: list[int] = []
        looking = asyncio.create_task(look(processes, most))
        if not count:
            await manager.map(work, range(1000))
            await asyncio.sleep(1)
        elif path:
            await manager.join()
            await manager.sync()
            stats = manager.stats()
            assert (stats.stored, stats.dead_letters) == (0, 0)
        else:
            for start in range(0, count, SLICE):
                some = range(start, min(start + SLICE, count))
                if singly:
                    for n in some:
                        manager.schedule(work(n))
                else:
                    manager.map(work, some)
                await manager.flush()
            await manager.join()
        seconds = time.perf_counter() - begun
        assert manager.stats().finished == (count or 1000)
        looking.cancel()
        await asyncio.wait([looking])
    return {"s": seconds, "most": max(most)}


async def look(processes: list[psutil.Process], found: list[int]) -> None:
    """Sample the memory, again and again."""
    while True:
        found.append(rss(processes))
        await asyncio.sleep(SECONDS)


def bench(count: int, runs: int) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        check_disk(folder, 2 * count)  # deletions go through the log, too
        for _ in range(runs):
            for who, stored in CONTESTANTS:
                path = Path(folder, "tasks.db")
                size = 0 if who == EMPTY else count
                if stored:
                    build(path, size, time.time_ns() - HOUR, HOUR - HOUR // 100)
                arguments = str(path) if stored else "", str(size), who
                command = [sys.executable, __file__, "--measure", *arguments]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found.setdefault(who, []).append(json.loads(done.stdout))
                for file in Path(folder).iterdir():
                    file.unlink()
    empty = median([each["most"] for each in found.pop(EMPTY)])
    rows = []
    for who, figures in found.items():
        seconds = median([each["s"] for each in figures])
        above = median([each["most"] for each in figures]) - empty
        rows.append(
            {
                "who": who,
                "tasks": count,
                "s": seconds,
                "tasks/s": count / seconds,
                "peak MB": max(above, 0.0) / 1e6,
            }
        )
    return rows


def main() -> int:
    if sys.argv[1:2] == ["--measure"]:
        _, _, path, count, who = sys.argv
        print(json.dumps(asyncio.run(measure(path, int(count), who == SINGLY))))
        return 0
    options = parse(__doc__, "tasks", 1_000_000, 20_000)
    report(bench(options.size, options.runs), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
