"""The life of a worker process, as far as it needs none: its watchdog, and its clean end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import looking
import pytest

from aioscheduler._processes.process import workers_module
from aioscheduler.testing import FakeClock

main = workers_module("main")
STEP = main.WATCH_EVERY


def test_a_loop_that_turns_is_not_blocked() -> None:
    watchdog = main.Watchdog(100.0)
    assert not any(watchdog.look(now, now - 0.9) for now in (102.0, 104.0, 106.0))


def test_a_block_is_told_of_once() -> None:
    watchdog = main.Watchdog(100.0)
    looks = [watchdog.look(now, 101.0) for now in (102.0, 104.0, 106.0, 108.0)]
    assert looks == [0, 0, 5.0, 0]
    assert watchdog.look(110.0, 109.5) == 0
    assert [watchdog.look(now, 109.5) for now in (112.0, 114.0)] == [0, 4.5]


def test_before_the_first_turn_nothing_is_known() -> None:
    watchdog = main.Watchdog(100.0)
    assert not any(watchdog.look(now, 0.0) for now in (102.0, 104.0, 106.0))


def test_a_process_that_stood_still_blames_nobody() -> None:
    watchdog = main.Watchdog(100.0)
    assert watchdog.look(102.0, 101.9) == 0
    assert watchdog.look(160.0, 101.9) == 0  # stopped meanwhile
    assert watchdog.look(162.0, 160.1) == 0


def test_a_block_after_standing_still_counts_from_there() -> None:
    watchdog = main.Watchdog(100.0)
    looks = [watchdog.look(now, 101.0) for now in (160.0, 162.0, 164.0)]
    assert looks == [0, 0, 4.0]


async def describe(func: Any, *args: Any) -> tuple[str, str, object]:
    """What is said while `func` runs, after another task has ended."""
    looking.heard.clear()
    async with FakeClock().manager(1, workers=1) as manager:
        looking.workers[:] = [manager._remotes[0].supervisor.life.worker]  # type: ignore[union-attr]
        await manager.schedule(looking.give())
        (result,) = await manager.starmap(func, [args])
    who, stack = looking.heard
    assert "aioscheduler" not in stack.replace(looking.__file__, "")
    assert "_run_once" not in stack
    return who, stack, result


async def test_the_task_that_runs_is_named_and_its_own_frames_shown() -> None:
    who, stack, ref = await describe(looking.first_step)
    assert who == f"task looking:first_step {ref}"
    assert [line for line in stack.splitlines() if " in " in line][0].endswith("in first_step")
    who, stack, ref = await describe(looking.later_step)
    assert who == f"task looking:later_step {ref}"
    assert "in later_step" in stack


async def test_what_a_task_has_begun_is_named_by_its_own_function() -> None:
    who, stack, _ = await describe(looking.own_task)
    assert who == "looking:first_step(), which a task has begun,"
    assert "in first_step" in stack
    who, stack, _ = await describe(looking.callback)
    assert who == "a callback of the loop"
    assert "in look" in stack


async def test_a_plain_function_is_named() -> None:
    who, stack, _ = await describe(partial(looking.look))
    assert who.startswith("task functools:partial ")
    who, stack, _ = await describe(looking.look)
    assert who.startswith("task looking:look ")


async def test_before_the_first_task_it_is_the_initializer() -> None:
    looking.heard.clear()
    manager = FakeClock().manager(1, workers=1, initializer=looking.look)
    manager.start()
    looking.workers[:] = [manager._remotes[0].supervisor.life.worker]  # type: ignore[union-attr]
    await manager.ready()
    await manager.close()
    who, stack = looking.heard
    assert who == "the initializer"
    assert [line.split()[-1] for line in stack.splitlines() if " in " in line] == ["look"]


# ---- what begins and ends a process


async def test_nothing_that_tasks_have_left_running_outlives_the_worker() -> None:
    seen: list[str] = []

    async def resist() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise LookupError("its clean-up fails") from None

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            seen.append("closed")

    generator = generate()
    async for _ in generator:
        break
    left = asyncio.create_task(resist())
    await asyncio.sleep(0)
    assert await main._end_everything()
    assert left.done()
    assert sorted(seen) == ["cancelled", "closed"]
    assert isinstance(left.exception(), LookupError)


async def test_what_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "ORPHAN_GRACE", 0)
    gate = asyncio.Event()

    async def swallow() -> None:
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()

    left = asyncio.create_task(swallow())
    await asyncio.sleep(0)
    assert not await main._end_everything()
    assert not left.done()
    gate.set()
    await asyncio.wait([left])


def test_what_is_printed_is_written_by_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, write_through=True) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", None)  # as it is without a console
        main._write_whole_lines()
        stream.write("half a ")
        assert raw.getvalue() == b""
        stream.write("line\n")
        assert raw.getvalue() == b"half a line\n"
        monkeypatch.undo()


def test_the_end_of_the_host_rings() -> None:
    reader, writer = os.pipe()
    assert not main._rings(reader, 0)
    os.close(writer)
    assert main._rings(reader, 0)
    os.close(reader)


def test_what_a_process_has_of_memory_is_known_or_0(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(path: str) -> None:
        raise FileNotFoundError(path)

    if sys.platform == "linux":
        assert main._resident() > 1 << 20
    monkeypatch.setattr("builtins.open", nowhere)
    assert main._resident() == 0
