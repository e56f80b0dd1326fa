"""How far the host's clock is ahead of a node's, estimated from messages there and back.

    host   sent ─────────────────► received        both by the host's clock
    node            there                          by the node's

When the node's clock showed `there`, the host's had passed `sent`. So the host's time is at least
the node's plus `sent - there`: a node that adds this *lead* to its clock is never early by the
host's, and late by no more than the way there took. The best of several leads is the largest. The
way back only bounds how late such a clock can be (`bound`).

Both clocks are monotonic and drift apart a little (`DRIFT`), so a lead decreases with its age.
Pure; times are in nanoseconds.
"""

from __future__ import annotations

from collections import deque

DRIFT = 50e-6
"""The largest drift between the clocks of two machines, as a fraction of the time that passes."""

KEPT = 16  # measurements; at one a second the oldest have lost more than a way there takes


class Offset:
    """The measurements of one node's clock."""

    def __init__(self) -> None:
        self._measured: deque[tuple[int, int, int]] = deque(maxlen=KEPT)  # when, lead, bound

    def add(self, sent: int, there: int, received: int) -> None:
        """Note a message that was answered.

        Args:
            sent: When it was sent, by the host's clock.
            there: When the node received it, by the node's clock.
            received: When the answer arrived, by the host's clock.
        """
        self._measured.append((sent, sent - there, received - sent))

    def lead(self, at: int) -> int:
        """Return the lead to add to the node's clock, valid until `at` by the host's.

        Raises:
            ValueError: Nothing has been measured.
        """
        return max(lead - round(abs(at - when) * DRIFT) for when, lead, _ in self._measured)

    def bound(self, at: int) -> int:
        """Return by how much a clock with that lead is late at most.

        Raises:
            ValueError: Nothing has been measured.
        """
        return min(bound + round(2 * abs(at - when) * DRIFT) for when, _, bound in self._measured)
