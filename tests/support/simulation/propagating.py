"""What of a context goes with tasks, and with what they schedule: drawn here, looked at there."""

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
"""What a manager lists: a variable, and one that goes by a pair of functions."""


def look() -> list[tuple[str, Any]]:
    """Return what the one who asks has of it; classes by name, as a task's are copies."""
    return [(type(value).__name__, value) for value in (origin.get(), hidden.get())]


class Setter:
    """Changes the values of a host's context.

    Args:
        seed: Decides which.
        propagates: Whether the manager lists them.
    """

    def __init__(self, seed: int, propagates: bool) -> None:
        self._random = random.Random(f"contexts of {seed}")
        self._propagates = propagates
        self._default = look()
        self._tokens: dict[ContextVar[Any], Token[Any]] = {}

    def change(self) -> list[tuple[str, Any]]:
        """Change them, or not; return what a task has that is scheduled next."""
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
        if kind == 0:  # of a class that no other value has, and that is garbage when it is
            scope: dict[str, Any] = {}
            exec(MADE, {"__name__": __name__}, scope)
            return scope["Made"](word)
        return (word, word.encode(), self._random.randrange(9), None)[kind - 1]


async def follow(seen: list[tuple[str, Any]]) -> None:
    """What a task has scheduled; it is to see what that one has seen last."""
    from .acts import WORLD

    WORLD[-1].model.follows(seen, look())


def schedule_follower(ident: int) -> None:
    """Schedule one from inside a task, which changes its own context first, or not."""
    if ident % 2:
        origin.set(f"inside {ident}")
    current_manager().schedule(follow(look()))
