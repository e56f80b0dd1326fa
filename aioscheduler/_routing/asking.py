"""What the thread of a store is asked for besides commits: to open, read, copy and close it.

ask ─► the writer's thread ─► answer      whoever asked may wait no more; it is done all the same
settle ─► all of it has been answered
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from .._durable.records import Opening, Store
from .._durable.writer import InlineWriter, Writer, ask

PATIENCE = 600.0  # seconds: a copy of many gigabytes takes minutes, and a dead disk for ever

T = TypeVar("T")


class Asking:
    """Asks for one keeper, in its loop.

    Args:
        store: What it is all about.
        writer: Is asked.

    Attributes:
        has_file: Whether the store was opened here. Else its file is another manager's, or none.
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

    def _open(self) -> Opening:  # in the thread: whoever asks may wait no more
        opening, self.has_file = self._store.open(), True
        return opening

    def close(self, clean: bool) -> None:
        """Let go of the file, if we have it; called in the thread."""
        if self.has_file:
            self._store.close(clean)

    async def ask(self, call: Callable[[], T]) -> T:
        """Have something done in the thread, and return what it returns.

        Raises:
            Exception: What it raises.
            StoreError: It is never done.
        """
        self._asked += 1
        return await ask(self._writer, asyncio.get_running_loop(), partial(self._answer, call))

    def _answer(self, call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            self._answered += 1

    async def settle(self) -> None:
        """Return when all that was asked has been answered, or `PATIENCE` is over.

        Nothing is committed before: the thread does one thing at a time.

        Raises:
            StoreError: It never will be.
        """
        if self._answered < self._asked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self.ask(lambda: None)
