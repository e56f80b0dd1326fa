"""A child forked by a task: a copy of the worker, which must not act as one.

    task ── os.fork() ──► the worker goes on
                └───────► the child goes on with this task alone, and ends where the task ends,
                          raises, or comes back to the loop

It shares the worker's epoll, timer and black box, and has copies of all its tasks, which it must
not clean up. So it ends as by `os._exit`, with the exit code that Python would use.
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
    """End this process, with the exit code that Python would use for an error.

    Args:
        error: The error that ends it; None if none was raised.
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
    """End forked children of this process where the task that forked them ends."""

    def disown() -> None:
        worker.disown(end_child)
        # An error that escapes from the loop would be logged before `process` ends the child.
        logging.getLogger("aiomultiprocess.core").disabled = True
        back = asyncio.Handle(_come_back, (), loop)
        ready = getattr(loop, "_ready", None)
        if isinstance(ready, deque):  # asyncio's own loop: nothing else may have a turn
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
            "its parent, which is not its own, and ends; end it with os._exit() or sys.exit() "
            "before it awaits anything, or let it call asyncio.run()",
            file=sys.stderr,
        )
    os._exit(1)
