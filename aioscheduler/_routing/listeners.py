"""The listeners of a worker's tasks, notified of their ends: handles and batches.

A handle is referenced weakly: once its user has dropped it, the task ends unheard. Only one with a
callback that somebody waits for is kept here. A batch is known by its parts (`outcomes.Part`),
indexed by pages of numbers, so that a row of results finds its part at once.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .._transport.ledger import PAGE
from ..home import Home
from ..outcomes import Decode, Part
from ..task import State, Task

log: logging.Logger = logging.getLogger("aioscheduler")

FORGET_AT = 64  # dropped handles; fewer are not worth a look
FORGET_MOST = 10_000  # handles at a time, which takes a few milliseconds


class Listeners:
    """The listeners of the tasks of one slot.

    Args:
        home: The home of the handles made here.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._handles: dict[int, _Handle] = {}
        # Garbage collection appends here, in any thread, at any moment.
        self._dropped: deque[_Handle] = deque()
        self._held: set[Task[Any]] = set()  # handles whose callbacks somebody waits for
        self._parts: dict[int, list[Part]] = {}  # of batches, by page
        self._singles: dict[int, Part] = {}  # parts of one task that was elsewhere before

    def hand_out(
        self, scheduler: int, number: int, when: datetime | int, label: object
    ) -> Task[Any]:
        """Make a handle, and remember it as long as it is referenced elsewhere."""
        task: Task[Any] = Task(self._home, scheduler, number, when, label)
        handle = self._handles[number] = _Handle(task, self._dropped.append)
        handle.number = number
        if len(self._dropped) > FORGET_AT:
            self.forget_dropped()
        return task

    def take(self, number: int) -> Task[Any] | None:
        """Forget and return the handle of a task."""
        handle = self._handles.pop(number, None)
        task = None if handle is None else handle()
        if task is not None:
            self._held.discard(task)
        return task

    def put(self, task: Task[Any], scheduler: int, number: int) -> None:
        """Make a handle that of another task, which has none."""
        task._home, task._scheduler, task._number = self._home, scheduler, number
        handle = self._handles[number] = _Handle(task, self._dropped.append)
        handle.number = number
        if task._callbacks:
            self.hold(task)

    def hold(self, task: Task[Any]) -> None:
        """Keep a handle until its task ends."""
        self._held.add(task)

    def release(self, task: Task[Any]) -> None:
        """Stop keeping a handle."""
        self._held.discard(task)

    def add(self, part: Part) -> None:
        """Add the tasks of a batch."""
        self._parts.setdefault(part.first // PAGE, []).append(part)

    def add_single(self, part: Part) -> None:
        """Add a task of a batch that was elsewhere before."""
        self._singles[part.first] = part

    def numbers(self) -> list[int]:
        """Return the tasks outside batches that may have a handle."""
        return list(self._handles)

    def find(self, number: int) -> Task[Any] | None:
        """Return the handle of a task, if it has one or its batch can make one."""
        part = self._part_of(number)
        return self.handle_of(number) if part is None else part.task(number)

    def handle_of(self, number: int) -> Task[Any] | None:
        """Return the handle of a task outside batches, if it still exists."""
        handle = self._handles.get(number)
        return handle() if handle is not None else None

    def name_of_batch(self, number: int) -> str:
        """Return the name of the function of a task's batch; "" if it is in none."""
        part = self._part_of(number)
        return "" if part is None else part.name

    def __bool__(self) -> bool:
        """Whether there may be listeners."""
        return bool(self._handles or self._parts or self._singles)

    def __contains__(self, number: int) -> bool:
        """Whether a task has a listener."""
        return self.handle_of(number) is not None or self._part_of(number) is not None

    def settle(self, number: int, state: State, value: Any, decode: Decode | None) -> bool:
        """Report a task's end, with arguments as for `Task._settle`; False if nobody listens.

        Never raises: the task is struck already, and the next one must be reported, too.
        """
        handle = self._handles.pop(number, None)
        task = handle() if handle is not None else None
        part = self._part_of(number) if self.has_batches else None
        try:
            if task is not None:
                task._settle(state, value, decode)
            if part is not None:
                part.settle(number, state, value, decode)
                self._tidy(part)
        except Exception:  # as when the loop is closed
            log.exception("the end of task %d could not be reported", number)
        if self._held and task is not None:
            self._held.discard(task)
        return task is not None or part is not None

    def settle_row(
        self, first: int, payloads: list[Any], state: State, decode: Decode | None
    ) -> bool:
        """Report the ends of consecutive tasks, at a tenth of the cost, if all are of one batch.

        The state must not be FAILED. False if they are not of one batch, or one has a listener of
        its own: nothing is reported then. Never raises, like `settle`.
        """
        if self._dropped:
            self.forget_dropped()
        count = len(payloads)
        part = self._part_of(first)
        if part is None or first + count - 1 not in part or self._held:
            return False
        if self._handles and any(n in self._handles for n in range(first, first + count)):
            return False
        try:
            if not part.settle_row(first, payloads, state, decode):
                return False
            self._tidy(part)
        except Exception:
            log.exception("the ends of %d tasks from %d could not be reported", count, first)
        return True

    def settle_alike(self, row: Sequence[int], state: State, value: Any) -> None:
        """Report the ends of consecutive tasks, which have ended alike."""
        if self.has_batches and self.settle_row(row[0], [value] * len(row), state, None):
            return
        if self.has_batches or self._handles:
            for number in row:
                self.settle(number, state, value, None)

    @property
    def has_batches(self) -> bool:
        """Whether there are tasks of batches."""
        return bool(self._parts or self._singles)

    def _part_of(self, number: int) -> Part | None:
        for part in self._parts.get(number // PAGE, ()):
            if number in part:
                return part
        return self._singles.get(number)

    def _tidy(self, part: Part) -> None:
        """Forget a part whose tasks have all ended."""
        if not part.left and self._singles.pop(part.first, None) is not part:
            page = part.first // PAGE
            self._parts[page].remove(part)
            if not self._parts[page]:
                del self._parts[page]

    def forget_dropped(self) -> None:
        """Forget dropped handles, but not too many at once, so as not to block the loop."""
        dropped = self._dropped
        for _ in range(min(len(dropped), FORGET_MOST)):
            handle = dropped.popleft()
            # A new handle may have replaced it.
            if self._handles.get(handle.number) is handle:
                del self._handles[handle.number]


class _Handle(weakref.ref[Task[Any]]):
    """A weak reference to a handle that keeps the number of its task."""

    __slots__ = ("number",)
    number: int
