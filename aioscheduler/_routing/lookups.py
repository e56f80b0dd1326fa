"""Asks the file for single tasks: those that are asked for while it answers, together.

    by_id, by_row ─► the next round ─► Store.find, in the writer's thread ─► who asked is told

What the file did not say yet when it was asked is known by the horizon, which forgets nothing of
that until all is answered.

Who cancels all tasks of the loop has cancelled the one that asks, too: what was asked is asked
anew, by who waits for it or at the next tick, and nobody is told meanwhile that there is no task.
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

Missed = Callable[[StoreError], object]
"""Is told why it cannot be known whether there is such a task."""

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
        missed: Is told instead if the file cannot be read there; None: it is then taken that there
            is no such task, for what waits for it is not to wait for ever.
    """

    stamp: int
    id: str | None
    position: tuple[int, int]
    then: Then
    missed: Missed | None = None


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

    def by_row(self, row: int, due: int, then: Then, missed: Missed | None = None) -> None:
        """Ask for a task by its row, and when it was due, as last known."""
        self._want(None, (due, row), then, missed)

    async def find(self, id_: str, read: Callable[[Row | None], T]) -> T:
        """Return what is read of the task that has an id, as soon as it is found.

        Who waits goes on later, and by then it may have changed.

        Raises:
            StoreError: The file cannot be read, or is asked nothing more: it is not known whether
                there is such a task.
        """
        found: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def missed(error: StoreError) -> None:
            if not found.done():
                found.set_exception(error)

        self._want(id_, (0, -1), lambda row: _answer(found, read, row), missed)
        await self._wait(found)
        if found.cancelled():
            raise StoreError(
                f"{self._store.path} is asked nothing more, for its manager was closed or has "
                f"failed: whether a task has the id {id_!r} is not known"
            )
        return found.result()

    def when_known(self, then: Callable[[], object]) -> None:
        """Call back when all that was asked so far has been answered; at once if it has."""
        if self._wanted or self._is_asking:
            self._want(None, (0, -1), lambda _: then())
        else:
            then()

    def until(self) -> int | None:
        """Return the stamp of the last change before the first that was asked; None: nothing is.

        What comes after it is written after what becomes of that: a task that schedules another
        one under an id is not struck before that one is in the file.
        """
        return self._wanted[0].stamp if self._wanted else None

    async def settle(self) -> None:
        """Return when all that was asked so far has been answered, or never will be."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when_known(lambda: _answer(answered, lambda _: None, None))
        await self._wait(answered)

    async def _wait(self, answered: asyncio.Future[Any]) -> None:
        """Return when there is an answer, or never will be one: then it is cancelled."""
        try:
            while not answered.done() and not self.is_over:
                self.look_after()
                assert self._task is not None  # of what is not answered it is still asked
                await asyncio.wait((answered, self._task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered.cancel()

    def look_after(self) -> None:
        """See to it that what is wanted is asked; called once a tick, too."""
        if self._wanted and not self._is_asking and not self.is_over:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    @property
    def _is_asking(self) -> bool:
        # Not what `_answer` says of itself: one that is cancelled at once never begins.
        return self._task is not None and not self._task.done()

    def stop(self) -> None:
        """Ask nothing more: who waits is told nothing."""
        self.is_over = True
        if self._task is not None:
            self._task.cancel()

    def _want(
        self, id_: str | None, position: tuple[int, int], then: Then, missed: Missed | None = None
    ) -> None:
        if not self.is_over:
            self._wanted.append(Wanted(self._stamp(), id_, position, then, missed))
            self.look_after()

    async def _answer(self) -> None:
        begun = self._where.horizon.begin()
        try:
            while self._wanted:
                wanted = self._wanted[:MOST]
                found, missed = await self._find(wanted)
                del self._wanted[: len(wanted)]
                by_id = {row.id: row for row in found if row.id is not None}
                by_row = {row.row: row for row in found}
                for index, (_, id_, (_, number), then, untold) in enumerate(wanted):
                    row = by_row.get(number) if id_ is None else by_id.get(id_)
                    try:
                        if untold is not None and index in missed and not self._knows(number):
                            untold(missed[index])
                        else:
                            then(self._as_it_is(number, row))
                    except Exception:
                        log.exception("what was asked of %s could not be told", self._store.path)
                self._told()
                self._where.horizon.end(begun)
                begun = self._where.horizon.begin()
        except Exception as error:  # noqa: BLE001  whatever it is, who waits would for ever
            self.is_over = True
            self._failed(error)
        finally:
            self._where.horizon.end(begun)

    async def _find(self, wanted: list[Wanted]) -> tuple[list[Row], dict[int, StoreError]]:
        """Return the tasks that are there, and why others cannot be read, by index."""
        ids = [each.id for each in wanted if each.id is not None]
        rows = [each.position for each in wanted if each.id is None and each.position[1] >= 0]
        for again in reversed(range(TRIES if ids or rows else 0)):
            try:
                found: list[Row] = await self._ask(partial(self._store.find, ids, rows))
            except StoreError:
                if again:
                    await asyncio.sleep(RETRY)
            else:
                return found, {}
        return await self._find_singly(wanted) if ids or rows else ([], {})

    async def _find_singly(self, wanted: list[Wanted]) -> tuple[list[Row], dict[int, StoreError]]:
        """Find tasks one by one: one of them is where the file cannot be read."""
        found: list[Row] = []
        missed: dict[int, StoreError] = {}
        for index, (_, id_, position, *_) in enumerate(wanted):
            ids, rows = [id_] if id_ is not None else [], [position] if position[1] >= 0 else []
            try:
                if ids or rows:
                    found += await self._ask(partial(self._store.find, ids, rows))
            except StoreError as error:
                missed[index] = error
        untold = [error for index, error in missed.items() if wanted[index].missed is None]
        if untold:
            log.error("%s; of %d tasks it is taken that they are not there", untold[0], len(untold))
        return found, missed

    def _knows(self, number: int) -> bool:
        """Whether it is known without the file what a task is by now."""
        return self._where.horizon.find(number) is not None or number in self._where

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


def _answer(waiter: asyncio.Future[T], read: Callable[[Row | None], T], row: Row | None) -> None:
    if waiter.done():  # who waited has gone
        return
    try:
        waiter.set_result(read(row))
    except Exception as error:  # noqa: BLE001  it is for who waits
        waiter.set_exception(error)
