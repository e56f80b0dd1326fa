"""What is said of the end of a worker process: a line, and below it what is longer."""

from __future__ import annotations

from .._shipping.failures import in_a_line
from ..errors import describe_exit


def report_end(who: str, told: str, exitcode: int | None, cause: str, traceback: str | None) -> str:
    """Return how a process has ended that had begun.

    Args:
        who: The process.
        told: What it was told before, if it was; "" if not.
        exitcode: Its exit code; None if that is not known.
        cause: Why it was killed, or its last words; "" if there are none.
        traceback: What it has said of itself, if it has: then it has failed, and ends in order.
    """
    failed = traceback is not None and exitcode == 0
    how = "could not go on" if failed else describe_exit(exitcode)
    line, details = in_a_line(cause, traceback or ""), (cause or traceback or "").strip()
    below = details.removeprefix(line).strip("\n")
    end = f"{who} {told and f'{told} and '}{how}{line and f' ({line})'}"
    return f"{end}\n{below}" if below else end


def report_start(who: str, exitcode: int | None, cause: str, traceback: str | None) -> str:
    """Return why a process could not begin; see `report_end`."""
    if traceback is not None:
        return f"{who} could not begin ({in_a_line('', traceback)})\n\n{traceback}"
    how = f"{who} {describe_exit(exitcode)} before it was ready"
    return f"{how}; {cause or 'look at its output above'}"
