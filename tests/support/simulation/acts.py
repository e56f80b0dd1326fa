"""The tasks: functions of every kind that ships differently."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from aioscheduler.inside import running

from .lives import LIFE
from .propagating import schedule_follower
from .spite import ODD, Spiteful, spoil

if TYPE_CHECKING:
    from .world import World

WORLD: list[World] = []


class Again(Exception):
    """The failure of an attempt that must not be the last."""


async def act(
    ident: int, nap: float, padding: bytes, argument: object = None, deed: str = ""
) -> Any:
    """Do what every task does."""
    life = LIFE.get()
    if life.dead and not life.apart:  # only a simulated kill lets it get here
        return -1
    model = WORLD[-1].model
    _, _, due, attempt = running.get()
    model.begins(ident, life, due, attempt)
    if model.schedules_another(ident):
        schedule_follower(ident)
    try:
        if deed in ("dies", "blocks") and model.may_die_of(ident, life):
            if deed == "dies":
                life.die()
            else:
                model.blocks(ident, life)
            raise asyncio.CancelledError  # a process that is gone reports nothing more
        kind, _, detail = deed.partition(": ")
        await _nap(ident, nap, int(detail) if kind == "swallow" else 0)
        if kind == "again" and model.fails_again(ident, int(detail)):
            raise model.fails(ident, life, Again(ident))
    finally:
        model.leaves(ident, life)
    if deed.startswith("raise"):
        raise model.fails(ident, life, ODD[deed.partition(": ")[2]]())
    return spoil(deed, "write a result") or spoil(deed, "read a result") or ident


async def _nap(ident: int, nap: float, swallowed: int) -> None:
    """Sleep, and swallow some cancellations."""
    life = LIFE.get()
    while nap:
        try:
            await asyncio.sleep(nap)
        except asyncio.CancelledError:
            if life.dead and not life.apart:
                raise
            WORLD[-1].model.is_cancelled(ident, life, swallowed > 0)
            if not swallowed:
                raise
            swallowed -= 1
        else:
            return


def traced(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def outer(*args: Any) -> Any:
        return await function(*args)

    return outer


@traced
async def decorated(*args: Any) -> Any:
    return await act(*args)


class Base:
    async def act(self, *args: Any) -> Any:
        return await act(*args)


class Heir(Base):
    async def act(self, *args: Any) -> Any:
        return await super().act(*args)


def captured(number: int) -> Callable[..., Any]:
    """Make a function that goes by value, with a closure."""

    async def inner(*args: Any, least: int = 0) -> Any:
        assert args[0] >= number >= least
        return await act(*args)

    return inner


MADE = """
class Made(int):
    twice = property(lambda self: 2 * self)

async def made(ident, *args, of):
    assert of.twice == 2 * of
    result = await act(ident, *args)
    return type(of)(ident) if type(result) is int else result
"""


def made_for(number: int) -> Callable[..., Any]:
    """Make a function and a class that no other call has; both are garbage before it ends."""
    scope: dict[str, Any] = {}
    exec(MADE, globals(), scope)
    return functools.partial(scope["made"], of=scope["Made"](number))


MAKERS: tuple[Callable[[int], Callable[..., Any]], ...] = (
    *(lambda _: act,) * 3,
    lambda _: decorated,
    lambda _: Heir().act,
    captured,
    made_for,
)
"""Make the function that is called for a task's number."""


async def fail(error: Spiteful | None, result: Spiteful | None) -> object:
    """Raise, or return a value that cannot be written."""
    if error is not None:
        raise ODD[error.kind]()
    return result
