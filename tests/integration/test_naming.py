"""Ids, replacements, new times and lists, with real processes that race with the host."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aioscheduler import Manager, QueuedScheduler, State, Task, WorkerLost, current_manager

NEVER = timedelta(days=1)
SOON = timedelta(milliseconds=20)


async def note(path: Path, word: str, nap: float = 0.0) -> str:
    """Write each step to a file, so that a cancellation inside is seen."""
    with path.open("a") as file:
        print(f"{word} begins", file=file)
    try:
        await asyncio.sleep(nap)
    except asyncio.CancelledError:
        with path.open("a") as file:
            print(f"{word} is cancelled", file=file)
        raise
    with path.open("a") as file:
        print(f"{word} ends", file=file)
    return word


async def wait_for_line(path: Path, line: str) -> None:
    while not path.exists() or line not in path.read_text().splitlines():
        await asyncio.sleep(0.005)


def hold_the_loop_until(path: Path, line: str) -> None:
    """Block the host meanwhile, so that it takes the task for pending."""
    while not path.exists() or line not in path.read_text().splitlines():
        time.sleep(0.005)


@pytest.mark.parametrize("cls", [None, QueuedScheduler])
async def test_a_start_on_its_way_wins_over_a_replacement(tmp_path: Path, cls: Any) -> None:
    path = tmp_path / "steps"
    kind = {} if cls is None else {"cls": cls}
    async with Manager(1, workers=1, **kind) as manager:
        old = manager.schedule(note(path, "old", 0.3), id="x")
        await manager.flush()
        hold_the_loop_until(path, "old begins")
        assert old.state is State.PENDING
        new = manager.schedule(note(path, "new"), id="x", replace=True)
        assert (old.id, new.id) == (None, "x")
        assert await old == "old"
        assert await new == "new"
    assert "old is cancelled" not in path.read_text()


async def test_a_start_on_its_way_wins_over_a_new_time(tmp_path: Path) -> None:
    path = tmp_path / "steps"
    async with Manager(1, workers=1) as manager:
        task = manager.schedule(note(path, "it", 0.1))
        await manager.flush()
        hold_the_loop_until(path, "it begins")
        assert task.reschedule(NEVER)  # by the host's knowledge
        async with asyncio.timeout(30):
            assert await task == "it"
    assert path.read_text().splitlines() == ["it begins", "it ends"]


async def test_a_new_time_holds_over_a_death(tmp_path: Path) -> None:
    async with Manager(1, workers=1) as manager:
        sooner = manager.schedule(note(tmp_path / "a", "sooner"), NEVER)
        later = manager.schedule(note(tmp_path / "b", "later"), timedelta(seconds=1))
        gone = manager.schedule(note(tmp_path / "c", "gone"), NEVER, id="x")
        await asyncio.sleep(0.05)
        pid = manager.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # it reads nothing of what follows
        assert later.reschedule(NEVER)
        assert sooner.reschedule(SOON)
        new = manager.schedule(note(tmp_path / "d", "new"), id="x", replace=True)
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            assert [await sooner, await new] == ["sooner", "new"]
        assert (later.state, gone.state) == (State.PENDING, State.CANCELLED)
        assert later.due is not None
        infos = [info async for info in manager.tasks()]
        assert [(info.ref, info.due) for info in infos] == [(later.ref, later.due)]
    assert not (tmp_path / "c").exists()


async def test_an_id_is_free_when_its_worker_has_died_with_the_task(tmp_path: Path) -> None:
    path = tmp_path / "steps"
    async with Manager(1, workers=1) as manager:
        lost = manager.schedule(note(path, "lost", 60), id="x")
        await wait_for_line(path, "lost begins")
        pid = manager.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await lost
        assert await manager.schedule(note(path, "new"), id="x") == "new"


async def debounce(path: Path, number: int) -> None:
    """Of requests in quick succession the last one holds."""
    manager = current_manager()
    manager.schedule(note(path, f"{number}"), timedelta(seconds=0.5), id="save", replace=True)


async def ask_for(id_: str, path: Path) -> Any:
    return current_manager().schedule(note(path, "other"), NEVER, id=id_)


@pytest.mark.parametrize("workers", [0, 2])
async def test_tasks_of_all_workers_share_the_ids(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "steps"
    async with Manager(4, workers=workers) as manager:
        task = manager.schedule(note(path, "first"), NEVER, id="x")
        asked = [manager.schedule(ask_for("x", path), key=n) for n in range(20)]
        for ref in await asyncio.gather(*asked):
            assert manager.task(ref) is task
        for n in range(20):
            await manager.schedule(debounce(path, n), key=n)
        save = await manager.find("save")
        assert save is not None
        await save
        task.cancel()
        await manager.join()
    assert path.read_text().splitlines() == ["19 begins", "19 ends"]


async def test_a_hundred_thousand_are_listed_while_the_loop_turns() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Manager(4, workers=2) as manager:
        manager.map(abs, range(100_000), NEVER)
        await manager.flush()
        turning = asyncio.create_task(turn())
        infos = [info async for info in manager.tasks()]
        assert len({info.ref for info in infos}) == 100_000
        assert turns >= 100_000 // 256
        turning.cancel()
        await manager.close(0)


async def test_what_comes_goes_and_moves_meanwhile_is_listed_at_most_once(tmp_path: Path) -> None:
    async with Manager(4, workers=2) as manager:
        stay = {manager.schedule(asyncio.sleep(0), NEVER).ref for _ in range(3000)}
        go: list[Task[Any]] = [manager.schedule(asyncio.sleep(0), NEVER) for _ in range(3000)]
        deeds: list[Callable[[], Any]] = [
            lambda: go.pop().cancel(),
            lambda: go.pop().reschedule(SOON),
            lambda: manager.schedule(asyncio.sleep(0.001), SOON),
        ]
        seen = []
        async for info in manager.tasks():
            seen.append(info.ref)
            deeds[len(seen) % 3]() if len(go) > 2 else None
        assert len(seen) == len(set(seen))
        assert stay <= set(seen)
        await manager.close(0)
