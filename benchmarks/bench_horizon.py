"""The cost of very many tasks in a file, most of them due in days.

Files of 1 million and `--pending` durable tasks (10 million by default; a hundred million take 6 GB
of disk and about ten minutes a run), due over the next 30 days, are made by SQL with our schema and
counts, beside an empty one. Then, for each in turn, a manager with 2 workers in a process of its
own:

- "file B": bytes of the file per task, as it was made.
- "ready ms": from the call of `Manager` until `ready()` returns; the file is not in the system's
  cache.
- "in memory": tasks in memory by then, due within the hour or so.
- "rest MB": resident memory of host and workers at that time; "work MB": its highest value after
  each of the steps below. "B a task": that, less "rest MB" with the empty file, per task.
- "put/s": random tasks over the 30 days, scheduled singly, 2,000 a turn of the loop, until `sync()`
  returns. "WAL B": bytes of SQLite's log per task, at 2,000 a commit.
- "p50 ms", "p99 ms": lateness of 5,000 durable tasks a second, scheduled 1 s ahead; the row without
  a number stored is of plain tasks, on a manager without a store.

All take turns; figures are medians of the runs. The files are in the standard library's folder of
temporary files (TMPDIR), and are removed.

Goals: at 10 million at most 10 B of memory a task; a hundred million in 400 MB; 60 B of file a
task; ready a second later than with an empty file; 3 kB of log a task; lateness p50 1.2 times that
of plain tasks, p99 twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from common import (
    SEED,
    WORKERS,
    durable_late_by,
    durable_work,
    late,
    late_by,
    lateness,
    median,
    parse,
    report,
    rss,
    work,
    workers,
)
from stored import build, check_disk

from aioscheduler import Manager, SQLiteStore

STEPS = (1_000_000, 10_000_000)
RATE = 5000  # tasks a second for the lateness
TURN = 2000  # tasks scheduled in one turn of the loop
COMMITS = 20  # commits of `TURN` tasks whose bytes are counted
SPAN = 30 * 86_400  # seconds over which tasks are due
START = 600  # seconds until the first is due, after all measurements
PUTS, FEW_PUTS = 100_000, 4000


async def measure(path: str, puts: int, seconds: float) -> dict[str, float]:
    """Measure with one file, or with none; this process cannot be used again."""
    begun = time.perf_counter()
    store = SQLiteStore(path) if path else None
    async with Manager(workers=WORKERS, store=store) as manager:
        ready = time.perf_counter() - begun
        processes = [psutil.Process(), *workers()]
        await manager.map(work, range(1000))  # warm-up
        await asyncio.sleep(1)
        found = {
            "ready ms": ready * 1e3,
            "in memory": sum(worker.pending for worker in manager.stats().workers),
            "rest MB": rss(processes) / 1e6,
        }
        most = found["rest MB"]
        if store is not None:
            found["put/s"] = puts / await put_down(manager, puts)
            most = max(most, rss(processes) / 1e6)
            found["WAL B"] = await count_log(manager, store, path)
            most = max(most, rss(processes) / 1e6)
        function = late_by if store is None else durable_late_by
        figures = lateness(await late(manager, function, RATE, seconds))
        found |= {"p50 ms": figures["p50 ms"], "p99 ms": figures["p99 ms"]}
        found["work MB"] = max(most, rss(processes) / 1e6)
        await manager.close(0)
    return found


async def put_down(manager: Manager, count: int) -> float:
    """Schedule random far-off tasks; return the seconds until they are on disk."""
    chance = random.Random(SEED)
    begun = time.perf_counter()
    for _ in range(0, count, TURN):
        put_some(manager, chance)
        await asyncio.sleep(0)
    await manager.sync()
    return time.perf_counter() - begun


def put_some(manager: Manager, chance: random.Random) -> None:
    for n in range(TURN):
        manager.schedule(durable_work(n), timedelta(seconds=START + chance.random() * SPAN))


async def count_log(manager: Manager, store: SQLiteStore, path: str) -> float:
    """Return the bytes of SQLite's log per task."""
    chance = random.Random(SEED + 1)
    await manager.sync()
    connection = store._connection
    assert connection is not None
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA wal_autocheckpoint=0")  # so that every write makes it longer
    for _ in range(COMMITS):
        put_some(manager, chance)
        await manager.sync()
    grown = os.stat(f"{path}-wal").st_size
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    return grown / (COMMITS * TURN)


def bench(most: int, runs: int, quick: bool) -> list[dict[str, Any]]:
    sizes = sorted({0, most, *(step for step in STEPS if step < most)})
    with tempfile.TemporaryDirectory() as folder:
        check_disk(folder, sum(sizes))
        found: dict[int | None, list[dict[str, float]]] = {size: [] for size in (*sizes, None)}
        for _ in range(runs):
            for size, figures in found.items():
                path, own = Path(folder, f"{size}.db"), {}
                if size is not None:
                    due = time.time_ns() + START * 10**9
                    own["file B"] = build(path, size, due, SPAN * 10**9) / max(size, 1)
                puts, seconds = (FEW_PUTS, 0.5) if quick else (PUTS, 5.0)
                arguments = "" if size is None else str(path), str(puts), str(seconds)
                command = [sys.executable, __file__, "--measure", *arguments]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                figures.append(own | json.loads(done.stdout))
                for file in Path(folder).iterdir():
                    file.unlink()
    return [row(size, figures, found[0]) for size, figures in found.items()]


def row(
    size: int | None, found: list[dict[str, float]], empty: list[dict[str, float]]
) -> dict[str, Any]:
    """Return the medians of one size."""
    figures: dict[str, Any] = {key: median([each[key] for each in found]) for key in found[0]}
    rest = median([each["rest MB"] for each in empty])
    per_task = (figures["work MB"] - rest) * 1e6 / size if size else None
    return {
        "stored": size,
        "file B": figures["file B"] if size else None,
        "ready ms": figures["ready ms"],
        "in memory": round(figures["in memory"]),
        "rest MB": figures["rest MB"],
        "work MB": figures["work MB"],
        "B a task": per_task,
        "put/s": figures.get("put/s"),
        "WAL B": figures.get("WAL B"),
        "p50 ms": figures["p50 ms"],
        "p99 ms": figures["p99 ms"],
    }


def main() -> int:
    if sys.argv[1:2] == ["--measure"]:
        path, puts, seconds = sys.argv[2:]
        print(json.dumps(asyncio.run(measure(path, int(puts), float(seconds)))))
        return 0
    options = parse(__doc__, "pending", 10_000_000, 20_000)
    report(bench(options.size, options.runs, options.quick), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
