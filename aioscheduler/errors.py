"""The errors of this package, under one root.

    AioschedulerError
    ├── TaskLimitReached (ValueError)   `max_tasks` tasks are waiting already
    ├── NotShippable (TypeError)        something cannot travel to a worker process
    │   └── NotDurable                  … or cannot be read again after a restart
    ├── UnknownTask (LookupError)       a reference to no unfinished task of this manager
    ├── ManagerClosed (RuntimeError)    scheduling after close, or after a fatal error
    ├── StoreError                      the file of the durable tasks cannot be used
    │   └── StoreLocked                 … because another host has it open
    ├── TooLate                         a task would have started later than allowed
    ├── WorkerStartError                a worker process could not start
    ├── WorkerLost                      a worker process ended before its tasks did
    ├── RemoteError                     a failure or result that could not travel back
    └── RemoteTraceback                 the worker's traceback, as the cause of a failure

Wrong values and types are plain `ValueError` and `TypeError`, as everywhere in Python.
"""

from __future__ import annotations

import signal


class AioschedulerError(Exception):
    """The root of this package's errors."""


class TaskLimitReached(AioschedulerError, ValueError):
    """`max_tasks` tasks are waiting to start; the task was not accepted."""


class NotShippable(AioschedulerError, TypeError):
    """A coroutine, or something it needs, cannot travel to a worker process."""


class NotDurable(NotShippable):
    """The next host could not read a durable task, or something it needs."""


class StoreError(AioschedulerError):
    """The file of the durable tasks cannot be opened, read or written; its contents are kept."""


class StoreLocked(StoreError):
    """Another host, or a process left over from one, has the file open.

    Attributes:
        pids: The process ids, as far as they are known.
    """

    def __init__(self, text: str, pids: tuple[int, ...] = ()) -> None:
        super().__init__(text, pids)
        self.pids: tuple[int, ...] = pids

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownTask(AioschedulerError, LookupError):
    """The reference does not lead to an unfinished task of this manager."""


class ManagerClosed(AioschedulerError, RuntimeError):
    """The manager (or scheduler) accepts no more tasks; the cause, if any, is chained."""


class TooLate(AioschedulerError):
    """The task would have started later than its `max_lateness` allows.

    Attributes:
        lateness: Seconds from its due time.
        attempt: The number of the attempt: 1, or more with `on_worker_loss="rerun"`.
    """

    def __init__(self, name: str, lateness: float, limit: float, attempt: int = 1) -> None:
        super().__init__(name, lateness, limit, attempt)
        self.lateness: float = lateness
        self.attempt: int = attempt

    def __str__(self) -> str:
        name, lateness, limit, attempt = self.args
        what = f"task {name}" if attempt == 1 else f"attempt {attempt} of task {name}"
        return (
            f"{what} was not started, as it was {lateness:.3f} s late and its max_lateness is "
            f"{limit:g} s"
        )


class WorkerStartError(AioschedulerError):
    """A worker process ended, or its initializer raised, before it was ready."""


class WorkerLost(AioschedulerError):
    """The worker process that had the task ended before the task did.

    Attributes:
        worker: The worker's slot, from 0.
        exitcode: As in `multiprocessing`: minus the signal's number, or the status; None if it is
            unknown.
        started: True if the task may have begun to run; False if it certainly had not; None if
            this is about the worker and not a task: the reason why a manager has failed.
        reason: Why the manager has failed; empty if it has not.
        cause: What ended the process, in one line; empty if only the exit code is known.
        manager: The name given to its manager; empty if none was.
    """

    def __init__(
        self,
        worker: int,
        exitcode: int | None,
        started: bool | None,
        reason: str = "",
        cause: str = "",
        manager: str = "",
    ) -> None:
        super().__init__(worker, exitcode, started, reason, cause, manager)
        self.worker = worker
        self.exitcode = exitcode
        self.started = started
        self.reason = reason
        self.cause = cause
        self.manager = manager

    def __str__(self) -> str:
        known = self.exitcode is not None or not self.cause
        how = describe_exit(self.exitcode) if known else "ended"
        end = f"worker {self.worker}{self.manager and f' of {self.manager}'} {how}"
        if self.cause:
            end += f" ({self.cause})"
        if self.started is None:
            return end
        begun = (
            "the task may have run in part; schedule it again only if that is safe"
            if self.started
            else "the task had not started; it is safe to schedule it again"
        )
        if self.reason:
            return f"{begun}, with a new manager, as this one has failed: {self.reason}"
        return f"{end}; {begun}"


class RemoteError(AioschedulerError):
    """A failure or a result that could not travel between processes.

    Attributes:
        type_name: The qualified name of the original's type.
        text: The message of the failure, or the repr of the result.
        remote_traceback: The traceback in the process where it happened.
    """

    def __init__(self, type_name: str, text: str, remote_traceback: str) -> None:
        super().__init__(type_name, text, remote_traceback)
        self.type_name = type_name
        self.text = text
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}\n\n{self.remote_traceback}"


class RemoteTraceback(AioschedulerError):
    """The traceback of a task's failure, as text: the failure's `__cause__`.

    The idea is from `concurrent.futures.process`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"


EXIT_OF_BLOCKED: int = 213
"""The exit status of a worker that its `block_timeout` ends; few other programs use it."""


def describe_exit(exitcode: int | None) -> str:
    """Return how a process ended, in words: `was killed by SIGKILL`, `exited with status 3`."""
    if exitcode is None:
        return "ended, its exit code is not known"
    if exitcode == EXIT_OF_BLOCKED:
        return "was ended by its block_timeout"
    if exitcode >= 0:
        return f"exited with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return f"was killed by {name}"
