"""Checks of an opened file: does it fit the clock and the schedulers?"""

from __future__ import annotations

import logging

from .._durable.records import Page
from .._scheduling.clock import SECOND
from ..errors import StoreError

log: logging.Logger = logging.getLogger("aioscheduler")

HEARTBEAT_SLACK = 3 * SECOND
"""Tasks due up to this long after the last heartbeat of a host may have begun: there is one a
second, and workers may outlive their host by two."""


def warn_of_clock(path: str, heartbeat: int, now: int) -> None:
    """Log a warning if the clock was set back since the last host."""
    if heartbeat > now + HEARTBEAT_SLACK:
        log.warning(
            "the store %s is from the future: its last host was alive %.0f s later than now; "
            "due tasks start later by as much as the clock was set back, and never early",
            path,
            (heartbeat - now) / SECOND,
        )


def check_kind(page: Page, timed: bool, path: str) -> None:
    """Check by the first tasks of a file that it fits this kind of scheduler.

    Raises:
        StoreError: The tasks are of a queue and the schedulers are timed, or the reverse.
    """
    due = page.rows[0].due if page.rows else page.behind
    if due is not None and timed is (due == 0):
        has, wants = ("a queue", "TimedScheduler") if timed else ("a TimedScheduler", "queues")
        raise StoreError(
            f"{path} has tasks of {has}, and this manager is one of {wants}: they would run at the "
            "wrong time. Use the scheduler that it had, or another file"
        )
