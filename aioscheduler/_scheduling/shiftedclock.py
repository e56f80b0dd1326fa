"""The host's time on another machine: that machine's monotonic clock plus a lead.

Nobody can set this clock: when the machine's time of day jumps, no task starts early.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class ShiftedClock:
    """An estimate of the host's time, in nanoseconds since the epoch.

    Args:
        lead: Nanoseconds by which it is ahead of the monotonic clock here.

    Attributes:
        lead: The current lead.
        changed: Called when the lead has changed; by default nothing is called.
    """

    def __init__(self, lead: int) -> None:
        self.lead = lead
        self.changed: Callable[[], None] = _nothing

    def __call__(self) -> int:
        """Return the present."""
        return time.monotonic_ns() + self.lead

    def shift(self, lead: int) -> None:
        """Set another lead."""
        self.lead = lead
        self.changed()


def _nothing() -> None:
    """Do nothing: no alarm uses this clock."""
