"""Calls are made in order in one thread, and their results reported in the loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from aioscheduler._durable.writer import InlineWriter, Writer, ask
from aioscheduler.errors import StoreError


@pytest.fixture(params=[Writer, InlineWriter])
async def writer(request: pytest.FixtureRequest) -> AsyncIterator[Writer | InlineWriter]:
    writer: Writer | InlineWriter = request.param()
    writer.start(asyncio.get_running_loop())
    yield writer
    writer.stop()
    assert await asyncio.to_thread(writer.join, 10)


async def test_calls_are_made_in_order_and_reported_in_the_loop(
    writer: Writer | InlineWriter,
) -> None:
    made: list[int] = []
    told: list[tuple[Any, Any, int]] = []
    done = asyncio.Event()

    def call(number: int) -> str:
        made.append(number)
        return f"{number}!"

    def then(result: Any, error: Any) -> None:
        told.append((result, error, threading.get_ident()))
        if len(told) == 100:
            done.set()

    for number in range(100):
        writer.submit(partial(call, number), then)
    assert not told  # never within the call
    await done.wait()
    assert made == list(range(100))
    assert told == [(f"{number}!", None, threading.get_ident()) for number in range(100)]


@pytest.mark.parametrize("error", [MemoryError("none left"), StoreError("full"), SystemExit(3)])
async def test_an_error_of_a_call_is_reported_and_the_next_is_made(
    writer: Writer | InlineWriter, error: BaseException
) -> None:
    loop = asyncio.get_running_loop()
    told: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(2)]

    def fail() -> None:
        raise error

    writer.submit(fail, lambda *answer: told[0].set_result(answer))
    writer.submit(lambda: 7, lambda *answer: told[1].set_result(answer))
    assert [await one for one in told] == [(None, error), (7, None)]


async def test_calls_submitted_before_the_stop_are_made(writer: Writer | InlineWriter) -> None:
    made: list[int] = []
    for number in range(10):
        writer.submit(partial(made.append, number), lambda *_: None)
    writer.stop()
    writer.stop()
    with pytest.raises(StoreError, match="not open"):
        writer.submit(lambda: made.append(-1), lambda *_: None)
    await asyncio.to_thread(writer.join, 10)
    assert made == list(range(10))


@pytest.mark.parametrize("kind", [Writer, InlineWriter])
def test_no_call_is_accepted_before_the_start(kind: type[Writer] | type[InlineWriter]) -> None:
    writer = kind()
    with pytest.raises(StoreError, match="not open"):
        writer.submit(lambda: None, lambda *_: None)
    assert writer.join(0)


@pytest.mark.parametrize("kind", [Writer, InlineWriter])
def test_nothing_is_reported_to_a_closed_loop(kind: type[Writer] | type[InlineWriter]) -> None:
    loop = asyncio.new_event_loop()
    writer = kind()
    writer.start(loop)
    loop.close()
    made: list[int] = []
    told: list[Any] = []
    for number in range(3):
        writer.submit(partial(made.append, number), lambda *_: told.append(1))
    writer.stop()
    assert writer.join(10)
    assert (made, told) == ([0, 1, 2], [])


async def test_a_slow_call_does_not_keep_the_loop() -> None:
    writer = Writer()
    writer.start(asyncio.get_running_loop())
    disk = threading.Event()
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    writer.submit(disk.wait, lambda *answer: told.set_result(answer))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not told.done()
    assert not writer.join(0)
    disk.set()
    assert await told == (True, None)
    writer.stop()
    assert await asyncio.to_thread(writer.join, 10)


async def test_the_thread_ends_with_the_program() -> None:
    writer = Writer()
    writer.start(asyncio.get_running_loop())
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    writer.submit(threading.current_thread, lambda thread, _: found.set_result(thread))
    thread = await found
    assert (thread.daemon, thread.name) == (True, "aioscheduler-store")
    writer.stop()
    assert await asyncio.to_thread(writer.join, 10)


async def test_a_forked_process_has_no_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.getpid()
    with monkeypatch.context() as before:
        before.setattr(os, "getpid", lambda: pid - 1)
        writer = Writer()  # made in another process than that in which it is started
    writer.start(asyncio.get_running_loop())
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    writer.submit(os.getpid, lambda result, _: told.set_result(result))
    assert await told == pid
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: pid + 1)
        with pytest.raises(StoreError, match=f"forked from {pid}"):
            writer.submit(lambda: None, lambda *_: None)
        assert writer.join()  # there is no thread to wait for
    writer.stop()
    assert await asyncio.to_thread(writer.join, 10)


async def test_a_thread_that_cannot_start_is_a_store_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_room)
    writer = Writer()
    with pytest.raises(StoreError, match="no thread can be had .* can't start"):
        writer.start(asyncio.get_running_loop())
    with pytest.raises(StoreError):
        writer.submit(lambda: None, lambda *_: None)


async def test_a_dead_thread_is_a_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """For whatever reason: here the queue is broken."""

    class Broken:
        def get(self) -> None:
            return None  # as if it had been stopped

        def put(self, job: Any) -> None:
            raise AssertionError(job)

    writer = Writer()
    writer._jobs = Broken()  # type: ignore[assignment]
    writer.start(asyncio.get_running_loop())
    assert await asyncio.to_thread(writer.join, 10)
    with pytest.raises(StoreError, match="writer has ended"):
        writer.submit(lambda: None, lambda *_: None)


async def test_ask_returns_or_raises_as_its_call() -> None:
    loop = asyncio.get_running_loop()
    writer = InlineWriter()
    writer.start(loop)
    assert await ask(writer, loop, lambda: 7) == 7

    def fail() -> None:
        raise StoreError("full")

    with pytest.raises(StoreError, match="full"):
        await ask(writer, loop, fail)
    with pytest.raises(StoreError, match="not open"):
        await ask(InlineWriter(), loop, fail)
