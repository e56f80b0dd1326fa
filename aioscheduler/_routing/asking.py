"""What the thread of a store is asked for besides commits: to read, to copy.

ask ─► the writer's thread ─► answer      whoever asked may wait no more; it is done all the same
settle ─► all of it has been answered
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from .._durable.writer import InlineWriter, Writer, ask

T = TypeVar("T")


class Asking:
    """Asks for one keeper, in its loop.

    Args:
        writer: Is asked.
    """

    def __init__(self, writer: Writer | InlineWriter) -> None:
        self._writer = writer
        self._asked = self._answered = 0

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
        """Return when all that was asked has been answered, however long that takes.

        Nothing is committed before: the thread does one thing at a time.

        Raises:
            StoreError: It never will be.
        """
        if self._answered < self._asked:
            await self.ask(lambda: None)
