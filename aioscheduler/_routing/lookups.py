"""Looks up single tasks in the file; lookups made while it answers are sent together.

    by_id, by_row ─► the next round ─► Store.find, in the writer's thread ─► callbacks

Changes that were not in the file when it was asked are known to the horizon, which keeps them
until all lookups are answered.

Cancelling all tasks of the loop also cancels the one that asks here. The lookups are then repeated,
by whoever waits for one or at the next tick; nobody gets "no such task" meanwhile.
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
"""Called with the present row of the task; None: no such task is only in the file."""

Missed = Callable[[StoreError], object]
"""Called with the reason why it is unknown whether there is such a task."""

MOST = 4096  # lookups at a time
TRIES, RETRY = 3, 1.0
"""How often an unreadable file is tried, and the seconds between two tries."""


class Wanted(NamedTuple):
    """One lookup.

    Attributes:
        stamp: That of the last change before it.
        id: The id of the task; None: it is looked up by its position.
        position: Its last known due time, and its row; row -1: it is looked up by its id.
        then: Called with the answer.
        missed: Called instead if the file cannot be read there; None: the task is then taken to
            be missing, so that nothing waits for ever.
    """

    stamp: int
    id: str | None
    position: tuple[int, int]
    then: Then
    missed: Missed | None = None


class Lookups:
    """The lookups of one keeper, made in its loop.

    Args:
        store: The store to ask.
        ask: Run a call in the writer's thread.
        where: Where tasks are that are not only in the file.
        stamp: Return the stamp of the last change.
        answered: Called when some lookups have been answered.
        failed: Called when lookups cannot go on.
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
        self._notify = answered
        self._failed = failed
        self._stamp = stamp
        self._wanted: list[Wanted] = []
        self._task: asyncio.Task[None] | None = None
        self.is_over = False

    def by_id(self, id_: str, then: Then) -> None:
        """Look up a task by its id."""
        self._want(id_, (0, -1), then)

    def by_row(self, row: int, due: int, then: Then, missed: Missed | None = None) -> None:
        """Look up a task by its row and last known due time."""
        self._want(None, (due, row), then, missed)

    async def find(self, id_: str, read: Callable[[Row | None], T]) -> T:
        """Look up a task by its id, and return the result of `read`.

        `read` is called at once when the task is found: it may change before the caller goes on.

        Raises:
            StoreError: The file cannot be read, or lookups have stopped: it is unknown whether
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
                f"{self._store.path} is no longer read, as its manager was closed or has failed: "
                f"whether a task has the id {id_!r} is not known"
            )
        return found.result()

    def when_known(self, then: Callable[[], object]) -> None:
        """Call back when all lookups so far have been answered; at once if they have."""
        if self._wanted or self._is_asking:
            self._want(None, (0, -1), lambda _: then())
        else:
            then()

    def until(self) -> int | None:
        """Return the stamp of the last change before the first open lookup; None: none is open.

        Later changes are written only after that lookup's result: a task that schedules another
        under an id is not struck before that one is in the file.
        """
        return self._wanted[0].stamp if self._wanted else None

    async def settle(self) -> None:
        """Wait until all lookups so far have been answered, or never will be."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when_known(lambda: _answer(answered, lambda _: None, None))
        await self._wait(answered)

    async def _wait(self, answered: asyncio.Future[Any]) -> None:
        """Wait for an answer; cancel the future if there will never be one."""
        try:
            while not answered.done() and not self.is_over:
                self.look_after()
                assert self._task is not None  # unanswered lookups are being asked
                await asyncio.wait((answered, self._task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered.cancel()

    def look_after(self) -> None:
        """Start asking if there are open lookups; called once a tick, too."""
        if self._wanted and not self._is_asking and not self.is_over:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    @property
    def _is_asking(self) -> bool:
        # A flag set by `_answer` would not do: if cancelled at once, it never begins.
        return self._task is not None and not self._task.done()

    def stop(self) -> None:
        """Stop asking; open lookups get no answer."""
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
                        log.exception("an answer of %s could not be passed on", self._store.path)
                self._notify()
                self._where.horizon.end(begun)
                begun = self._where.horizon.begin()
        except Exception as error:  # noqa: BLE001  whatever it is: waiters would wait for ever
            self.is_over = True
            self._failed(error)
        finally:
            self._where.horizon.end(begun)

    async def _find(self, wanted: list[Wanted]) -> tuple[list[Row], dict[int, StoreError]]:
        """Return the tasks found, and why others cannot be read, by index."""
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
        """Find tasks one by one, as the file cannot be read at one of them."""
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
            log.error("%s; %d tasks are taken to be missing", untold[0], len(untold))
        return found, missed

    def _knows(self, number: int) -> bool:
        """Whether the present state of a task is known without the file."""
        return self._where.horizon.find(number) is not None or number in self._where

    def _as_it_is(self, number: int, row: Row | None) -> Row | None:
        """Return the present row of a task found in the file."""
        if row is not None:
            number = row.row
        unwritten = self._where.horizon.find(number)
        if unwritten is not None:
            return unwritten.row
        if row is None or row.row in self._where or self._where.horizon.is_near(*row.position):
            return None  # it is in memory, or has ended there
        return row


def _answer(waiter: asyncio.Future[T], read: Callable[[Row | None], T], row: Row | None) -> None:
    if waiter.done():  # the waiter has gone
        return
    try:
        waiter.set_result(read(row))
    except Exception as error:  # noqa: BLE001  it is raised in the waiter
        waiter.set_exception(error)
