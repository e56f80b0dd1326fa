"""The cost of durable tasks.

"put down": tasks due in days, each on disk before it counts: by 256 callers, each of which awaits
`stored()` of a task before the next one; by `map`, in slices, with `sync()` after each; and by one
caller, which awaits each. Beside them APScheduler 3 with its SQLAlchemyJobStore and huey's
SqliteHuey, both on SQLite and set to sync; these can only store one at a time.

"end to end": no-ops that are due at once, by `map` on 2 workers, until their results have arrived
and (durable) they are deleted from the file; durable, and plain on a manager with a store and
without one. "late": tasks scheduled singly, 1 s before they are due, at a steady rate; each returns
how late it began by the wall clock.

All take turns; figures are medians of the runs. The files are in the standard library's folder of
temporary files (TMPDIR), which should be on the disk in question: in memory syncing is free.

Goals: put down with 256 waiting 60 times as fast as APScheduler, by `map` and `sync()` 100 times;
both 50 times as fast as huey, and one at a time as fast as huey. End to end 0.9 of plain without a
store, and plain with one 0.97 of that. Late, durable against plain: p50 1.2 times, p99 twice.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from apscheduler.jobstores.sqlalchemy import (  # type: ignore[import-untyped]  # no type information
    SQLAlchemyJobStore,
)
from apscheduler.schedulers.background import (  # type: ignore[import-untyped]  # the same
    BackgroundScheduler,
)
from common import (
    FAR,
    SLICE,
    WORKERS,
    durable_late_by,
    durable_work,
    late,
    late_by,
    lateness,
    median,
    parse,
    plain_work,
    report,
    work,
)
from huey import SqliteHuey  # type: ignore[import-untyped]  # the same

from aioscheduler import Manager

WAITING = 256
FEWER = 200  # times fewer tasks for those that put down one at a time
RATE = 2000  # tasks a second for the lateness


# ---- put down, each on disk before it counts


async def by_waiting(manager: Manager, count: int) -> None:
    numbers = iter(range(count))

    async def put_down() -> None:
        for n in numbers:
            await manager.schedule(durable_work(n), FAR).stored()

    await asyncio.gather(*(put_down() for _ in range(min(WAITING, count))))


async def by_map(manager: Manager, count: int) -> None:
    for start in range(0, count, SLICE):
        manager.map(durable_work, range(start, min(start + SLICE, count)), FAR)
        await manager.sync()


async def one_at_a_time(manager: Manager, count: int) -> None:
    for n in range(count):
        await manager.schedule(durable_work(n), FAR).stored()


async def put_down(
    contestant: Callable[[Manager, int], Awaitable[None]], count: int, folder: str
) -> float:
    async with Manager(workers=1, store=Path(folder, "ours.db")) as manager:
        await contestant(manager, min(WAITING, count))  # warm-up
        begun = time.perf_counter()
        await contestant(manager, count)
        seconds = time.perf_counter() - begun
        assert manager.stats().stored == count + min(WAITING, count)
    return count / seconds


def by_apscheduler(count: int, folder: str) -> float:
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_jobstore(SQLAlchemyJobStore(url=f"sqlite:///{folder}/apscheduler.db"))
    scheduler.start(paused=True)
    when = datetime.now(UTC) + FAR

    def add(n: int) -> None:
        scheduler.add_job("operator:neg", "date", run_date=when, args=[n])

    add(0)
    begun = time.perf_counter()
    for n in range(count):
        add(n)
    seconds = time.perf_counter() - begun
    scheduler.shutdown()
    return count / seconds


def by_huey(count: int, folder: str) -> float:
    huey = SqliteHuey("bench", filename=f"{folder}/huey.db", fsync=True)
    task = huey.task()(plain_work)
    when = datetime.now() + FAR  # noqa: DTZ005  huey takes it as local

    def add(n: int) -> None:
        huey.storage.add_to_schedule(huey.serialize_task(task.s(n)), when)

    add(0)
    begun = time.perf_counter()
    for n in range(count):
        add(n)
    seconds = time.perf_counter() - begun
    huey.storage.close()
    return count / seconds


# ---- end to end, and late


async def end_to_end(function: Callable[[int], Any], store: bool, count: int, folder: str) -> float:
    async with Manager(workers=WORKERS, **stored_in(folder, store)) as manager:
        await manager.map(function, range(1000))
        begun = time.perf_counter()
        results = await manager.map(function, range(count))
        if store:
            await manager.sync()  # until their ends are in the file, too
        seconds = time.perf_counter() - begun
    assert results == list(range(count))
    return count / seconds


async def late_beside(
    function: Callable[[int], Any], store: bool, seconds: float, folder: str
) -> list[int]:
    async with Manager(workers=WORKERS, **stored_in(folder, store)) as manager:
        await manager.map(work, range(1000))
        return await late(manager, function, RATE, seconds)


def stored_in(folder: str, store: bool) -> dict[str, Any]:
    return {"store": Path(folder, "ours.db")} if store else {}


# ---- all in turn


def bench(count: int, runs: int, seconds: float) -> list[dict[str, Any]]:
    few = max(count // FEWER, 1)
    contestants: dict[tuple[str, str], Callable[[str], float]] = {
        ("put down", f"{WAITING} wait for stored()"): of(put_down, by_waiting, count),
        ("put down", "map, and sync()"): of(put_down, by_map, count),
        ("put down", "one at a time"): of(put_down, one_at_a_time, few),
        ("put down", "APScheduler 3, SQLite"): partial(by_apscheduler, few),
        ("put down", "huey, SQLite"): partial(by_huey, few),
        ("end to end", "durable"): of(end_to_end, durable_work, True, count),
        ("end to end", "plain, with a store"): of(end_to_end, work, True, count),
        ("end to end", "plain, without"): of(end_to_end, work, False, count),
    }
    rates: dict[tuple[str, str], list[float]] = {}
    lates: dict[str, list[dict[str, float]]] = {}
    for _ in range(runs):
        for name, contestant in contestants.items():
            rates.setdefault(name, []).append(in_a_folder(contestant))
        for who, function, store in (
            ("durable", durable_late_by, True),
            ("plain, without", late_by, False),
        ):
            found = in_a_folder(of(late_beside, function, store, seconds))
            lates.setdefault(who, []).append(lateness(found))
    none: dict[str, Any] = {"p50 ms": None, "p99 ms": None, "max ms": None}
    rows: list[dict[str, Any]] = [
        {"what": what, "who": who, "tasks/s": median(found), **none}
        for (what, who), found in rates.items()
    ]
    for who, all_found in lates.items():
        medians = {key: median([each[key] for each in all_found]) for key in none}
        rows.append({"what": "late", "who": who, "tasks/s": float(RATE), **medians})
    return rows


def of(function: Callable[..., Any], *args: Any) -> Callable[[str], Any]:
    """Return a function that runs an async contestant in a folder."""
    return lambda folder: asyncio.run(function(*args, folder))


def in_a_folder(contestant: Callable[[str], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return contestant(folder)


def main() -> int:
    options = parse(__doc__, "tasks", 100_000, 10_000)
    report(bench(options.size, options.runs, 0.5 if options.quick else 5.0), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
