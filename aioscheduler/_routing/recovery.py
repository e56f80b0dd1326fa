"""Sorts out the tasks of a process that is gone: for the next process, or for good.

a process has ended ─► Book: pending, begun ─► Endings: tasks are lost, with the cause

A task that has blocked its worker for too long is lost, whatever happens to the others: it would
block it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from .._processes.supervisor import Supervisor
from .._processes.workerhandle import WorkerHandle
from .._scheduling.states import State
from ..errors import WorkerLost
from .book import Book
from .endings import Endings, kept_error

log: logging.Logger = logging.getLogger("aioscheduler")


class Recovery:
    """Sorts out the tasks left by the processes in one worker's slot.

    Args:
        worker: The slot, from 0.
        book: The tasks.
        endings: Reports what happens to them.
        rerun: Whether tasks that had started run again if their worker died.
        supervisor: Knows why the last process ended.

    Attributes:
        reason: Why the manager has failed; None while it has not.
    """

    def __init__(
        self, worker: int, book: Book, endings: Endings, rerun: bool, supervisor: Supervisor
    ) -> None:
        self.reason: Exception | None = None
        self._worker = worker
        self._book = book
        self._endings = endings
        self._rerun = rerun
        self._supervisor = supervisor

    def pass_on(self, process: WorkerHandle, exitcode: int | None) -> tuple[str, int]:
        """Keep the tasks that go to the next process, and end the others.

        Returns:
            What happens to them, in words, and how many tasks had begun and not ended.
        """
        book, endings = self._book, self._endings
        for change in book.died([self.begun(process, n) for n in range(book.schedulers)]):
            endings.report(change)
        cause, blocked = self._supervisor.cause, self._blocked(process)
        if blocked is not None:
            for change in book.lose(*blocked):
                errors = [self._lost(exitcode, True, number, cause) for number in change.ended]
                endings.report(change, errors)
            cause = f"another task is to blame: {cause}"
        waiting, running = len(book.ledger) - book.ledger.running, book.ledger.running
        go = "task goes" if waiting == 1 else "tasks go"
        fate = f"{waiting:,} pending {go} to the next process"
        named = endings.describe_running()
        changes = book.sort_running(self._rerun)
        if running:
            fate += f"; {_describe(running, sum(len(c.ended) for c in changes))} ({named})"
        for change in changes:
            errors = [self._lost(exitcode, True, number, cause) for number in change.ended]
            endings.report(change, errors)
        return fate, running

    def begun(self, process: WorkerHandle, scheduler: int) -> tuple[int, int] | None:
        """Return what the black box says; None if it cannot be read."""
        try:
            return process.begun(scheduler)
        except Exception:
            log.exception("the black box of worker %d cannot be read", self._worker)
            return None

    def _blocked(self, process: WorkerHandle) -> tuple[int, int] | None:
        """Return the task that blocked its worker for too long; None: none, or unknown."""
        try:
            return process.blocked()
        except Exception:
            log.exception("the task that has blocked worker %d cannot be read", self._worker)
            return None

    def settle_all(self, exitcode: int | None, lost: bool) -> None:
        """End every task, as there will be no further process. Never raises."""
        try:
            self._book.outbox.pack()
        except Exception:
            log.exception("the tasks scheduled last could not be put into a frame")
        self._endings.settle_all(self._close_book(exitcode, lost))

    def _close_book(
        self, exitcode: int | None, lost: bool
    ) -> Iterator[tuple[Sequence[int], State, Exception | None]]:
        """Yield the ends of all tasks: those that ended alike, how, and their outcome."""
        for numbers, state, started in self._book.close(lost):
            error: Exception | None = None
            if state is State.KEPT:
                error = kept_error(self.reason)
            elif state is State.LOST:
                one = numbers[0] if len(numbers) == 1 else None
                error = self._lost(exitcode, started, one, self._supervisor.cause)
            yield numbers, state, error

    def _lost(
        self, exitcode: int | None, started: bool, number: int | None, cause: str
    ) -> WorkerLost:
        """Return the outcome of a lost task; for many of them, without a number."""
        why = self.reason
        text = "" if why is None else getattr(why, "__notes__", [str(why)])[0]
        error = WorkerLost(self._worker, exitcode, started, text, cause, self._supervisor.name)
        error.__cause__ = why
        task = None if number is None else self._endings.listeners.handle_of(number)
        if task is not None:
            error.add_note(task._note)
        return error


def _describe(running: int, lost: int) -> str:
    """Describe what happens to tasks that had started."""
    if not lost:
        return f"started, to run again: {running:,}"
    if lost == running:
        return f"started, and lost: {running:,}"
    return f"started: {running:,}, of which {lost:,} are lost and the others run again"
