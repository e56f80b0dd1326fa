"""Reports what happens to the tasks of a worker to counters and listeners.

    Change ─┬─► counters: placement (pending and unfinished tasks), `stats()`
            └─► listeners: handles and batches (`Listeners`), else the loop's exception handler

Nothing here raises: the book has already struck the task, and the next one must be reported, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any

from .._scheduling.states import State
from .._scheduling.unheard import describe, report
from .._shipping.hostshipping import HostShipper
from .._transport import wire
from .._transport.entry import Entry
from .._transport.ledger import end_of_row
from ..errors import ManagerClosed, RemoteError, WorkerLost
from ..home import Home
from ..outcomes import Decode
from .book import Book
from .changes import Change
from .ids import Ids
from .keeping import Keeping
from .lastfailures import LastFailures
from .link import LoadCounter
from .listeners import Listeners

NO_MEMORY = object()
"""Stands for an outcome for which this process had no memory."""

_CLOSED = "its manager was closed"

_NAMED = 5  # tasks that a message about a death names
_UNHEARD_NAMED = 10  # failed tasks without a handle that are named, between two ticks


class Endings:
    """Reports the endings of one worker slot's tasks.

    Args:
        worker: The slot, from 0.
        home: The home of the handles.
        book: The tasks.
        shipper: Knows the names of functions.
        counter: Counts pending and unfinished tasks.
        counts: Where endings are counted, by the names of `stats.COUNTS`.
        ids: The ids of the manager's tasks.
        keeping: Keeps the durable tasks; None: there is no store.

    Attributes:
        listeners: The listeners of the tasks.
        failures: The last failures of tasks that wait for another attempt.
    """

    def __init__(
        self,
        worker: int,
        home: Home,
        book: Book,
        shipper: HostShipper,
        counter: LoadCounter,
        counts: Counter[str],
        ids: Ids,
        keeping: Keeping | None = None,
    ) -> None:
        self.listeners: Listeners = Listeners(home)
        self.failures: LastFailures = LastFailures()
        self._worker = worker
        self._home = home
        self._book = book
        self._shipper = shipper
        self._counter = counter
        self._counts = counts
        self._ids = ids
        self._own_ids = ids.of[worker]
        self._keeping = keeping
        # Names and ids of failing tasks without a handle.
        self._unheard: dict[int, tuple[str, str | None]] = {}
        self._may_name = _UNHEARD_NAMED

    def report(
        self,
        change: Change,
        values: Sequence[Any] = (),
        decode: Decode | None = None,
        singly: bool = False,
        ending: int = wire.FAILED,
    ) -> None:
        """Report what a verb of the book has changed.

        Args:
            change: The result of the verb.
            values: The outcomes of the ended tasks, in order; there may be more. For cancelled
                tasks only if nobody has asked for it.
            decode: Decodes an outcome when it is asked for.
            singly: Whether NO_MEMORY may be among them.
            ending: More about failures; see `wire`.
        """
        scheduler, waiting, ended, state, _ = change
        if state is State.KEPT:
            values, decode = [kept_error(None)] * len(ended), None
        if len(values) < len(ended) and state is not State.CANCELLED:
            raise ValueError(
                f"{len(values)} outcomes for {len(ended)} tasks that are {state.value}"
            )
        if waiting:
            self._counter.count_waiting(self._worker, scheduler, waiting)
        if not ended:
            return
        outcomes = values
        if state is State.CANCELLED:
            values, decode = [None] * len(ended), None
            self.failures.log_cancelled(ended, self._home.ref)
        if self._own_ids or self._ids.leads:  # before listeners run, which may use one
            self._ids.ended(self._worker, ended)
        self._counts[state.value] += len(ended)
        if ending == wire.TOO_LATE:
            self._counts["too_late"] += len(ended)
        durable: Collection[int] = ()
        if self._keeping is not None:
            durable = self._keeping.ended(ended, state, outcomes, ending)
        if state is State.FINISHED and self.listeners.has_batches and not singly:
            self._settle_rows(scheduler, ended, values, decode)
        else:
            for number, value in zip(ended, values, strict=False):
                self._settle(scheduler, number, state, value, decode, number in durable)
        self._book.forget(ended)
        self._counter.count_ended(self._worker, scheduler, len(ended))

    def lost_by_close(self, numbers: Sequence[int]) -> list[Exception]:
        """Return the outcomes of tasks that were stopped and must not start a second time."""
        return [WorkerLost(self._worker, None, True, cause=_CLOSED) for _ in numbers]

    def retried(self, change: Change, numbers: Sequence[int], lines: Sequence[str]) -> None:
        """Report that tasks have failed and wait for another attempt.

        Args:
            change: What the book has changed, with the tasks it ended as they were asked to cancel.
            numbers: The tasks that the worker has reported.
            lines: Why each has failed.
        """
        known = len(numbers) if change.refused is None else numbers.index(change.refused)
        self._counts["retried"] += change.waiting
        self.failures.note(change.scheduler, numbers[:known], lines[:known])
        self.report(change)

    def _settle_rows(
        self, scheduler: int, numbers: Sequence[int], values: Sequence[Any], decode: Decode | None
    ) -> None:
        """Report results; those of one batch with consecutive numbers at once."""
        start = 0
        while start < len(numbers):
            stop = end_of_row(numbers, start)
            row = list(values[start:stop])
            first = numbers[start]
            if len(row) == 1 or not self.listeners.settle_row(first, row, State.FINISHED, decode):
                for number, value in enumerate(row, first):
                    self._settle(scheduler, number, State.FINISHED, value, decode)
            start = stop

    def _settle(
        self,
        scheduler: int,
        number: int,
        state: State,
        value: Any,
        decode: Decode | None,
        durable: bool = False,
    ) -> None:
        """Notify a task's listeners of its end, or the loop if it failed and has none.

        A durable task that failed is a dead letter, which is reported by `Burials`.
        """
        if value is NO_MEMORY:
            self._counts[state.value] -= 1
            state, value, decode = State.FAILED, _no_memory(state), None
            self._counts[state.value] += 1
        heard = self.listeners.settle(number, state, value, decode)
        if not heard and state is State.FAILED and not durable:
            name, id_ = self._unheard.pop(number, ("", None))
            ref = self._home.ref(scheduler, number)
            who = " ".join(filter(None, ("task", name, id_ and repr(id_), str(ref))))
            report(self._home.loop, who, value, decode, describe(name, id_, ref))

    def settle_all(self, ends: Iterable[tuple[Sequence[int], State, Any]]) -> None:
        """Report the end of every remaining task, very many at a time.

        Args:
            ends: Tasks that have ended alike, how, and their outcome.
        """
        for numbers, state, value in ends:
            if self._own_ids or self._ids.leads:
                self._ids.ended(self._worker, numbers)
            self._counts[state.value] += len(numbers)
            if self._keeping is not None:
                self._keeping.ended(numbers, state, [value] * len(numbers))
            if state is State.CANCELLED:
                self.failures.log_cancelled(numbers, self._home.ref)
            self.listeners.settle_alike(numbers, state, value)
            self._book.forget(numbers)
        self._counter.count_emptied(self._worker)

    # ---- names

    def name(self, number: int, entry: Entry) -> str:
        """Return the name of a task that has no handle; "" if it is not known."""
        label = self._shipper.label(entry.function, entry.record)
        name = label if isinstance(label, str) else self._shipper.name_of(label)
        return name or self.listeners.name_of_batch(number)

    def describe_running(self) -> str:
        """Name a few of the tasks that have started and not ended."""
        ledger = self._book.ledger
        names = []
        for number, entry in ledger.read(list(islice(ledger.running_numbers(), _NAMED))).items():
            task = self.listeners.find(number)
            name = self.name(number, entry) if task is None else task.name
            names.append(f"{name and name + ' '}{self._home.ref(entry.scheduler, number)}")
        more = f" and {ledger.running - _NAMED:,} more" if ledger.running > _NAMED else ""
        return ", ".join(names) + more

    def name_unheard(self, numbers: Sequence[int]) -> None:
        """Look up names of failing tasks without a handle, while they are known.

        Only a few: it takes 0.1 ms each, and a million may fail.
        """
        self._unheard.clear()
        for number in numbers:
            if not self._may_name:
                break
            if number not in self.listeners:
                self._may_name -= 1
                entry = self._book.ledger.find(number)
                if entry is not None:
                    self._unheard[number] = self.name(number, entry), self._own_ids.get(number)

    def look_after(self) -> None:
        """Forget dropped listeners; called once a tick."""
        self._may_name = _UNHEARD_NAMED
        self.listeners.forget_dropped()


def kept_error(reason: Exception | None) -> ManagerClosed:
    """Return the error raised by awaiting a task that stays in the store.

    Args:
        reason: Why the manager has failed, if it has.
    """
    how = "was closed" if reason is None else "has failed"
    error = ManagerClosed(
        f"the manager {how} before this durable task had ended; it stays in the store, and the "
        "next manager with that store goes on with it"
    )
    error.__cause__ = reason
    return error


def _no_memory(state: State) -> Exception:
    return RemoteError(
        "MemoryError",
        f"the task has {state.value}, and this process has no memory for its outcome",
        "",
    )
