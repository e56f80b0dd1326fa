"""Spiteful arguments, results, exceptions and times: they raise where they are used."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

IN_WORKER: contextvars.ContextVar[bool] = contextvars.ContextVar("IN_WORKER", default=False)


class Spiteful:
    """A value that raises when it is pickled, or unpickled."""

    def __init__(self, where: str, kind: str) -> None:
        self.where = where
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        if self.where == "write a result" and IN_WORKER.get():
            raise ODD[self.kind]()
        return (
            (Spiteful, (self.where, self.kind))
            if self.where == "raise"
            else (_read, (self.where, self.kind))
        )


def _read(where: str, kind: str) -> Spiteful:
    if where.startswith("read") and (where == "read a result") is not IN_WORKER.get():
        raise ODD[kind]()
    return Spiteful(where, kind)


def spoil(deed: str, where: str) -> Spiteful | None:
    """Return a spiteful value, if that is the deed."""
    return Spiteful(where, deed.partition(": ")[2]) if deed.startswith(where) else None


class Detailed(Exception):
    """An exception as of httpx, aiohttp and discord: with more arguments than `args`."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class OddBase(BaseException):
    """A BaseException that is no Exception."""


class Unpicklable(Exception):
    """A value whose pickling raises an Exception, or a BaseException that is none."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        raise self.kind


ODD: dict[str, Callable[[], BaseException]] = {
    "plain": lambda: ValueError("plain"),
    "detailed": lambda: Detailed("no such page", status=404),
    "base": lambda: OddBase("base"),
    "exit": lambda: SystemExit(7),
    "interrupt": lambda: KeyboardInterrupt(),
    "cancelled": lambda: asyncio.CancelledError(),
    "memory": lambda: MemoryError(),
    "unpicklable": lambda: Unpicklable(ValueError),
    "unpicklable, exit": lambda: Unpicklable(SystemExit),
    "unpicklable, cancelled": lambda: Unpicklable(asyncio.CancelledError),
}


class NotATime(datetime):
    """Like pandas' NaT: a datetime by class, which differs from itself and has no fields."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = datetime.__hash__

    def __sub__(self, other: object) -> Any:
        return self

    __rsub__ = __sub__

    def __lt__(self, other: object) -> bool:
        return False

    __gt__ = __le__ = __ge__ = __lt__

    @property
    def year(self) -> Any:
        return float("nan")

    month = day = hour = minute = second = microsecond = year
    days = seconds = microseconds = year


NO_TIMES: tuple[Any, ...] = (
    NotATime(2100, 1, 1),
    NotATime(2100, 1, 1, tzinfo=UTC),
    float("nan"),
    "soon",
)
