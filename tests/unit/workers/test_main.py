"""The parts of a worker process that need no process: its streams, and its clean end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import AsyncIterator

import pytest

from aioscheduler._processes.process import workers_module

main = workers_module("main")


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
        monkeypatch.setattr(sys, "stderr", None)  # as without a console
        main._write_whole_lines()
        stream.write("half a ")
        assert raw.getvalue() == b""
        stream.write("line\n")
        assert raw.getvalue() == b"half a line\n"
        monkeypatch.undo()
