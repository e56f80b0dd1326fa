"""Many tasks of one call: one handle for all of them, single handles only on request.

A batch reads its results from its `Outcomes`, which the links notify of each end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import Any, Generic, TypeVar

from .outcomes import Outcomes
from .task import State, Task

T = TypeVar("T")


class Batch(Generic[T]):
    """A handle on the tasks of one `map` or `starmap`: await it, iterate over it, or drop it.

    `await batch` returns the results in order, or raises the first failure as soon as it happens,
    like `asyncio.gather`. `async for` yields the results in order, as they arrive, and raises the
    failure of a task at its position, which ends the loop. The iterator itself can go on: after an
    error raised by `anext`, call `anext` again for the next result.

    With `return_exceptions` neither raises the failure of a task: the failure takes the position
    of its result, and so does the `asyncio.CancelledError` of a cancelled task.

    `batch[i]` is the handle of one task. Batches are made by `map` and `starmap`, never by hand.
    """

    def __init__(self, outcomes: Outcomes, return_exceptions: bool = False) -> None:
        self._outcomes = outcomes
        self._return_exceptions = return_exceptions

    def __del__(self) -> None:
        if hasattr(self, "_outcomes"):  # absent if made by hand with wrong arguments
            self._outcomes.drop()

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self._outcomes.states)

    def __getitem__(self, index: int) -> Task[T]:
        """Return the handle of one task.

        Raises:
            IndexError: There is no such task.
            TypeError: The index is no int.
            RuntimeError: Called from a thread other than the manager's.
        """
        self._outcomes.check("function, batch")
        if not isinstance(index, int):
            raise TypeError(f"a batch is indexed by int, not {type(index).__name__}")
        if not -len(self) <= index < len(self):
            raise IndexError(f"the batch has {len(self)} tasks, none with index {index}")
        index %= len(self)
        return self._outcomes.task(self._outcomes.part_of(index), index)

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self._gather().__await__()

    def __aiter__(self) -> AsyncIterator[T]:
        return _Iteration(self)

    def done(self) -> bool:
        """Return whether every task has ended."""
        return not self._outcomes.left

    def cancel(self) -> bool:
        """Request the cancellation of all tasks that have not ended; return False if all have.

        Raises:
            RuntimeError: Called from a thread other than the manager's.
        """
        self._outcomes.check("batch.cancel")
        states = self._outcomes.states
        asked = False
        for part in self._outcomes.parts:
            for number in range(part.first, part.first + part.count):
                if part.is_here(number):
                    asked |= part.home.cancel(part.scheduler, number)
        for index, part in list(self._outcomes.moved.items()):
            if states[index] is None:
                asked |= part.home.cancel(part.scheduler, part.first)
        return asked

    def __repr__(self) -> str:
        outcomes = self._outcomes
        return f"<Batch of {len(self)} tasks of {outcomes.name}, {outcomes.left} not ended>"

    async def _gather(self) -> list[T]:
        outcomes, quiet = self._outcomes, self._return_exceptions
        while outcomes.left and (quiet or outcomes.first_bad is None):
            await outcomes.changed()
        outcomes.heard = len(self)
        if quiet:
            return [outcomes.read(index)[0] for index in range(len(self))]
        if outcomes.first_bad is not None:
            failure, _ = outcomes.read(outcomes.first_bad)
            try:
                raise failure
            finally:
                del self, outcomes, failure  # no reference cycle, as in `Task.result`
        decode = outcomes.decodes.get(State.FINISHED)
        if decode is None:
            return list(outcomes.values)
        # Any value but bytes is the result itself (rule 2 of `wire`).
        return [decode(v) if isinstance(v, bytes) else v for v in outcomes.values]  # type: ignore[misc]  # Ts by now


class _Iteration(AsyncIterator[T]):
    """The iterator over a batch: yields each outcome once, in order, even to concurrent callers.

    It is no generator, which would be exhausted by the first failure that it raises.
    """

    __slots__ = ("_batch", "_next")

    def __init__(self, batch: Batch[T]) -> None:
        self._batch = batch  # otherwise it would be dropped, and its results with it
        self._next = 0

    async def __anext__(self) -> T:
        outcomes = self._batch._outcomes
        states = outcomes.states
        while self._next < len(states) and states[self._next] is None:
            await outcomes.changed()
        if self._next == len(states):
            raise StopAsyncIteration
        value, failed = outcomes.read(self._next)
        self._next += 1
        outcomes.heard = max(outcomes.heard, self._next)
        if not failed or self._batch._return_exceptions:
            return value  # type: ignore[no-any-return]  # a T by now
        try:
            if isinstance(value, StopAsyncIteration):  # it would end `async for` silently
                raise RuntimeError("a task of the batch raised StopAsyncIteration") from value
            raise value
        finally:
            del self, outcomes, value  # no reference cycle, as in `Task.result`
