"""The file of durable tasks under its manager: full, gone, locked, copied, or no store at all."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import enduring
import pytest
from rigs import Rig, letters

from aioscheduler import (
    Manager,
    ManagerClosed,
    SQLiteStore,
    StoreError,
    StoreLocked,
    WorkerLost,
)
from aioscheduler._durable.records import Batch

HOUR = timedelta(hours=1)


def pids_of(manager: Manager) -> list[int | None]:
    return [worker.pid for worker in manager.stats().workers]


async def refusal(store: SQLiteStore | Path) -> StoreError:
    """Return why a manager cannot open the store; check that no worker was started."""
    manager = Manager(store=store, workers=1)
    with pytest.raises(StoreError) as caught:
        await manager.__aenter__()
    assert pids_of(manager) == [None]
    with pytest.raises(ManagerClosed):
        manager.schedule(enduring.nothing(1))
    return caught.value


# ---- it cannot be written


async def test_tasks_go_on_while_the_store_cannot_write_and_it_heals(rig: Rig) -> None:
    host = rig.host("full")
    assert host.hear() == "meanwhile"  # it has ended
    assert host.hear() == "False False True"  # tasks that must be on record first wait
    assert host.hear() == "once"
    assert host.hear() == "0 1"
    assert host.process.wait(30) == -signal.SIGKILL
    async with rig.manager() as manager:
        assert await manager.find("later") is not None
        assert manager.stats().stored == 1
    assert sorted(rig.said()) == ["before 1", "meanwhile 1", "once 1"]


async def test_a_full_disk_heals_when_there_is_room(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be had by root alone")
    try:
        path = disk / "tasks.db"
        async with Manager(store=path, workers=1) as manager:
            kept = manager.schedule(enduring.note(rig.log, "kept"), HOUR, id="kept")
            await kept.stored()
            with suppress(OSError), open(disk / "ballast", "wb") as ballast:
                while True:
                    ballast.write(bytes(4096))
                    ballast.flush()
            batch = manager.map(enduring.size, [bytes(2000)] * 300)
            manager.map(enduring.size, [bytes(2000)] * 300, HOUR)
            assert await batch == [2000] * 300
            while "tasks go on, and writing is retried" not in caplog.text:
                await asyncio.sleep(0.01)
            assert manager.stats().unsaved >= 300
            (disk / "ballast").unlink()
            await manager.sync()
            assert "can be written again; nothing was lost" in caplog.text
            assert (manager.stats().unsaved, manager.stats().stored) == (0, 301)
        async with Manager(store=path, workers=1) as manager:
            assert len(manager) == 301
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class Slow(SQLiteStore):
    """A store that commits when the test lets it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()

    def commit(self, batch: Batch) -> None:
        self.gate.wait(30)
        super().commit(batch)


async def test_a_slow_disk_holds_up_what_must_be_on_record_and_nothing_else(rig: Rig) -> None:
    store = Slow(rig.path)
    async with Manager(store=store, workers=1) as manager:
        await manager.sync()
        store.gate.clear()
        try:
            named = manager.schedule(enduring.note(rig.log, "named"), id="named")
            once = manager.schedule(enduring.note_once(rig.log, "once"))
            batch = manager.starmap(enduring.note, [(rig.log, n) for n in range(100)])
            stored = asyncio.ensure_future(named.stored())
            assert await batch == list(range(100))
            assert not (named.done() or once.done() or stored.done())
            assert sorted(rig.said()) == sorted(f"{n} 1" for n in range(100))
        finally:
            store.gate.set()
        await asyncio.gather(named, once)
        await stored


# ---- it is gone


