"""The durable tasks: one function for each kind of `@durable`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aioscheduler import Retry, current_manager, durable
from aioscheduler.inside import running

from .acts import Again
from .lives import LIFE

if TYPE_CHECKING:
    from .fates import Start
    from .hosts import HostWorld

HOSTS: list[HostWorld] = []
ATTEMPTS = 3
LIMIT = 0.4  # seconds that a task may run
CLEANUP = 0.3  # seconds that a task takes to clean up
LATE = 0.5  # seconds by which a task may start late
RETRY = Retry(attempts=ATTEMPTS, wait_initial=0.5, wait_exp_base=2, wait_jitter=0)


async def act(ident: int, nap: float, deed: str, then: Callable[[], None] | None = None) -> Any:
    """Do what every durable task does."""
    world = HOSTS[-1]
    life: Any = LIFE.get(None) or world.host.place
    if life.dead and not life.apart:  # only a simulated kill lets it get here
        return -1
    start = world.fates.begins(ident, life, running.get())
    try:
        if deed.startswith("kills a worker"):
            world.kill_by(start, deed.endswith("once"))
        elif deed.startswith("kills the host"):
            world.crash_by(start, deed.endswith("once"))
        if nap:
            await asyncio.sleep(nap)
        if deed == "raises" or (deed.startswith("again") and start.attempt <= int(deed[-1])):
            raise Again(ident)
        if then is not None:
            then()
    except asyncio.CancelledError as error:
        if deed == "cleans up" and not life.dead:
            await _clean_up(start, error)
        if deed == "converts" and not life.dead:
            # If the task was asked to end, or has run for too long, this is a failure.
            asked = life.host.number in start.fate.asked or start.fate.kind == "limited"
            failure = Again(ident)
            world.fates.leaves(start, failure, cut=not asked)
            raise failure from error
        world.fates.leaves(start, error)
        raise
    except BaseException as error:
        world.fates.leaves(start, error)
        raise
    world.fates.leaves(start, None)
    return ident


async def _clean_up(start: Start, error: BaseException) -> None:
    """Take some time to end, which another cancellation cuts short."""
    try:
        await asyncio.sleep(CLEANUP)
    except asyncio.CancelledError:
        HOSTS[-1].fates.leaves(start, error)
        raise


@durable("plain")
async def plain(ident: int, nap: float, deed: str, padding: bytes, argument: object = None) -> Any:
    return await act(ident, nap, deed)


@durable("retried", retry=RETRY)
async def retried(ident: int, nap: float, deed: str, padding: bytes) -> Any:
    return await act(ident, nap, deed)


@durable("once", on_loss="fail")
async def once(ident: int, nap: float, deed: str, padding: bytes) -> Any:
    return await act(ident, nap, deed)


@durable("once, and retried", on_loss="fail", retry=RETRY)
async def once_retried(ident: int, nap: float, deed: str, padding: bytes) -> Any:
    return await act(ident, nap, deed)


@durable("limited", timeout=LIMIT)
async def limited(ident: int, nap: float, deed: str, padding: bytes) -> Any:
    return await act(ident, nap, deed)


@durable("late", max_lateness=LATE)
async def late(ident: int, nap: float, deed: str, padding: bytes) -> Any:
    return await act(ident, nap, deed)


@durable("chain")
async def chain(ident: int, nap: float, name: str, left: int, delay: float | None) -> Any:
    """Schedule the next task of a chain, which takes over the chain's id."""

    def follow() -> None:
        if left:
            world = HOSTS[-1]
            when = None if delay is None else timedelta(seconds=delay)
            fate = world.fates.follows(ident, when)
            coro = chain(fate.ident, nap, name, left - 1, delay)
            current_manager().schedule(coro, when, id=name, replace=True)

    return await act(ident, nap, "", follow)


TIMED: tuple[Any, ...] = (plain, plain, retried, once, once_retried, limited, late)
QUEUED: tuple[Any, ...] = TIMED[:-1]
ONCE = frozenset(("once", "once, and retried"))
RETRIED = frozenset(("retried", "once, and retried"))
