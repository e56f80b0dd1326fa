"""Shared by the benchmarks: options, the machine line, medians, memory, the table, JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from aioscheduler import Manager, durable

SEED = 20260  # of everything random here
WORKERS = 2
SLICE = 10_000  # tasks between two flushes
FAR = timedelta(days=3)
TURNS = 50  # a second in which tasks are scheduled to measure lateness
AHEAD = 1_000_000_000  # nanoseconds from then until they are due


def parse(doc: str | None, size: str, full: int, quick: int) -> argparse.Namespace:
    """Parse the options that every benchmark has: `--quick`, `--runs`, `--json`, and its size.

    Args:
        doc: The benchmark's docstring: what is measured, and how.
        size: The name of the option for the size.
        full: The default size.
        quick: The default size with `--quick`.

    Returns:
        `quick`, `json`, `size`, and `runs`, of which figures are the median.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--runs", type=int, metavar="N", help="default 5, or 3 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    parser.add_argument(f"--{size}", dest="size", type=int, metavar="N", help=f"default {full:,}")
    options = parser.parse_args()
    options.size = options.size or (quick if options.quick else full)
    options.runs = options.runs or (3 if options.quick else 5)
    return options


def machine() -> str:
    """Return a description of this machine and Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}"


def report(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the rows, which have the same keys, as a table, and save them if asked to."""
    print(machine())
    columns = list(rows[0])
    texts = [columns, *([as_text(row[column]) for column in columns] for row in rows)]
    widths = [max(len(text[index]) for text in texts) for index in range(len(columns))]
    for text in texts:
        print("  ".join(cell.rjust(width) for cell, width in zip(text, widths, strict=True)))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def lateness(late: list[int]) -> dict[str, float]:
    """Return quantiles of lateness, given in nanoseconds, in milliseconds."""
    late = sorted(late)
    return {
        "p50 ms": late[len(late) // 2] / 1e6,
        "p99 ms": late[len(late) * 99 // 100] / 1e6,
        "max ms": late[-1] / 1e6,
    }


async def work(n: int) -> int:
    """Do nothing, in a coroutine."""
    return n


def plain_work(n: int) -> int:
    """Do nothing, in a plain function."""
    return n


async def late_by(due: int) -> int:
    """Return by how many nanoseconds this task is late."""
    return time.time_ns() - due


@durable("work")
async def durable_work(n: int) -> int:
    """Do nothing, in a durable task."""
    return n


@durable("late_by")
async def durable_late_by(due: int) -> int:
    """Return by how many nanoseconds this durable task is late."""
    return time.time_ns() - due


async def late(
    manager: Manager, function: Callable[[int], Any], rate: int, seconds: float
) -> list[int]:
    """Schedule tasks singly, `AHEAD` of their time; return by how many nanoseconds they are late.

    Args:
        manager: A manager whose workers are ready.
        function: Returns the lateness of its task.
        rate: Tasks a second.
        seconds: How long; the first fifth is warm-up, and left out.
    """
    tasks = []
    for _ in range(int(TURNS * seconds)):
        first = time.time_ns() + AHEAD
        first -= first % 1000
        for n in range(rate // TURNS):
            due = first + n * (10**9 // rate)
            tasks.append(manager.schedule(function(due), moment(due)))
        await asyncio.sleep(1 / TURNS)
    found = await asyncio.gather(*tasks)
    assert min(found) >= 0, "a task began before its time"
    return found[len(found) // 5 :]


def moment(due: int) -> datetime:
    """Return the datetime of nanoseconds since the epoch, which are whole microseconds."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=due // 1000)


async def load(manager: Manager, count: int, when: timedelta) -> None:
    """Schedule `count` tasks for `when`; keep no handles."""
    for start in range(0, count, SLICE):
        manager.map(work, range(start, min(start + SLICE, count)), when)
        await manager.flush()


def workers() -> list[psutil.Process]:
    """Return the worker processes: the children but the standard library's resource tracker."""
    children = psutil.Process().children()
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the CPU time of processes, user and system."""
    times = [process.cpu_times() for process in processes]
    return float(sum(each.user + each.system for each in times))


def rss(processes: list[psutil.Process]) -> int:
    """Return the resident memory of processes in bytes."""
    return sum(process.memory_info().rss for process in processes)


def as_text(value: Any) -> str:
    """Return a figure as text; None where there can be none."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
