"""The host's time on another machine: that one's monotonic clock, and by how much it is behind.

A clock that nobody can set: when the time of day of the machine jumps, no task starts early.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class ShiftedClock:
    """Gives the host's time in nanoseconds since the epoch, as far as it is known.

    Args:
        lead: What it is ahead of the monotonic clock here.

    Attributes:
        lead: The same.
        changed: Called when that has changed; by default nobody is told.
    """

    def __init__(self, lead: int) -> None:
        self.lead = lead
        self.changed: Callable[[], None] = _nothing

    def __call__(self) -> int:
        """Return the present."""
        return time.monotonic_ns() + self.lead

    def shift(self, lead: int) -> None:
        """Go on with another lead."""
        self.lead = lead
        self.changed()


def _nothing() -> None:
    """Nobody sleeps by this clock."""
