"""Durable tasks while hosts and workers die: kept, begun once more, or dead letters."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import enduring
import pytest
from enduring import lines_of
from programs import Program

from aioscheduler import (
    DeadLetter,
    Manager,
    ManagerClosed,
    QueuedScheduler,
    SQLiteStore,
    State,
    TimedScheduler,
    WorkerLost,
)

HOUR = timedelta(hours=1)
ONE_LIFE: Any = (0, 1.0)  # max_restarts: the first death that counts is the end

Start = Callable[..., Program]


@pytest.fixture
def start(path: Path, log: str) -> Iterator[Start]:
    """Start a host on the file."""
    with ExitStack() as stack:

        def begin(deed: str, *args: object) -> Program:
            program = Program("enduring_host.py", deed, path, log, *args)
            stack.callback(program.close)
            return program

        yield begin


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def said(log: str) -> list[str]:
    return lines_of(Path(log))


def next_host(path: Path, **options: Any) -> Manager:
    """Return a manager on a file that another host has, or had, open."""
    return Manager(store=SQLiteStore(path, wait=30), **options)


async def letters(manager: Manager) -> list[DeadLetter]:
    return [letter async for letter in manager.dead_letters()]


async def until_said(log: str, *wanted: str) -> None:
    while not set(wanted) <= set(said(log)):
        await asyncio.sleep(0.01)


def kill_worker(manager: Manager, place: int = 0) -> None:
    pid = manager.stats().workers[place].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


# ---- the host is killed


async def test_what_was_stored_outlives_the_host(start: Start, path: Path, log: str) -> None:
    host = start("fill")
    for _ in range(random.Random(1).randrange(10, 50)):
        acknowledged = int(host.hear())
    host.kill()
    for more in host.output.read().split():
        acknowledged = int(more)
    async with next_host(path, workers=2) as manager:
        for number in range(acknowledged):
            task = await manager.find(str(number))
            assert task is not None
            task.reschedule(timedelta(0))
        rest = [info async for info in manager.tasks(state=State.PENDING)]
        for info in rest:  # on disk, and not acknowledged
            manager.cancel(info.ref)
        await manager.join()
        await manager.sync()
        assert manager.stats().stored == 0
    assert {f"{number} 1" for number in range(acknowledged)} <= set(said(log))
    assert len(said(log)) == len(set(said(log))) <= acknowledged + 8


async def test_what_was_not_stored_is_lost_with_the_host(
    start: Start, path: Path, log: str
) -> None:
    assert start("at_once").process.wait(30) == -signal.SIGKILL
    async with next_host(path, workers=1) as manager:
        assert (len(manager), manager.stats().stored) == (0, 0)


async def test_what_runs_when_the_host_is_killed_runs_again_or_is_lost(
    start: Start, path: Path, log: str, gate: Path
) -> None:
    host = start("hold_two", gate)
    assert host.hear().split()[0] == "running"
    host.kill()
    assert sorted(said(log)) == ["fail 1", "rerun 1"]
    async with next_host(path, workers=1) as manager:
        (letter,) = await letters(manager)
        assert (letter.name, letter.reason, letter.attempts) == ("hold once", "lost", 1)
        assert "its host died while it ran" in letter.text
        assert manager.stats().stored == 4
        await until_said(log, "rerun 2")
        gate.touch()
        await until_said(log, "rerun ends")
        task = await manager.requeue(letter)
        await task
        assert said(log)[-2:] == ["fail 1", "fail ends"]
        await manager.sync()
        assert (manager.stats().stored, manager.stats().dead_letters) == (3, 0)


@pytest.mark.parametrize("function", ["note", "note_once"])
async def test_what_ended_and_was_not_struck(
    start: Start, path: Path, log: str, function: str
) -> None:
    """With "rerun" it runs a second time, with "fail" it is a dead letter though it has ended."""
    host = start("doomed", function, "ends", "before")
    assert host.process.wait(30) == -signal.SIGKILL
    assert said(log) == ["task 1"]
    async with next_host(path, workers=1) as manager:
        await manager.join()
        await manager.sync()
        assert manager.stats().stored == 0
        found = [letter.reason for letter in await letters(manager)]
    if function == "note":
        assert found == []
        assert len(said(log)) == 2
    else:
        assert found == ["lost"]
        assert said(log) == ["task 1"]


async def test_a_start_that_must_be_on_record_first(start: Start, path: Path, log: str) -> None:
    """Before the commit it certainly has not begun; after it nobody knows."""
    for moment in ("before", "after"):
        host = start("doomed", "note_once", "begins", moment)
        assert host.process.wait(30) == -signal.SIGKILL
        assert said(log) == []
    async with next_host(path, workers=1) as manager:
        await manager.join()
        assert [letter.reason for letter in await letters(manager)] == ["lost"]
    assert said(log) == []


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_task_that_kills_its_host_is_named_after_four_lives(
    start: Start, tmp_path: Path, log: str, workers: int
) -> None:
    deaths = 0
    while (host := start("poison", workers, tmp_path)).process.wait(40) == -signal.SIGKILL:
        deaths += 1
        assert deaths <= 4
    assert host.process.returncode == 0
    assert host.hear() == "lost"
    words = [line.split()[0] for line in said(log)]
    assert words.count("poison") == deaths
    assert set(words) == {"poison", *map(str, range(20))}


async def test_a_chain_stays_one_chain(start: Start, path: Path, log: str) -> None:
    chance = random.Random(2)
    for _ in range(5):
        host = start("chain")
        assert host.hear() == "ready"
        await asyncio.sleep(chance.random() / 2)
        host.kill()
    Path(f"{log}.last").touch()
    async with next_host(path, workers=1) as manager:
        await manager.join()
        await manager.sync()
        assert manager.stats().stored == 0
    steps = [int(line) for line in said(log)]
    assert steps[0] == 0
    assert {later - earlier for earlier, later in itertools.pairwise(steps)} <= {0, 1}


# ---- a worker is killed


async def test_a_worker_dies_with_what_runs(path: Path, log: str, gate: Path) -> None:
    """Nothing of it counts against `max_restarts`, as all that had begun was durable."""
    async with Manager(store=path, workers=1, max_restarts=ONE_LIFE) as manager:
        again = manager.schedule(enduring.hold(log, "rerun", str(gate)))
        once = manager.schedule(enduring.hold_once(log, "fail", str(gate)))
        pending = manager.schedule(enduring.note(log, "pending"), HOUR)
        await until_said(log, "rerun 1", "fail 1")
        kill_worker(manager)
        with pytest.raises(WorkerLost) as caught:
            await once
        assert caught.value.started
        await until_said(log, "rerun 2")
        (letter,) = await letters(manager)
        assert (letter.name, letter.reason, letter.attempts) == ("hold once", "lost", 1)
        assert "was killed by SIGKILL" in letter.text
        gate.touch()
        await again
        pending.reschedule(timedelta(0))
        assert await pending == "pending"
        assert manager.stats().restarts == 1
        assert said(log).count("fail 1") == 1


@pytest.mark.parametrize("queued", [False, True])
async def test_a_task_that_kills_its_worker_is_a_dead_letter_after_three(
    path: Path, log: str, queued: bool
) -> None:
    cls: Any = QueuedScheduler if queued else TimedScheduler
    async with Manager(2, cls=cls, store=path, workers=1, max_restarts=ONE_LIFE) as manager:
        batch = manager.starmap(enduring.note, [(log, n) for n in range(50)])
        poison = manager.schedule(enduring.kill_worker(log, "poison"), id="poison")
        more = manager.starmap(enduring.note, [(log, n) for n in range(50, 100)])
        with pytest.raises(WorkerLost):
            await poison
        assert await batch == list(range(50))
        assert await more == list(range(50, 100))
        (letter,) = await letters(manager)
        assert (letter.id, letter.reason, letter.attempts) == ("poison", "lost", 3)
        assert manager.stats().restarts == 3
    assert [line for line in said(log) if "poison" in line] == ["poison 1", "poison 2", "poison 3"]


async def test_a_manager_that_fails_keeps_what_it_has(path: Path, log: str, gate: Path) -> None:
    async with Manager(store=path, workers=1, max_restarts=ONE_LIFE) as manager:
        pending = manager.schedule(enduring.note(log, "pending"), HOUR, id="pending")
        again = manager.schedule(enduring.hold(log, "rerun", str(gate)))
        once = manager.schedule(enduring.hold_once(log, "fail", str(gate)))
        await until_said(log, "rerun 1", "fail 1")
        await manager.sync()
        plain = manager.schedule(enduring.kill_plainly())
        with pytest.raises(WorkerLost):
            await plain
        with pytest.raises(WorkerLost):
            await once
        for task in (pending, again):
            with pytest.raises(ManagerClosed):
                await task
            assert task.state is State.KEPT
        with pytest.raises(ManagerClosed):
            manager.schedule(enduring.note(log, "refused"), HOUR)
    gate.touch()
    async with Manager(store=path, workers=1) as manager:
        assert [letter.name for letter in await letters(manager)] == ["hold once"]
        await until_said(log, "rerun ends")
        assert await manager.find("pending") is not None
        await manager.sync()
        assert manager.stats().stored == 1
