"""Kill workers, and check that no accepted task is lost, doubled, early or hung.

For `--seconds`, a manager with 4 workers gets tasks (single ones and batches, due at once or within
3 s, with payloads of 0 to 64 KiB; they return, sleep, compute or fail, in plain and odd ways), of
which some are cancelled. Meanwhile workers are killed (SIGKILL), stopped and continued (SIGSTOP,
SIGCONT), told to go (SIGTERM), or end themselves in the middle of a task (`os._exit`), at random,
by `--seed`. Each task appends its beginning and its end to a file before it goes on, so that a
death cannot hide them. After the storm it waits for all tasks, and checks the history:

- every accepted task has exactly one end;
- none started twice (`--rerun`: none is finished that never started);
- none started before its due time;
- none that was cancelled well before its time started;
- none that had not started is lost;
- no worker was replaced except those that died, were told to go, or were recycled
  (`--max-tasks-per-worker`).

Prints a summary, and exits with status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aioscheduler import Manager, State, Task, WorkerLost

WORKERS = 4
LONGEST_STOP = 0.6  # seconds
CERTAIN = 1_500_000_000  # nanoseconds before the due time, when a cancel must come in time
KINDS = ("return", "sleep", "compute", "fail", "odd", "exit")
WEIGHTS = (60, 25, 10, 3, 1, 0.02)
PAYLOADS = (0, 100, 4_000, 20_000, 64_000)  # bytes, at most
PAYLOAD_WEIGHTS = (60, 20, 10, 7, 3)


class Odd(Exception):
    """An exception that needs more than its args, and has an attribute that cannot travel."""

    def __init__(self, ident: int, *, way: int) -> None:
        super().__init__(ident)
        self.way = way
        self.lock = threading.Lock()


class Unpicklable(Exception):
    def __reduce__(self) -> tuple[object, ...]:
        raise SystemExit(1)


class Unreadable:
    def __reduce__(self) -> tuple[object, ...]:
        return sys.exit, (1,)


async def work(path: str, ident: int, kind: str, seconds: float, payload: bytes = b"") -> object:
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, b"S %d %d\n" % (ident, time.time_ns()))
        if kind == "sleep":
            await asyncio.sleep(seconds)
        elif kind == "compute":
            until = time.perf_counter() + seconds / 20
            while time.perf_counter() < until:
                pass
        elif kind == "fail":
            raise RuntimeError(ident)
        elif kind == "odd":
            way = ident % 4
            if way == 0:
                raise Odd(ident, way=way)
            if way == 1:
                raise Unpicklable
            if way == 2:
                raise KeyboardInterrupt
            return Unreadable()
        elif kind == "exit":
            os._exit(3)
        os.write(file, b"E %d 0\n" % ident)
        return ident
    finally:
        os.close(file)


@dataclass(slots=True)
class Record:
    """A task, as the storm knows it."""

    due: int
    kind: str
    ends: int = 0
    end: State | None = None
    lost_unstarted: bool = False
    asked_at: int = 0


class Storm:
    """One storm: its deeds, and the ends of its tasks."""

    def __init__(self, manager: Manager, path: str, generator: random.Random, rerun: bool) -> None:
        self.manager = manager
        self.rerun = rerun
        self.path = path
        self.random = generator
        self.records: list[Record] = []
        self.alive: dict[int, Task[Any]] = {}
        self.deeds: Counter[str] = Counter()
        self.stopped: set[int] = set()

    # ---- tasks

    def schedule(self) -> None:
        ident, delay = len(self.records), self.random.choice((0.0, self.random.random() * 3))
        # With --rerun no task may end its worker: it would do so again and again.
        weights = WEIGHTS if not self.rerun else (*WEIGHTS[:-1], 0)
        kind = self.random.choices(KINDS, weights)[0]
        before = time.time_ns()
        coro = work(self.path, ident, kind, self.random.random() / 5, self._payload())
        task = self.manager.schedule(coro, timedelta(seconds=delay))
        self._watch(ident, task, before + int(delay * 1e6) * 1000, kind)

    def map(self) -> None:
        first, count = len(self.records), self.random.randint(1, 300)
        kind = self.random.choice(("return", "sleep"))
        delay = self.random.random() * 3
        before = time.time_ns()
        payloads = [self._payload() for _ in range(count)]
        arguments = [(self.path, first + n, kind, 0.01, payloads[n]) for n in range(count)]
        batch = self.manager.starmap(work, arguments, timedelta(seconds=delay))
        for n in range(count):
            self._watch(first + n, batch[n], before + int(delay * 1e6) * 1000, kind)

    def _payload(self) -> bytes:
        (most,) = self.random.choices(PAYLOADS, PAYLOAD_WEIGHTS)
        return bytes(self.random.randint(0, most))

    def _watch(self, ident: int, task: Task[Any], due: int, kind: str) -> None:
        self.records.append(Record(due, kind))
        self.alive[ident] = task
        task.add_done_callback(lambda task: self._ended(ident, task))

    def _ended(self, ident: int, task: Task[Any]) -> None:
        record = self.records[ident]
        record.ends += 1
        record.end = task.state
        self.alive.pop(ident, None)
        error = None if task.cancelled() else task.exception()
        record.lost_unstarted = isinstance(error, WorkerLost) and not error.started

    def cancel(self) -> None:
        for ident in self.random.sample(range(len(self.records)), min(5, len(self.records))):
            if ident in self.alive and self.alive[ident].cancel():
                record = self.records[ident]
                record.asked_at = record.asked_at or time.time_ns()
                self.deeds["cancelled"] += 1

    # ---- violence

    def hurt(self) -> None:
        supervisor = self.random.choice(self.manager._remotes).supervisor
        pid = supervisor.process.pid if supervisor.process is not None else None
        if pid is None:
            return
        deed = self.random.choices(("killed", "stopped", "told to go"), (5, 3, 2))[0]
        self.deeds[deed] += 1
        if deed == "killed":
            os.kill(pid, signal.SIGKILL)
        elif deed == "told to go":
            os.kill(pid, signal.SIGTERM)
        else:
            os.kill(pid, signal.SIGSTOP)
            self.stopped.add(pid)
            loop = asyncio.get_running_loop()
            loop.call_later(self.random.random() * LONGEST_STOP, self.resume, pid)

    def resume(self, pid: int) -> None:
        self.stopped.discard(pid)
        alive = [link.supervisor.process for link in self.manager._remotes]
        # If the worker is gone another process may have its id.
        if pid in [process.pid for process in alive if process is not None]:
            os.kill(pid, signal.SIGCONT)

    async def rage(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        next_blow = 0.0
        while time.monotonic() < until:
            for deed in self.random.choices(
                (self.schedule, self.map, self.cancel), (40, 1, 4), k=20
            ):
                deed()
            if time.monotonic() > next_blow:
                self.hurt()
                next_blow = time.monotonic() + self.random.random() * 0.6
            await self.manager.flush()
            await asyncio.sleep(0.005 + 0.00001 * len(self.alive))
        for pid in list(self.stopped):
            self.resume(pid)

    # ---- judgement

    def judge(self) -> dict[str, int]:
        """Return how often each promise was broken."""
        starts: Counter[int] = Counter()
        broken = dict.fromkeys(("hung", "doubled", "early", "lost pending", "uncancelled"), 0)
        broken["ended twice"] = broken["finished, never started"] = 0
        exits = 0
        with open(self.path, "rb") as file:
            for line in file:
                what, *numbers = line.split()
                if what == b"S":
                    begun, at = map(int, numbers)
                    starts[begun] += 1
                    exits += self.records[begun].kind == "exit"
                    broken["early"] += at < self.records[begun].due
        for ident, record in enumerate(self.records):
            certain = 0 < record.asked_at < record.due - CERTAIN
            broken["hung"] += record.end is None
            broken["ended twice"] += record.ends > 1
            broken["doubled"] += starts[ident] > 1 and not self.rerun
            broken["lost pending"] += record.lost_unstarted
            broken["uncancelled"] += certain and starts[ident] > 0
            broken["finished, never started"] += (
                record.end in (State.FINISHED, State.FAILED) and not starts[ident]
            )
            if self.rerun:
                broken["lost pending"] += record.end is State.LOST
        ended = self.deeds["killed"] + self.deeds["told to go"] + exits
        broken["replaced without cause"] = max(0, self.manager.stats().restarts - ended)
        return broken


async def storm(seconds: float, seed: int, rerun: bool, max_tasks: int | None) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "history")
        os.close(os.open(path, os.O_CREAT))
        manager = Manager(
            8,
            workers=WORKERS,
            max_restarts=(10**9, 1.0),
            on_worker_loss="rerun" if rerun else "fail",
            max_tasks_per_worker=max_tasks,
        )
        async with manager:
            made = Storm(manager, path, random.Random(seed), rerun)
            await made.rage(seconds)
            try:
                async with asyncio.timeout(60):
                    await manager.join()
            except TimeoutError:
                print(f"{len(made.alive)} tasks have not ended a minute after the storm")
            await asyncio.sleep(0)
            broken = made.judge()
            stats = manager.stats()
    ends = Counter(str(record.end and record.end.value) for record in made.records)
    print(f"seed {seed}, {seconds:g} s{', rerun' if rerun else ''}: {len(made.records):,} tasks")
    print("did:", ", ".join(f"{count:,} {deed}" for deed, count in sorted(made.deeds.items())))
    recycled = "" if max_tasks is None else f", {stats.recycled:,} were recycled"
    print(f"{stats.restarts:,} workers were replaced{recycled}")
    print("ends:", ", ".join(f"{count:,} {end}" for end, count in sorted(ends.items())))
    print("broken promises:", ", ".join(f"{count} {what}" for what, count in broken.items()))
    return not any(broken.values())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--rerun", action="store_true", help='with on_worker_loss="rerun"')
    parser.add_argument(
        "--max-tasks-per-worker", type=int, help="recycle each worker after N tasks", metavar="N"
    )
    options = parser.parse_args()
    # Failures and losses are intended here.
    logging.getLogger("aioscheduler").setLevel(logging.CRITICAL)
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: None)
        most = options.max_tasks_per_worker
        return 0 if runner.run(storm(options.seconds, options.seed, options.rerun, most)) else 1


if __name__ == "__main__":
    sys.exit(main())
