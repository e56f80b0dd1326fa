"""The life of a worker process: signals, orphan watch, the worker, a clean end.

Rules of this file:

1. A worker never outlives its host by more than two seconds, whatever its tasks do: the kernel
   kills it (Linux), and a thread watches as well.
2. Ctrl-C in a terminal reaches the whole group and is the host's to answer.
3. `main` never raises: multiprocessing would print it over the user's terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from types import FrameType

from aioscheduler.engine import Order
from aioscheduler.process import loop_failure

from .worker import Worker

GC_THRESHOLD = 20_000  # container objects that are made before the youngest are looked through
ORPHAN_GRACE = 1.0  # seconds a worker without a host has to end its tasks
_PR_SET_PDEATHSIG = 1


async def main(
    reader: Connection,
    writer: Connection,
    *,
    manager: str,
    worker: int,
    order: str,
    layout: list[int],
    prefer_utc: bool,
    host: int,
) -> None:
    """Runs one worker until it is told to end, or its host is gone.

    Args:
        reader: Frames from the host.
        writer: Frames to the host.
        manager: The manager's id.
        worker: The place of this worker, from 0.
        order: The value of an `Order`.
        layout: How many schedulers each worker of the manager has.
        prefer_utc: What a naive datetime means.
        host: The host's process id.
    """
    _ignore_interrupt()
    _die_with(host)
    _write_whole_lines()
    # What is here stays; and what tasks make is mostly gone before it could be garbage. On 3.11
    # collecting every 700 objects costs a fifth of the worker (`benchmarks/bench_throughput.py`).
    # An initializer may set its own thresholds.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    loop = asyncio.get_running_loop()
    # The pipe owns copies: a Connection closes its descriptor when it is collected.
    fds = os.dup(reader.fileno()), os.dup(writer.fileno())
    reader.close()
    writer.close()
    served = Worker(manager, worker, Order(order), layout, prefer_utc, loop_failure)
    await served.serve(loop, *fds)
    await _end_everything()


def _ignore_interrupt() -> None:
    """Takes SIGINT, blocked since before the process began, and does nothing with it.

    A handler and not SIG_IGN, which programs that tasks start would inherit.
    """

    def ignore(signum: int, frame: FrameType | None) -> None:
        """Nothing: the host will say what to do."""

    signal.signal(signal.SIGINT, ignore)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _die_with(host: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host:  # it died before we asked to be told
        os._exit(1)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        _exit_later()


def _exit_later() -> None:
    time.sleep(ORPHAN_GRACE)
    os._exit(1)


def _write_whole_lines() -> None:
    """Has each printed line written at once and whole, so that workers do not tear them."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]


async def _end_everything() -> None:
    """Ends what tasks have left running, as `asyncio.run` does."""
    own = asyncio.current_task()
    left = [task for task in asyncio.all_tasks() if task is not own]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
