"""What is to be sent to the other end of a connection: one batch a turn of the loop.

Acknowledgements go with whatever else is sent, and alone when much is due: the other side may be
waiting for just that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

WINDOW = 4 << 20  # bytes of one worker that may be on their way, in one direction
PART = 1 << 16  # bytes of one worker in one item
BATCH = 1 << 18  # bytes after which a message is not held back for more
ACK_DUE = 1 << 18  # bytes taken of which the other side is to be told at once

Send = Callable[[list[Any], dict[int, list[int]]], None]


class Outgoing:
    """Collects items, and what was taken.

    Args:
        loop: The running loop.
        send: Sends a message.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Send) -> None:
        self._loop = loop
        self._send = send
        self._items: list[Any] = []
        self._size = 0
        self._acks: dict[
            int, list[int]
        ] = {}  # by worker: the generation, and how much of it in all
        self._due = 0
        self._turn: asyncio.Handle | None = None

    def post(self, *item: Any, size: int = 0) -> None:
        """Send an item with the others of this turn; `size` if it is large."""
        self._items.append(item)
        self._size += size
        if self._size >= BATCH:
            self.flush()
        else:
            self._soon()

    def took(self, worker: int, generation: int, count: int, total: int) -> None:
        """Note that bytes of a worker were taken: so many now, and so many in all."""
        self._acks[worker] = [generation, total]
        self._due += count
        if self._due >= ACK_DUE:
            self._soon()

    def flush(self) -> None:
        """Send what there is."""
        self.stop()
        if self._items or self._acks:
            items, acks = self._items, self._acks
            self._items, self._acks, self._size, self._due = [], {}, 0, 0
            self._send(items, acks)

    def stop(self) -> None:
        """Send nothing at the end of this turn."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _soon(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self.flush)
