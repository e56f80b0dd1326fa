"""Tasks that are only in the file, with real hosts: found, listed, changed, and reported."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import enduring
import far_host
import pytest
from farstores import FIRST, bring_forward, counted, put_many, spoil
from programs import Program
from rigs import Rig

from aioscheduler import Manager, ManagerClosed, State, Task, TaskInfo, TaskRef, UnknownTask
from aioscheduler._routing import commits, paging

LONG = (pytest.mark.long, pytest.mark.timeout(600))
MANY = pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=LONG)])
NOW = timedelta(0)
WORKERS = pytest.mark.parametrize("workers", [1, 0])


async def infos(manager: Manager, **which: Any) -> list[TaskInfo]:
    return [info async for info in manager.tasks(**which)]


async def found(manager: Manager, id_: str) -> Task[Any]:
    task = await manager.find(id_)
    assert task is not None
    return task


def in_memory(manager: Manager) -> int:
    """Return how many tasks are at workers."""
    return sum(worker.pending + worker.running for worker in manager.stats().workers)


# ---- over a restart


@WORKERS
@pytest.mark.parametrize(
    "count", [10_000, *(pytest.param(many, marks=LONG) for many in (100_000, 1_000_000))]
)
async def test_what_is_only_in_the_file_can_be_found_listed_and_changed(
    rig: Rig, workers: int, count: int
) -> None:
    async with rig.manager(workers) as manager:
        await put_many(manager, count)
        users = [
            manager.schedule(enduring.note(rig.log, n), 2 * FIRST, id=f"user/{n}")
            for n in range(40)
        ]
        batch = manager.starmap(enduring.note, [(rig.log, "batch")] * 3, 2 * FIRST)
        await manager.sync()
        assert len(manager) == manager.stats().stored == count + 43
        assert in_memory(manager) == 0
        refs, due = [task.ref for task in users], users[0].due
    assert {task.state for task in users} == {State.KEPT}
    with pytest.raises(ManagerClosed, match="it stays in the store"):
        await users[0]
    with pytest.raises(ManagerClosed):
        await batch

    async with rig.manager(workers) as manager:
        assert len(manager) == manager.stats().stored == count + 43
        assert in_memory(manager) == 0
        # Found and listed.
        task = await found(manager, "user/0")
        assert (task.ref, task.due, task.state) == (refs[0], due, State.PENDING)
        assert await manager.find("user/40") is None
        assert {info.id for info in await infos(manager, id_prefix="user/1")} == {
            "user/1",
            *(f"user/{n}" for n in range(10, 20)),
        }
        assert len({info.ref for info in await infos(manager, limit=7)}) == 7
        listed = await infos(manager)
        assert len({info.ref for info in listed}) == len(listed) == count + 43
        name = f"{enduring.__name__}:note"
        assert len(await infos(manager, name=name)) == 43
        # Cancelled.
        assert manager.cancel(refs[0])
        assert (await asyncio.wait([task]))[0] == {task}
        assert task.cancelled()
        assert await manager.find("user/0") is None
        with pytest.raises(UnknownTask):
            await manager.task(refs[0])
        # Rescheduled, by a reference, and by a handle.
        assert manager.reschedule(refs[1], NOW)
        second = manager.task(refs[2])
        assert second.reschedule(NOW)
        assert await second == 2
        third = await found(manager, "user/3")
        manager.reschedule(refs[3], 3 * FIRST)
        assert third.reschedule(NOW)
        assert await third == 3
        moved = manager.task(refs[4])
        assert moved.reschedule(3 * FIRST)
        await moved.stored()
        assert moved.due is not None
        assert moved.due > datetime.now(UTC) + 2 * FIRST
        await rig.until_said("1 1", "2 1", "3 1")
        await manager.sync()
        assert len(manager) == manager.stats().stored == count + 39
        # They are kept again.
        assert in_memory(manager) == 0
    assert moved.state is State.KEPT
    assert sorted(rig.said()) == ["1 1", "2 1", "3 1"]
    assert counted(rig.path) == (count + 39, count + 39)


@WORKERS
@MANY
async def test_an_id_of_a_task_that_is_only_in_the_file(rig: Rig, workers: int, count: int) -> None:
    async with rig.manager(workers) as manager:
        await put_many(manager, count)
        old = [
            manager.schedule(enduring.note(rig.log, f"old {n}"), 2 * FIRST, id=f"user/{n}").ref
            for n in range(4)
        ]
    async with rig.manager(workers) as manager:
        same = manager.schedule(enduring.note(rig.log, "new 0"), 3 * FIRST, id="user/0")
        soon = manager.schedule(enduring.note(rig.log, "new 1"), id="user/1")
        other = manager.schedule(
            enduring.note(rig.log, "new 2"), 3 * FIRST, id="user/2", replace=True
        )
        now = manager.schedule(enduring.note(rig.log, "new 3"), id="user/3", replace=True)
        for task in (same, soon, other):
            await task.stored()
        assert (same.ref, soon.ref) == (old[0], old[1])
        later = datetime.now(UTC) + FIRST
        assert all(task.due and task.due > later for task in (same, soon))  # as they were
        assert other.ref != old[2]
        assert await now == "new 3"
        for ref in old[2:]:
            with pytest.raises(UnknownTask):
                await manager.task(ref)
        assert len(manager) == count + 3
        for task in (same, soon, other):
            task.reschedule(NOW)
        results = [await task for task in (same, soon, other)]
        assert results == ["old 0", "old 1", "new 2"]
        await manager.sync()
        assert manager.stats().stored == count
    assert sorted(rig.said()) == ["new 2 1", "new 3 1", "old 0 1", "old 1 1"]
    assert counted(rig.path) == (count, count)


@contextmanager
def killed_host(rig: Rig, count: int) -> Iterator[list[TaskRef]]:
    """Return the references of the tasks of a host that is killed."""
    host = Program("far_host.py", rig.path, rig.log, count)
    try:
        refs = json.loads(host.hear())
        host.kill()
        yield [TaskRef(*ref) for ref in refs]
    finally:
        host.close()


@WORKERS
@MANY
async def test_what_was_asked_before_the_host_was_killed_holds(
    rig: Rig, workers: int, count: int
) -> None:
    with killed_host(rig, count) as refs:
        async with rig.manager(workers) as manager:
            assert len(manager) == manager.stats().stored == count + far_host.USERS - 10
            assert in_memory(manager) == 0
            for ref in refs[:10] + refs[20:30]:  # cancelled, and replaced
                with pytest.raises(UnknownTask):
                    await manager.task(ref)
            listed = {info.id: info for info in await infos(manager, id_prefix="user/")}
            assert set(listed) == {f"user/{n}" for n in range(10, far_host.USERS)}
            later = datetime.now(UTC) + 2 * FIRST
            for n in range(10, far_host.USERS):
                info = listed[f"user/{n}"]
                assert info.due is not None
                assert (info.due > later) is (n < 20)  # those that were moved
                assert (info.ref == refs[n]) is not (20 <= n < 30)
                assert manager.reschedule(info.ref, NOW)
            await rig.until_said(*(f"user {n} 1" for n in range(30, far_host.USERS)))
            while manager.stats().finished < far_host.USERS - 10:
                await asyncio.sleep(0.01)
            await manager.sync()
            assert manager.stats().stored == count
    new = [f"new {n} 1" for n in range(20, 30)]
    rest = [f"user {n} 1" for n in (*range(10, 20), *range(30, far_host.USERS))]
    assert sorted(rig.said()) == sorted(new + rest)


# ---- too many at once, and tasks that cannot be read


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_of_many_that_are_overdue_few_are_in_memory(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks of a key begin in the order of their times."""
    count, most = 100_000, 4000
    async with rig.manager(2) as manager:
        for n in range(0, count, 1000):
            dues = [FIRST + timedelta(milliseconds=number) for number in range(n, n + 1000)]
            for key in "abc":
                calls = [(rig.log, f"{key} {number}") for number in range(n, n + 1000)]
                manager.starmap(enduring.note, calls, dues, key=key)
            await manager.sync()
    bring_forward(rig.path, timedelta(days=1))
    monkeypatch.setattr(paging, "MOST", most)
    seen: list[int] = []
    async with rig.manager(2) as manager:
        assert len(manager) <= 3 * count
        joining = asyncio.ensure_future(manager.join())
        while not joining.done():
            seen.append(in_memory(manager))
            await asyncio.sleep(0.01)
        await joining
        await manager.sync()
        assert (len(manager), manager.stats().stored) == (0, 0)
    assert max(seen) <= most
    said = [line.split()[:2] for line in rig.said()]
    assert len(said) == 3 * count
    for key in "abc":
        assert [int(number) for letter, number in said if letter == key] == list(range(count))


@pytest.mark.parametrize("count", [10_000, pytest.param(300_000, marks=LONG)])
@WORKERS
async def test_around_a_bad_page_all_runs(
    rig: Rig,
    workers: int,
    count: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commits, "CLOSE_PATIENCE", 0.1)  # a corrupt page may block strikes
    async with rig.manager(workers) as manager:
        await put_many(manager, count)
    bring_forward(rig.path, timedelta(days=60))
    spoil(rig.path, 0.5)
    async with rig.manager(workers) as manager:
        await manager.join()
        lost = count - manager.stats().finished
        assert 0 < lost < 500  # those on that page
        assert "is corrupt: tasks at" in caplog.text
        assert ".recover" in caplog.text
        task = manager.schedule(enduring.note(rig.log, "new"))
        assert await task == "new"
