"""Durable functions that tests ship, and that hosts find again after a restart.

They append what they do to a file before they go on, so that no death hides it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextvars import ContextVar
from pathlib import Path

from aioscheduler import Retry, current_attempt, current_manager, durable
from aioscheduler._processes.process import workers_module

word: ContextVar[str] = ContextVar("word", default="none")
gone: ContextVar[str] = ContextVar("gone", default="none")


def say(log: str, *words: object) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(file)


def lines_of(log: Path) -> list[str]:
    """Return the lines written so far."""
    return log.read_text().splitlines() if log.exists() else []


async def wait_for(path: str) -> None:
    while not os.path.exists(path):
        await asyncio.sleep(0.005)


@durable("note")
async def note(log: str, what: object) -> object:
    say(log, what, current_attempt())
    return what


@durable("note once", on_loss="fail")
async def note_once(log: str, what: object) -> object:
    say(log, what, current_attempt())
    return what


@durable("hold")
async def hold(log: str, what: object, gate: str) -> None:
    """Write that it has begun, and end when a file exists."""
    say(log, what, current_attempt())
    await wait_for(gate)
    say(log, what, "ends")


@durable("hold once", on_loss="fail")
async def hold_once(log: str, what: object, gate: str) -> None:
    say(log, what, current_attempt())
    await wait_for(gate)
    say(log, what, "ends")


@durable("convert", retry=Retry(attempts=3))
async def convert(log: str, what: object) -> None:
    """Turn a cancellation into another error."""
    say(log, what, current_attempt())
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        say(log, what, "was cut off")
        raise LookupError(what) from None


@durable("cut")
async def cut(log: str, what: object) -> None:
    """Await a task that another has cancelled."""
    say(log, what, current_attempt())
    inner = asyncio.get_running_loop().create_future()
    inner.cancel()
    await inner


@durable("clean")
async def clean(log: str, what: object, gate: str) -> None:
    """Clean up until a file exists."""
    say(log, what, current_attempt())
    try:
        await asyncio.sleep(3600)
    finally:
        say(log, what, "cleans up")
        await wait_for(gate)


@durable("kill worker")
async def kill_worker(log: str, what: object) -> None:
    say(log, what, current_attempt())
    os.kill(os.getpid(), signal.SIGKILL)


@durable("kill host")
async def kill_host(log: str, host: str) -> None:
    """Kill the process that has written its id into a file."""
    say(log, "poison", current_attempt())
    os.kill(int(Path(host).read_text()), signal.SIGKILL)
    time.sleep(60)


@durable("fail thrice", retry=Retry(attempts=3, wait_initial=3600, wait_max=3600, wait_jitter=0))
async def fail(log: str, what: object) -> None:
    say(log, what, current_attempt())
    raise LookupError(what)


@durable("fail at once")
async def fail_at_once(what: object) -> None:
    raise LookupError(what)


@durable("soon or never", max_lateness=0.05)
async def soon_or_never(log: str) -> None:
    say(log, "began")


@durable("say word")
async def say_word(log: str) -> None:
    say(log, word.get(), gone.get())


@durable("size")
async def size(data: bytes) -> int:
    return len(data)


@durable("nothing")
async def nothing(number: int) -> None: ...


@durable("step")
async def step(log: str, number: int) -> None:
    """Run a step of a chain, which schedules the next one until a file exists."""
    say(log, number)
    if not os.path.exists(f"{log}.last"):
        current_manager().schedule(step(log, number + 1), id=f"chain {number + 1}")


@durable("fork")
async def fork(log: str) -> None:
    """Start a child that outlives this process and its group."""
    child = os.fork()
    if not child:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    while os.getsid(child) != child:
        time.sleep(0.001)
    say(log, child)


@durable("escape")
async def escape(log: str) -> None:
    """Leave the group that is killed with the host, and hide the host's end from the loop."""
    os.setpgid(0, os.getpgid(os.getppid()))
    say(log, os.getpid())
    time.sleep(60)


async def note_plainly(log: str, what: object) -> object:
    say(log, what, current_attempt())
    return what


async def kill_plainly() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_anything_begins() -> None:
    """Make this worker die as soon as it has announced a task; an initializer."""

    def die(*_: object) -> None:
        os._exit(3)

    runner = workers_module("runner").WorkerRunner
    runner.execute = runner._begin = die
