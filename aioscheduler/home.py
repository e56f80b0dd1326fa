"""The interface between a handle and the home of its task: the link that has it, or the shelf."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Protocol

from ._scheduling.loopthread import LoopThread
from ._scheduling.states import State
from .refs import TaskRef


class Home(Protocol):
    """The home of tasks. Handles have type `Any` here, because their module imports this one."""

    loop: asyncio.AbstractEventLoop | None
    loop_thread: LoopThread
    identity: int
    """128 random bits from which the uuids of its tasks are derived."""

    def new_due(self, when: datetime | timedelta | None, /) -> int:
        """Read the time to which a task is rescheduled; a queue refuses every time."""

    def cancel(self, scheduler: int, number: int) -> bool: ...
    def reschedule(self, scheduler: int, number: int, due: int) -> bool: ...
    def state(self, number: int) -> State: ...
    def ref(self, scheduler: int, number: int, kept: Any = None) -> TaskRef | None:
        """Return the reference of a task; `kept` comes from its handle, as in `stored`."""

    def due(self, scheduler: int, number: int) -> int | None:
        """Return the due time of a pending task; None in a queue, and if it is not pending."""

    def name_of(self, label: Any) -> str:
        """Return the name of a task from its handle's label."""

    async def stored(self, number: int, kept: Any) -> None:
        """Wait until a durable task is on disk.

        Args:
            number: Its number.
            kept: What its store keeps of it; True if it keeps something.
        """

    def hold(self, task: Any) -> None:
        """Keep the handle until the task ends, because it has callbacks."""

    def release(self, task: Any) -> None:
        """Stop keeping the handle: it has no callbacks any more."""
