"""The effect of a flood of log records on the other tasks of its worker, and on memory.

A task logs N records as fast as it can, 10 in each of its steps, or all of them in a thread, in a
manager with one worker. Meanwhile other tasks there are due every 2 ms; each returns how late it
began (p50, p99, max). "forwarded" has `Manager(forward_logs=True)`, and the host writes each record
to a file (/dev/null); with "thrown away" the worker's own logging drops them instead, so that the
difference is the cost of forwarding. "nothing" logs nothing, for a second. "host" is how late a
sleep of 5 ms in the host ended, p99. MB is the largest growth of the resident memory of host and
worker. Variants take turns; figures are medians of the runs.

Goal: forwarded, other tasks are no more than a few ms later than with the records thrown away, and
the memory grows by no more than the backlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TextIO

import psutil
from common import late_by, lateness, median, moment, parse, report, rss, workers

from aioscheduler import Manager

EVERY = 2_000_000  # nanoseconds between two due times
AHEAD = 100_000_000
NAP = 0.005

log = logging.getLogger("bench")


def throw_away() -> None:
    """Drop records: the initializer of workers that do not forward them."""
    logging.root.addHandler(logging.NullHandler())
    logging.root.setLevel(logging.INFO)


def flood(count: int) -> None:
    for number in range(count):
        log.info("record %d of many", number)


async def in_tasks(count: int) -> None:
    for _ in range(count // 10):
        flood(10)
        await asyncio.sleep(0)


async def in_thread(count: int) -> None:
    await asyncio.to_thread(flood, count)


async def nothing(count: int) -> None:
    await asyncio.sleep(1)


class Counts(logging.StreamHandler[Any]):
    """A handler that counts the records it writes."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        super().emit(record)


async def nap(late: list[int]) -> None:
    while True:
        before = time.perf_counter_ns()
        await asyncio.sleep(NAP)
        late.append(time.perf_counter_ns() - before - int(NAP * 1e9))


async def watch(processes: list[psutil.Process], most: list[int]) -> None:
    while True:
        most[:] = [max(old, rss([each])) for old, each in zip(most, processes, strict=True)]
        await asyncio.sleep(0.05)


async def measure(
    task: Callable[[int], Awaitable[None]], count: int, forward: bool, file: TextIO
) -> dict[str, float]:
    initializer = None if forward else throw_away
    options: Any = {"workers": 1, "forward_logs": forward, "initializer": initializer}
    handler = Counts(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(processName)s %(message)s"))
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    async with Manager(4, **options) as manager:
        processes = [psutil.Process(), *workers()]
        await manager.map(late_by, [time.time_ns()] * 1000)
        before = [rss([process]) for process in processes]
        most = before[:]
        host_late: list[int] = []
        late: list[int] = []
        beside = [
            asyncio.create_task(nap(host_late)),
            asyncio.create_task(watch(processes, most)),
        ]
        flooding: Any = manager.schedule(task(count))  # type: ignore[arg-type]
        while not flooding.done():
            first = time.time_ns() + AHEAD
            dues = [first - first % 1000 + n * EVERY for n in range(AHEAD // EVERY)]
            late += await manager.map(late_by, dues, [moment(due) for due in dues])
        await flooding
        for each in beside:
            each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*beside)
    logging.root.removeHandler(handler)
    return {
        **lateness(late),
        "host ms": lateness(host_late)["p99 ms"],
        "host MB": (most[0] - before[0]) / 1e6,
        "worker MB": (most[1] - before[1]) / 1e6,
        "arrived": float(handler.count),
        "dropped": float(manager.stats().logs_dropped),
    }


VARIANTS = {
    "nothing": (nothing, True),
    "tasks, thrown away": (in_tasks, False),
    "tasks, forwarded": (in_tasks, True),
    "a thread, thrown away": (in_thread, False),
    "a thread, forwarded": (in_thread, True),
}


def main() -> int:
    options = parse(__doc__, "records", 100_000, 2_000)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with open(os.devnull, "w") as file:
        for _ in range(options.runs):
            for name, (task, forward) in VARIANTS.items():
                found[name].append(asyncio.run(measure(task, options.size, forward, file)))
    rows = [
        {
            "logged by": name,
            "records": 0 if name == "nothing" else options.size,
            **{key: median([run[key] for run in runs]) for key in runs[0]},
        }
        for name, runs in found.items()
    ]
    report(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
