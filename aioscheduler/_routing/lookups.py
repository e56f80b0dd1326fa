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
from typing import Any, NamedTuple, TypeVar

from .._durable.records import Row, Store
from ..errors import StoreError
from .whereabouts import Whereabouts

log: logging.Logger = logging.getLogger("aioscheduler")

T = TypeVar("T")

Then = Callable[[Row | None], object]
"""Is told of the task as it is by now; None: there is none that is only in the file."""

MOST = 4096  # tasks that are asked for at a time
TRIES, RETRY = 3, 1.0
"""How often a file is asked that cannot be read, and after how many seconds once more."""


class Wanted(NamedTuple):
    """A task that is asked for.

    Attributes:
        stamp: That of the last change before.
        id: Of the task; None: it is asked for by its position.
        position: When it was due, as last known, and its row; -1: it is asked for by its id.
        then: Is told.
    """

    stamp: int
    id: str | None
    position: tuple[int, int]
    then: Then


class Lookups:
    """Asks for one keeper, in its loop.

    Args:
        store: Is asked.
        ask: Has something done in the writer's thread.
        where: Where tasks are that are not only in the file.
        stamp: Return that of the last change.
        answered: Called when some have been answered.
        failed: Called when it cannot go on.
    """

    def __init__(
        self,
        store: Store,
        ask: Callable[[Callable[[], Any]], Awaitable[Any]],
        where: Whereabouts,
        stamp: Callable[[], int],
        answered: Callable[[], object],
        failed: Callable[[Exception], object],
    ) -> None:
        self._store = store
        self._ask: Callable[[Callable[[], Any]], Awaitable[Any]] = ask
        self._where = where
        self._told = answered
        self._failed = failed
        self._stamp = stamp
        self._wanted: list[Wanted] = []
        self._task: asyncio.Task[None] | None = None
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

    def until(self) -> int | None:
        """Return the stamp of the last change before the first that was asked; None: nothing is.

        What comes after it is written after what becomes of that: a task that schedules another
        one under an id is not struck before that one is in the file.
        """
        return self._wanted[0].stamp if self._wanted else None

    async def settle(self) -> None:
        """Return when all that was asked so far has been answered, or never will be."""
        if self._task is not None:
            answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.when_known(partial(_answer, answered, None))
            await asyncio.wait([answered, self._task], return_when=asyncio.FIRST_COMPLETED)

    def look_after(self) -> None:
        """Is called once a tick: who cancels all tasks of the loop has cancelled that one, too."""
        if self._wanted and self._task is None and not self.is_over:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    def stop(self) -> None:
        """Ask nothing more: who waits is told nothing."""
        self.is_over = True
        if self._task is not None:
            self._task.cancel()

    def _want(self, id_: str | None, position: tuple[int, int], then: Then) -> None:
        if self.is_over:
            return
        self._wanted.append(Wanted(self._stamp(), id_, position, then))
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
                for _, id_, (_, number), then in wanted:
                    row = by_row.get(number) if id_ is None else by_id.get(id_)
                    try:
                        then(self._as_it_is(number, row))
                    except Exception:
                        log.exception("what was asked of %s could not be told", self._store.path)
                self._told()
                self._where.horizon.end(begun)
                begun = self._where.horizon.begin()
        except Exception as error:  # noqa: BLE001  whatever it is, who waits would for ever
            self._failed(error)
        finally:
            self._where.horizon.end(begun)
            self._task = None

    async def _find(self, wanted: list[Wanted]) -> list[Row]:
        ids = [each.id for each in wanted if each.id is not None]
        rows = [each.position for each in wanted if each.id is None and each.position[1] >= 0]
        tries = TRIES if ids or rows else 0
        while tries:
            try:
                found: list[Row] = await self._ask(partial(self._store.find, ids, rows))
            except StoreError as error:
                tries -= 1
                if tries:
                    await asyncio.sleep(RETRY)
                else:
                    count = len(ids) + len(rows)
                    log.error("%s; of %s tasks it is taken that they are not there", error, count)
            else:
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
