"""The last failures of tasks that wait for another attempt, logged if that never comes.

A failure followed by another attempt is not reported. If the task is cancelled while it waits, that
failure was its last, and is logged in one line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from .._shipping.failures import line_of

MOST = 10_000
"""Tasks of a worker whose failures are kept, the most recent ones: 3 MB at most."""

_LONGEST = 300  # characters of a line, whatever a worker sends
_LONGEST_NAME = 90  # of a name in it; the rest is `line_of`'s

log: logging.Logger = logging.getLogger("aioscheduler")


def failure_line(name: str, error: BaseException) -> str:
    """Return the line kept of a task's failure. Never raises.

    Args:
        name: The task's name.
        error: The exception it raised.
    """
    return f"{name[:_LONGEST_NAME]}: {line_of(error)}"


class LastFailures:
    """The last failures of tasks that wait for another attempt, in a line each."""

    def __init__(self) -> None:
        self._lines: dict[int, tuple[int, str]] = {}  # with the scheduler, oldest first

    def __len__(self) -> int:
        return len(self._lines)

    def note(self, scheduler: int, numbers: Sequence[int], lines: Sequence[str]) -> None:
        """Keep why tasks have failed; each line begins with the task's name."""
        for number, line in zip(numbers, lines, strict=True):
            self._lines[number] = scheduler, line[:_LONGEST]
        while len(self._lines) > MOST:
            del self._lines[next(iter(self._lines))]

    def forget(self, numbers: Iterable[int]) -> None:
        """Forget the failures of tasks that have started once more."""
        if self._lines:
            for number in numbers:
                self._lines.pop(number, None)

    def log_cancelled(self, cancelled: Iterable[int], ref: Callable[[int, int], object]) -> None:
        """Log why the last attempts of cancelled tasks failed.

        Args:
            cancelled: Their numbers.
            ref: Return the reference of a task, given its scheduler and number.
        """
        if not self._lines:
            return
        for number in cancelled:
            known = self._lines.pop(number, None)
            if known is not None:
                scheduler, line = known
                log_failure(ref(scheduler, number), line)


def log_failure(task: object, line: str) -> None:
    """Log why a cancelled task's last attempt failed, in a line with its name."""
    with suppress(Exception):  # a user's filter may raise; other tasks must still be logged
        log.info(
            "task %s was cancelled while it waited for another attempt; the last one failed: %s",
            task,
            line,
        )
