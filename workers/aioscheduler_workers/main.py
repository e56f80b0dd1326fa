"""The life of a worker process: signals, orphan watch, the worker, a clean end.

Rules of this file:

1. A worker never outlives its host by more than two seconds, whatever its tasks do: the kernel
   kills it (Linux), and a thread watches, too. Without ctypes, which some builds of Python lack.
2. The host must handle Ctrl-C in a terminal: a worker leaves the host's group, and ignores an
   interrupt that comes before.
3. `main` never raises: multiprocessing would print the error over the user's terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from types import FrameType

from aioscheduler._processes.blackbox import BlackBox
from aioscheduler._processes.process import loop_failure
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.loopthread import enter_worker
from aioscheduler._scheduling.shiftedclock import ShiftedClock

from .forked import end_with_the_task
from .garbage import Thresholds
from .watch import ORPHAN_GRACE, watch
from .worker import Worker

CANCELLED = "a task has cancelled all asyncio tasks of its worker, and with them the worker's own"


async def main(
    reader: Connection, writer: Connection, box: BlackBox, config: WorkerConfig
) -> int | None:
    """Run one worker until its end is requested, or its host is gone.

    Args:
        reader: The connection for frames from the host.
        writer: The connection for frames to the host.
        box: The black box, which survives this process.
        config: The worker's configuration.

    Returns:
        The exit status, if its asyncio task was cancelled; otherwise None.
    """
    enter_worker()
    own = os.getpid()
    _ignore_interrupt()
    _die_with(config.host)
    _set_name(config.short_name)
    _write_whole_lines()
    gc.freeze()  # everything imported so far is permanent
    thresholds = Thresholds()
    thresholds.begin()
    loop = asyncio.get_running_loop()
    # The pipe owns duplicates: a Connection closes its descriptor when it is collected.
    fds = os.dup(reader.fileno()), os.dup(writer.fileno())
    reader.close()
    writer.close()
    box.record()
    if config.clock_lead is None:
        worker = Worker(config, loop_failure, box.begun)
    else:
        worker = Worker(config, loop_failure, box.begun, ShiftedClock(config.clock_lead))
    if config.forward_logs:
        worker.forwarder.install(config.log_levels)
    _drain_on_sigterm(worker, loop)
    end_with_the_task(worker, loop)
    watched = (worker, loop, config, thresholds, box)
    threading.Thread(target=watch, args=watched, daemon=True).start()
    try:
        await worker.serve(loop, *fds)
    except asyncio.CancelledError:
        if os.getpid() != own:  # forked by a task
            raise
        box.blame(None, CANCELLED, "")
        return 1
    if not await _end_everything():
        os._exit(0)  # asyncio itself would wait for the rest
    return None


def _ignore_interrupt() -> None:
    """Ignore SIGINT, which was blocked before the process began.

    With a handler instead of SIG_IGN, which programs started by tasks would inherit.
    """

    def ignore(signum: int, frame: FrameType | None) -> None:
        """Do nothing: the host decides."""

    signal.signal(signal.SIGINT, ignore)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _drain_on_sigterm(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
    """Make SIGTERM drain the worker, and end a child forked by a task at once.

    Not with `loop.add_signal_handler`: its wake-up descriptor would be shared with forked children,
    and terminating a pool of theirs would end this worker.
    """

    def drain(signum: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(worker.drain)

    signal.signal(signal.SIGTERM, drain)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _set_name(name: str) -> None:
    """Set the name shown by `ps` and `top`; the kernel keeps 15 bytes."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write(name)


def _die_with(host: int) -> None:
    """Make the kernel kill this process when its host ends, whatever its own threads do then.

    Processes that it has started are killed, too: those of a pool, for example, which would wait
    for work for ever. They are in its process group, which it has of its own.

    The host's death closes its end of a pipe: this raises a signal, which is set to SIGKILL.
    PR_SET_PDEATHSIG would come when the *thread* of the host that started this process ends.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    owner = os.getpid()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
        owner = -owner
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, owner)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
    os.register_at_fork(after_in_child=lambda: _let_go(parent.sentinel))
    # The host may have died before.
    if os.getppid() != host or multiprocessing.connection.wait([parent.sentinel], 0):
        os._exit(1)


def _let_go(sentinel: int) -> None:
    """Let a forked child die with the host, by its group, and not with this worker."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, sentinel, inheritable=False)
        os.close(null)


def _write_whole_lines() -> None:
    """Write each printed line at once and whole, so that workers do not mix their lines."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]


async def _end_everything() -> bool:
    """End what tasks left running, as `asyncio.run` does; return False if some does not end."""
    own = asyncio.current_task()
    left = [task for task in asyncio.all_tasks() if task is not own]
    for task in left:
        task.cancel()
    ends = asyncio.gather(*left, return_exceptions=True)
    if left:
        await asyncio.wait([ends], timeout=ORPHAN_GRACE)
    if not ends.done():
        return False
    await asyncio.get_running_loop().shutdown_asyncgens()
    return True
