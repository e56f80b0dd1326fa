"""A child that a task forks: a copy of the worker, which must not act as one.

    task ── os.fork() ──► the worker goes on
                └───────► the child goes on with this task alone, and ends where the task ends,
                          raises, or comes back to the loop

It has the worker's epoll, timer and black box, shared, and copies of all its tasks, whose clean-up
is not the child's to do. So it ends like by `os._exit`, with the exit code that Python would give.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections import deque
from contextlib import suppress
from typing import NoReturn

from .worker import Worker


def end_child(error: BaseException | None = None) -> NoReturn:
    """End this process, with the exit code of what was raised in it.

    Args:
        error: What ends it; None if nothing was raised.
    """
    code = 0
    with suppress(BaseException):  # it may have closed its streams
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            code = error.code or 0
        elif isinstance(error, SystemExit):
            code = 1
            print(error.code, file=sys.stderr)
        elif error is not None:
            code = 1
            traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    os._exit(code & 0xFF)


def end_with_the_task(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    """Have forked children of this process end where the task ends that has forked them."""

    def disown() -> None:
        worker.disown(end_child)
        # What escapes from the loop is logged before `process` ends the child.
        logging.getLogger("aiomultiprocess.core").disabled = True
        back = asyncio.Handle(_come_back, (), loop)
        ready = getattr(loop, "_ready", None)
        if isinstance(ready, deque):  # asyncio's own loop: nothing else has its turn any more
            left = len(ready)
            ready.clear()
            ready.extend([back] * max(1, left))
        else:
            loop.call_soon(_come_back)

    os.register_at_fork(after_in_child=disown)


def _come_back() -> None:
    with suppress(BaseException):
        print(
            f"aioscheduler: process {os.getpid()}, forked by a task, has come back to the loop of "
            "its parent, which is not its own, and ends; end it by os._exit() or sys.exit() "
            "before it awaits anything, or have it call asyncio.run()",
            file=sys.stderr,
        )
    os._exit(1)
