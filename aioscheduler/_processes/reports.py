"""The reports on the end of a worker process: a line, with any details below it."""

from __future__ import annotations

from .._shipping.failures import in_a_line
from ..errors import describe_exit

HELD_UP: str = (
    "when the manager was closed, this task or another there swallowed its cancellation, or kept "
    "the loop busy; on CancelledError, clean up and raise it again"
)
"""The cause of loss of a task whose worker did not end when the manager was closed."""


SILENT: str = "does not answer: it is stopped, or a task keeps its loop busy; its tasks wait"
"""The report on a silent process, to follow its name."""


def name_process(worker: str, node: str | None, pid: int | None) -> str:
    """Return the name of a process in messages.

    Args:
        worker: The name of its slot.
        node: Its machine, if not this one.
        pid: Its process id, if known.
    """
    where = "" if node is None else f" on node {node}"
    return f"{worker}{where}" if pid is None else f"{worker}{where} (pid {pid})"


def report_end(who: str, why: str, exitcode: int | None, cause: str, traceback: str | None) -> str:
    """Return how a process ended that had become ready.

    Args:
        who: The name of the process.
        why: "was recycled" or "was told to end", if it was draining; "" if not.
        exitcode: Its exit code; None if it is not known.
        cause: Why it was killed, or its last words; "" if there are none.
        traceback: The traceback that it sent in FATAL before it ended, if it did.
    """
    failed = traceback is not None and exitcode == 0
    how = "could not go on" if failed else describe_exit(exitcode)
    if exitcode is None and cause:  # the cause says more
        how = "ended"
    line, details = in_a_line(cause, traceback or ""), (cause or traceback or "").strip()
    below = details.removeprefix(line).strip("\n")
    end = f"{who} {why and f'{why} and '}{how}{line and f' ({line})'}"
    return f"{end}\n{below}" if below else end


def report_start(who: str, exitcode: int | None, cause: str, traceback: str | None) -> str:
    """Return why a process did not become ready; see `report_end`."""
    if traceback is not None:
        return f"{who} could not begin ({in_a_line('', traceback)})\n\n{traceback}"
    ended = "ended" if exitcode is None and cause else describe_exit(exitcode)
    how = f"{who} {ended} before it was ready"
    return f"{how}; {cause or 'see its output above'}"


def is_said(times: int) -> bool:
    """Return whether the log has the n-th failure in a row: the first, and then ever fewer.

    What is tried again for ever fails every few seconds, for days.
    """
    return times & (times - 1) == 0


def report_slow(who: str, seconds: float, refilling: bool) -> str:
    """Return the report on a process that takes long to become ready.

    Args:
        who: The name of the process.
        seconds: How long it has taken so far.
        refilling: Whether it replaces one that was recycled.
    """
    text = (
        f"{who} is not ready after {seconds:.0f} s: its initializer, or an import, takes long; its "
        "tasks wait, and new ones go elsewhere if they can"
    )
    return f"{text}; no other worker is recycled until it is" if refilling else text
