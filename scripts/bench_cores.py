"""Run real work on 1, 2, … N cores through a `Manager`, and measure the gain from each core.

    python bench_cores.py [--quick] [--workers N] [--tasks N] [--work noop,wait,cpu]
                          [--json FILE] [--plot FILE.png]
                          [--nodes N [--address HOST:PORT]]

Three kinds of work: `noop` returns its argument (the cost of the manager itself), `wait` sleeps
10 ms as if for an answer from the network, `cpu` reads and parses a module of the standard library
of the Python that runs this.

The method, for each kind of work and each number of workers:

1. A new manager is started and warmed up; the first one also determines how many tasks fill the
   available time. Every number of workers then gets the same tasks, with the same number in flight:
   only the workers differ.
2. Tasks go out in slices, to run at once; but up to one in four is scheduled for a time of its
   own. These times are 5 ms apart and 25 to 50 ms ahead, and such a task returns how late it began.
   The manager is saturated meanwhile: lateness includes the wait behind the tasks in flight.
3. Each result is compared with the expected one, and each worker counts the tasks it ran. A task
   that is lost, run twice, early or wrong ends the benchmark with status 1.
4. psutil samples every process four times a second: CPU % is the mean over the run, 100 for one
   core; RSS is the highest seen, shared pages included; a MB is 10^6 bytes. "Others" is the use of
   the usable cores by all other processes: if it is high, the figures are too low.
5. One sentence names the bottleneck of the runs with the most workers: the host or the workers, if
   they filled their cores; or the cores, if all processes together filled those.

Speed-up compares tasks/s with those of one worker (or one node); efficiency is speed-up divided by
the number of workers (or nodes). The host needs a core, too: where tasks are short and no core is
free, it competes with the workers.

With `--nodes` the workers are on 1, 2, … N nodes of a Ray cluster, `--workers` on each; without
`--address` a cluster is started on this machine, which shows that it works and what the engine
costs, but no speed-up, as its cores are the same. CPU and memory of workers are then measured by
the nodes, once a second; with `--address`, "others" is the use of this machine by all other
processes, and each worker is assumed to have a core.

`judge_cores.py` has the rows and the sentence, `show_cores.py` the progress bar and the tables,
`plot_cores.py` the picture.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import contextlib
import importlib.util
import itertools
import json
import math
import os
import platform
import re
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from judge_cores import Process, Row, conclude
from plot_cores import plot
from show_cores import PROCESS, RUN, Tell, progress, say, show

from aioscheduler import AioschedulerError, Batch, Manager

USABLE = (
    sorted(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else list(range(os.cpu_count() or 1))
)
CORES = len(USABLE)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
QUICK, FULL = 7.0, 48.0  # seconds for all runs together, if each were as slow as with one worker
WARM_UP = 0.25  # seconds
SLICES = 8  # in flight at once
SPACING, NEAR, FAR = 5_000, 25_000, 50_000  # µs: between timed tasks; to the first; to the last
SAMPLE = 0.25  # seconds: the least that psutil measures well
HERE, ELSEWHERE = "nodes on this machine", "nodes elsewhere"
PATIENCE = 60.0  # seconds for a slice, after which its tasks are called lost

# ---- what runs in the workers

ran = [0]  # tasks of this process


class Timed(NamedTuple):
    """The result of a timed task; `late` in milliseconds."""

    late: float
    result: Any


async def noop(number: int) -> int:
    ran[0] += 1
    return number


async def wait(number: int) -> int:
    ran[0] += 1
    await asyncio.sleep(0.01)
    return number


async def cpu(path: str) -> tuple[int, int]:
    ran[0] += 1
    return parse(path)


def parse(path: str) -> tuple[int, int]:
    """Return the bytes of a source file and the nodes of its syntax tree."""
    source = Path(path).read_bytes()
    return len(source), sum(1 for _ in ast.walk(ast.parse(source)))


async def timed(due: int, work: Callable[[Any], Any], item: Any) -> Timed:
    """Do work that is due at `due` (µs since the epoch)."""
    late = (time.time_ns() - due * 1000) / 1e6
    return Timed(late, await work(item))


async def census() -> tuple[tuple[str, int], int]:
    return (platform.node(), os.getpid()), ran[0]


# ---- what the host does

WORKS: dict[str, Callable[[Any], Any]] = {"noop": noop, "wait": wait, "cpu": cpu}
IN_FLIGHT = {"noop": 2048, "wait": 2048, "cpu": 16}  # per core: with fewer, workers run dry
Calls = Sequence[tuple[Any, Any]]  # argument and expected result


class Failure(Exception):
    """Tasks were lost, early or wrong, or ran twice."""


class Job(NamedTuple):
    """A kind of work; its calls are used in turn."""

    work: Callable[[Any], Any]
    calls: Calls
    in_flight: int  # tasks


def make_job(name: str, cores: int) -> Job:
    """Make a job that keeps a number of cores busy, or raise Failure."""
    if name != "cpu":
        return Job(WORKS[name], [(n, n) for n in range(1000)], IN_FLIGHT[name] * cores)
    library = Path(sysconfig.get_path("stdlib"))
    paths = [str(p) for p in sorted(library.glob("*.py")) if 4e3 < p.stat().st_size < 32e3]
    if not paths:
        raise Failure(f"this Python has no source files in {library}: choose another --work")
    return Job(cpu, [(path, parse(path)) for path in paths], IN_FLIGHT[name] * cores)


async def run_tasks(
    manager: Manager, job: Job, tasks: int, tell: Callable[[int], None] = lambda done: None
) -> list[float]:
    """Run tasks, and return how late the timed ones began: milliseconds, sorted.

    Raises:
        Failure: A task returned nothing in time, or the wrong result.
    """
    out: deque[tuple[Batch[Any], Calls]] = deque()
    later: list[tuple[Batch[Any], Calls]] = []
    size, due, scheduled = math.ceil(job.in_flight / SLICES), 0, 0
    for first in range(0, tasks, size):
        last = min(first + size, tasks)
        calls = [job.calls[number % len(job.calls)] for number in range(first, last)]
        most = min(math.ceil(last / 4) - scheduled, len(calls))
        dues, batch = schedule_timed(manager, job, calls[:most], due)
        if batch is not None:
            later.append((batch, calls[: len(dues)]))
            due, scheduled = dues[-1] + SPACING, scheduled + len(dues)
            calls = calls[len(dues) :]
        out.append((manager.map(job.work, [item for item, _ in calls]), calls))
        await manager.flush()
        if len(out) == SLICES:
            await collect(*out.popleft())
            tell(last - len(out) * size)
    return sorted([late for part in (*out, *later) for late in await collect(*part)])


def schedule_timed(
    manager: Manager, job: Job, calls: Calls, due: int
) -> tuple[range, Batch[Any] | None]:
    """Schedule as many calls as have a time of their own, none of them before `due`."""
    while True:
        now = time.time_ns() // 1000
        due = max(due, now + NEAR)
        dues = range(due, now + FAR, SPACING)[: len(calls)]
        if not dues:
            return dues, None
        args = [(d, job.work, item) for d, (item, _) in zip(dues, calls, strict=False)]
        times = [EPOCH + timedelta(microseconds=d) for d in dues]
        with contextlib.suppress(ValueError):  # the time passed while we were delayed: try again
            return dues, manager.starmap(timed, args, times)


async def collect(batch: Batch[Any], calls: Calls) -> list[float]:
    """Check the results of a batch; return the lateness of timed tasks."""
    lateness = []
    try:
        async with asyncio.timeout(PATIENCE):
            results = await batch
    except TimeoutError:
        raise Failure(f"lost: {batch!r} after {PATIENCE:.0f} s") from None
    for result, (item, expected) in zip(results, calls, strict=True):
        late, value = result if isinstance(result, Timed) else (None, result)
        if value != expected:
            raise Failure(f"{item} gave {value} instead of {expected}")
        if late is not None:
            lateness.append(late)
    return lateness


async def count_runs(manager: Manager, workers: int) -> dict[tuple[str, int], int]:
    """Return how many tasks each worker has run, by its machine and pid."""
    # Keys are spread over the workers: with this many, each gets one.
    probes = [manager.schedule(census(), key=key) for key in range(64 * workers)]
    return dict([await probe for probe in probes])


async def watch(row: Row, begun: float, manager: Manager, far: str) -> None:
    """Sample the processes of a row until cancelled; far workers by the manager's figures."""
    processes = [psutil.Process(one.pid) for one in (row.processes[:1] if far else row.processes)]
    with contextlib.suppress(psutil.NoSuchProcess):  # the manager reports that
        for count in itertools.count():
            percents = [process.cpu_percent() for process in processes]
            sizes = [process.memory_info().rss / 1e6 for process in processes]
            cores = psutil.cpu_percent(percpu=True)
            if far:
                workers = manager.stats().workers
                percents += [worker.cpu_percent for worker in workers]
                sizes += [worker.rss / 1e6 for worker in workers]
            for one, size in zip(row.processes, sizes, strict=True):
                one.rss_mb = max(one.rss_mb, size)
            if count:  # the first percentages mean nothing
                row.sampled_s.append(round(time.perf_counter() - begun, 2))
                busy = sum(cores[core] for core in USABLE if core < len(cores))
                ours = percents[:1] if far == ELSEWHERE else percents
                row.others_percents.append(round(max(0.0, busy - sum(ours)), 1))
                for one, percent in zip(row.processes, percents, strict=True):
                    one.cpu_percents.append(percent)
            await asyncio.sleep(SAMPLE)


