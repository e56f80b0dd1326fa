"""The ends of a batch's tasks as they arrive, and the location of each task.

    link ─► Part ─► Outcomes ─┬─► Batch   (awaits, iterates; may be dropped at any time)
                              └─► Task    (made by batch[i], one at a time)

The links hold the `Outcomes` until the last task has ended; the user holds the `Batch`. Once the
batch is dropped, results are discarded as they arrive, and failures are only counted. Failures that
nobody has received are reported then: awaiting the batch receives all of them, iterating it those
before the point where the iteration stopped.
"""

from __future__ import annotations

import asyncio
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ._scheduling.loopthread import Waiters, call_in_loop
from ._scheduling.unheard import describe, report_unheard
from ._shipping.failures import traceback_of
from .home import Home
from .task import State, Task

Decode = Callable[[Any], object]


class Part:
    """Tasks of a batch with consecutive numbers at one link.

    Args:
        outcomes: The outcomes of the whole batch.
        offset: The index of the first task in the batch.
        home: The link that has them.
        scheduler: The scheduler, within the link's worker.
        first: The number of the first task.
        count: How many there are.
        dues: Their due times, or one for all; nanoseconds since the epoch, 0 in a queue.
        moved: Whether this is a single task moved here from another part.
    """

    __slots__ = (
        *("__weakref__", "_dues", "_outcomes", "count", "first", "home", "left", "offset"),
        "scheduler",
    )

    def __init__(
        self,
        outcomes: Outcomes,
        offset: int,
        home: Home,
        scheduler: int,
        first: int,
        count: int,
        dues: int | list[int],
        moved: bool = False,
    ) -> None:
        self.home: Home = home
        self.scheduler: int = scheduler
        self.first: int = first
        self.count: int = count
        self.left: int = count
        self.offset: int = offset
        self._outcomes = outcomes
        self._dues = dues if isinstance(dues, int) else array("q", dues)  # a fifth of the memory
        if moved:
            outcomes.moved[offset] = self
        else:
            outcomes.parts.append(self)

    def __contains__(self, number: int) -> bool:
        return self.first <= number < self.first + self.count

    @property
    def name(self) -> str:
        """The name of the function they call."""
        return self._outcomes.name

    def task(self, number: int) -> Task[Any]:
        """Return the handle of one of the tasks, making it if need be."""
        return self._outcomes.task(self, self.offset + number - self.first)

    def handle(self, number: int) -> Task[Any] | None:
        """Return the handle of one of the tasks, if somebody has it."""
        return self._outcomes.handle(self.offset + number - self.first)

    def due(self, number: int) -> int:
        """The due time of one of the tasks."""
        return self._dues if isinstance(self._dues, int) else self._dues[number - self.first]

    def settle(self, number: int, state: State, value: Any, decode: Decode | None) -> None:
        """Record the end of one task; the last three arguments are those of `Task._settle`."""
        self.left -= 1
        self._outcomes.settle(self.offset + number - self.first, state, value, decode)

    def move(self, number: int, home: Home, scheduler: int, to: int) -> Part:
        """Move one of the tasks; return the part that it becomes.

        Args:
            number: The task's number here.
            home: The link that has it from now on.
            scheduler: The scheduler, within that link's worker.
            to: The task's number there.
        """
        index = self.offset + number - self.first
        part = Part(self._outcomes, index, home, scheduler, to, 1, self.due(number), moved=True)
        self._outcomes.task_moved(index, part)
        return part

    def is_here(self, number: int) -> bool:
        """Return whether one of the tasks has neither ended nor been moved."""
        index = self.offset + number - self.first
        return self._outcomes.states[index] is None and index not in self._outcomes.moved

    def settle_row(
        self, first: int, payloads: list[Any], state: State, decode: Decode | None
    ) -> bool:
        """Record consecutive tasks that ended alike; False means: settle them one by one."""
        index = self.offset + first - self.first
        if not self._outcomes.settle_row(index, payloads, state, decode):
            return False
        self.left -= len(payloads)
        return True


