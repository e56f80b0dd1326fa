"""How late tasks start: recorded by slices, kept in buckets that double. Pure.

A worker records, and once a tick hands over what it recorded; the host sums it up, since the
start and over the last minute. A bucket is a power of two wide, so that two numbers of a slice
tell, nearly always, that all of its tasks fall into one: recording costs a worker 1 to 2 % of
what a no-op costs it (`benchmarks/bench_worker.py`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

_FIRST_SHIFT = 14  # the first bucket is of what is less than 2**14 ns late, 16 µs
_LATEST = 1 << 63  # ns, 292 years: the most that is told
_BUCKETS = 26  # the last but one is of what is less than 2**38 ns late, 275 s

BOUNDS = (*(2.0 ** (_FIRST_SHIFT + k) / 1e9 for k in range(_BUCKETS - 1)), math.inf)
"""What the lateness of a bucket's tasks is less than, in seconds."""

WINDOW = 60.0  # seconds

Report = tuple[int, int, list[int]]
"""The most any task was late and how late all were together, in nanoseconds, and how many tasks
were in each bucket, without empty ones at the end."""


class Recorder:
    """Collects the lateness of the tasks that one process starts."""

    def __init__(self) -> None:
        self._most = self._total = 0
        self._counts = [0] * _BUCKETS

    def record(self, dues: Sequence[int], first: int, last: int) -> None:
        """Note tasks that were started one after the other.

        Args:
            dues: Their due times, at least one.
            first: When the first was started.
            last: When the last was. The others are taken to lie evenly between.
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
        """Note tasks as `record` does, the last of which has just taken its first step."""
        now = clock()
        self.record(dues, first, now - (now - first) // len(dues))

    def take(self) -> Report:
        """Return what was recorded since the last call."""
        # After a clock was set by years; a frame holds integers up to 64 bits.
        most, total = min(self._most, _LATEST), min(self._total, _LATEST)
        counts = self._counts
        self._most, self._total, self._counts = 0, 0, [0] * _BUCKETS
        while counts and not counts[-1]:
            counts.pop()
        return most, total, counts


def _bucket(late: int) -> int:
    # A clock that was set back makes a task look early: it is on time.
    return min((late >> _FIRST_SHIFT).bit_length(), _BUCKETS - 1) if late > 0 else 0


class History:
    """What the process in one slot has told of its lateness, and of its loop's lag.

    It may be read from any thread; the rest is for one.

    Attributes:
        counts: How many tasks were in each bucket of `BOUNDS`, since the start.
        total: How late all of them were together, in seconds.
        most: The most any task was late, in seconds, over the last minute.
        lag: The most the loop was late, in seconds, over the last minute.
    """

    def __init__(self) -> None:
        self.counts: list[int] = [0] * _BUCKETS
        self.total: float = 0.0
        self.most: float = 0.0
        self.lag: float = 0.0
        self._recent = [0] * _BUCKETS
        self._reports: deque[tuple[float, float, float, list[int]]] = deque()

    def add(self, now: float, lag: float, report: Report) -> None:
        """Take a report.

        Args:
            now: Seconds, by a clock that only grows.
            lag: How late the loop was, in seconds.
            report: What the process recorded since its last one.
        """
        most, total, counts = report
        self.total += total / 1e9
        for bucket, count in enumerate(counts):
            self.counts[bucket] += count
            self._recent[bucket] += count
        self._reports.append((now, most / 1e9, lag, counts))
        self.expire(now)

    def expire(self, now: float) -> None:
        """Drop what is older than a minute."""
        reports = self._reports
        while reports and reports[0][0] <= now - WINDOW:
            for bucket, count in enumerate(reports.popleft()[3]):
                self._recent[bucket] -= count
        self.most = max((most for _, most, _, _ in reports), default=0.0)
        self.lag = max((lag for _, _, lag, _ in reports), default=0.0)

    def quantiles(self, *shares: float) -> list[float]:
        """Return, for each share, the lateness in seconds that it of the last minute's tasks had.

        Inside a bucket, tasks are taken to lie evenly. 0.0 if there were none.
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
