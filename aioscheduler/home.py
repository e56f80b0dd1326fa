"""What a handle asks of the home of its task: the link that has it, or the shelf."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Protocol

from ._scheduling.loopthread import LoopThread
from ._scheduling.states import State
from .refs import TaskRef


class Home(Protocol):
    """Handles are of any type here, for they know this module."""

    loop: asyncio.AbstractEventLoop | None
    loop_thread: LoopThread
    identity: int
    """128 random bits, from which the uuids of its tasks are made."""

    def new_due(self, when: datetime | timedelta | None, /) -> int:
        """Read the time to which a task is rescheduled; a queue refuses all."""

    def cancel(self, scheduler: int, number: int) -> bool: ...
    def reschedule(self, scheduler: int, number: int, due: int) -> bool: ...
    def state(self, number: int) -> State: ...
    def ref(self, scheduler: int, number: int, kept: Any = None) -> TaskRef | None:
        """The reference of a task; `kept` is what its store keeps of it, as the handle has it."""

    def due(self, scheduler: int, number: int) -> int | None:
        """When a task that waits is to start; None in a queue, and for what does not wait."""

    def name_of(self, label: Any) -> str:
        """The name of a task from what its handle was given as its label."""

    async def stored(self, number: int, kept: Any) -> None:
        """Return when a durable task is on disk.

        Args:
            number: Its number.
            kept: What its store keeps of it; True: it has something.
        """

    def hold(self, task: Any) -> None:
        """Keep the handle until the task ends: somebody waits for its callbacks."""

    def release(self, task: Any) -> None:
        """Keep the handle no longer: nobody waits for it any more."""
