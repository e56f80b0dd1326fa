"""What is said of the end of a worker process: a line, and below it what is longer."""

from __future__ import annotations

from .._shipping.failures import in_a_line
from ..errors import describe_exit

HELD_UP: str = (
    "when the manager was closed, this task or another there swallowed its cancellation, or kept "
    "the loop busy; on CancelledError, clean up and raise it again"
)
"""What has ended a task whose worker did not end when it was told to."""


SILENT: str = "does not answer: it is stopped, or a task keeps its loop busy; its tasks wait"
"""What is said of a process of which nothing is heard, after its name."""


def name_process(worker: str, node: str | None, pid: int | None) -> str:
    """Return what a process is called in messages.

    Args:
        worker: Its slot.
        node: The machine that it is on, if that is not this one.
        pid: Its process id, if that is known.
    """
    where = "" if node is None else f" on node {node}"
    return f"{worker}{where}" if pid is None else f"{worker}{where} (pid {pid})"


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
    if exitcode is None and cause:  # which says it
        how = "ended"
    line, details = in_a_line(cause, traceback or ""), (cause or traceback or "").strip()
    below = details.removeprefix(line).strip("\n")
    end = f"{who} {told and f'{told} and '}{how}{line and f' ({line})'}"
    return f"{end}\n{below}" if below else end


def report_start(who: str, exitcode: int | None, cause: str, traceback: str | None) -> str:
    """Return why a process could not begin; see `report_end`."""
    if traceback is not None:
        return f"{who} could not begin ({in_a_line('', traceback)})\n\n{traceback}"
    ended = "ended" if exitcode is None and cause else describe_exit(exitcode)
    how = f"{who} {ended} before it was ready"
    return f"{how}; {cause or 'look at its output above'}"


def is_said(times: int) -> bool:
    """Return whether the log has the n-th failure in a row: the first, and then ever fewer.

    What is tried again for ever fails every few seconds, for days.
    """
    return times & (times - 1) == 0


def report_slow(who: str, seconds: float, refilling: bool) -> str:
    """Return what is said of a process that takes long to be ready.

    Args:
        who: The process.
        seconds: How long it has taken.
        refilling: Whether it takes the place of one that was recycled.
    """
    text = (
        f"{who} is not ready after {seconds:.0f} s: its initializer, or an import, takes long; its "
        "tasks wait, and new ones go elsewhere if they can"
    )
    return f"{text}; no other worker is recycled until it is" if refilling else text
