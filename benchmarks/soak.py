"""Run for as long as a notebook or a bot does, and check that no memory leaks.

For `--seconds`, one program with `Manager(workers=2)` repeats side by side what such programs do
(`CHORES`, each of which can be left out by `--without`):

- cells: code is executed again in `__main__`, as in a notebook, and rebinds a constant, a helper, a
  class and the coroutine function that uses them; tasks must see the newest of each;
- classes: a namedtuple, a dataclass, an Enum, an exception, a class in a function, made at each
  call, in the host or in a task; their instances go both ways, by `schedule`, `map` and from
  inside a task;
- functions: made by `exec` at each call, in the globals of `__main__` or in their own;
- closures: lambdas, nested functions and partials of large objects, all with the same code;
- payloads: of 0 to 2 MB each way;
- failures: awaited, and not; each of the latter must reach the loop's exception handler, once;
- cancels: of tasks and batches, pending and running;
- waits: given up, while the task goes on;
- dropped: tasks whose handle is not kept;
- keys: new ones at each call; threads: tasks of another thread;
- far: `FAR` tasks are due in ten years and stay: half of them from the first eighth of the time,
  the others evenly over the rest, each among others that end;
- kills: the second worker is killed every 30 s (an eighth of the time, if that is less).

Once a second a task in each worker collects garbage and counts the objects that its collector
tracks, and so does the host; of every process the resident memory (RSS), the unique part of it
(USS), the descriptors and the threads are noted. The first quarter of the time is warm-up.

The slope of each series is computed (`slopes`). The host and the first worker live from beginning
to end. In the second worker's slot processes succeed each other, and each grows while it is young:
there, points of the same age, of different processes, are compared.

A slope is too steep if the growth in the measured time would exceed `BOUNDS`, which allow for the
far tasks and for fluctuation. "a task" is the slope divided by the tasks of that time. Memory takes
a minute to settle, so a shorter run says little about it; a slow leak needs more: 600 s show one
object, or two kilobytes, left behind by each round of a chore.

Prints the table, and exits with status 1 if a slope is too steep, a value was wrong, or something
hung.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import dataclasses
import enum
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from common import report as print_table
from slopes import Series

from aioscheduler import Manager, TaskRef, UnknownTask, WorkerLost, WorkerState, current_manager

FAR = 200  # tasks
PAUSE = 0.03  # seconds between two rounds of most chores
LATER = timedelta(seconds=0.1)  # so that a task's task has not ended when it is looked up
PATIENCE = 60.0  # seconds that a round may take
MEGABYTE = 1 << 20
# The growth allowed by the end. Memory fluctuates with the payloads under way.
BOUNDS = {"rss": 6 * MEGABYTE, "uss": 6 * MEGABYTE, "objects": 3000, "fds": 3, "threads": 3}
PAYLOADS = (0, 100, 10_000, 200_000, 2_000_000)  # bytes
PAYLOAD_WEIGHTS = (20, 30, 30, 16, 4)

# ---- what runs in the workers


class Failure(Exception):
    """The intended failure."""


async def echo(value: Any) -> Any:
    return value


async def length(value: Any) -> int:
    return len(value)


async def zeros(size: int) -> bytes:
    return bytes(size)


async def fail(ident: int) -> None:
    raise Failure(ident)


async def sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def relay(value: Any) -> TaskRef:
    return current_manager().schedule(echo(value), LATER)


async def relay_instance(form: int, n: int) -> TaskRef:
    return current_manager().schedule(echo(make_instance(form, n)), LATER)


async def relay_function(n: int) -> TaskRef:
    return current_manager().schedule(make_function(n, vars(sys.modules["__main__"]))(n), LATER)


async def relay_closure(n: int) -> TaskRef:
    return current_manager().schedule(adder(n)(1), LATER)


async def relay_failure(ident: int) -> None:
    current_manager().schedule(fail(ident))


async def instance(form: int, n: int) -> Any:
    return make_instance(form, n)


async def census() -> tuple[int, int]:
    """Return the process id and the number of objects that its collector tracks."""
    gc.collect()
    return os.getpid(), len(gc.get_objects())


# ---- what is made at each call

FORMS = range(5)


def make_instance(form: int, n: int) -> Any:
    """Return an instance of a class that has just been made."""
    if form == 0:
        return collections.namedtuple("Point", "x y")(n, -n)  # type: ignore[call-arg, arg-type]
    if form == 1:
        return dataclasses.make_dataclass("Row", [("x", int)])(n)
    if form == 2:
        return enum.Enum("Color", {"RED": n, "BLUE": n + 1})["BLUE"]  # type: ignore[index]
    if form == 3:
        return type("Oops", (Exception,), {})(n)

    class Local:
        base = n

        def __init__(self, value: int) -> None:
            self.value = value

        def __repr__(self) -> str:
            return f"{type(self).__name__}({self.base}, {self.value})"

    return Local(n)


def make_function(n: int, namespace: dict[str, Any]) -> Callable[[int], Awaitable[int]]:
    """Return a coroutine function with new code, which multiplies by a global and adds n."""
    exec(f"async def made(value):\n    return FACTOR * value + {n}", namespace)
    return namespace["made"]  # type: ignore[no-any-return]


FACTOR = 3  # a global that `made` reads in `__main__`


def adder(n: int) -> Callable[[int], Awaitable[int]]:
    async def add(value: int) -> int:
        return value + n

    return add


CELLS = {
    "LIMIT": "LIMIT = {n}",
    "helper": "def helper(value):\n    return value * {n}",
    "Reading": (
        "class Reading:\n"
        "    base = {n}\n"
        "    def __init__(self, value):\n"
        "        self.value = value\n"
        "    def total(self):\n"
        "        return self.base + self.value"
    ),
    "cell": (
        "async def cell(value):\n"
        "    reading = Reading(value)\n"
        "    return {n}, LIMIT, helper(value), reading.total(), reading"
    ),
}


# ---- the program


class Soak:
    """The program that does all chores.

    Args:
        manager: A manager with two workers, which has started.
        seconds: How long it runs.
        seed: The seed of all random choices.

    Attributes:
        tasks: How many were scheduled.
        wrong: The first few errors, as text.
        deeds: What happened, and how often.
    """

    def __init__(self, manager: Manager, seconds: float, seed: int) -> None:
        self.manager = manager
        self.seconds = seconds
        self.random = random.Random(seed)
        self.until = time.monotonic() + seconds
        self.tasks = 0
        self.wrong: list[str] = []
        self.deeds: collections.Counter[str] = collections.Counter()
        self.unheard = 0  # failures that must reach the handler
        self.versions: dict[str, int] = {}  # of the cells
        # Some key for each worker.
        self.keys = {self.schedule(echo(n), key=n).ref.worker: n for n in range(64)}

    async def run(self, chores: list[str]) -> None:
        """Do the chores side by side, until the time is over."""
        await asyncio.gather(*(self._repeat(chore) for chore in chores))

    async def _repeat(self, chore: str) -> None:
        act = CHORES[chore]
        n = 0
        while time.monotonic() < self.until:
            n += 1
            pause = None
            try:
                async with asyncio.timeout(PATIENCE):
                    pause = await act(self, n)
            except TimeoutError:
                self.blame(f"{chore}: round {n} hung")
                return
            except WorkerLost:
                self.deeds["lost"] += 1
            except Exception as error:  # noqa: BLE001  whatever it is, it is reported at the end
                self.blame(f"{chore}: {error!r:.300}")
            left = max(0.0, self.until - time.monotonic())
            await asyncio.sleep(min(left, pause or PAUSE))

    def blame(self, what: str) -> None:
        self.deeds["wrong"] += 1
        if len(self.wrong) < 10:
            self.wrong.append(what)

    def heard(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle errors as the loop's exception handler."""
        error = context.get("exception")
        if isinstance(error, Failure):
            self.deeds["heard"] += 1
        elif isinstance(error, WorkerLost):
            self.deeds["lost unheard"] += 1
        else:
            self.blame(f"reported: {context['message']}: {error!r}")

    def schedule(self, coro: Any, when: timedelta | None = None, key: Any = None) -> Any:
        self.tasks += 1
        return self.manager.schedule(coro, when, key=key)

    def map(self, function: Callable[..., Any], items: list[Any], when: Any = None) -> Any:
        self.tasks += len(items)
        return self.manager.map(function, items, when)

    async def expect(self, task: Awaitable[Any], wanted: Any, say: Any = None) -> None:
        """Await a task, unless its worker is killed.

        Args:
            task: A task or a batch.
            wanted: The expected result.
            say: Converts the result before it is compared.
        """
        try:
            got = await task
        except WorkerLost:
            self.deeds["lost"] += 1
            return
        if say is not None:
            got = say(got)
        if type(got) is not type(wanted) or got != wanted:
            self.blame(f"{got!r:.100} instead of {wanted!r:.100}")

    async def expect_of_ref(self, task: Awaitable[TaskRef], wanted: Any, say: Any = None) -> None:
        """Do as `expect` for the task whose reference a task returns."""
        self.tasks += 1
        try:
            found = self.manager.task(await task)
        except (WorkerLost, UnknownTask):  # it ended before we could look it up
            self.deeds["lost or missed"] += 1
        else:
            await self.expect(found, wanted, say)

    # ---- chores

    async def cells(self, n: int) -> None:
        main = vars(sys.modules["__main__"])
        for name, source in CELLS.items():
            if name not in self.versions or self.random.random() < 0.5:
                self.versions[name] = n
                exec(compile(source.format(n=n), "<cell>", "exec"), main)
        versions, newest = self.versions, main["Reading"]
        for key in self.keys.values():
            wanted = (
                versions["cell"],
                versions["LIMIT"],
                7 * versions["helper"],
                7 + versions["Reading"],
                7,
            )
            task = self.schedule(main["cell"](7), key=key)
            await self.expect(task, wanted, lambda got: (*got[:4], got[4].value))
            await self.expect(self.schedule(echo(newest(n)), key=key), newest, type)

    async def classes(self, n: int) -> None:
        await asyncio.gather(*(self._class(form, n) for form in FORMS))

    async def _class(self, form: int, n: int) -> None:
        sent = make_instance(form, n)
        cls, same = type(sent), repr(sent)
        await asyncio.gather(
            self.expect(self.schedule(echo(sent)), cls, type),
            self.expect(self.map(echo, [sent] * 4), [same] * 4, lambda got: [*map(repr, got)]),
            self.expect(self.schedule(instance(form, n)), same, repr),
            self.expect_of_ref(self.schedule(relay(sent)), same, repr),
            self.expect_of_ref(self.schedule(relay_instance(form, n)), same, repr),
        )

    async def functions(self, n: int) -> None:
        main = vars(sys.modules["__main__"])
        for each in range(4 * n, 4 * n + 4):
            own: dict[str, Any] = {"FACTOR": 5, "__name__": "made"}
            add = eval(f"lambda value: value + {each}")
            await asyncio.gather(
                self.expect(self.schedule(make_function(each, main)(2)), 6 + each),
                self.expect(self.schedule(make_function(each, own)(2)), 10 + each),
                self.expect(self.map(add, [1, 2]), [1 + each, 2 + each]),
            )
        await self.expect_of_ref(self.schedule(relay_function(n)), 3 * n + n)

    async def closures(self, n: int) -> None:
        large = n.to_bytes(8) + bytes(200_000)
        await self.expect(self.schedule(adder(n)(1)), n + 1)
        await self.expect(self.map(lambda value: value * n, [1, 2]), [n, 2 * n])
        await self.expect(self.map(adder(n), [1, 2]), [1 + n, 2 + n])
        await self.expect(self.map(partial(int.from_bytes, large[:8]), ["big"]), [n])
        await self.expect(self.map(partial(large.find), [large[:8]]), [0])
        await self.expect_of_ref(self.schedule(relay_closure(n)), n + 1)

    async def payloads(self, n: int) -> None:
        (most,) = self.random.choices(PAYLOADS, PAYLOAD_WEIGHTS)
        size = self.random.randint(most // 2, most)
        await self.expect(self.schedule(echo(bytes(size))), bytes(size))
        await self.expect(self.schedule(length("x" * size)), size)
        await self.expect(self.schedule(zeros(size)), bytes(size))
        numbers = list(range(size // 8))
        await self.expect(self.map(echo, [numbers, (n,)]), [numbers, (n,)])

    async def failures(self, n: int) -> None:
        try:
            await self.schedule(fail(n))
            self.blame("a task that fails has not")
        except Failure as error:
            if error.args != (n,):
                self.blame(f"{error!r} instead of that of {n}")
        batch = self.map(fail, [n, n])
        try:
            await batch
            self.blame("a batch that fails has not")
        except Failure:
            pass
        self.schedule(fail(n))
        self.schedule(relay_failure(n))
        self.map(fail, [n, n])
        self.tasks += 1
        self.unheard += 3

    async def cancels(self, n: int) -> None:
        tasks = [self.schedule(sleep(60), when) for when in (None, None, timedelta(hours=1))]
        batch = self.map(sleep, [60, 60, 60], [timedelta(0), LATER, timedelta(hours=1)])
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        self.manager.cancel(tasks[1].ref)
        tasks[2].cancel()
        batch.cancel()
        tasks += [batch[index] for index in range(len(batch))]
        await asyncio.wait(tasks)
        for task in tasks:
            if task.cancelled():
                self.deeds["cancelled"] += 1
            elif isinstance(task.exception(), WorkerLost):
                self.deeds["lost"] += 1
            else:
                self.blame(f"{task} was cancelled")

    async def waits(self, n: int) -> None:
        task, begun = self.schedule(sleep(0.2)), time.monotonic()
        try:
            async with asyncio.timeout(0.01):
                await task
            if time.monotonic() - begun < 0.2:  # else this loop was late, on a busy machine
                self.blame("a task of 0.2 s has ended before")
        except TimeoutError:
            self.deeds["given up"] += 1
        await asyncio.wait([self.schedule(sleep(0.1))], timeout=0.01)
        batch = self.map(sleep, [0.0, 0.1])
        async for _ in batch:
            break
        kept = self.schedule(sleep(0.02))
        await asyncio.wait([kept], timeout=0.001)
        await self.expect(kept, 0.02)

    async def dropped(self, n: int) -> None:
        for value in (n, None, "text", b"bytes", [n]):
            self.schedule(echo(value), timedelta(milliseconds=5 * self.random.randint(0, 3)))
        self.map(echo, list(range(50)), LATER)
        task = self.schedule(echo(n))
        task.add_done_callback(lambda task: self.deeds.update(called=1))
        await self.manager.flush()

    async def key(self, n: int) -> None:
        for key in (f"user {n}", n, n.to_bytes(8)):
            first, second = self.schedule(echo(n), key=key), self.schedule(echo(n), key=key)
            if first.ref[:3] != second.ref[:3]:
                self.blame(f"{first.ref} and {second.ref} have one key")
            await self.expect(asyncio.gather(first, second), [n, n])

    async def threads(self, n: int) -> None:
        self.tasks += 1
        schedule = self.manager.schedule_threadsafe
        await self.expect(asyncio.to_thread(lambda: schedule(echo(n)).result(PATIENCE)), n)

    async def far(self, n: int) -> float:
        """Schedule a single one, and a batch of which all others end."""
        years = timedelta(days=3650)
        self.schedule(echo(n), years)
        self.map(length, [bytes(2000)] * 20 + [b"far"], [timedelta(0)] * 20 + [years])
        share = 1 / 8 if n * 2 <= FAR / 2 else 7 / 8  # of the time, for each half
        return self.seconds * share / (FAR / 4)

    async def kills(self, n: int) -> float:
        worker = self.manager.stats().workers[1]
        # A worker that dies before it is ready is replaced later each time.
        if n > 1 and worker.pid is not None and worker.state is WorkerState.READY:
            os.kill(worker.pid, signal.SIGKILL)
            self.deeds["killed"] += 1
        return min(30.0, self.seconds / 8)


# Each gets the number of the round, and may return the seconds until the next one.
CHORES: dict[str, Callable[[Soak, int], Awaitable[float | None]]] = {
    "cells": Soak.cells,
    "classes": Soak.classes,
    "functions": Soak.functions,
    "closures": Soak.closures,
    "payloads": Soak.payloads,
    "failures": Soak.failures,
    "cancels": Soak.cancels,
    "waits": Soak.waits,
    "dropped": Soak.dropped,
    "keys": Soak.key,
    "threads": Soak.threads,
    "far": Soak.far,
    "kills": Soak.kills,
}


# ---- the figures


class Gauge:
    """The figures of host and workers, measured once a second."""

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.begun = 0.0  # when the warm-up was over
        self.tasks = 0  # scheduled until then
        self.series: dict[tuple[str, str], Series] = {}

    async def run(self) -> None:
        """Measure until the time is over."""
        await asyncio.sleep(self.soak.seconds / 4)
        self.begun, self.tasks = time.monotonic(), self.soak.tasks
        while time.monotonic() < self.soak.until:
            await self._measure()
            await asyncio.sleep(1 - time.monotonic() % 1)
        self.tasks = self.soak.tasks - self.tasks

    async def _measure(self) -> None:
        for worker, key in sorted(self.soak.keys.items()):
            try:
                async with asyncio.timeout(PATIENCE):
                    pid, objects = await self.soak.schedule(census(), key=key)
                self._note(f"worker {worker}", pid, objects)
            except TimeoutError:
                self.soak.blame(f"worker {worker} hung")
            except (WorkerLost, psutil.NoSuchProcess):
                self.soak.deeds["not measured"] += 1
        gc.collect()
        self._note("host", os.getpid(), len(gc.get_objects()))

    def _note(self, place: str, pid: int, objects: int) -> None:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # it was killed right now
            raise psutil.NoSuchProcess(pid)
        figures = {
            "rss": process.memory_info().rss,
            "objects": objects,
            "fds": process.num_fds(),
            "threads": process.num_threads(),
        }
        with suppress(psutil.AccessDenied):  # some systems do not allow it
            figures["uss"] = process.memory_full_info().uss
        at, born = time.time(), process.create_time()
        for what, value in figures.items():
            self.series.setdefault((place, what), Series()).add(at, born, value)

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each figure of each place."""
        seconds = time.monotonic() - self.begun
        rows = []
        for (place, what), series in sorted(self.series.items()):
            slope = series.slope(place == "worker 1" and self.soak.deeds["killed"] > 0)
            first, last = series.thirds()
            bound = BOUNDS[what] / seconds
            rows.append(
                {
                    "place": place,
                    "figure": what,
                    "first third": int(first),
                    "last third": int(last),
                    "a second": slope,
                    "bound": bound,
                    "a task": None if slope is None else slope * seconds / max(1, self.tasks),
                    "verdict": "" if slope is None or slope <= bound else "LEAKS",
                }
            )
        return rows


async def soak(options: argparse.Namespace) -> bool:
    """Return whether all was well."""
    chores = [chore for chore in CHORES if chore not in options.without]
    loop = asyncio.get_running_loop()
    async with Manager(workers=2, max_restarts=(10**9, 1.0)) as manager:
        made = Soak(manager, options.seconds, options.seed)
        loop.set_exception_handler(made.heard)
        gauge = Gauge(made)
        await asyncio.gather(made.run(chores), gauge.run())
        rows = gauge.table()
        await asyncio.sleep(1)  # the last failures
    unheard, heard, lost = made.unheard, made.deeds["heard"], made.deeds["lost unheard"]
    if not heard <= unheard <= heard + lost + made.deeds["lost"]:
        made.blame(f"{heard} of {unheard} failures that nobody awaited were heard, {lost} lost")
    print(f"seed {options.seed}, {options.seconds:g} s: {made.tasks:,} tasks")
    print("did:", ", ".join(f"{count:,} {deed}" for deed, count in sorted(made.deeds.items())))
    print("wrong:", *(made.wrong or ["nothing"]), sep="\n  " if made.wrong else " ")
    print_table(rows, options)
    return not made.deeds["wrong"] and not any(row["verdict"] for row in rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    parser.add_argument(
        "--without", type=lambda text: text.split(","), default=[], metavar="CHORE,CHORE"
    )
    options = parser.parse_args()
    unknown = set(options.without) - CHORES.keys()
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))} among {', '.join(CHORES)}")
    return options


def main() -> int:
    # The deaths of workers are intended here.
    logging.getLogger("aioscheduler").setLevel(logging.CRITICAL)
    return 0 if asyncio.run(soak(parse())) else 1


if __name__ == "__main__":
    sys.exit(main())
