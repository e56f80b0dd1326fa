"""The context that goes with tasks and those they schedule: drawn here, checked there."""

from __future__ import annotations

import random
from contextvars import ContextVar, Token
from typing import Any

from aioscheduler import current_manager

MADE = """
class Made(str):
    twice = property(lambda self: 2 * self)
"""
SIZES = (0, 10, 500, 12_000)  # characters, at most

origin: ContextVar[Any] = ContextVar("origin", default="by default")
hidden: ContextVar[Any] = ContextVar("hidden", default="by default")
CONTEXT = (origin, (hidden.get, hidden.set))
"""The `context` of a manager: a variable, and one that goes by a pair of functions."""


def look() -> list[tuple[str, Any]]:
    """Return the caller's values: names of classes, and values that keep no reference."""
    values = origin.get(), hidden.get()
    return [(type(v).__name__, str(v) if isinstance(v, str) else v) for v in values]


class Setter:
    """A source of changes of a host's context.

    Args:
        seed: The seed of the changes.
        propagates: Whether the manager lists the variables.
    """

    def __init__(self, seed: int, propagates: bool) -> None:
        self._random = random.Random(f"contexts of {seed}")
        self._propagates = propagates
        self._default = look()
        self._tokens: dict[ContextVar[Any], Token[Any]] = {}

    def change(self) -> list[tuple[str, Any]]:
        """Perhaps change the values; return those that the next task must see."""
        for variable in (origin, hidden):
            what = self._random.random()
            if what < 0.3:
                self._tokens.setdefault(variable, variable.set(self._draw()))
            elif what < 0.5 and variable in self._tokens:
                variable.reset(self._tokens.pop(variable))
        return look() if self._propagates else self._default

    def follows(self) -> bool:
        """Draw whether a task schedules another one."""
        return self._random.random() < 0.1

    def _draw(self) -> object:
        word = "x" * self._random.randint(0, self._random.choice(SIZES))
        kind = self._random.randrange(5)
        if kind == 0:  # of a class of its own, which is garbage with it
            scope: dict[str, Any] = {}
            exec(MADE, {"__name__": __name__}, scope)
            return scope["Made"](word)
        return (word, word.encode(), self._random.randrange(9), None)[kind - 1]


async def follow(seen: list[tuple[str, Any]]) -> None:
    """Run as a task scheduled by another, and check that it sees that one's last values."""
    from .acts import WORLD

    WORLD[-1].model.follows(seen, look())


def schedule_follower(ident: int) -> None:
    """Schedule a task from inside another, which perhaps changes its own context first."""
    if ident % 2:
        origin.set(f"inside {ident}")
    current_manager().schedule(follow(look()))
