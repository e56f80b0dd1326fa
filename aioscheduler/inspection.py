"""Listing the tasks that have not ended, without handles.

    manager.tasks(name="send", …) ─ read_wanted ─► Wanted ─► link.infos ─► some hundred at a time

Nothing is kept for this: links read what they have on request. The loop runs between two lists,
however many tasks there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from .refs import TaskRef
from .task import State

__all__ = ["TaskInfo"]


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task that has not ended, as listed by `Manager.tasks`.

    Attributes:
        ref: Its reference; `manager.task(ref)` returns a handle, `manager.cancel(ref)` cancels it.
        name: The option `name`, or its function's `module:qualname`; "" if that is unknown.
        id: The option `id`, or None.
        state: PENDING or RUNNING.
        due: When it starts next, in aware UTC; None in a queue, and once it has begun.
        attempt: How many times it has been started, a start it waits for included.
        worker: Its worker, from 0; -1 if it is only in the store because it is not due soon.
        scheduler: Its scheduler in that worker, from 0; or -1.
    """

    ref: TaskRef
    name: str
    id: str | None
    state: State
    due: datetime | None
    attempt: int
    worker: int
    scheduler: int


class Wanted(NamedTuple):
    """The tasks to list; None matches anything.

    Attributes:
        name: Their exact name.
        id_prefix: What their ids start with.
        state: Their state.
    """

    name: str | None = None
    id_prefix: str | None = None
    state: State | None = None

    def has_id(self, id_: str | None) -> bool:
        """Return whether a task with this id, or with none, matches."""
        prefix = self.id_prefix
        return prefix is None or (id_ is not None and id_.startswith(prefix))


def read_wanted(name: object, id_prefix: object, state: object, limit: object) -> Wanted:
    """Read the arguments of `Manager.tasks`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The limit is less than 0.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name is a str, not {type(name).__name__}")
    if id_prefix is not None and not isinstance(id_prefix, str):
        raise TypeError(f"id_prefix is a str, not {type(id_prefix).__name__}")
    if state is not None and not isinstance(state, State):
        raise TypeError(f"state is a State, such as State.PENDING, not {state!r}")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise TypeError(f"limit is an int, not {type(limit).__name__}")
    if limit is not None and limit < 0:
        raise ValueError(f"limit must be 0 or more, not {limit}")
    plain = str.__str__  # a subclass's own methods may raise
    return Wanted(
        None if name is None else plain(name),
        None if id_prefix is None else plain(id_prefix),
        state,
    )


class _Source(Protocol):
    def infos(self, wanted: Wanted) -> Iterator[list[TaskInfo]]: ...


class _Listing(Protocol):
    given: set[int]

    def infos(self) -> AsyncIterator[list[TaskInfo]]: ...


class _Shelf(Protocol):
    def listing(self, wanted: Wanted, /) -> AbstractContextManager[_Listing]: ...


async def list_tasks(
    links: Iterable[_Source], wanted: Wanted, limit: int | None, shelf: _Shelf | None = None
) -> AsyncIterator[TaskInfo]:
    """Yield the tasks of links, and those that are only in a file, at most `limit` of them."""
    left = limit
    async for infos in _list_all(links, wanted, shelf):
        for info in infos:
            if left is not None:
                if not left:
                    return
                left -= 1
            yield info


async def _list_all(
    links: Iterable[_Source], wanted: Wanted, shelf: _Shelf | None
) -> AsyncIterator[list[TaskInfo]]:
    if shelf is None:
        async for infos in _list_links(links, wanted):
            yield infos
        return
    with shelf.listing(wanted) as listing:
        async for infos in listing.infos():
            yield infos
        given = listing.given  # some may have come into memory since
        async for infos in _list_links(links, wanted):
            yield [i for i in infos if not (i.ref.is_durable and i.ref.number in given)]


async def _list_links(links: Iterable[_Source], wanted: Wanted) -> AsyncIterator[list[TaskInfo]]:
    for link in links:
        for infos in link.infos(wanted):
            yield infos
            await asyncio.sleep(0)
