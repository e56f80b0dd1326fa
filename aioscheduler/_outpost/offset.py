"""How far the host's clock is ahead of a node's, as far as messages there and back can tell.

    host   sent ─────────────────► received        both by the host's clock
    node            there                          by the node's

When the node's clock showed `there`, the host's had passed `sent`. So the host's time is at least
the node's and `sent - there`: a clock that adds this *lead* is never early by the host's, and late
by no more than the way there took. The best of several leads is the largest. The way back says
nothing more about that, only how late such a clock can be at most (`bound`).

Both clocks are monotonic, and run apart a little (`DRIFT`): a lead loses by its age. Pure; times
are in nanoseconds.
"""

from __future__ import annotations

from collections import deque

DRIFT = 50e-6
"""By how much of the time that passes the clocks of two machines run apart, at most."""

KEPT = 16  # measurements; with one a second the oldest have lost more than a way there takes


class Offset:
    """What has been measured of one node's clock."""

    def __init__(self) -> None:
        self._measured: deque[tuple[int, int, int]] = deque(maxlen=KEPT)  # when, lead, bound

    def add(self, sent: int, there: int, received: int) -> None:
        """Note a message that was answered.

        Args:
            sent: When it was sent, by the host's clock.
            there: When the node had it, by the node's.
            received: When the answer was here, by the host's.
        """
        self._measured.append((sent, sent - there, received - sent))

    def lead(self, at: int) -> int:
        """Return what is to be added to the node's clock, until `at` by the host's.

        Raises:
            ValueError: Nothing has been measured.
        """
        return max(lead - round(abs(at - when) * DRIFT) for when, lead, _ in self._measured)

    def bound(self, at: int) -> int:
        """Return by how much a clock with that lead may be late at most.

        Raises:
            ValueError: Nothing has been measured.
        """
        return min(bound + round(2 * abs(at - when) * DRIFT) for when, _, bound in self._measured)
