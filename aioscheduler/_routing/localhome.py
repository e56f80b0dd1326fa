"""The home of handles whose tasks are in this loop (`home.Home`).

Cancelling, rescheduling and attaching handles are left to the link, its subclass (`local`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._scheduling.engine import Engine
from .._scheduling.states import State
from ..task import Task, TaskRef
from .ids import Ids
from .keeping import Keeping
from .localentry import Entry, start_of
from .localrunner import LocalRunner


class LocalHome:
    """The home of the handles of one loop's tasks."""

    engines: Sequence[Engine[Entry]]
    _runner: LocalRunner
    _ids: Ids
    _keeping: Keeping | None

    async def stored(self, number: int, kept: Any) -> None:
        assert self._keeping is not None
        await self._keeping.stored(number, kept)

    def state(self, number: int) -> State:
        runs = any(engine.running.find(number) is not None for engine in self.engines)
        return State.RUNNING if runs else State.PENDING

    def ref(self, scheduler: int, number: int, kept: Any = None) -> TaskRef | None:
        if self._keeping is not None and (ref := self._keeping.ref(number, kept)) is not None:
            return ref
        return self._runner.ref(scheduler, number)

    def due(self, scheduler: int, number: int) -> int | None:
        engine = self.engines[scheduler]
        entry = engine.find(number)
        begun = engine.running.find(number) is not None
        return None if entry is None or begun else start_of(entry) or None

    def name_of(self, label: Any) -> str:
        return str(label)

    def hold(self, task: Task[Any]) -> None:
        self._runner.held.add(task)

    def release(self, task: Task[Any]) -> None:
        self._runner.held.discard(task)

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Return a handle on a task that has not ended, else None."""
        entry = self.engines[scheduler].find(number)
        if entry is None:
            return None
        listener = entry[0] if isinstance(entry[0], Task) else entry[0].task(number)
        if number in self._ids.of[0]:  # a handle of a stored task may lack it
            listener._id = self._ids.of[0][number]
        return listener

    def scheduler_of(self, number: int) -> int | None:
        """Return the scheduler of a task; None: it has ended."""
        return next((e.index for e in self.engines if e.find(number) is not None), None)