async def bench(options: argparse.Namespace, rows: list[Row], tell: Tell) -> None:
    """Run each job on each number of workers, and append a row to `rows` for each.

    Raises:
        Failure: Tasks were lost, early or wrong, or ran twice.
        AioschedulerError: The manager failed.
    """
    runs = len(options.work) * len(options.workers)
    far = "" if not options.nodes else ELSEWHERE if options.address else HERE
    seconds = (QUICK if options.quick else FULL) / runs
    for name in options.work:
        tell(f"{len(rows) + 1}/{runs} {name}, preparing", 0, None)
        job, tasks, single = make_job(name, options.workers[-1]), options.tasks, 0.0
        for workers in options.workers:
            async with options.manager(workers) as manager:
                rate = await warm_up(manager, job)
                tasks = tasks or math.ceil(rate * seconds)
                row = Row(name, workers, tasks)
                title = f"{len(rows) + 1}/{runs} {name}, {row.crew()}"
                await measure(manager, job, row, title, tell, far)
            single = single or row.tasks_per_s
            row.speedup = row.tasks_per_s / single
            row.efficiency = row.speedup / workers * options.workers[0]
            rows.append(row)
            if row.early or row.lost:
                raise Failure(f"{row.early} tasks early, {row.lost} lost (below 0: ran twice)")


