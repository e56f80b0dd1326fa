"""Kill hosts, one after another on one store, and check the history of their tasks.

For `--seconds`, host programs are started in turn. Each schedules durable tasks, and is killed
(SIGKILL) at a random moment of its life; now and then one of its workers is. The host acknowledges
tasks that are on disk by a pipe (which is always read: a full one would stop the host); each task
appends its beginning and its end to a file before it goes on, so that a death cannot hide them. The
last host runs all that is left. There are tasks without and with an id, tasks that fail at first
and are tried again, tasks that must not start twice (`on_loss="fail"`), and chains, each step of
which schedules the next. Then the history is checked:

- every acknowledged task has run, or is a dead letter: in doubt with `on_loss="fail"`, or killed
  with its host three times in a row;
- no task started before its due time;
- no task with `on_loss="fail"` started twice;
- each chain has ended once;
- nothing is left in the store.

Prints a summary, and exits with status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from aioscheduler import Manager, Retry, SQLiteStore, current_attempt, current_manager, durable

WORKERS = 2
LIFE = 0.6, 2.6  # seconds for which a host lives once it is ready
EARLY = 0.15  # the share of hosts killed before they are ready, within a second
MOST_WAITING = 20_000  # tasks, so that the last host can finish
CHAINS = 20  # of each host
STEPS = 10  # of a chain in the last host
MOST_LOSSES = 3  # after which a task is not begun again
LONGEST = 90.0  # seconds for a host to be ready, or the last one to finish
HISTORY, LAST = "STORM_HISTORY", "STORM_LAST"  # environment variables, which workers have, too


# ---- tasks


def write(what: str, ident: int, due: int) -> None:
    """Append a line to the history."""
    file = os.open(os.environ[HISTORY], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, f"{what} {ident} {due} {time.time_ns()}\n".encode())
    finally:
        os.close(file)


@durable("plain")
async def plain(ident: int, due: int) -> None:
    write("S", ident, due)
    write("E", ident, due)


@durable("once", on_loss="fail")
async def once(ident: int, due: int) -> None:
    write("S", ident, due)
    write("E", ident, due)


@durable("again", retry=Retry(attempts=9, wait_initial=0.05, wait_jitter=0))
async def again(ident: int, due: int) -> None:
    write("S", ident, due)
    if current_attempt() == 1:
        raise RuntimeError(ident)
    write("E", ident, due)


@durable("chain")
async def chain(ident: int, due: int, left: int) -> None:
    """Schedule the next step, unless this is the last one of the last host."""
    write("S", ident, due)
    if LAST in os.environ:
        left -= 1
    if left:
        delay = random.random() * 0.2
        due = time.time_ns() + int(delay * 1e6) * 1000
        coro = chain(ident, due, left)
        current_manager().schedule(
            coro, timedelta(seconds=delay), id=f"chain {ident}", replace=True
        )
    else:
        write("E", ident, due)


KINDS: dict[str, Any] = {"plain": plain, "id": plain, "once": once, "again": again}
WEIGHTS = 60, 10, 20, 10
NAMES = tuple(KINDS)


def kind_of(ident: int) -> str:
    """Return the kind of a task by its number."""
    return "chain" if ident < 0 else NAMES[ident % len(NAMES)]


# ---- a host


class Host:
    """A host program.

    Args:
        pipe: Where it acknowledges tasks.
        boot: The number of the host, which makes the numbers of its tasks unique.
        manager: A manager on the store.
    """

    def __init__(self, pipe: int, boot: int, manager: Manager) -> None:
        self.manager = manager
        self._pipe = pipe
        self._count = boot << 32
        self._random = random.Random(boot)
        self._waiting: set[asyncio.Task[None]] = set()

    def tell(self, what: str, *numbers: object) -> None:
        data = f"{what} {' '.join(map(str, numbers))}\n".encode()
        while data:
            data = data[os.write(self._pipe, data) :]

    def begin_chains(self) -> None:
        for _ in range(CHAINS):
            self._count += 1
            ident = -self._count
            task = self.manager.schedule(chain(ident, time.time_ns(), STEPS), id=f"chain {ident}")
            self._soon(self._acknowledge_one(ident, task))

    async def work(self) -> None:
        """Schedule tasks for as long as the host lives."""
        chance = self._random
        while True:
            many = chance.choice((1, 10, 100))
            idents = [self._schedule() for _ in range(many)]
            self._soon(self._acknowledge(idents))
            await asyncio.sleep(chance.random() * 0.01)
            while len(self.manager) > MOST_WAITING:
                await asyncio.sleep(0.1)

    def _schedule(self) -> int:
        chance = self._random
        (index,) = chance.choices(range(len(NAMES)), WEIGHTS)
        self._count += 1
        ident = self._count * len(NAMES) + index
        delay = timedelta(seconds=chance.choice((0.0, chance.random() * 0.5, chance.random() * 6)))
        due = time.time_ns() + delay // timedelta(microseconds=1) * 1000
        has_id = NAMES[index] == "id" or (NAMES[index] == "once" and chance.random() < 0.5)
        self.manager.schedule(
            KINDS[NAMES[index]](ident, due), delay, id=str(ident) if has_id else None
        )
        return ident

    def _soon(self, coro: Any) -> None:
        task = asyncio.get_running_loop().create_task(coro)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _acknowledge(self, idents: list[int]) -> None:
        await self.manager.sync()
        self.tell("A", *idents)

    async def _acknowledge_one(self, ident: int, task: Any) -> None:
        await task.stored()
        self.tell("A", ident)

    async def drain(self) -> None:
        """Run all that is left, and report the rest and the dead letters."""
        async with asyncio.timeout(LONGEST):
            await self.manager.join()
        await self.manager.sync()
        self.tell("L", self.manager.stats().stored + len(self.manager))
        async for letter in self.manager.dead_letters():
            self.tell("D", letter.reason, letter.name, letter.attempts)


async def live(path: str, pipe: int, boot: int, synchronous: Any) -> None:
    store = SQLiteStore(path, synchronous, wait=30.0)
    asked = time.monotonic()
    manager = Manager(WORKERS, workers=WORKERS, max_restarts=(10**9, 1.0), store=store)
    async with manager:
        host = Host(pipe, boot, manager)
        waited = (time.monotonic() - asked) * 1000
        pids = [worker.pid for worker in manager.stats().workers]
        host.tell("O", int(waited), manager.stats().stored, *pids)
        if LAST in os.environ:
            await host.drain()
        else:
            host.begin_chains()
            await host.work()


# ---- the storm


@dataclass
class Life:
    """What the storm knows of a host's life.

    Attributes:
        lines: The lines it wrote.
        killed: Whether it was killed.
        seconds: How long it lived after it was ready.
    """

    lines: list[list[str]] = field(default_factory=list)
    killed: bool = False
    seconds: float = 0.0


class Storm:
    """One storm, which starts and kills hosts.

    Args:
        folder: The folder of the store and the history.
        seed: The seed of all random moments.
        synchronous: As for `SQLiteStore`.
    """

    def __init__(self, folder: str, seed: int, synchronous: str) -> None:
        self.history = os.path.join(folder, "history")
        self.lives: list[Life] = []
        self.workers_killed = 0
        self._folder = folder
        self._synchronous = synchronous
        self._random = random.Random(seed)
        os.close(os.open(self.history, os.O_CREAT))

    def rage(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until or not self.lives:
            self._live(last=False)
        self._live(last=True)

    def _live(self, last: bool) -> None:
        life = Life()
        self.lives.append(life)
        reader, writer = os.pipe()
        environment = {**os.environ, HISTORY: self.history, **({LAST: "1"} if last else {})}
        store = os.path.join(self._folder, "store.db")
        command = [sys.executable, __file__, "--host", store, str(writer), str(len(self.lives))]
        process = subprocess.Popen(
            [*command, "--synchronous", self._synchronous], pass_fds=[writer], env=environment
        )
        os.close(writer)
        ready = threading.Event()
        listening = threading.Thread(target=self._listen, args=(reader, life, ready))
        listening.start()
        try:
            early = not last and self._random.random() < EARLY
            patience = self._random.random() if early else LONGEST
            if not ready.wait(patience) and not early:
                print(f"host {len(self.lives)} was not ready after {LONGEST:.0f} s")
            began = time.monotonic()
            if last:
                process.wait(2 * LONGEST)
            elif process.poll() is None:
                if life.lines:
                    self._hurt(life)
                life.killed = True
            life.seconds = time.monotonic() - began
        finally:
            process.kill()
            process.wait()
            listening.join()

    def _hurt(self, life: Life) -> None:
        """Let a host live for a while, and perhaps kill one of its workers first; then kill it."""
        chance = self._random
        left = chance.uniform(*LIFE)
        if chance.random() < 0.3:
            spent = chance.random() * left
            time.sleep(spent)
            left -= spent
            pid = int(chance.choice(life.lines[0][3:]))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            else:
                self.workers_killed += 1
        time.sleep(left)

    @staticmethod
    def _listen(reader: int, life: Life, ready: threading.Event) -> None:
        with open(reader, "rb") as pipe:
            for line in pipe:
                if line.endswith(b"\n"):  # else the death has cut it
                    life.lines.append(line.decode().split())
                    ready.set()
        ready.set()

    # ---- judgement

    def judge(self) -> bool:
        """Print the ends of the tasks; return whether every promise was kept."""
        said = [line for life in self.lives for line in life.lines]
        acknowledged = {int(ident) for what, *rest in said if what == "A" for ident in rest}
        left = [int(line[1]) for line in said if line[0] == "L"]
        letters = [line[1:] for line in said if line[0] == "D"]
        starts: Counter[int] = Counter()
        ends: Counter[int] = Counter()
        early = 0
        with open(self.history, encoding="utf-8") as file:
            for line in file:
                what, *numbers = line.split()
                ident, due, at = map(int, numbers)
                starts[ident] += what == "S"
                ends[ident] += what == "E"
                early += at < due
        # By kind: a death may cost a task with "fail", the others only three in a row.
        doubted = Counter(
            name
            for reason, name, attempts in letters
            if reason == "lost" and (name == "once" or int(attempts) >= MOST_LOSSES)
        )
        lost = Counter(
            "plain" if kind_of(ident) == "id" else kind_of(ident)
            for ident in acknowledged
            if not ends[ident]
        )
        chains = [ident for ident in acknowledged if ident < 0]
        kills = sum(life.killed for life in self.lives)
        twice = sum(n > 1 for ident, n in ends.items() if ident >= 0)
        broken = {
            "acknowledged and lost": (lost - doubted).total(),
            "early": early,
            'with "fail" started twice': sum(
                n > 1 for ident, n in starts.items() if kind_of(ident) == "once"
            ),
            "chains doubled": sum(ends[ident] > 1 for ident in chains),
            "left": left[0] if left else 1,
            "other dead letters": len(letters) - doubted.total(),
        }
        alive = sum(life.seconds for life in self.lives if life.killed)
        rate = sum(ends.values()) / max(alive, 1e-9)
        waits = sorted(int(line[1]) for line in said if line[0] == "O")
        reasons = Counter(f"{reason} ({name})" for reason, name, _ in letters)
        print(f"{kills} hosts and {self.workers_killed} workers killed, alive for {alive:.1f} s")
        print(f"{len(acknowledged):,} acknowledged, {sum(ends.values()):,} runs, {rate:,.0f}/s")
        print(
            f"{twice:,} ran twice, {twice / max(kills, 1):.1f} a kill: "
            f"{twice / max(kills, 1) / max(rate, 1e-9) * 1000:.1f} ms of work"
        )
        print("dead letters:", ", ".join(f"{n} {what}" for what, n in reasons.items()) or "none")
        if waits:
            print(
                f"ready after {statistics.median(waits):.0f} ms, {waits[-1]} at most (the lock, "
                "the file, the workers)"
            )
        print("broken promises:", ", ".join(f"{count} {what}" for what, count in broken.items()))
        return not any(broken.values())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--synchronous", choices=("full", "normal"), default="full")
    parser.add_argument("--host", nargs=3, metavar=("STORE", "PIPE", "BOOT"), help="be a host")
    options = parser.parse_args()
    if options.host is not None:
        logging.getLogger("aioscheduler").setLevel(logging.CRITICAL)  # failures are intended
        store, pipe, boot = options.host
        asyncio.run(live(store, int(pipe), int(boot), options.synchronous))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        made = Storm(folder, options.seed, options.synchronous)
        made.rage(options.seconds)
        print(f"seed {options.seed}, {options.seconds:g} s, synchronous={options.synchronous}")
        return 0 if made.judge() else 1


if __name__ == "__main__":
    sys.exit(main())
