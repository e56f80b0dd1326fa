"""What is said of the end of a worker process."""

from __future__ import annotations

from ..errors import describe_exit


def report_end(who: str, told: str, exitcode: int | None, cause: str) -> str:
    """Return how a process has ended that had begun; of several lines, the last is empty.

    Args:
        who: The process.
        told: What it was told before, if it was; "" if not.
        exitcode: Its exit code; None if that is not known.
        cause: What it, or who has killed it, says of it.
    """
    end = f"{who} {told and f'{told} and '}{describe_exit(exitcode)}"
    if "\n" in cause:
        return f"{end}: {cause}\n"
    return f"{end}{cause and f' ({cause})'}"


def report_start(who: str, exitcode: int | None, cause: str, traceback: str | None) -> str:
    """Return why a process could not begin.

    Args:
        who: The process.
        exitcode: Its exit code; None if that is not known.
        cause: As for `report_end`.
        traceback: What the process has said itself, if it has.
    """
    if traceback is not None:
        return f"{who} could not begin:\n\n{traceback}"
    how = f"{who} {describe_exit(exitcode)} before it was ready"
    return f"{how}; {cause or 'look at its output above'}"
