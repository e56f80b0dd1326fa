"""A process drains: it is asked to, killed if its time is up, and its end is explained."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aioscheduler._processes.draining import DRAIN_TIME, KILL_AFTER, Drain
from aioscheduler._transport import wire
from aioscheduler._transport.wire import Kind


class Life:
    """A simulated process, and the loop of its host."""

    def __init__(self) -> None:
        self.pipe: Any = self
        self.frames: list[Any] = []
        self.causes: list[str] = []
        self.fails: Exception | None = None
        self.timers: list[tuple[float, asyncio.Handle]] = []

    def send(self, frame: bytes) -> None:
        self.frames += wire.Decoder().feed(frame)

    def flush(self) -> None:
        if self.fails is not None:
            raise self.fails

    def kill(self, cause: str = "") -> None:
        self.causes.append(cause)

    def call_later(self, delay: float, call: Any) -> asyncio.Handle:
        handle = asyncio.Handle(call, (), asyncio.get_running_loop())
        self.timers.append((delay, handle))
        return handle

    def drain(self, why: str = "") -> Drain:
        itself: Any = self
        return Drain(itself, itself, why)


async def test_it_is_asked_and_has_its_time() -> None:
    life = Life()
    drain = life.drain("it has run 5 tasks")
    drain.ask()
    assert life.frames == [[Kind.DRAIN]]
    ((delay, timer),) = life.timers
    assert delay == DRAIN_TIME + KILL_AFTER
    assert life.causes == []
    assert not drain.went_in_order(-9)
    timer._run()
    assert life.causes == [""]
    assert drain.went_in_order(-9)
    assert not drain.went_by_itself(-9)
    assert drain.explain_loss() == (
        "it was recycled, as it has run 5 tasks, and 10 s later this task still ran"
    )


async def test_one_that_has_gone_is_not_killed() -> None:
    life = Life()
    life.drain().stop()
    assert life.timers[0][1].cancelled()


async def test_one_that_cannot_be_asked_is_killed() -> None:
    life = Life()
    life.fails = OSError("no pipe")
    life.drain("it has run 5 tasks").ask()
    assert life.causes == ["it cannot be asked to drain: OSError('no pipe')"]


@pytest.mark.parametrize("exitcode", [0, None, 1, -9, -11])
async def test_it_has_gone_in_order_if_it_has_said_so_and_does_not_crash_then(
    exitcode: int | None,
) -> None:
    drain = Life().drain()
    assert not drain.went_in_order(exitcode)  # a task may call os._exit(0)
    drain.is_through = True
    assert drain.went_by_itself(exitcode) is (exitcode in (0, None))
    assert drain.went_in_order(exitcode) is (exitcode in (0, None))


@pytest.mark.parametrize(
    ("why", "phrase", "cause"),
    [
        ("", "was told to end", "it was told to end (SIGTERM), and 10 s"),
        ("it is large", "was recycled", "it was recycled, as it is large, and 10 s"),
    ],
)
async def test_it_says_why_the_process_goes(why: str, phrase: str, cause: str) -> None:
    drain = Life().drain(why)
    assert drain.recycles is (why != "")
    assert drain.phrase == phrase
    assert drain.explain_loss().startswith(cause)
