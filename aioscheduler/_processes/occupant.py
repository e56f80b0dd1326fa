"""The reports of a supervisor to its slot's occupant, one process after the other.

connect(process) ─► receive(READY) … ─► ended(end) ─┬─ REPLACED ─► connect(the next process) …
                                                 ├─ CLOSED
                                                 └─ FAILED
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol

from .._transport import wire
from .workerhandle import WorkerHandle


class Then(Enum):
    """What follows the end of a process."""

    REPLACED = "replaced"  # another process follows
    CLOSED = "closed"  # none follows, as requested
    FAILED = "failed"  # none can follow: the manager must fail


class End(NamedTuple):
    """The end of the process in a slot.

    Attributes:
        then: What follows.
        exitcode: The exit code; None if it is not known, or there was no process.
        process: The process; None if there was none.
        story: What happened: a line, with any details below it.
        reason: Why the manager must fail.
        planned: Whether it was recycled, and ended on its own.
        is_said: Whether to log it; of many that could not begin, only some are logged.
    """

    then: Then
    exitcode: int | None = None
    process: WorkerHandle | None = None
    story: str = ""
    reason: Exception | None = None
    planned: bool = False
    is_said: bool = True


class Occupant(Protocol):
    """The owner of a slot's tasks (`remote.RemoteLink`), notified of its processes."""

    def receive(self, frame: wire.Frame) -> None:
        """Handle a frame that does not only concern the process; READY comes first."""

    def forgives(self) -> bool:
        """Return whether the end of the process spends no budget; called before `ended`.

        It must not forgive every such end: the processes would be replaced for ever.
        """

    def connect(self, process: WorkerHandle) -> None:
        """Send everything to a process that was started."""

    def ended(self, end: End) -> None:
        """Handle the end of the process, whose pipe was read to the end.

        Called once for each process, again with FAILED if that raised, and with CLOSED if there
        was no process. With CLOSED and FAILED it must not raise.
        """
