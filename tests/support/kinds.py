"""Functions of every kind, for `tests/integration/test_matrix.py`.

The module is importable by name; the tests also run its text as a script that no worker can
import.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from wrapping import counted

from aioscheduler import TaskRef, current_manager

OFFSET = 100


def traced(function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def outer(*args: Any, **kwargs: Any) -> Any:
        return "traced", await function(*args, **kwargs)

    return outer


async def plain(n: int) -> int:
    return n + OFFSET


@traced
async def decorated(n: int) -> int:
    return n + OFFSET + 1


@traced
async def decorated_as_well(n: int, m: int = 7) -> tuple[int, int]:
    return n, m


@traced
@traced
async def decorated_twice(n: int) -> int:
    return n + OFFSET + 2


@counted
async def decorated_elsewhere(n: int) -> int:
    return n + OFFSET


async def with_defaults(n: int, m: int = 2, *, k: int = 3) -> tuple[int, int, int]:
    return n, m, k


async def only_keywords(*, n: int) -> int:
    return n


async def only_positional(n: int, m: int = 4, /) -> tuple[int, int]:
    return n, m


async def many(*args: int) -> tuple[int, ...]:
    return args


async def named(**kwargs: int) -> dict[str, int]:
    return kwargs


async def everything(n: int, /, m: int, *args: int, k: int, **kwargs: int) -> Any:
    return n, m, args, k, kwargs


async def captured_by_its_own(n: int) -> int:
    def add(m: int) -> int:
        return n + m

    return add(1)


def closure(step: int) -> Callable[..., Any]:
    async def inner(n: int) -> int:
        return n + step

    return inner


def recursive() -> Callable[..., Any]:
    async def inner(n: int) -> int:
        return 0 if not n else 1 + await inner(n - 1)

    return inner


class Shop:
    rate = 2

    async def price(self, n: int) -> int:
        return n * self.rate

    @traced
    async def traced_price(self, n: int) -> int:
        return n * self.rate

    @staticmethod
    async def fixed(n: int) -> int:
        return n

    @classmethod
    async def named_after(cls, n: int) -> tuple[str, int]:
        return cls.__name__, n

    async def __call__(self, n: int) -> int:
        return n - self.rate


class Sale(Shop):
    rate = 3

    async def price(self, n: int) -> int:
        return await super().price(n) - 1

    @classmethod
    async def named_after(cls, n: int) -> tuple[str, int]:
        name, n = await super().named_after(n)
        return f"{name}, a shop", n

    class Corner:
        async def price(self, n: int) -> int:
            return n


class Planet(enum.Enum):
    MERCURY = 0.4, 3.7
    EARTH = 1.0, 9.8
    TERRA = 1.0, 9.8  # noqa: PIE796  an alias

    def __init__(self, distance: float, gravity: float) -> None:
        self.distance, self.gravity = distance, gravity

    async def weigh(self, mass: int) -> tuple[Planet, float]:
        return self, self.gravity * mass


Kind = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]
"""A function, arguments, keyword arguments, and the result of the call."""

ASYNC: dict[str, Kind] = {
    "plain": (plain, (1,), {}, 101),
    "decorated": (decorated, (1,), {}, ("traced", 102)),
    "decorated as well": (decorated_as_well, (1,), {}, ("traced", (1, 7))),
    "decorated, by keyword": (decorated_as_well, (1,), {"m": 2}, ("traced", (1, 2))),
    "decorated twice": (decorated_twice, (1,), {}, ("traced", ("traced", 103))),
    "decorated elsewhere": (decorated_elsewhere, (1,), {}, ("counted", 1, 101)),
    "with defaults": (with_defaults, (1,), {}, (1, 2, 3)),
    "with defaults given": (with_defaults, (1, 4), {"k": 5}, (1, 4, 5)),
    "only keywords": (only_keywords, (), {"n": 1}, 1),
    "only positional": (only_positional, (1,), {}, (1, 4)),
    "*args": (many, (1, 2, 3), {}, (1, 2, 3)),
    "**kwargs": (named, (), {"a": 1}, {"a": 1}),
    "everything": (everything, (1, 2, 3), {"k": 4, "z": 5}, (1, 2, (3,), 4, {"z": 5})),
    "captured by its own": (captured_by_its_own, (1,), {}, 2),
    "closure": (closure(5), (1,), {}, 6),
    "another closure": (closure(6), (1,), {}, 7),
    "recursive": (recursive(), (3,), {}, 3),
    "decorated closure": (traced(closure(5)), (1,), {}, ("traced", 6)),
    "method": (Shop().price, (1,), {}, 2),
    "method, decorated": (Shop().traced_price, (1,), {}, ("traced", 2)),
    "method, inherited": (Sale().traced_price, (1,), {}, ("traced", 3)),
    "super()": (Sale().price, (1,), {}, 2),
    "method of the class": (Shop.price, (Shop(), 1), {}, 2),
    "method of a nested class": (Sale.Corner().price, (1,), {}, 1),
    "method of a member": (Planet.TERRA.weigh, (10,), {}, (Planet.EARTH, 98.0)),
    "static method": (Shop.fixed, (1,), {}, 1),
    "class method": (Shop.named_after, (1,), {}, ("Shop", 1)),
    "class method, super()": (Sale.named_after, (1,), {}, ("Sale, a shop", 1)),
    "partial": (functools.partial(with_defaults, 1, k=9), (), {}, (1, 2, 9)),
    "callable object": (Shop(), (5,), {}, 3),
    "lambda": (lambda n: plain(n), (1,), {}, 101),
}


def double(n: int) -> int:
    return 2 * n + OFFSET


@counted
def doubled_elsewhere(n: int) -> int:
    return 2 * n + OFFSET


double.mark = 1  # type: ignore[attr-defined]


def marked(n: int) -> int:
    return int(marked.mark) + n  # type: ignore[attr-defined]


marked.mark = 7  # type: ignore[attr-defined]

PLAIN: dict[str, Kind] = {
    "def": (double, (1,), {}, 102),
    "def, decorated elsewhere": (doubled_elsewhere, (1,), {}, ("counted", 1, 102)),
    "def with an attribute": (marked, (1,), {}, 8),
    "class": (dict, (((1, 2),),), {}, {1: 2}),
    "own class": (lambda: type(Shop()).__name__, (), {}, "Shop"),
    "built in": (len, ("abc",), {}, 3),
    "method of a value": ("a-b".split, ("-",), {}, ["a", "b"]),
}


async def inside(delay: float) -> dict[str, TaskRef | str]:
    """Schedule each from inside a task; return references, or refusals."""
    refs: dict[str, TaskRef | str] = {}
    for name, (function, args, kwargs, _) in ASYNC.items():
        try:
            coro = function(*args, **kwargs)
            refs[name] = current_manager().schedule(coro, timedelta(seconds=delay))
        except Exception as error:  # noqa: BLE001  the test says which it was
            refs[name] = f"refused: {error!r}"
    return refs
