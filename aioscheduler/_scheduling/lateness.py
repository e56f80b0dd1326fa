"""The lateness of task starts: recorded by slice, in buckets that double in width. Pure.

A worker records, and hands over its records once a tick; the host sums them up, since the start
and over the last minute. The width of a bucket is a power of two, so that two numbers of a slice
nearly always show that all its tasks fall into one: recording costs a worker 1 to 2 % of the cost
of a no-op (`benchmarks/bench_worker.py`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

_FIRST_SHIFT = 14  # the first bucket: less than 2**14 ns late, 16 µs
_LATEST = 1 << 63  # ns, 292 years: the most that is reported
_BUCKETS = 26  # the last but one: less than 2**38 ns late, 275 s

BOUNDS = (*(2.0 ** (_FIRST_SHIFT + k) / 1e9 for k in range(_BUCKETS - 1)), math.inf)
"""The upper bound of each bucket, exclusive, in seconds."""

WINDOW = 60.0  # seconds

Report = tuple[int, int, list[int]]
"""The greatest lateness and the sum of all, in nanoseconds, and the number of tasks in each bucket,
without empty buckets at the end."""


class Recorder:
    """Collects the lateness of the tasks that one process starts."""

    def __init__(self) -> None:
        self._most = self._total = 0
        self._counts = [0] * _BUCKETS

    def record(self, dues: Sequence[int], first: int, last: int) -> None:
        """Record tasks that were started one after another; all times are in nanoseconds.

        Args:
            dues: Their due times, at least one.
            first: When the first was started.
            last: When the last was started. The others are assumed to lie evenly between.
        """
        most, least = last - min(dues), first - max(dues)
        bucket = _bucket(most)
        if bucket == _bucket(least):
            self._counts[bucket] += len(dues)
            total = len(dues) * (first + last) // 2 - sum(dues)
        else:
            step = (last - first) / (len(dues) - 1 or 1)
            lates = [first + int(step * index) - due for index, due in enumerate(dues)]
            most, total = max(lates), sum(lates)
            for late in lates:
                self._counts[_bucket(late)] += 1
        self._total += max(0, total)
        self._most = max(self._most, most)

    def record_until(self, dues: Sequence[int], first: int, clock: Callable[[], int]) -> None:
        """Record tasks as `record` does; the last has just taken its first step."""
        now = clock()
        self.record(dues, first, now - (now - first) // len(dues))

    def take(self) -> Report:
        """Return the report since the last call."""
        # A clock may have been set by years, and a frame holds integers up to 64 bits.
        most, total = min(self._most, _LATEST), min(self._total, _LATEST)
        counts = self._counts
        self._most, self._total, self._counts = 0, 0, [0] * _BUCKETS
        while counts and not counts[-1]:
            counts.pop()
        return most, total, counts


def _bucket(late: int) -> int:
    # After a clock was set back a task may look early: it counts as on time.
    return min((late >> _FIRST_SHIFT).bit_length(), _BUCKETS - 1) if late > 0 else 0


class History:
    """The reported lateness of the process in one slot, and of its loop.

    It may be read from any thread, and written from one.

    Attributes:
        counts: The number of tasks in each bucket of `BOUNDS`, since the start.
        total: The sum of the lateness of all of them, in seconds.
        most: The greatest lateness of a task over the last minute, in seconds.
        lag: The greatest lateness of the loop over the last minute, in seconds.
    """

    def __init__(self) -> None:
        self.counts: list[int] = [0] * _BUCKETS
        self.total: float = 0.0
        self.most: float = 0.0
        self.lag: float = 0.0
        self._recent = [0] * _BUCKETS
        self._reports: deque[tuple[float, float, float, list[int]]] = deque()

    def add(self, now: float, lag: float, report: Report) -> None:
        """Add a report.

        Args:
            now: Seconds, by a monotonic clock.
            lag: The loop's lateness, in seconds.
            report: The process's records since its last report.
        """
        most, total, counts = report
        self.total += total / 1e9
        for bucket, count in enumerate(counts):
            self.counts[bucket] += count
            self._recent[bucket] += count
        self._reports.append((now, most / 1e9, lag, counts))
        self.expire(now)

    def expire(self, now: float) -> None:
        """Drop reports older than a minute."""
        reports = self._reports
        while reports and reports[0][0] <= now - WINDOW:
            for bucket, count in enumerate(reports.popleft()[3]):
                self._recent[bucket] -= count
        self.most = max((most for _, most, _, _ in reports), default=0.0)
        self.lag = max((lag for _, _, lag, _ in reports), default=0.0)

    def quantiles(self, *shares: float) -> list[float]:
        """Return the lateness in seconds at each share (0 to 1) of the last minute's tasks.

        Tasks are assumed to lie evenly inside a bucket. 0.0 if there were none.
        """
        counts, most = list(self._recent), self.most
        return [_quantile(counts, share, most) for share in shares]


def _quantile(counts: list[int], share: float, most: float) -> float:
    left = share * sum(counts)
    for bucket, count in enumerate(counts):
        if count and left <= count:
            low = BOUNDS[bucket - 1] if bucket else 0.0
            high = min(BOUNDS[bucket], max(most, low))
            return low + (high - low) * left / count
        left -= count
    return most
