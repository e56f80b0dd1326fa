"""Nodes, workers and launchers die at random: no task begins twice, and each one ends."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from far import Far, alive, begin, give, pids, until

from aioscheduler import Manager, QueuedScheduler, Task, TimedScheduler, WorkerLost

SEED = int(os.environ.get("STORM_SEED", time.time_ns() % 10**9))


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    made = Far(tmp_path)
    yield made
    made.end()


class Storm:
    """Random violence to processes.

    Args:
        far: The nodes.
        manager: Their manager.
        chance: The source of random choices.
    """

    def __init__(self, far: Far, manager: Manager, chance: random.Random) -> None:
        self.far, self.manager, self.chance = far, manager, chance
        self.happened: Counter[str] = Counter()

    async def blow(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(self.chance.random() * 0.8)
            what = self.chance.choice(["worker", "node", "node", "all", "stopped", "launcher"])
            with suppress(ProcessLookupError, psutil.Error):
                await self.strike(what)
                self.happened[what] += 1

    async def strike(self, what: str) -> None:
        if what == "launcher":
            os.kill(self.far.launchers()[-1], signal.SIGKILL)
        elif what == "worker":
            if found := pids(self.manager):
                os.kill(self.chance.choice(found), signal.SIGKILL)
        elif nodes := [pid for pid in self.far.nodes() if alive(pid)]:
            node = psutil.Process(self.chance.choice(nodes))
            if what == "stopped":
                node.suspend()
                await asyncio.sleep(self.chance.random() * 0.4)
                node.resume()
                return
            for each in [node, *(node.children(recursive=True) if what == "all" else [])]:
                each.kill()


async def storm(far: Far, cls: Any, seconds: float) -> None:
    chance, history = random.Random(SEED), str(far.history)
    timed = cls is TimedScheduler
    engine = far.engine(2, 2)
    tasks: list[Task[str]] = []
    async with Manager(cls=cls, engine=engine, max_restarts=(10**6, 1.0)) as manager:
        weather = Storm(far, manager, chance)
        blowing = asyncio.create_task(weather.blow(seconds))
        while not blowing.done():
            for _ in range(20):
                when: Any = timedelta(milliseconds=chance.randint(0, 300)) if timed else None
                pause = chance.choice((0.0, 0.0, 0.0, 0.002))
                tasks.append(manager.schedule(begin(history, str(len(tasks)), pause), when))
            await asyncio.sleep(0.01)
        await blowing
        async with asyncio.timeout(40):
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert await manager.schedule(give(1)) == 1
    starts = Counter(far.starts())
    told = f"seed {SEED}, {weather.happened}"
    assert max(starts.values()) == 1, told
    for number, end in enumerate(ends):
        assert isinstance(end, WorkerLost) or end == str(number), told
        assert isinstance(end, WorkerLost) or str(number) in starts, told
    await until(lambda: not any(map(alive, [*far.nodes(), *far.launchers()])))


@pytest.mark.parametrize("cls", [TimedScheduler, QueuedScheduler])
async def test_nothing_begins_twice_in_a_storm(far: Far, cls: Any) -> None:
    await storm(far, cls, 4)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cls", [TimedScheduler, QueuedScheduler])
async def test_nothing_begins_twice_in_a_long_storm(far: Far, cls: Any) -> None:
    await storm(far, cls, 120)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_two_hundred_managers_leave_nothing(far: Far) -> None:
    """No descriptor, thread or process is left, which the fixture around every test checks, too."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        async with Manager(engine=far.engine()) as manager:
            assert await manager.schedule(give(1)) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    await until(lambda: not any(map(alive, [*far.nodes(), *far.launchers()])))
