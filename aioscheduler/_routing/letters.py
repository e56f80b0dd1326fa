"""The dead letters in the file: read page by page, and dropped.

    dead_letters, requeue, discard ─► Letters ─┬─► the writer's thread: Store.letters
                                               └─► Group: a letter is dropped

A dropped letter is skipped although the file still has it, until that is written, or cannot be.
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
_ROWS = range(1 << 63)  # possible rows of a file


class Letters:
    """The dead letters of one store.

    Args:
        store: The store.
        group: Gathers changes.
        commits: Writes them.
        call: Run a call in the writer's thread.
        stored: Wait until everything so far (None) is on disk.
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
        self._dropped: set[int] = set()  # rows
        self._unwritten: deque[tuple[int, int]] = deque()  # dropped rows, with their stamps
        self._readers = 0  # readers that may hold earlier pages

    async def read(self, reason: Reason | None, limit: int | None) -> AsyncIterator[Letter]:
        """Yield the present dead letters, in order of row, without payloads.

        Args:
            reason: Yield only letters with this reason; None: all.
            limit: Yield at most this many; None: all.

        Raises:
            StoreError: They cannot be read.
        """
        until = self._group.next_row  # excludes letters requeued and failed again meanwhile
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
        """Return the letter of a row, with its payload.

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
        """Forget drops that are written, or cannot be: the file is right about them by now."""
        if not self._readers:
            while self._unwritten and self._unwritten[0][1] <= self._commits.reached:
                self._dropped.discard(self._unwritten.popleft()[0])

    def drop(self, row: int, instead: int | None = None) -> None:
        """Drop a letter.

        Args:
            row: Its row.
            instead: The row of the task that replaces it, if any; see `Group`.
        """
        self._forget_written()
        self._dropped.add(row)
        self._group.discard_letter(row, instead)
        self._commits.letters -= 1
        self._unwritten.append((row, self._group.stamp))
        self._commits.soon()
