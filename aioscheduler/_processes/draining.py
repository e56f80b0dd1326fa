"""The last seconds of a process that will be replaced in an orderly way.

    SIGTERM, from anybody ────► DRAINING ─┬─► nothing runs: it sends DRAINED, and ends
    DRAIN, from us: recycled ─────────────┼─► its time is up: it is killed
                                          └─► any other end is a death

It starts nothing more, and its running tasks have `DRAIN_TIME`. Those that still run then are lost
with it, or run again in the next process.
"""

from __future__ import annotations

import asyncio

from .._transport import wire
from .workerhandle import WorkerHandle

KILL_AFTER = 0.5  # seconds that a worker has to end after it must cancel its tasks
DRAIN_TIME = 10.0  # seconds that running tasks have in a draining worker


class Drain:
    """The draining of one process.

    Args:
        loop: The host's loop.
        process: The process.
        why: Why it is recycled; "" if it drains because of a SIGTERM.

    Attributes:
        is_through: Whether the process has sent DRAINED.
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
        """Send the process DRAIN, or kill it if that fails."""
        try:
            self._process.pipe.send(wire.encode([wire.Kind.DRAIN]))
            self._process.pipe.flush()
        except Exception as error:  # noqa: BLE001  it must be replaced, whatever this is
            self._process.kill(f"it cannot be asked to drain: {error!r}")

    def stop(self) -> None:
        """Do not kill the process any more: it has ended, or is being closed."""
        self._timer.cancel()

    @property
    def recycles(self) -> bool:
        """Whether the process is recycled."""
        return self._why != ""

    @property
    def phrase(self) -> str:
        """Why the process drains, in words that follow its name."""
        return "was recycled" if self.recycles else "was told to end"

    def went_by_itself(self, exitcode: int | None) -> bool:
        """Return whether the process ended on its own after draining.

        Args:
            exitcode: Its exit code; None if it is not known.
        """
        return self.is_through and exitcode in (0, None)

    def went_in_order(self, exitcode: int | None) -> bool:
        """Return whether it ended on its own, or was killed as its time was up; else it died."""
        return self._is_over or self.went_by_itself(exitcode)

    def explain_loss(self) -> str:
        """Return what ended a task that still ran when its drained process ended."""
        end = f"it was recycled, as {self._why}" if self._why else "it was told to end (SIGTERM)"
        return f"{end}, and {DRAIN_TIME:.0f} s later this task still ran"

    def _end(self) -> None:
        """Kill a process that is still draining: its loop is busy, or its tasks go on."""
        self._is_over = True
        self._process.kill()
