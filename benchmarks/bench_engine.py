"""Workers of a Ray cluster (`RayEngine`) beside workers of this machine, and beside Ray itself.

    python benchmarks/bench_engine.py [--quick] [--runs N] [--json FILE] [--tasks N]

The cluster is one node on this machine, at a loopback address, started before and not counted. So
the figures show the cost of the engine without that of a network. Contestants have two workers each
and take turns in one process; figures are medians of the runs. For each:

- `map`: no-ops with results, tasks a second; CPU of this process and of all others (Ray's, too) per
  task, in µs.
- `schedule`: single calls, all awaited at the end, tasks a second.
- `trip`: one task after another, each awaited, ms.
- `late`: at 1,000 tasks a second, each scheduled 1 s ahead, ms; and CPU meanwhile, in % of a core.
- `MB/s`: results of 100 kB to arguments of 100 kB, each way.
- `queue`: no-ops of two FIFO queues, tasks a second.
- `idle`: CPU of all processes with nothing to do, in % of a core.

Ray's own row: the same no-op as tasks, and as calls of two actors, a second. The benchmark needs
the extra `ray`, and runs Ray in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import psutil
from common import WORKERS, late, late_by, lateness, median, parse, report, work
from local_nodes import LocalNodes

from aioscheduler import Manager, QueuedScheduler
from aioscheduler.ray import RayEngine

BIG = b"x" * 100_000
RATE = 1_000
PLAIN = """
import sys, time, ray
ray.init(address=sys.argv[1], logging_level="error", log_to_driver=False)

@ray.remote(num_cpus=0)
def task(n): return n

@ray.remote(num_cpus=0)
class Plain:
    def one(self, n): return n

count = int(sys.argv[2])
ray.get([task.remote(n) for n in range(100)])
at = time.perf_counter()
ray.get([task.remote(n) for n in range(count)])
print("rate", count / (time.perf_counter() - at))
actors = [Plain.remote() for _ in range(2)]
ray.get([actor.one.remote(1) for actor in actors])
at = time.perf_counter()
ray.get([actors[n % 2].one.remote(n) for n in range(count)])
print("rate", count / (time.perf_counter() - at))
"""


async def echo(data: bytes) -> bytes:
    """Return the argument."""
    return data


def cpu() -> tuple[float, float]:
    """Return the CPU seconds of this process, and of its descendants."""
    own = psutil.Process()
    rest = 0.0
    for each in own.children(recursive=True):
        try:
            times = each.cpu_times()
        except psutil.Error:
            continue
        rest += times.user + times.system
    times = own.cpu_times()
    return times.user + times.system, rest


async def timed(manager: Manager, count: int, row: dict[str, float]) -> None:
    """Measure a manager of timed schedulers."""
    await manager.map(work, range(2000))
    before, at = cpu(), time.perf_counter()
    assert len(await manager.map(work, range(count))) == count
    row["map/s"] = count / (time.perf_counter() - at)
    after = cpu()
    row["host µs"], row["rest µs"] = (
        (b - a) / count * 1e6 for a, b in zip(before, after, strict=True)
    )
    at = time.perf_counter()
    tasks = [manager.schedule(work(n)) for n in range(count // 3)]
    for task in tasks:
        await task
    row["schedule/s"] = len(tasks) / (time.perf_counter() - at)
    trips = []
    for n in range(300):
        at = time.perf_counter()
        await manager.schedule(work(n))
        trips.append((time.perf_counter() - at) * 1e3)
    row["trip p50 ms"] = median(trips)
    before, at = cpu(), time.perf_counter()
    found = lateness(await late(manager, late_by, RATE, 4.0))
    spent, after = time.perf_counter() - at, cpu()
    row["late p50 ms"], row["late p99 ms"] = found["p50 ms"], found["p99 ms"]
    row["CPU % at 1k/s"] = (sum(after) - sum(before)) / spent * 100
    at = time.perf_counter()
    for _ in range(3):
        assert len(await manager.map(echo, [BIG] * 100)) == 100
    row["MB/s"] = 30 / (time.perf_counter() - at)
    before, at = cpu(), time.perf_counter()
    await asyncio.sleep(3)
    row["idle CPU %"] = (sum(cpu()) - sum(before)) / (time.perf_counter() - at) * 100


async def measure(make: Callable[..., Manager], count: int) -> dict[str, float]:
    """Return a contestant's row of one run."""
    row: dict[str, float] = {}
    at = time.perf_counter()
    async with make() as manager:
        row["ready s"] = time.perf_counter() - at
        await timed(manager, count, row)
        row["host MB"] = psutil.Process().memory_info().rss / 1e6
    async with make(cls=QueuedScheduler, schedulers=WORKERS) as manager:
        await manager.map(work, range(100))
        at = time.perf_counter()
        await manager.map(work, range(count // 10))
        row["queue/s"] = count // 10 / (time.perf_counter() - at)
    return row


def plain(address: str, count: int) -> list[float]:
    """Return Ray's own tasks, and calls of actors, a second."""
    command = [sys.executable, "-c", PLAIN, address, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Ray may print anything in between.
    return [float(rate) for rate in re.findall(r"^rate (\S+)$", done.stdout, re.MULTILINE)]


async def main(options: argparse.Namespace) -> None:
    with LocalNodes() as nodes:
        nodes.add(WORKERS)
        engine = RayEngine(1, WORKERS, address=nodes.address)
        contestants: dict[str, Callable[..., Manager]] = {
            "this machine": lambda **more: Manager(workers=WORKERS, **more),
            "RayEngine": lambda **more: Manager(engine=engine, **more),
        }
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
        for _ in range(options.runs):
            for name, make in contestants.items():
                runs[name].append(await measure(make, options.size))
        rays = [plain(nodes.address, options.size // 20) for _ in range(options.runs)]
    middles = {
        name: {key: median([row[key] for row in rows]) for key in rows[0]}
        for name, rows in runs.items()
    }
    ours, native = middles["RayEngine"], middles["this machine"]
    rows: list[dict[str, Any]] = [
        {"what": key, **{name: middles[name][key] for name in contestants}}
        | {"ratio": ours[key] / native[key] if native[key] else 0.0}
        for key in native
    ]
    for what, figures in zip(
        ("Ray's tasks/s", "Ray's calls/s"), zip(*rays, strict=True), strict=True
    ):
        theirs = median(list(figures))
        # Compare it with as many no-ops by `map`.
        rows.append(
            {"what": what, "this machine": theirs, "RayEngine": ours["map/s"]}
            | {"ratio": ours["map/s"] / theirs}
        )
    report(rows, options)


if __name__ == "__main__":
    asyncio.run(main(parse(__doc__, "tasks", 60_000, 20_000)))
