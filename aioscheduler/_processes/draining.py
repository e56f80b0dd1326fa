"""The last seconds of a process that is to go, while another is to take its place.

    SIGTERM, from whomever ─► DRAINING ─┬─► it ends when nothing runs
    recycled: DRAIN, our word ──────────┴─► or is killed, when its time is over

It starts nothing more, and what runs has `DRAIN_TIME`. What still runs then is lost with it, or
runs again in the next.
"""

from __future__ import annotations

import asyncio

from .._transport import wire
from .incarnation import Life

KILL_AFTER = 0.5  # seconds a worker has to end what it was told to cancel
DRAIN_TIME = 10.0  # seconds that running tasks have in a worker that was told to go


class Drain:
    """The time that a process has to go.

    Args:
        loop: Of the host.
        life: The process.
        why: Why it is recycled; "" if it was told to go by others.

    Attributes:
        why: The same.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, life: Life, why: str = "") -> None:
        self.why = why
        self._life = life
        self._is_over = False
        self._timer = loop.call_later(DRAIN_TIME + KILL_AFTER, self._end)

    def ask(self) -> None:
        """Tell the process to go; one that cannot be told is killed."""
        try:
            self._life.pipe.send(wire.encode([wire.Kind.DRAIN]))
            self._life.pipe.flush()
        except Exception as error:  # noqa: BLE001  whatever it is, it is to be replaced
            self._life.kill(f"it cannot be told to go: {error!r}")

    def stop(self) -> None:
        """Let the process be: it has ended, or another has told it to."""
        self._timer.cancel()

    def explain_loss(self, exitcode: int | None) -> str:
        """Return what ended a task that ran when its process ended; "" if that died before."""
        if exitcode != 0 and not self._is_over:
            return ""
        told = f"it was recycled, as {self.why}" if self.why else "it was told to end (SIGTERM)"
        return f"{told}, and {DRAIN_TIME:.0f} s later this task still ran"

    def _end(self) -> None:
        """End a process that keeps its loop busy, or in which something swallows its end."""
        self._is_over = True
        self._life.kill()
