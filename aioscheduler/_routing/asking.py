"""Requests to a store's thread other than commits: open, read, copy and close it.

ask ────► the writer's thread ─► answer     also if the caller no longer waits for it
settle ─► all have been answered
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from .._durable.records import Opening, Store
from .._durable.writer import InlineWriter, Writer, ask

PATIENCE = 600.0  # seconds: copying many gigabytes takes minutes, a dead disk never answers

T = TypeVar("T")


class Asking:
    """The requests of one keeper, made in its loop.

    Args:
        store: The store.
        writer: The thread that uses it.

    Attributes:
        has_file: Whether the store was opened here; else its file is another manager's, or none.
    """

    def __init__(self, store: Store, writer: Writer | InlineWriter) -> None:
        self.has_file = False
        self._store = store
        self._writer = writer
        self._asked = self._answered = 0

    async def open(self) -> Opening:
        """Open the store.

        Raises:
            StoreError: It cannot be opened.
        """
        return await ask(self._writer, asyncio.get_running_loop(), self._open)

    def _open(self) -> Opening:  # in the thread: the caller may no longer wait
        opening, self.has_file = self._store.open(), True
        return opening

    def close(self, clean: bool) -> None:
        """Close the file, if it was opened here; called in the thread."""
        if self.has_file:
            self._store.close(clean)

    async def ask(self, call: Callable[[], T]) -> T:
        """Run a call in the thread, and return its result.

        Raises:
            Exception: Whatever the call raises.
            StoreError: It will never be run.
        """
        self._asked += 1
        return await ask(self._writer, asyncio.get_running_loop(), partial(self._answer, call))

    def _answer(self, call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            self._answered += 1

    async def settle(self) -> None:
        """Wait until every request has been answered, for `PATIENCE` at most.

        Nothing is committed before: the thread does one thing at a time.

        Raises:
            StoreError: They never will be.
        """
        if self._answered < self._asked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self.ask(lambda: None)
