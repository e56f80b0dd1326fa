"""Values that raise where they are pickled or unpickled, here or there, for `test_matrix`."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from typing import Any


class OddError(BaseException):
    """A BaseException that is no Exception."""


KINDS: list[type[BaseException]] = [
    *(ValueError, MemoryError, RecursionError, StopIteration, OSError),
    *(SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, OddError),
]


class NoCause(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no cause")

    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise OddError("no notes")


class NoText(Exception):
    def __str__(self) -> str:
        raise OddError("no text")


class Silent(type):
    """A metaclass whose classes refuse to give their names, and instance checks."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise OddError("no name")

    def __subclasscheck__(cls, other: type) -> bool:
        raise OddError("no subclasses")

    def __instancecheck__(cls, other: object) -> bool:
        raise OddError("no instances")


class NoClass(Exception, metaclass=Silent): ...


ODD: list[type[Exception]] = [NoCause, NoText, NoClass]
"""Exceptions that raise when they are described or compared."""


def throw(kind: type[BaseException]) -> Any:
    raise kind("on purpose")


def throw_in_worker(kind: type[BaseException]) -> Any:
    return throw(kind) if multiprocessing.parent_process() else None


def throw_in_host(kind: type[BaseException]) -> Any:
    return None if multiprocessing.parent_process() else throw(kind)


def throw_failure_in_worker(kind: type[BaseException]) -> Any:
    return throw(kind) if multiprocessing.parent_process() else RaisesError(None, kind)


def throw_failure_in_host(kind: type[BaseException]) -> Any:
    if multiprocessing.parent_process():
        return RaisesError(throw_failure_in_host, kind)
    return throw(kind)


Where = Callable[[type[BaseException]], Any]


class Raises:
    """A value whose unpickling calls `where(kind)`, or its pickling if `where` is None."""

    def __init__(self, where: Where | None, kind: type[BaseException]) -> None:
        self.where, self.kind = where, kind

    def __reduce__(self) -> Any:
        if self.where is None:
            throw(self.kind)
        return self.where, (self.kind,)


class RaisesError(Exception):
    """A failure that does the same."""

    def __init__(self, where: Where | None, kind: type[BaseException]) -> None:
        self.where, self.kind = where, kind

    def __reduce__(self) -> Any:
        return Raises(self.where, self.kind).__reduce__()


class RaisesIt:
    """A predicate that raises."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __call__(self, error: BaseException) -> bool:
        raise self.kind("on purpose")


async def run(kind: type[BaseException]) -> None:
    throw(kind)


def run_plain(kind: type[BaseException]) -> None:
    throw(kind)


async def take(value: object) -> None:
    """Do nothing: the argument cannot be decoded."""


async def give(where: Where | None, kind: type[BaseException]) -> Raises:
    return Raises(where, kind)


async def fail(where: Where | None, kind: type[BaseException]) -> None:
    raise RaisesError(where, kind)
