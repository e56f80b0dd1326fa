"""Starting nothing while a loop of the user's seems to be ending.

When main() has returned, `asyncio.run` cancels all there is, and what began then would be left in
the middle. A task that was cancelled by nobody here is the sign.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK_EVERY = 0.1  # seconds


def seems_to_end(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether all that there is in a loop was cancelled."""
    others = asyncio.all_tasks(loop)
    # asyncio has no public word for the second; loops of another make lack it.
    ending = bool(others) and all(task.cancelling() for task in others)
    return ending or bool(getattr(loop, "_asyncgens_shutdown_called", False))


class HoldBack:
    """Looks at a loop until it is clear that it goes on.

    Args:
        go_on: Called then.

    Attributes:
        active: Whether nothing is to be started.
    """

    def __init__(self, go_on: Callable[[], None]) -> None:
        self.active: bool = False
        self._go_on = go_on

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hold back from now on, if it does not do so already."""
        if not self.active and not loop.is_closed():
            self.active = True
            loop.call_later(LOOK_EVERY, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if seems_to_end(loop):
            loop.call_later(LOOK_EVERY, self._look, loop)
        else:
            self.active = False
            self._go_on()
