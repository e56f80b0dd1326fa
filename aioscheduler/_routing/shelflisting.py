"""Lists the tasks that are only in the file for `Manager.tasks`: in parts, each task once.

A task that comes into memory meanwhile is listed by its link, unless it was listed here. The shelf
reports tasks that are rescheduled meanwhile, whether they were read already or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from .._durable.records import FIRST, Row, Store, order_of_id
from .._scheduling.clock import to_datetime
from ..inspection import TaskInfo, Wanted
from ..task import State
from .drafts import Drafts
from .whereabouts import Whereabouts

PAGE = 1024  # tasks read at a time


class ShelfListing:
    """One listing of the tasks that are only in the file.

    Args:
        store: The store to read.
        ask: Run a call in the writer's thread.
        where: Where tasks are.
        drafts: Knows the names of tasks.
        timed: Whether tasks have due times.
        wanted: The tasks to list.
        waits: Whether a task is not in memory because its function is not defined yet.

    Attributes:
        given: The rows of listed tasks that may come up again.
        unwritten: Tasks that are not in the file yet.
    """

    def __init__(
        self,
        store: Store,
        ask: Callable[[Callable[[], Any]], Awaitable[Any]],
        where: Whereabouts,
        drafts: Drafts,
        timed: bool,
        wanted: Wanted,
        waits: Callable[[int], bool],
    ) -> None:
        self.given: set[int] = set()
        self.unwritten: list[Row] = []
        self._store = store
        self._ask: Callable[[Callable[[], Any]], Awaitable[Any]] = ask
        self._where = where
        self._drafts = drafts
        self._timed = timed
        self._wanted = wanted
        self._waits = waits
        self._passed: tuple[Any, ...] | None = None  # the file was read up to this key
        self._is_through = False
        self._seen: set[int] = set()  # rows that are done with here, listed or not
        self._moved: dict[int, Row] = {}  # to where the file had not been read yet
        self._left: list[Row] = []  # moved to where the file had been read already

    async def infos(self) -> AsyncIterator[list[TaskInfo]]:
        """Yield information on the tasks, a few hundred at a time.

        Raises:
            StoreError: The file cannot be read.
        """
        if self._wanted.state not in (None, State.PENDING):
            return
        self.given.update(row.row for row in self.unwritten)
        self._seen.update(self.given)
        yield self._infos(self.unwritten)
        horizon = self._where.horizon
        last: Row | None = None
        while True:
            begun = horizon.begin()
            try:
                rows = await self._ask(partial(self._read, last))
                infos = self._infos([here for row in rows if (here := self._here(row))])
            finally:
                horizon.end(begun)
            if not rows:
                self._is_through = True
                break
            last = rows[-1]
            self._passed = self._key(last)
            self._look_back()
            yield infos
        self._look_back()
        left, self._left = self._left, []
        yield self._infos(left)

    def _read(self, last: Row | None) -> list[Row]:
        if self._wanted.id_prefix is not None:
            last_id = None if last is None else last.id
            return self._store.scan_ids(self._wanted.id_prefix, last_id, PAGE)
        after = FIRST if last is None else (last.bucket, last.row)
        return self._store.scan(after, PAGE)

    def _here(self, row: Row) -> Row | None:
        """Return the present row of a task, if it was not listed yet, and is only in the file."""
        if row.row in self._seen or row.row in self._where:
            return None
        self._moved.pop(row.row, None)  # it is read here, before or after its move
        horizon = self._where.horizon
        unwritten = horizon.find(row.row)
        if unwritten is None:
            # It was in memory and has ended, which is not in the file yet.
            has_ended = horizon.is_near(*row.position) and not self._waits(row.row)
            return None if has_ended else row
        if unwritten.row is not None:  # it may come up again, at its new position
            self._give(row.row)
        return unwritten.row

    def _key(self, row: Row) -> tuple[Any, ...]:
        if self._wanted.id_prefix is None:
            return row.bucket, row.row
        return order_of_id(row.id or "")

    def _has_passed(self, row: Row) -> bool:
        if self._passed is None:
            return self._is_through
        return self._is_through or self._key(row) <= self._passed

    def goes(self, row: Row, moved: Row | None = None) -> None:
        """Note that a task has left its position in the file.

        Args:
            row: Its old row.
            moved: Its new row; None: it has come into memory.
        """
        if row.row in self._seen:
            return
        if self._has_passed(row):
            self._give(row.row)
        elif moved is None:
            self._seen.add(row.row)
        elif self._has_passed(moved):
            self._leave(moved)
        else:
            self._moved[row.row] = moved

    def _look_back(self) -> None:
        """Find tasks that were moved, while a part was read, to before its end."""
        moved, self._moved = self._moved, {}
        for row in moved.values():
            if row.row not in self._seen and self._has_passed(row):
                self._leave(row)

    def _leave(self, moved: Row) -> None:
        """List a task at the end, as its position in the file is not read again."""
        self._give(moved.row)
        self._left.append(moved)

    def _give(self, row: int) -> None:
        """Note that a task is listed, though its row may come up again."""
        self._seen.add(row)
        self.given.add(row)

    def _infos(self, rows: list[Row]) -> list[TaskInfo]:
        infos = []
        for row in rows:
            name = self._drafts.name(row)
            if self._wanted.name not in (None, name) or not self._wanted.has_id(row.id):
                continue
            ref = self._where.ref(row.row)
            assert ref is not None  # the store is open
            due = to_datetime(row.due) if self._timed else None
            attempt = row.attempt + (row.begun != 0)
            infos.append(TaskInfo(ref, name, row.id, State.PENDING, due, attempt, -1, -1))
        return infos