async def warm_up(manager: Manager, job: Job) -> float:
    """Run tasks for a moment; return a first estimate of tasks/s."""
    begun, tasks, more = time.perf_counter(), 0, job.in_flight
    while (elapsed := time.perf_counter() - begun) < WARM_UP:
        await run_tasks(manager, job, more)
        tasks, more = tasks + more, more * 2
    return tasks / elapsed


async def measure(manager: Manager, job: Job, row: Row, title: str, tell: Tell, far: str) -> None:
    """Fill in a row, except for its comparison with others."""
    before = await count_runs(manager, row.workers)
    # Processes of other machines are known by the manager's figures, in its order.
    pids = (
        [worker.pid or 0 for worker in manager.stats().workers] if far else [p for _, p in before]
    )
    workers = [Process(f"worker {number}", pid) for number, pid in enumerate(pids, 1)]
    row.processes = [Process("host", os.getpid()), *workers]
    tell(title, 0, row.tasks)
    begun = time.perf_counter()
    watching = asyncio.create_task(watch(row, begun, manager, far))
    late = await run_tasks(manager, job, row.tasks, lambda done: tell(title, done, row.tasks))
    row.seconds = time.perf_counter() - begun
    watching.cancel()
    row.sum_up()
    after = await count_runs(manager, row.workers)
    row.tasks_per_s = row.tasks / row.seconds
    row.timed = len(late)
    row.lateness_p50_ms, row.lateness_p99_ms = (
        late[math.ceil(row.timed * part) - 1] for part in (0.50, 0.99)
    )
    row.early = sum(value < 0 for value in late)
    row.lost = row.tasks - (sum(after.values()) - sum(before.values()))


# ---- what the user sees


def describe_machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):  # Linux has more there
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {
        "cpu": model,
        "cores": CORES,
        "python": python,
        "os": f"{platform.system()} {platform.machine()}",
    }


