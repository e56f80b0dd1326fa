"""The home of handles whose tasks are in another process (`home.Home`).

Cancelling and rescheduling are left to the link, its subclass (`remote`).
"""

from __future__ import annotations

from typing import Any

from .._scheduling.states import State
from .._shipping.hostshipping import HostShipper
from ..outcomes import Part
from ..task import Task, TaskRef
from .book import Book
from .keeping import Keeping
from .listeners import Listeners


class RemoteHome:
    """The home of the handles of one worker's tasks."""

    book: Book
    shipper: HostShipper
    _worker: int
    _timed: bool
    _manager: str
    _listeners: Listeners
    _keeping: Keeping | None

    async def stored(self, number: int, kept: Any) -> None:
        assert self._keeping is not None
        await self._keeping.stored(number, kept)

    def state(self, number: int) -> State:
        """Return PENDING or RUNNING: handles know themselves when their task has ended."""
        return self.book.state(number)

    def ref(self, scheduler: int, number: int, kept: Any = None) -> TaskRef:
        if self._keeping is not None and (ref := self._keeping.ref(number, kept)) is not None:
            return ref
        return TaskRef(self._manager, self._worker, scheduler, self.book.alias_of(number))

    def due(self, scheduler: int, number: int) -> int | None:
        if not self._timed or self.book.state(number) is State.RUNNING:
            return None
        entry = self.book.find(number)
        return None if entry is None else entry.due

    def name_of(self, label: Any) -> str:
        return self.shipper.name_of(label)

    def hold(self, task: Task[Any]) -> None:
        self._listeners.hold(task)

    def release(self, task: Task[Any]) -> None:
        self._listeners.release(task)

    def detach(self, scheduler: int, number: int) -> Task[Any] | None:
        """Remove and return the handle of a task, if any; nobody is notified of its end."""
        return self._listeners.take(number)

    def attach_part(self, part: Part) -> None:
        """Make a batch the listener of a task that has no handle."""
        self._listeners.add_single(part)

    def scheduler_of(self, number: int) -> int | None:
        """Return the scheduler of a task; None: it has ended."""
        return self.book.outbox.scheduler(number)

    def attach(self, task: Task[Any], scheduler: int, number: int) -> None:
        """Make a handle that of another task, which has none."""
        self._listeners.put(task, scheduler, number)
