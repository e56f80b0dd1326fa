"""What a supervisor reports, and to whom: one way, a process after the other.

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
    """What follows on the end of a process."""

    REPLACED = "replaced"  # another comes
    CLOSED = "closed"  # none comes, as was asked
    FAILED = "failed"  # none can come: the manager is to fail


class End(NamedTuple):
    """The end of the process in a slot.

    Attributes:
        then: What follows.
        exitcode: Of the process; None if it is not known, or there was none.
        process: The process; None if there was none.
        story: What happened: a line, and below it what is longer.
        reason: Why the manager is to fail.
        planned: Whether it was recycled, and went by itself.
        is_said: Whether the log is to have it: not each of many that could not begin.
    """

    then: Then
    exitcode: int | None = None
    process: WorkerHandle | None = None
    story: str = ""
    reason: Exception | None = None
    planned: bool = False
    is_said: bool = True


class Occupant(Protocol):
    """Who has the tasks of a slot (`remote.RemoteLink`), and is told of its process."""

    def receive(self, frame: wire.Frame) -> None:
        """A frame has come that is not about the process alone; READY before all others."""

    def forgives(self) -> bool:
        """Whether the end of the process is no reason to replace fewer: asked before `ended`.

        Not of every end of such processes: they would be replaced for ever.
        """

    def connect(self, process: WorkerHandle) -> None:
        """A process was started: it is to be told everything."""

    def ended(self, end: End) -> None:
        """The process has ended, and its pipe was read to the end.

        This is told once for each process, again with FAILED if it raised, and with CLOSED if
        there was none to end. With CLOSED and FAILED it does not raise.
        """