def delete(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize("deed", [delete, pytest.param(move, marks=pytest.mark.long)])
@pytest.mark.parametrize("workers", [0, 1])
async def test_a_manager_whose_file_is_gone_fails_and_all_is_told(
    rig: Rig, deed: Callable[[Path], None], workers: int, reports: list[dict[str, Any]]
) -> None:
    async with Manager(store=rig.path, workers=workers) as manager:
        pending = manager.schedule(enduring.note(rig.log, "pending"), HOUR)
        await pending.stored()
        running = manager.schedule(enduring.hold(rig.log, "running", str(rig.gate)))
        plain = manager.schedule(enduring.note_plainly(rig.log, "plain"), HOUR)
        await rig.until_said("running 1")
        deed(rig.path)
        for task in (pending, running, plain):
            with pytest.raises((ManagerClosed, WorkerLost, StoreError)):
                await task
        with pytest.raises(ManagerClosed) as caught:
            manager.schedule(enduring.note(rig.log, "more"), HOUR)
        assert isinstance(caught.value.__cause__, StoreError)
        assert "deleted" in str(caught.value.__cause__)
    assert [report["exception"] for report in reports] == [caught.value.__cause__]
    reports.clear()


async def test_a_replaced_file_is_left_alone(rig: Rig, reports: list[dict[str, Any]]) -> None:
    async with Manager(store=rig.path, workers=1) as manager:
        task = manager.schedule(enduring.note(rig.log, "task"), HOUR)
        await task.stored()
        replace(rig.path)
        before = rig.path.read_bytes()
        with pytest.raises(ManagerClosed):
            await task
    assert rig.path.read_bytes() == before
    reports.clear()


# ---- others have it


async def test_a_file_that_another_host_has_is_refused_with_its_processes(rig: Rig) -> None:
    host = rig.host("keep")
    _, worker = host.hear().split()
    error = await refusal(SQLiteStore(rig.path, wait=0))
    assert isinstance(error, StoreLocked)
    assert error.pids == tuple(sorted((host.process.pid, int(worker))))
    host.end()
    async with rig.manager() as manager:
        assert await manager.find("kept") is not None


async def test_two_managers_of_one_process(rig: Rig) -> None:
    async with Manager(store=rig.path, workers=0):
        error = await refusal(SQLiteStore(rig.path, wait=0))
        assert isinstance(error, StoreLocked)
        assert "this very process" in str(error)


async def test_a_worker_that_outlives_its_host_keeps_the_file(rig: Rig) -> None:
    host = rig.host("lose_worker")
    assert await asyncio.to_thread(host.hear) == "stored"  # perhaps before it begins, perhaps after
    while not rig.said():
        await asyncio.sleep(0.01)
    worker = int(rig.said()[0])
    try:
        host.kill()
        error = await refusal(SQLiteStore(rig.path, wait=0))
        assert isinstance(error, StoreLocked)
        assert error.pids == (worker,)
    finally:
        os.kill(worker, signal.SIGKILL)
    async with rig.manager() as manager:
        assert manager.stats().stored == 1
        await manager.close(0)


async def test_what_a_task_has_forked_does_not_keep_the_file(rig: Rig) -> None:
    host = rig.host("bear")
    await asyncio.to_thread(host.hear)
    (child,) = map(int, rig.said())
    try:
        host.kill()
        async with rig.manager():
            os.kill(child, 0)  # it is alive
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_host_whose_lock_was_deleted_fails_and_no_other_gets_in(rig: Rig) -> None:
    host = rig.host("keep")
    host.hear()
    os.unlink(f"{rig.path}.lock")
    error = await refusal(SQLiteStore(rig.path, wait=0))
    assert isinstance(error, StoreLocked)
    assert host.process.pid in error.pids
    assert host.hear() == "ManagerClosed"
    host.kill()
    async with rig.manager() as manager:
        assert await manager.find("kept") is not None


async def test_a_forked_host_is_told_that_it_has_no_store(rig: Rig) -> None:
    host = rig.host("forked")
    assert host.hear() == "RuntimeError"
    assert host.hear() == "2"
    assert host.hear() == "closed"
    assert host.process.wait(30) == 0
    async with rig.manager(workers=0) as manager:
        assert manager.stats().stored == 2


# ---- it is no store


async def test_what_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE users(name TEXT)")
    connection.commit()
    connection.close()
    text = tmp_path / "text"
    text.write_text("no database" * 1000)
    for path in (other, text, tmp_path, tmp_path / "missing" / "tasks.db"):
        before = path.read_bytes() if path.is_file() else None
        error = await refusal(path)
        assert not isinstance(error, StoreLocked)
        assert str(path) in str(error)
        assert (path.read_bytes() if path.is_file() else None) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.db", "text"]


async def test_without_ready_a_manager_fails_loudly(
    tmp_path: Path, reports: list[dict[str, Any]]
) -> None:
    manager = Manager(store=tmp_path, workers=1)
    manager.start()
    task = manager.schedule(enduring.nothing(1))
    with pytest.raises(WorkerLost, match="had not started.*is not a file"):
        await task
    assert [type(report["exception"]) for report in reports] == [StoreError]
    reports.clear()
    await manager.close()


# ---- copies


async def test_a_backup_of_a_manager_at_work_is_a_store(rig: Rig, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    async with rig.manager() as manager:
        for n in range(20):
            manager.schedule(enduring.note(rig.log, n), HOUR, id=str(n))
        batch = manager.map(enduring.nothing, range(2000))
        await manager.backup(copy)
        await batch
        with pytest.raises(StoreError, match="is there already"):
            await manager.backup(copy)
    async with Manager(store=copy, workers=1) as manager:
        for n in range(20):
            task = await manager.find(str(n))
            assert task is not None
            task.reschedule(timedelta(0))
        await manager.join()
        assert await letters(manager) == []
    assert sorted(rig.said()) == sorted(f"{n} 1" for n in range(20))


def spoil_a_page(path: Path) -> None:
    """Corrupt a page of the file, near its end."""
    pages = path.stat().st_size // 4096
    with open(path, "r+b") as file:
        file.seek(4096 * (pages - 20))
        file.write(b"\xff" * 4096)


async def test_one_bad_page_takes_no_other_tasks_with_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.manager(workers=0) as manager:
        manager.map(enduring.size, [bytes(500)] * 2000, timedelta(seconds=5))
        await manager.sync()
    spoil_a_page(rig.path)
    async with rig.manager(workers=0) as manager:
        task = manager.schedule(enduring.note(rig.log, "new"))
        assert await task == "new"
        await manager.join()  # though it was made for the year 2000
        assert 1900 <= manager.stats().finished < 2000
        assert "is corrupt" in caplog.text
        assert ".recover" in caplog.text


async def test_a_list_of_tasks_leaves_out_what_is_on_a_bad_page_and_the_log_says_so(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.manager(workers=0) as manager:
        manager.map(enduring.size, [bytes(500)] * 2000, timedelta(days=5))
        await manager.sync()
    spoil_a_page(rig.path)
    async with rig.manager(workers=0) as manager:
        found = [info.ref async for info in manager.tasks()]
        assert 1900 <= len(set(found)) == len(found) < 2000
        while "is corrupt" not in caplog.text:  # within a tick
            await asyncio.sleep(0.05)
