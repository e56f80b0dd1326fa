"""What processes take of the machine, measured by psutil, not more often than makes sense."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import psutil

EVERY = 0.25  # seconds; a shorter span holds too few of the kernel's ticks to divide by


class Usage(NamedTuple):
    """What a process takes.

    Attributes:
        cpu_percent: 100 is one core; since the last measurement, at first since it began.
        rss: Resident bytes, shared pages included.
    """

    cpu_percent: float
    rss: int


NOTHING = Usage(0.0, 0)


class Meter:
    """Measures processes, at most every `EVERY` seconds; may be asked from any thread.

    Args:
        clock: Gives the seconds since the epoch, as psutil does of a process's beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._dials: dict[int, _Dial] = {}

    def read(self, pids: Iterable[int]) -> dict[int, Usage]:
        """Gives the usage of each process; `NOTHING` of one that is gone. Others are forgotten."""
        with self._lock:
            now = self._clock()
            self._dials = {pid: self._dials.get(pid) or _Dial() for pid in pids}
            return {pid: dial.read(pid, now) for pid, dial in self._dials.items()}


class _Dial:
    """The last measurement of one process."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None
        self._at = self._cpu = 0.0  # of the last measurement; seconds
        self._usage = NOTHING

    def read(self, pid: int, now: float) -> Usage:
        if 0 <= now - self._at < EVERY:
            return self._usage
        try:
            if self._process is None:
                self._process = psutil.Process(pid)
                self._at = self._process.create_time()
            with self._process.oneshot():
                times = self._process.cpu_times()
                rss = self._process.memory_info().rss
        except psutil.Error:
            return NOTHING
        cpu = times.user + times.system
        # The clock may have been set, and a beginning is known to the nearest tick.
        span = max(now - self._at, EVERY)
        self._usage = Usage(100 * max(0.0, cpu - self._cpu) / span, rss)
        self._at, self._cpu = now, cpu
        return self._usage