def read_options() -> argparse.Namespace:
    """Read the command line, and end the program with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        description="Run real work through a Manager with 1, 2, ... N workers, and compare them. "
        "With --nodes, on 1, 2, ... N nodes of --workers each."
    )
    add, names = parser.add_argument, ",".join(WORKS)
    add("--workers", type=int, default=CORES, metavar="N", help="the most; default: usable cores")
    add("--tasks", type=int, metavar="N", help="per run; default: enough to fill the time")
    add("--work", default=names, metavar="A,B", help=f"any of {names}; default: all")
    add("--quick", action="store_true", help="under 20 s, instead of about a minute")
    add("--nodes", type=int, metavar="N", help="run on 1 to N nodes of a Ray cluster")
    add("--address", metavar="HOST:PORT", help="the cluster's head; default: start one here")
    add("--json", type=Path, metavar="FILE", help="save all figures")
    add("--plot", type=Path, metavar="FILE.png", help="draw speed-up and CPU over time")
    options = parser.parse_args()
    if options.workers < 1:
        parser.error(f"argument --workers: must be at least 1, not {options.workers}")
    if options.tasks is not None and options.tasks < 1:
        parser.error(f"argument --tasks: must be at least 1, not {options.tasks}")
    options.work = list(dict.fromkeys(options.work.split(",")))
    if unknown := [name for name in options.work if name not in WORKS]:
        parser.error(f"argument --work: {unknown[0]!r} is none of {', '.join(WORKS)}")
    for name, file in (("--json", options.json), ("--plot", options.plot)):
        if file is not None and not file.absolute().parent.is_dir():
            parser.error(f"argument {name}: there is no folder {file.absolute().parent}")
    if options.plot is not None and options.plot.suffix != ".png":
        parser.error(f"argument --plot: must end in .png, not {options.plot.name!r}")
    if options.plot is not None and importlib.util.find_spec("matplotlib") is None:
        parser.error(
            "argument --plot: needs matplotlib, which the extra `bench` brings: "
            "pip install 'aioscheduler[bench]'"
        )
    if options.address is not None and options.nodes is None:
        parser.error("argument --address: goes with --nodes")
    if options.nodes is not None and options.nodes < 1:
        parser.error(f"argument --nodes: must be at least 1, not {options.nodes}")
    if options.nodes is not None and importlib.util.find_spec("ray") is None:
        parser.error(
            "argument --nodes: needs Ray, which the extra `ray` brings: "
            "pip install 'aioscheduler[ray]'"
        )
    # Doubling above 4, or 64 cores would take 64 runs of each work.
    most = options.nodes or options.workers
    counts = [n for n in range(1, most) if n <= 4 or n & (n - 1) == 0]
    options.per_node = options.workers if options.nodes else 1
    options.workers = [n * options.per_node for n in (*counts, most)]
    options.manager = lambda workers: Manager(workers=workers)
    return options


@contextlib.contextmanager
def crews(options: argparse.Namespace) -> Iterator[None]:
    """Set `options.manager` to make managers with workers here or on nodes, as asked for."""
    if options.nodes is None:
        yield
        return
    from aioscheduler.ray import RayEngine  # of an extra

    with contextlib.ExitStack() as stack:
        address = options.address
        if address is None:
            from local_nodes import LocalNodes

            nodes = stack.enter_context(LocalNodes())
            for _ in range(options.nodes):
                nodes.add(options.per_node)
            address = nodes.address
        options.manager = lambda workers: Manager(
            engine=RayEngine(workers // options.per_node, options.per_node, address=address)
        )
        yield


def to_json(saved: dict[str, Any]) -> str:
    """Return readable JSON: a list of numbers takes one line."""
    numbers = re.compile(r"\[[-\d.,\s]+\]")
    text = json.dumps(saved, indent=2)
    return numbers.sub(lambda found: " ".join(found[0].split()), text) + "\n"


def main() -> int:
    """Return the exit status: 0, 1 if tasks went wrong, 130 for Ctrl-C."""
    options, machine = read_options(), describe_machine()
    print("{cpu}, {cores} usable cores, {python}, {os}".format(**machine), flush=True)
    rows: list[Row] = []
    failure: Exception | None = None
    try:
        with crews(options), progress() as tell:
            asyncio.run(bench(options, rows, tell))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (Failure, AioschedulerError) as error:
        failure = error
    saved = {"machine": machine, "quick": options.quick, "rows": [asdict(row) for row in rows]}
    if options.json is not None:
        options.json.write_text(to_json(saved))
    if rows:
        show(RUN, map(asdict, rows))
        show(PROCESS, [asdict(row) | asdict(one) for row in rows for one in row.processes])
        if options.plot is not None:
            plot(rows, machine, options.plot)
    if failure is not None:
        print(f"bench_cores: {failure}", file=sys.stderr)
        return 1
    print(f"All {sum(row.tasks for row in rows):,} tasks ran exactly once, none early.")
    say(conclude(rows, CORES + options.workers[-1] if options.address else CORES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
