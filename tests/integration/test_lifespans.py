"""A worker's shared resources are open before its first task and closed after its last, always."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from shared import see, see_slowly, share, share_badly, share_never, words

from aioscheduler import Manager, ManagerClosed, State, WorkerLost, WorkerStartError


@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_it_is_left_when_its_manager_is_closed(workers: int, tmp_path: Path) -> None:
    path = tmp_path / "log"
    manager = Manager(2, workers=workers, initializer=share, initargs=(str(path),))
    async with manager:
        processes = max(1, workers)
        assert words(path) == ["entered"] * processes
        slow = manager.schedule(see_slowly(str(path), 0.1))
        while slow.state is State.PENDING:
            await asyncio.sleep(0.001)
        if workers:
            assert (await manager.schedule(see()))[0] == "open"
    assert slow.result() is None
    assert sorted(words(path)) == sorted([*["entered", "left"] * processes, "task"])
    lines = path.read_text().splitlines()
    (task,) = [line for line in lines if line.startswith("task")]
    assert lines.index(task) < lines.index(task.replace("task", "left"))


async def test_each_process_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with Manager(1, workers=1, initializer=share, initargs=(str(path),)) as manager:
        _, first = await manager.schedule(see())
        os.kill(first, signal.SIGTERM)
        while len(words(path)) < 3:
            await asyncio.sleep(0.01)
        _, second = await manager.schedule(see())
        assert manager.stats().restarts == 1
        os.kill(second, signal.SIGKILL)
        _, third = await manager.schedule(see())
    assert path.read_text().splitlines() == [
        *(f"entered {first}", f"left {first}", f"entered {second}"),  # the second was killed
        *(f"entered {third}", f"left {third}"),
    ]


@pytest.mark.parametrize("workers", [0, 1])
async def test_one_that_cannot_be_entered_is_told_by_ready(workers: int, tmp_path: Path) -> None:
    call = (str(tmp_path / "log"), "enter")
    with pytest.raises(WorkerStartError, match="no database"):
        async with Manager(1, workers=workers, initializer=share_badly, initargs=call):
            pass


async def test_one_that_ends_by_itself_ends_its_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    call = (str(path), "ends")
    async with Manager(1, workers=1, initializer=share_badly, initargs=call) as manager:
        slow = manager.schedule(see_slowly(str(path), 60))
        (tmp_path / "log.end").touch()
        with pytest.raises(WorkerLost, match="the lifespan .* has ended before its tasks"):
            await slow
        (tmp_path / "log.end").unlink()
        assert (await manager.schedule(see()))[0] == "nothing"
        assert manager.stats().restarts == 1
    assert "the lifespan that the initializer has returned has ended before" in caplog.text
    assert sorted(words(path)) == ["over", "over", "task"]


async def test_one_that_ends_by_itself_in_this_process_fails_the_manager(
    tmp_path: Path, reports: list[Any]
) -> None:
    path = tmp_path / "log"
    call = (str(path), "ends")
    async with Manager(1, workers=0, initializer=share_badly, initargs=call) as manager:
        slow = manager.schedule(see_slowly(str(path), 60))
        await asyncio.sleep(0)
        (tmp_path / "log.end").touch()
        with pytest.raises(WorkerLost, match="has ended before its tasks: .*TaskGroup"):
            await slow
        with pytest.raises(ManagerClosed, match="has ended before its tasks"):
            manager.schedule(see())
    (report,) = reports
    assert "has failed, and its 1 unfinished tasks with it" in report["message"]
    reports.clear()


@pytest.mark.parametrize(
    ("how", "said"), [("leave", "LookupError: no goodbye"), ("linger", "was not left within")]
)
@pytest.mark.parametrize("workers", [0, 1])
async def test_what_goes_wrong_when_it_is_left_is_said_and_the_end_is_in_order(
    how: str,
    said: str,
    workers: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "log"
    call = (str(path), how)
    manager = Manager(1, workers=workers, initializer=share_badly, initargs=call)
    manager.start()
    await manager.ready()
    await manager.close(0)
    assert words(path) == ["over"]
    # A worker's own logging, which is not set up, prints warnings and worse.
    assert said in (capfd.readouterr().err if workers else caplog.text)
    assert "does not end, and is killed" not in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_is_still_being_entered_cleans_up_before_the_end(
    workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    manager = Manager(1, workers=workers, initializer=share_never, initargs=(str(path),))
    manager.start()
    while not path.exists():
        await asyncio.sleep(0.01)
    await manager.close()
    assert words(path) == ["entering", "cleaned"]
    assert not caplog.records


async def test_what_runs_in_a_lifespan_may_close_its_manager(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked, log = asyncio.Event(), []

    @contextlib.asynccontextmanager
    async def share() -> AsyncIterator[None]:
        async def stop() -> None:
            await asked.wait()
            await manager.close(1)
            log.append(f"closed, {task.state.value}")

        async with asyncio.TaskGroup() as group:
            group.create_task(stop())
            yield
            await asyncio.sleep(0.01)
        log.append("left")

    async with Manager(1, workers=0, initializer=share) as manager:
        task = manager.schedule(asyncio.sleep(0.05))
        while task.state is State.PENDING:
            await asyncio.sleep(0)
        asked.set()
        await task
    assert log == ["closed, finished", "left"]
    assert not caplog.records


async def test_main_that_ends_without_close_leaves_it_cancelled_and_says_nothing(
    tmp_path: Path, reports: list[Any]
) -> None:
    path = tmp_path / "log"

    def live() -> None:
        async def main() -> None:
            manager = Manager(1, workers=0, initializer=share, initargs=(str(path),))
            manager.start()
            await manager.ready()

        asyncio.run(main())

    await asyncio.to_thread(live)
    assert words(path) == ["entered", "cancelled"]
