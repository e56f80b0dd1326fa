"""Asks the file for single tasks: those that are asked for while it answers, together.

    by_id, by_row ─► the next round ─► Store.find, in the writer's thread ─► who asked is told

What the file did not say yet when it was asked is known by the horizon, which forgets nothing of
that until all is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from .._durable.records import Row, Store
from ..errors import StoreError
from .whereabouts import Whereabouts

log: logging.Logger = logging.getLogger("aioscheduler")

T = TypeVar("T")

Then = Callable[[Row | None], object]
"""Is told of the task as it is by now; None: there is none that is only in the file."""

MOST = 4096  # tasks that are asked for at a time
RETRY = 1.0  # seconds after which a file that cannot be read is asked again


class Lookups:
    """Asks for one keeper, in its loop.

    Args:
        store: Is asked.
        ask: Has something done in the writer's thread.
        where: Where tasks are that are not only in the file.
    """

    def __init__(
        self,
        store: Store,
        ask: Callable[[Callable[[], Any]], Awaitable[Any]],
        where: Whereabouts,
    ) -> None:
        self._store = store
        self._ask: Callable[[Callable[[], Any]], Awaitable[Any]] = ask
        self._where = where
        self._wanted: list[tuple[str | None, tuple[int, int], Then]] = []
        self._task: asyncio.Task[None] | None = None
        self._told_of = False  # that the file cannot be read
        self.is_over = False

    def by_id(self, id_: str, then: Then) -> None:
        """Ask for the task that has an id."""
        self._want(id_, (0, -1), then)

    def by_row(self, row: int, due: int, then: Then) -> None:
        """Ask for a task by its row, and when it was due, as last known."""
        self._want(None, (due, row), then)

    async def find(self, id_: str) -> Row | None:
        """Return the task that has an id."""
        found: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()
        if self.is_over:
            return None
        self.by_id(id_, partial(_answer, found))
        assert self._task is not None
        await asyncio.wait((found, self._task), return_when=asyncio.FIRST_COMPLETED)
        return found.result() if found.done() else None

    def when_known(self, then: Callable[[], object]) -> None:
        """Call back when all that was asked so far has been answered; at once if it has."""
        if self._task is None:
            then()
        else:
            self._want(None, (0, -1), lambda _: then())

    async def settle(self) -> None:
        """Return when all that was asked so far has been answered, or never will be."""
        if self._task is not None:
            answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.when_known(partial(_answer, answered, None))
            await asyncio.wait([answered, self._task], return_when=asyncio.FIRST_COMPLETED)

    def stop(self) -> None:
        """Ask nothing more: who waits is told nothing."""
        self.is_over = True
        if self._task is not None:
            self._task.cancel()

    def _want(self, id_: str | None, position: tuple[int, int], then: Then) -> None:
        if self.is_over:
            return
        self._wanted.append((id_, position, then))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        begun = self._where.horizon.begin()
        try:
            while self._wanted:
                wanted = self._wanted[:MOST]
                found = await self._find(wanted)
                del self._wanted[: len(wanted)]
                by_id = {row.id: row for row in found if row.id is not None}
                by_row = {row.row: row for row in found}
                for id_, (_, number), then in wanted:
                    row = by_row.get(number) if id_ is None else by_id.get(id_)
                    try:
                        then(self._as_it_is(number, row))
                    except Exception:
                        log.exception("what was asked of %s could not be told", self._store.path)
                self._where.horizon.end(begun)
                begun = self._where.horizon.begin()
        finally:
            self._where.horizon.end(begun)
            self._task = None

    async def _find(self, wanted: list[tuple[str | None, tuple[int, int], Then]]) -> list[Row]:
        ids = [id_ for id_, _, _ in wanted if id_ is not None]
        rows = [position for id_, position, _ in wanted if id_ is None and position[1] >= 0]
        while ids or rows:
            try:
                found: list[Row] = await self._ask(partial(self._store.find, ids, rows))
            except StoreError as error:
                if not self._told_of:
                    log.error("%s; tasks wait for it, and it is tried again", error)
                self._told_of = True
                await asyncio.sleep(RETRY)
            else:
                self._told_of = False
                return found
        return []

    def _as_it_is(self, number: int, row: Row | None) -> Row | None:
        """Return a task of the file as it is by now."""
        if row is not None:
            number = row.row
        unwritten = self._where.horizon.find(number)
        if unwritten is not None:
            return unwritten.row
        if row is None or row.row in self._where or self._where.horizon.is_near(*row.position):
            return None  # it is in memory, or was, and has ended
        return row


def _answer(waiter: asyncio.Future[T], value: T) -> None:
    if not waiter.done():
        waiter.set_result(value)
