"""Repeats with real processes and real clocks, and hosts that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import enduring
import pytest
import repeated
from programs import Program
from repeating_host import STEPS

from aioscheduler import Every, Manager
from aioscheduler._scheduling.clock import SECOND, to_ns


async def host_of(path: Path, log: Path, workers: int, chance: random.Random) -> None:
    """Start a host and kill it, at any moment."""
    with closing(Program("repeating_host.py", path, log, workers)) as host:
        if chance.random() < 0.8:
            assert await asyncio.to_thread(host.hear) == "ready"
        await asyncio.sleep(chance.choice((0.05, 0.7)) * chance.random())


@pytest.mark.parametrize(
    ("kills", "workers"),
    [
        (6, 1),
        (4, 0),
        pytest.param(100, 1, marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
        pytest.param(100, 0, marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
async def test_hosts_are_killed_and_each_time_is_run(
    tmp_path: Path, kills: int, workers: int
) -> None:
    path, log, chance = tmp_path / "tasks.db", tmp_path / "log", random.Random(kills + workers)
    for _ in range(kills):
        await host_of(path, log, workers, chance)
    with closing(Program("repeating_host.py", path, log, workers)) as host:
        assert await asyncio.to_thread(host.hear) == "ready"
        host.tell()
        told = json.loads(await asyncio.to_thread(host.hear))
        assert await asyncio.to_thread(host.hear) == "closed"
    starts = {id_: Counter[int]() for id_ in STEPS}
    for line in enduring.lines_of(log):
        id_, nominal = line.split()
        starts[id_][int(nominal)] += 1
    letters = {id_: set[int]() for id_ in STEPS}
    for letter in told["letters"]:
        id_, _, nominal = letter.removeprefix("↻").rpartition(" ")
        letters[id_].add(to_ns(datetime.fromisoformat(nominal), 0))
    for id_, (next_, ran, skipped) in told["repeats"].items():
        known = starts[id_].keys() | letters[id_]
        assert len(known) == ran, id_  # none of its runs was lost
        passed = (next_ - min(known)) // int(STEPS[id_] * SECOND)
        assert ran + skipped == passed, id_  # and none of its times
        if id_ != "skip":
            assert skipped == 0, id_
    assert set(starts["once"].values()) == {1}
    doubled = sum(count - 1 for each in starts.values() for count in each.values())
    ran = sum(map(len, starts.values()))
    print(f"{kills} kills, {ran} runs, {doubled} of them twice, {len(told['letters'])} letters")
    # A run that had ended and was not struck yet runs again, unless it was there at three deaths;
    # before the first of them it was not on record.
    assert max(count for each in starts.values() for count in each.values()) <= 4


@pytest.mark.parametrize("workers", [0, 2])
async def test_it_repeats_on_the_real_clock(workers: int) -> None:
    repeated.done.clear()
    async with Manager(workers=workers) as manager:
        start = datetime.now(UTC) + timedelta(seconds=0.2)
        repeat = manager.repeat(repeated.note(7), Every(0.1, start=start), id="x", times=3)
        began = time.time()
        while repeat.next is not None or repeat.running:
            await asyncio.sleep(0.01)
        assert time.time() >= began + 0.3
        assert (repeat.ran, repeat.last) == (3, start + timedelta(seconds=0.2))
        assert manager.stats().finished == 3


async def test_while_its_worker_is_stopped_a_run_is_under_way() -> None:
    async with Manager(1, workers=1) as manager:
        (pid,) = (worker.pid for worker in manager.stats().workers)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            start = datetime.now(UTC) + timedelta(seconds=0.1)
            rule = Every(0.1, start=start)
            one = manager.repeat(repeated.note(1), rule, id="skip")
            two = manager.repeat(repeated.note(2), rule, id="queue", overlap="queue")
            while one.skipped < 3:
                await asyncio.sleep(0.01)
            assert (one.ran, one.running, two.ran, two.running) == (1, 1, 1, 1)
            assert two.skipped == 0
        finally:
            os.kill(pid, signal.SIGCONT)
        while one.ran < 3 or two.ran < 4:  # it goes on with what has waited
            await asyncio.sleep(0.01)
