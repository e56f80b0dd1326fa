"""The last seconds of a process that is to go, while another is to take its place.

    SIGTERM, from whomever ─► DRAINING ─┬─► nothing runs: it says DRAINED, and ends
    recycled: DRAIN, our word ──────────┼─► its time is over: it is killed
                                        └─► whatever else ends it is a death

It starts nothing more, and what runs has `DRAIN_TIME`. What still runs then is lost with it, or
runs again in the next.
"""

from __future__ import annotations

import asyncio

from .._transport import wire
from .workerhandle import WorkerHandle

KILL_AFTER = 0.5  # seconds a worker has to end what it was told to cancel
DRAIN_TIME = 10.0  # seconds that running tasks have in a worker that was told to go


class Drain:
    """The time that a process has to go.

    Args:
        loop: Of the host.
        process: The process.
        why: Why it is recycled; "" if it was told to go by others.

    Attributes:
        is_through: Whether the process has said that it has gone (DRAINED).
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, process: WorkerHandle, why: str = ""
    ) -> None:
        self.is_through: bool = False
        self._why = why
        self._process = process
        self._is_over = False
        self._timer = loop.call_later(DRAIN_TIME + KILL_AFTER, self._end)

    def ask(self) -> None:
        """Tell the process to go; one that cannot be told is killed."""
        try:
            self._process.pipe.send(wire.encode([wire.Kind.DRAIN]))
            self._process.pipe.flush()
        except Exception as error:  # noqa: BLE001  whatever it is, it is to be replaced
            self._process.kill(f"it cannot be told to go: {error!r}")

    def stop(self) -> None:
        """Let the process be: it has ended, or another has told it to."""
        self._timer.cancel()

    @property
    def recycles(self) -> bool:
        """Whether the process is recycled."""
        return self._why != ""

    @property
    def told(self) -> str:
        """What the process was told, in words that follow on its name."""
        return "was recycled" if self.recycles else "was told to end"

    def went_by_itself(self, exitcode: int | None) -> bool:
        """Whether the process that has ended so has gone as it was told; None: not known how."""
        return self.is_through and exitcode in (0, None)

    def went_in_order(self, exitcode: int | None) -> bool:
        """Whether it has, or was killed because its time was over; else it has died."""
        return self._is_over or self.went_by_itself(exitcode)

    def explain_loss(self) -> str:
        """Return what ended a task that still ran when its process went in order."""
        told = f"it was recycled, as {self._why}" if self._why else "it was told to end (SIGTERM)"
        return f"{told}, and {DRAIN_TIME:.0f} s later this task still ran"

    def _end(self) -> None:
        """End a process that keeps its loop busy, or in which something swallows its end."""
        self._is_over = True
        self._process.kill()
