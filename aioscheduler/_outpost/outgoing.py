"""Items to send to the other end of a connection: one message per turn of the loop.

Acknowledgements go with other items, and alone when many bytes are due: the other side may be
waiting for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

WINDOW = 4 << 20  # bytes of one worker under way in one direction
PART = 1 << 16  # bytes of one worker in one item
BATCH = 1 << 18  # bytes from which a message is sent at once
ACK_DUE = 1 << 18  # bytes taken from which they are acknowledged at once

Send = Callable[[list[Any], dict[int, list[int]]], None]


class Outgoing:
    """The items and acknowledgements of this turn.

    Args:
        loop: The running loop.
        send: Sends a message.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Send) -> None:
        self._loop = loop
        self._send = send
        self._items: list[Any] = []
        self._size = 0
        self._acks: dict[int, list[int]] = {}  # by worker: generation, and bytes taken in all
        self._due = 0
        self._turn: asyncio.Handle | None = None

    def post(self, *item: Any, size: int = 0) -> None:
        """Send an item with the others of this turn; `size` counts its bytes if it is large."""
        self._items.append(item)
        self._size += size
        if self._size >= BATCH:
            self.flush()
        else:
            self._soon()

    def took(self, worker: int, generation: int, count: int, total: int) -> None:
        """Note that `count` bytes of a worker were taken, and `total` in all."""
        self._acks[worker] = [generation, total]
        self._due += count
        if self._due >= ACK_DUE:
            self._soon()

    def flush(self) -> None:
        """Send all items and acknowledgements."""
        self.stop()
        if self._items or self._acks:
            items, acks = self._items, self._acks
            self._items, self._acks, self._size, self._due = [], {}, 0, 0
            self._send(items, acks)

    def stop(self) -> None:
        """Cancel the sending at the end of this turn."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _soon(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self.flush)