class Outcomes:
    """The ends of a batch's tasks, as they arrive.

    Args:
        count: How many tasks the batch has.
        name: The name of the function they call.
    """

    def __init__(self, count: int, name: str = "") -> None:
        self.name = name
        self.states: list[State | None] = [None] * count
        self.values: list[Any] = [None] * count
        self.decodes: dict[State, Decode | None] = {}
        self.parts: list[Part] = []
        self.moved: dict[int, Part] = {}  # single tasks that have left their parts
        self.left: int = count
        self.first_bad: int | None = None  # the first task, in time, that did not return
        self.dropped: bool = False  # the user's handle is gone
        self.heard: int = 0  # the user has received the ends of all tasks before this one
        self._failed: int = -1  # the failed task to report, unless the user has received its end
        self.durable: bool = False  # its tasks are in a store
        self.tasks: dict[int, weakref.ref[Task[Any]]] = {}
        self._notified: set[int] = set()  # failed tasks whose handles were notified
        self._tracebacks: dict[int, TracebackType | None] = {}  # of failures of this process
        self._waiters = Waiters()

    def settle(self, index: int, state: State, value: Any, decode: Decode | None) -> None:
        self.states[index] = state
        self.left -= 1
        if state is not State.FINISHED and self.first_bad is None:
            self.first_bad = index
        reference = self.tasks.pop(index, None)
        task = reference() if reference is not None else None
        to_report = state is State.FAILED and self._failed < self.heard <= index and task is None
        if to_report:
            self._failed = index
        if not self.dropped or to_report:
            self.values[index] = value
            self.decodes[state] = decode or self.decodes.get(state)
            if decode is None and isinstance(value, BaseException) and traceback_of(value):
                self._tracebacks[index] = traceback_of(value)
        if task is not None:
            self._settle(task, index, state, value, decode)
        self._notify()

    def _settle(
        self, task: Task[Any], index: int, state: State, value: Any, decode: Decode | None
    ) -> None:
        """Notify the handle of one task of its end; it must then report a failure itself."""
        if state is State.FAILED:
            self._notified.add(index)
        task._settle(state, value, decode)

    def _notify(self) -> None:
        if self._waiters:
            self._waiters.wake()
        if not self.left and self.dropped:
            self._report()

    def settle_row(
        self, first: int, values: list[Any], state: State, decode: Decode | None
    ) -> bool:
        """Record the ends of consecutive tasks, unless a task of the batch has its own handle."""
        if self.tasks:
            return False
        until = first + len(values)
        self.states[first:until] = [state] * len(values)
        if not self.dropped:
            self.values[first:until] = values
            self.decodes[state] = decode or self.decodes.get(state)
        if state is not State.FINISHED and self.first_bad is None:
            self.first_bad = first
        self.left -= len(values)
        self._notify()
        return True

    def task(self, part: Part, index: int) -> Task[Any]:
        """Return the handle of one task, making it if need be."""
        task = self.handle(index)
        if task is None:
            number = part.first + index - part.offset
            task = Task(part.home, part.scheduler, number, part.due(number), self.name)
            if self.durable:
                task._kept = self  # its holder learns of the end even if the batch is dropped
            state = self.states[index]
            if state is None:
                self.tasks[index] = weakref.ref(task)
            else:
                value, decode = self._raised(index), self._decode_of(index, state)
                self._settle(task, index, state, value, decode)
        return task

    def handle(self, index: int) -> Task[Any] | None:
        """Return the handle of one task, if somebody has it."""
        known = self.tasks.get(index)
        return None if known is None else known()

    def part_of(self, index: int) -> Part:
        """Return the part that has a task."""
        part = self.moved.get(index)
        return part or self.parts[bisect_right(self.parts, index, key=lambda p: p.offset) - 1]

    def task_moved(self, index: int, part: Part) -> None:
        """Point the handle of a moved task, if there is one, to its new part."""
        task = self.handle(index)
        if task is not None:
            task._home, task._scheduler, task._number = part.home, part.scheduler, part.first

    def check(self, call: str) -> None:
        """Refuse a call in the wrong thread, naming the function to call there."""
        if self.parts:
            self.parts[0].home.loop_thread.check(call)

    async def changed(self) -> None:
        """Wait until another task has ended."""
        await self._waiters.wait(self.parts[0].home.loop_thread.make_waiter())

    def read(self, index: int) -> tuple[Any, bool]:
        """Return the outcome of a task that has ended, and whether it is a failure.

        Raises:
            KeyboardInterrupt: Decoding was interrupted, which has nothing to do with the task.
        """
        state = self.states[index]
        assert state is not None
        if state is State.CANCELLED:
            return asyncio.CancelledError(f"task {index} of the batch was cancelled"), True
        value, decode = self._raised(index), self._decode_of(index, state)
        if decode is None:
            return value, state is not State.FINISHED
        try:
            return decode(value), state is not State.FINISHED
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  a user's class may raise anything here
            return BaseException.with_traceback(error, None), True

    def _decode_of(self, index: int, state: State) -> Decode | None:
        """Return the decoder of an outcome; None for an exception made in this process."""
        own = isinstance(self.values[index], BaseException)
        return None if own else self.decodes.get(state)

    def _raised(self, index: int) -> Any:
        """Return the value of a task that has ended; a failure with its original traceback."""
        value = self.values[index]
        if isinstance(value, BaseException):
            BaseException.with_traceback(value, self._tracebacks.get(index))
        return value

    def drop(self) -> None:
        """Note that the user has dropped the batch: nobody will ask for the results.

        Called by garbage collection, in any thread: the loop must make the report.
        """
        self.dropped = True
        if not self.left and self._failed >= 0:
            call_in_loop(self.parts[0].home.loop, self._report)

    def _report(self) -> None:
        """Report failures that nobody has received to the loop's exception handler, once."""
        heard, notified = self.heard, self._notified
        count = self.states[heard:].count(State.FAILED) - sum(index >= heard for index in notified)
        if count <= 0:
            return
        first = self._failed
        if first < heard or first in notified:  # the others came before the drop, with their values
            first = self.states.index(State.FAILED, heard)
            while first in notified:
                first = self.states.index(State.FAILED, first + 1)
        self.heard = len(self.states)  # the last end and the drop may both come to this
        message = (
            f"{count} of the {len(self.states)} tasks of a batch of {self.name} failed, and nobody "
            f"awaited them; task {first} failed with this"
        )
        part, kept = self.part_of(first), self if self.durable else None
        ref = part.home.ref(part.scheduler, part.first + first - part.offset, kept)
        value, decode = self.values[first], self._decode_of(first, State.FAILED)
        report_unheard(part.home.loop, message, value, decode, describe(self.name, None, ref))
