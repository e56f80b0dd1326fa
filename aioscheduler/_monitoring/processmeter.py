"""CPU and memory of processes, measured no more often than makes sense; all use of psutil."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import psutil

EVERY = 0.25  # seconds; a shorter span holds too few of the kernel's ticks to divide by


class Usage(NamedTuple):
    """The resources that a process uses.

    Attributes:
        cpu_percent: CPU use since the last measurement, at first since its start; 100 is one core.
        rss: Resident memory in bytes, shared pages included.
    """

    cpu_percent: float
    rss: int


NOTHING = Usage(0.0, 0)


class ProcessMeter:
    """Measures processes, at most every `EVERY` seconds; may be called from any thread.

    Args:
        clock: Returns seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._processes: dict[int, _Process] = {}

    def read(self, pids: Iterable[int]) -> dict[int, Usage]:
        """Return the usage of each process, `NOTHING` for one that is gone; forget all others."""
        if self._owner != os.getpid():  # forked: another thread may have held the lock
            self._owner, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            now = self._clock()
            self._processes = {pid: self._processes.get(pid) or _Process() for pid in pids}
            return {pid: process.read(pid, now) for pid, process in self._processes.items()}


def exists(pid: int) -> bool:
    """Return whether a process exists."""
    return psutil.pid_exists(pid)


def command_line(pid: int) -> list[str] | None:
    """Return the command line of a process; None if it is gone or inaccessible."""
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return None


class _Process:
    """The last measurement of one process."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None
        self._at = -math.inf  # when it was measured
        self._cpu = 0.0  # CPU seconds used by then
        self._usage = NOTHING

    def read(self, pid: int, now: float) -> Usage:
        if now - self._at < EVERY:
            return self._usage
        try:
            if self._process is None:
                self._process = psutil.Process(pid)
                # The wall clock may have been set since then: at least not in the future.
                self._at = now - max(0.0, time.time() - self._process.create_time())
            with self._process.oneshot():
                times = self._process.cpu_times()
                rss = self._process.memory_info().rss
        except psutil.Error:
            return NOTHING
        cpu = times.user + times.system
        span = max(now - self._at, EVERY)  # the start is only known to the nearest tick
        self._usage = Usage(100 * max(0.0, cpu - self._cpu) / span, rss)
        self._at, self._cpu = now, cpu
        return self._usage
