"""What raises where it is pickled or unpickled, here or there, for `test_matrix`."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from typing import Any


class OddError(BaseException):
    """No Exception, and nobody's."""


KINDS: list[type[BaseException]] = [
    *(ValueError, MemoryError, RecursionError, StopIteration, OSError),
    *(SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, OddError),
]


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
    """A value whose unpickling calls `where(kind)`; its pickling, if `where` is None."""

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


async def run(kind: type[BaseException]) -> None:
    throw(kind)


def run_plain(kind: type[BaseException]) -> None:
    throw(kind)


async def take(value: object) -> None:
    """Nothing: its argument could not be decoded."""


async def give(where: Where | None, kind: type[BaseException]) -> Raises:
    return Raises(where, kind)


async def fail(where: Where | None, kind: type[BaseException]) -> None:
    raise RaisesError(where, kind)
