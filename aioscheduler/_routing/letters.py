"""The dead letters in the file: read page by page, and dropped.

dead_letters, requeue, discard ─► Letters ─┬─► the writer's thread: Store.letters
                                           └─► Group: a letter is one no more

What was dropped is passed over, whatever the file still says; until that is written, or cannot be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from .._durable.group import Group
from .._durable.records import Letter, Reason, Store
from .commits import Commits

_PAGE = 256  # letters read at a time
_ROWS = range(1 << 63)  # those that a file can have


class Letters:
    """The dead letters of one store.

    Args:
        store: Has them.
        group: Has it written that one is dropped.
        commits: Writes it.
        call: Has something done in the writer's thread.
        stored: Return when everything so far (None) is on disk.
    """

    def __init__(
        self,
        store: Store,
        group: Group,
        commits: Commits,
        call: Callable[[Callable[[], Any]], Awaitable[Any]],
        stored: Callable[[None], Awaitable[None]],
    ) -> None:
        self._store = store
        self._group = group
        self._commits = commits
        self._call: Callable[[Callable[[], Any]], Awaitable[Any]] = call
        self._stored: Callable[[None], Awaitable[None]] = stored
        self._dropped: set[int] = set()  # rows of those that are letters no more
        self._unwritten: deque[tuple[int, int]] = deque()  # which, and when that is on disk: stamps
        self._readers = 0  # who may have pages that were read before

    async def read(self, reason: Reason | None, limit: int | None) -> AsyncIterator[Letter]:
        """Yield the dead letters that are there by now, in order of row, without payloads.

        Args:
            reason: Only those of one reason.
            limit: So many at most.

        Raises:
            StoreError: They cannot be read.
        """
        until = self._group.next_row  # what is requeued meanwhile and fails again is none of them
        await self._stored(None)
        after, left = -1, limit
        self._forget_written()
        self._readers += 1
        try:
            while left is None or left > 0:
                page: list[Letter] = await self._call(partial(self._store.letters, after, _PAGE))
                if not page:
                    return
                for letter in page:
                    if letter.row >= until:
                        return
                    if letter.row in self._dropped or reason not in (None, letter.reason):
                        continue
                    yield letter
                    if left is not None:
                        left -= 1
                        if not left:
                            return
                after = page[-1].row
        finally:
            self._readers -= 1

    async def find(self, row: int) -> Letter | None:
        """Return the one with a row, and its payload.

        Raises:
            StoreError: It cannot be read.
        """
        if row not in _ROWS:
            return None
        await self._stored(None)
        self._forget_written()
        self._readers += 1
        try:
            found: Letter | None = await self._call(partial(self._store.letter, row))
            return None if row in self._dropped else found
        finally:
            self._readers -= 1

    def _forget_written(self) -> None:
        """Leave it to the file whether what was dropped is one: it has the task, or the letter."""
        if not self._readers:
            while self._unwritten and self._unwritten[0][1] <= self._commits.reached:
                self._dropped.discard(self._unwritten.popleft()[0])

    def drop(self, row: int, instead: int | None = None) -> None:
        """Have a letter be one no more.

        Args:
            row: Which.
            instead: The row of the task that has come in its place, if one has; see `Group`.
        """
        self._forget_written()
        self._dropped.add(row)
        self._group.discard_letter(row, instead)
        self._commits.letters -= 1
        self._unwritten.append((row, self._group.stamp))
        self._commits.soon()
