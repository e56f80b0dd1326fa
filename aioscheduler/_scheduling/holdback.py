"""Starting no tasks while the user's loop seems to be ending.

When main() has returned, `asyncio.run` cancels every task, and one that began then would be cut
off. The sign is a task whose cancellation was not requested here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK_EVERY = 0.1  # seconds


def seems_to_end(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether every task of a loop was cancelled."""
    others = asyncio.all_tasks(loop)
    # asyncio has no public name for the second sign, and other loops lack it.
    ending = bool(others) and all(task.cancelling() for task in others)
    return ending or bool(getattr(loop, "_asyncgens_shutdown_called", False))


class HoldBack:
    """Watches a loop until it is clear that it goes on.

    Args:
        go_on: Called then.

    Attributes:
        active: Whether no task may be started.
    """

    def __init__(self, go_on: Callable[[], None]) -> None:
        self.active: bool = False
        self._go_on = go_on

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hold back from now on; do nothing if already active."""
        if not self.active and not loop.is_closed():
            self.active = True
            loop.call_later(LOOK_EVERY, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if seems_to_end(loop):
            loop.call_later(LOOK_EVERY, self._look, loop)
        else:
            self.active = False
            self._go_on()
