"""What is only in the file, for `Manager.tasks`: read part by part, each task given once.

What comes into memory meanwhile is given by its link then, unless it was given here; and so what
is given another time is told of by the shelf, whose reader may have passed it or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from .._durable.records import FIRST, Row, Store, place_of_id
from .._scheduling.clock import to_datetime
from ..inspection import TaskInfo, Wanted
from ..task import State
from .drafts import Drafts
from .whereabouts import Whereabouts

PAGE = 1024  # tasks that are read at a time


class ShelfListing:
    """One list of the tasks that are only in the file.

    Args:
        store: Is read.
        ask: Has something done in the writer's thread.
        where: Where tasks are.
        drafts: Knows the names of tasks.
        timed: Whether tasks have due times.
        wanted: Which are asked for.
        waits: Whether a task, which is not in memory for that reason, waits for its function.

    Attributes:
        given: The rows of tasks that were given, and that may come up once more.
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
        self._passed: tuple[Any, ...] | None = None  # up to where the file was read
        self._is_through = False
        self._seen: set[int] = set()  # rows of which it is known whether they were given
        self._moved: dict[int, Row] = {}  # to where it was not read when they were moved
        self._left: list[Row] = []  # moved to where it was read already

    async def infos(self) -> AsyncIterator[list[TaskInfo]]:
        """Yield what is known of the tasks, some hundred at a time.

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
            after = None if last is None else last.id
            return self._store.scan_ids(self._wanted.id_prefix, after, PAGE)
        place = FIRST if last is None else (last.bucket, last.row)
        return self._store.scan(place, PAGE)

    def _here(self, row: Row) -> Row | None:
        """Return a task as it is, if it was not given yet, and is only in the file."""
        if row.row in self._seen or row.row in self._where:
            return None
        self._moved.pop(row.row, None)  # here it is, before its move or after it
        horizon = self._where.horizon
        unwritten = horizon.find(row.row)
        if unwritten is None:
            # It has been in memory, and has ended: the file is about to be told.
            has_ended = horizon.is_near(*row.position) and not self._waits(row.row)
            return None if has_ended else row
        if unwritten.row is not None:  # it may come up once more, where it is now
            self._seen.add(row.row)
            self.given.add(row.row)
        return unwritten.row

    def _key(self, row: Row) -> tuple[Any, ...]:
        if self._wanted.id_prefix is None:
            return row.bucket, row.row
        return place_of_id(row.id or "")

    def _has_passed(self, row: Row) -> bool:
        if self._passed is None:
            return self._is_through
        return self._is_through or self._key(row) <= self._passed

    def goes(self, row: Row, moved: Row | None = None) -> None:
        """Note that a task is where it was no more.

        Args:
            row: As it was.
            moved: As it is; None: it has come into memory.
        """
        if row.row in self._seen:
            return
        if self._has_passed(row):
            self._seen.add(row.row)
            self.given.add(row.row)
        elif moved is None:
            self._seen.add(row.row)
        elif self._has_passed(moved):
            self._leave(moved)
        else:
            self._moved[row.row] = moved

    def _look_back(self) -> None:
        """Note which tasks were moved while a part was read to where it was read by now."""
        moved, self._moved = self._moved, {}
        for row in moved.values():
            if row.row not in self._seen and self._has_passed(row):
                self._leave(row)

    def _leave(self, moved: Row) -> None:
        """Have a task told at the end, as the file is not read where it is now."""
        self._seen.add(moved.row)
        self.given.add(moved.row)
        self._left.append(moved)

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
