"""Durable tasks outlive what ends: their worker, their host, their manager, a deploy."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lasting import FAR, crash, linger, linger_once, note

from aioscheduler import Manager, ManagerClosed, State, Task

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def lines(log: Path) -> Counter[str]:
    """What was written, and how often."""
    return Counter(log.read_text().splitlines())


async def until(log: Path, line: str) -> None:
    while line not in lines(log):
        await asyncio.sleep(0.01)


async def letters(manager: Manager[Any]) -> list[tuple[str, str]]:
    return sorted([(each.name, each.reason) async for each in manager.dead_letters()])


async def ended(*tasks: Task[Any]) -> None:
    await asyncio.wait(tasks)


async def have_run(manager: Manager[Any], id_: str) -> None:
    """Have a task that is far off run now."""
    task = await manager.find(id_)
    assert task is not None
    assert task.reschedule(timedelta(0))


def run_host(store: Path, log: Path) -> None:
    """One life of a host: it is killed when it says that everything is stored."""
    command = [sys.executable, str(SUPPORT / "lasting.py"), str(store), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "stored\n"
        os.kill(host.pid, signal.SIGKILL)


async def test_a_kill_of_the_host(store: Path, log: Path) -> None:
    """What waited runs, what had begun begins again or is a dead letter, the rest has ended."""
    run_host(store, log)
    before = lines(log)
    async with Manager(store=store, workers=2) as manager:
        # The chain has one next link, though the one before has run twice.
        while sorted([str(info.id) async for info in manager.tasks()]) != ["far", "next"]:
            await asyncio.sleep(0.02)
        assert await letters(manager) == [("linger once", "lost")]
        assert manager.stats().stored == 2
    found = lines(log)
    assert (found["rerun"], found["once"], found["chain"]) == (2, 1, 2)
    assert all(found[f"soon{n}"] == 1 for n in range(50))
    assert all(found[f"late{n}"] == 1 for n in range(50) if f"late{n}" not in before)
    assert all(found[f"late{n}"] >= 1 for n in range(50))


async def test_what_had_begun_when_its_worker_died(store: Path, log: Path) -> None:
    async with Manager(store=store, workers=1) as manager:
        again = manager.schedule(linger(str(log), "rerun"))
        once = manager.schedule(linger_once(str(log), "once"))
        later = manager.schedule(note(str(log), "later"), timedelta(seconds=1))
        await until(log, "rerun")
        await until(log, "once")
        pid = manager.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await ended(again, once, later)
        assert [again.state, once.state, later.state] == [
            State.FINISHED, State.LOST, State.FINISHED,
        ]  # fmt: skip
        assert await letters(manager) == [("linger once", "lost")]
    assert lines(log) == Counter(["rerun", "rerun", "attempt 2", "once", "later"])


async def test_what_kills_its_worker_each_time_is_given_up(store: Path, log: Path) -> None:
    """And takes neither its neighbours nor its manager along."""
    async with Manager(store=store, workers=1, max_restarts=(1, 60.0)) as manager:
        task = manager.schedule(crash(str(log)))
        other = manager.schedule(note(str(log), "other"), timedelta(seconds=0.5))
        await ended(task, other)
        assert await letters(manager) == [("crash", "lost")]
        await manager.schedule(note(str(log), "after"))
    assert lines(log) == Counter(["crash"] * 3 + ["other", "after"])


async def test_close_keeps_what_is_pending_and_stops_what_runs(store: Path, log: Path) -> None:
    async with Manager(store=store, workers=1) as manager:
        pending = manager.schedule(note(str(log), "pending"), FAR, id="pending")
        running = manager.schedule(linger(str(log), "rerun"))
        once = manager.schedule(linger_once(str(log), "once"))
        await until(log, "rerun")
        await until(log, "once")
        await manager.close(0.1)
        assert [pending.state, running.state] == [State.KEPT, State.KEPT]
        with pytest.raises(ManagerClosed):
            await pending
        assert once.done()
    async with Manager(store=store, workers=1) as manager:
        await have_run(manager, "pending")
        await manager.join()
        assert await letters(manager) == [("linger once", "lost")]
        assert manager.stats().stored == 0
    found = lines(log)
    assert (found["rerun"], found["once"], found["pending"]) == (2, 1, 1)


async def test_what_a_failed_manager_had_is_kept(
    store: Path, log: Path, reports: list[Any]
) -> None:
    async with Manager(store=store, workers=1, max_restarts=(0, 60.0)) as manager:
        pending = manager.schedule(note(str(log), "pending"), FAR, id="pending")
        await pending.stored()
        pid = manager.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Exception, match="killed by SIGKILL|failed"):
            await pending
        (report,) = reports
        assert "has failed" in report["message"]
        reports.clear()
    async with Manager(store=store, workers=1) as manager:
        await have_run(manager, "pending")
        await manager.join()
    assert lines(log) == Counter(["pending"])


GONE = """
import asyncio, sys
from aioscheduler import Manager, durable

@durable("gone")
async def gone(): ...

class Thing: ...

async def main():
    from lasting import note
    from gone_tomorrow import Thing, gone
    async with Manager(store=sys.argv[1], workers=0) as manager:
        from datetime import timedelta
        soon = timedelta(seconds=1)
        manager.schedule(gone(), soon)
        manager.schedule(note(Thing(), "unreadable"), soon)
        manager.schedule(note(sys.argv[2], "neighbour"), soon)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_is_gone_after_a_deploy_is_a_dead_letter(
    store: Path, log: Path, workers: int
) -> None:
    program = log.with_name("gone_tomorrow.py")
    program.write_text(GONE)
    path = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, program, store, log], check=True, env={**os.environ, "PYTHONPATH": path}
    )
    program.unlink()
    async with Manager(store=store, workers=workers) as manager:
        await manager.join()
        found = await letters(manager)
        assert found[1] == ("note", "unreadable")
        assert found[0][0] == "gone"
        assert found[0][1] in ("unknown", "unreadable")
    assert lines(log) == Counter(["neighbour"])
