"""Whether and when a failed task is retried: `Retry`, one of the options of a task.

    it raises ─► wait_before_retry ─┬─► nanoseconds: it is pending again for that long
                                    └─► None: that was its last attempt; its failure says so

The names and the formula of the wait are those of stamina (https://stamina.hynek.me). Who keeps
the task while it waits is not known here.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any

from ._scheduling.clock import LATEST, SECOND, read_seconds
from .errors import TooLate, WorkerLost

__all__ = ["Retry"]

Predicate = Callable[[Any], "bool | float | timedelta"]

_NEVER = (
    *(asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit),
    *(WorkerLost, TooLate),
)
"""Never retried: nobody wants the task to go on, or it cannot."""

_ODD = (
    inspect.iscoroutinefunction,
    inspect.isasyncgenfunction,
    inspect.isgeneratorfunction,
)
_ANSWER = "its answer, if not True or False,"
_LONGEST = 200  # characters shown of what a predicate raised


@dataclass(frozen=True, eq=False)
class Retry:
    """Which failures of a task are retried, how often, and after which waits.

    The wait after the nth failed attempt is `wait_initial * wait_exp_base ** (n - 1)` plus a random
    part of `wait_jitter`, at most `wait_max`. Never retried: a CancelledError (whoever raised it),
    SystemExit, KeyboardInterrupt, `WorkerLost`, `TooLate`, and a task whose arguments could not be
    decoded.

    Args:
        on: An exception class, a tuple of them, or a function of the exception that returns True
            or False, or the wait itself in seconds (a number or a timedelta), without limit. If it
            raises or returns anything else, there is no retry, and a note on the failure says why.
        attempts: How many may fail, the first included; 1 or more. Attempts lost with a worker do
            not count.
        wait_initial: The first wait; seconds (0 or more) or a timedelta.
        wait_max: The longest wait, jitter included; seconds (0 or more) or a timedelta.
        wait_exp_base: The factor from each wait to the next; 1 or more, 1 keeps them equal.
        wait_jitter: The longest random addition; seconds (0 or more) or a timedelta.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is out of range.
    """

    on: type[BaseException] | tuple[type[BaseException], ...] | Predicate = Exception
    _: KW_ONLY
    attempts: int = 5
    wait_initial: float | timedelta = 1.0
    wait_max: float | timedelta = 300.0
    wait_exp_base: float = 2.0
    wait_jitter: float | timedelta = 1.0

    def __post_init__(self) -> None:
        _check_on(self.on)
        if not isinstance(self.attempts, int) or isinstance(self.attempts, bool):
            raise TypeError(f"attempts is an int, not {type(self.attempts).__name__}")
        if self.attempts < 1:
            raise ValueError(
                f"attempts counts the first one, so it is 1 or more, not {self.attempts}"
            )
        for name in ("wait_initial", "wait_max", "wait_jitter"):
            # Seconds from here on, even if a timedelta was given.
            object.__setattr__(self, name, read_seconds(name, getattr(self, name)))
        object.__setattr__(self, "wait_exp_base", _read_factor(self.wait_exp_base))

    # Equal ones travel once. Predicates are compared by identity: their class may define ==.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Retry) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        on = tuple(map(id, self.on)) if isinstance(self.on, tuple) else id(self.on)
        waits = self.wait_initial, self.wait_max, self.wait_exp_base, self.wait_jitter
        return on, self.attempts, waits


def _check_on(on: object) -> None:
    classes = on if isinstance(on, tuple) else (on,)
    if all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        if not classes:
            raise ValueError("on is an empty tuple: nothing would be retried")
        return
    if isinstance(on, tuple | type) or not callable(on):
        hint = "; write (A, B) for several" if isinstance(on, list | set) else ""
        raise TypeError(
            f"on is an exception class, a tuple of them, or a function, not {on!r}{hint}"
        )
    for body in (on, type(on).__call__):
        if any(is_odd(body) for is_odd in _ODD):
            raise TypeError("on must be a plain function: a coroutine or generator is never True")
    try:
        inspect.signature(on).bind(None)
    except TypeError as error:
        raise TypeError(f"on is called with one argument, the exception: {error}") from None
    except ValueError:
        pass  # a builtin without a signature


def _read_factor(base: float) -> float:
    if not isinstance(base, int | float) or isinstance(base, bool):
        raise TypeError(f"wait_exp_base is a number, not {type(base).__name__}")
    try:
        factor = float(base)
    except OverflowError:
        factor = math.inf
    if not 1 <= factor < math.inf:
        raise ValueError(f"wait_exp_base must be finite, and 1 or more, not {factor:g}")
    return factor


def wait_before_retry(
    retry: Retry, error: BaseException, failed: int, rand: Callable[[], float] = random.random
) -> int | None:
    """Return how long a failed task waits for its next attempt, in nanoseconds.

    None if there is none. The exception then has a note of how many attempts there were, unless it
    is never retried. Never fails, whatever the user's predicate or classes do.

    Args:
        retry: The task's option.
        error: What it raised.
        failed: How many of its attempts have failed, this one included.
        rand: Returns a number from 0 to 1.
    """
    if issubclass(type(error), _NEVER):
        return None
    wait = _ask(retry, error, failed, rand) if failed < retry.attempts else None
    if wait is None:
        plural = "s" if failed > 1 else ""
        _note(error, "it had {} attempt{}, of {} at most", failed, plural, retry.attempts)
        return None
    return int(min(wait * SECOND, LATEST))


def _ask(
    retry: Retry, error: BaseException, failed: int, rand: Callable[[], float]
) -> float | None:
    """Return seconds, None for no retry."""
    on = retry.on
    try:  # a metaclass may define issubclass, so a class may raise as a function may
        answer = issubclass(type(error), on) if isinstance(on, tuple | type) else on(error)
        if answer is True:
            return _back_off(retry, failed, rand)
        return None if answer is False else read_seconds(_ANSWER, answer)
    except BaseException as reason:  # noqa: BLE001  whatever a user's function may raise
        _note(error, "not retried, as its predicate gave no answer: {}", _line_of(reason))
        return None


def _back_off(retry: Retry, failed: int, rand: Callable[[], float]) -> float:
    initial, most, base, jitter = (
        float(seconds)  # type: ignore[arg-type]  # since `__post_init__`
        for seconds in (retry.wait_initial, retry.wait_max, retry.wait_exp_base, retry.wait_jitter)
    )
    try:
        wait = initial * base ** (failed - 1)
    except OverflowError:
        wait = math.inf if initial else 0.0
    return min(most, wait + rand() * jitter)


def _note(error: BaseException, text: str, *items: object) -> None:
    with suppress(BaseException):  # its class may forbid it, or an int be too long to print
        BaseException.add_note(error, text.format(*items))


def _line_of(error: BaseException) -> str:
    """Return type and text in one short line; never fail."""
    name: str = vars(type)["__name__"].__get__(type(error))  # a metaclass may override __name__
    try:
        text = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001  a user's __str__ may raise anything
        text = "it cannot be read"
    return f"{name}: {text}"[:_LONGEST].removesuffix(": ")
