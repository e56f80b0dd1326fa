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
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from aioscheduler.blackbox import BlackBox
from aioscheduler.engine import Order
from aioscheduler.process import loop_failure

from .worker import Worker

log = logging.getLogger("aioscheduler")

BLOCKED_AFTER = 3.0  # seconds without a turn of the loop, after which it is reported
WATCH_EVERY = 2.0  # seconds
GC_THRESHOLD = 20_000  # container objects that are made before the youngest are looked through
ORPHAN_GRACE = 1.0  # seconds a worker without a host has to end its tasks
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


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
    incarnation: int,
    handed: list[Any],
    box: BlackBox,
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
        incarnation: Which process in its place this is, from 0.
        handed: What of the initializer's arguments only a new process can be given.
        box: What survives this process.
    """
    _ignore_interrupt()
    _die_with(host)
    _prctl(_PR_SET_NAME, f"aiosched-{worker}".encode())  # the kernel takes 15 bytes
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
    begun = box.begun
    box.record_crashes()
    served = Worker(
        manager, worker, Order(order), layout, prefer_utc, loop_failure, incarnation, begun
    )
    served.hand(handed)
    _drain_when_told(served, loop)
    threading.Thread(target=_watch, args=(served, loop), daemon=True).start()
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


def _drain_when_told(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    """Has SIGTERM end the worker in an orderly way, and a child that a task forks at once.

    Not by `loop.add_signal_handler`: its wake-up descriptor would be shared with forked children,
    and a pool of theirs that is terminated would end this worker.
    """

    def told(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(worker.drain)

    signal.signal(signal.SIGTERM, told)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _prctl(option: int, argument: int | bytes) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, argument)


def _die_with(host: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host:  # it died before we asked to be told
        os._exit(1)


def _watch(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    """Ends this process after its host; and reports what blocks the loop. Runs in a thread.

    The thread does not touch the pipe, where it would tear frames of the loop's.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    reported = 0.0
    while not multiprocessing.connection.wait([parent.sentinel], timeout=WATCH_EVERY):
        ticked = worker.ticked
        if ticked not in (0.0, reported) and loop.time() - ticked > BLOCKED_AFTER:
            reported = ticked
            _report_block(worker, loop, loop.time() - ticked)
    time.sleep(ORPHAN_GRACE)
    os._exit(1)


def _report_block(worker: Worker, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    main = sys._current_frames().get(threading.main_thread().ident or 0)
    stack = "".join(traceback.format_stack(main)) if main is not None else ""
    log.warning(
        "%s has kept the loop of its worker (pid %d) busy for %.1f s, and all other tasks there "
        "waiting; await in between, or run it in a thread. It is here:\n%s",
        worker.describe_current(loop),
        os.getpid(),
        seconds,
        stack,
    )


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
