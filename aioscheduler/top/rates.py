"""Rates from successive snapshots, and their recent history. Pure; the time is an argument.

A snapshot has counters that only grow; the difference of two, divided by the time between them, is
a rate. The first snapshot of a manager therefore has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._monitoring.statsserver import Snapshot
from .._scheduling.alarm import TICK
from ..stats import OUTCOMES
from .figures import SAMPLES

SHORTEST = 0.45  # seconds; a rate over less means little
STALE = 2.5 * TICK  # how long a lateness is repeated, as it is updated only once a tick


def done(stats: Mapping[str, Any]) -> int:
    """Return how many tasks of a worker or a manager have ended."""
    return sum(stats.get(end, 0) for end in OUTCOMES)


class Track:
    """The recent history of one worker, or of a manager as a whole.

    Attributes:
        rates: Tasks done per second, for each of the last samples; None where it is not known.
        lates: The average lateness in seconds of tasks that are new in the sample; None where
            there are none.
    """

    def __init__(self) -> None:
        self.rates: deque[float | None] = deque(maxlen=SAMPLES)
        self.lates: deque[float | None] = deque(maxlen=SAMPLES)
        self._dones: deque[tuple[float, int]] = deque()
        self._pushed: tuple[float, float, int] | None = None  # when, total lateness, tasks

    @property
    def rate(self) -> float | None:
        """Tasks done per second, in the last sample."""
        return self.rates[-1] if self.rates else None

    def skip(self) -> None:
        """Add a sample without an answer."""
        self.rates.append(None)
        self.lates.append(None)

    def add(self, now: float, done: int, late: float, tasks: int) -> None:
        """Add a sample.

        Args:
            now: Its time, in seconds that only grow.
            done: The number of tasks that have ended.
            late: The total lateness of tasks, in seconds.
            tasks: The number of those tasks.
        """
        self.rates.append(self._rate(now, done))
        self.lates.append(self._late(now, late, tasks))

    def _rate(self, now: float, done: int) -> float | None:
        dones = self._dones
        if dones and done < dones[-1][1]:
            dones.clear()  # counters do not decrease: these are another process's
        # Compare with the latest that is old enough, or else with the oldest.
        while len(dones) > 1 and now - dones[1][0] >= SHORTEST:
            dones.popleft()
        before = dones[0] if dones else None
        dones.append((now, done))
        if before is None or now <= before[0]:
            return None
        return (done - before[1]) / (now - before[0])

    def _late(self, now: float, late: float, tasks: int) -> float | None:
        before = self._pushed
        if before is None or tasks < before[2]:
            self._pushed = now, late, tasks
            return None
        if tasks > before[2]:
            self._pushed = now, late, tasks
            return max(0.0, late - before[1]) / (tasks - before[2])
        return self.lates[-1] if self.lates and now - before[0] < STALE else None


class Rates:
    """The tracks of all running managers, and of their workers."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[int, str], dict[int | None, Track]] = {}
        self._last: dict[tuple[int, str], dict[str, Any]] = {}

    def add(self, now: float, snapshots: Iterable[Snapshot]) -> None:
        """Add the snapshots of one sample; forget managers that are not in it."""
        old, self._tracks = self._tracks, {}
        known, self._last = self._last, {}
        for pid, manager, stats in snapshots:
            tracks = self._tracks[pid, manager] = old.get((pid, manager), {None: Track()})
            last = known.get((pid, manager)) if stats is None else stats
            if last is not None:
                self._last[pid, manager] = last
            if stats is None:
                for track in tracks.values():
                    track.skip()
                continue
            late_of_all, tasks_of_all = 0.0, 0
            for worker in stats["workers"]:
                late = worker.get("lateness_sum", 0.0)
                buckets = worker.get("lateness_buckets")
                tasks = buckets[-1][1] if buckets else 0  # the last bound is infinite: all tasks
                tracks.setdefault(worker["worker"], Track()).add(now, done(worker), late, tasks)
                late_of_all += late
                tasks_of_all += tasks
            tracks[None].add(now, done(stats), late_of_all, tasks_of_all)

    def last(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the stats of the manager's last answer, None if there was none."""
        return self._last.get((snapshot.pid, snapshot.manager))

    def track(self, snapshot: Snapshot, worker: int | None = None) -> Track:
        """Return the track of a worker, or of the whole manager."""
        return self._tracks.get((snapshot.pid, snapshot.manager), {}).get(worker) or Track()


# The keys by which workers can be sorted: by slot ascending, by all others descending.
SORTS: Mapping[str, Callable[[dict[str, Any], Track], float]] = {
    "worker": lambda stats, _: stats["worker"],
    "cpu": lambda stats, _: -stats.get("cpu_percent", 0.0),
    "memory": lambda stats, _: -stats.get("rss", 0),
    "pending": lambda stats, _: -stats.get("pending", 0),
    "done": lambda _, track: -(track.rate or 0.0),
    "lateness": lambda stats, _: -stats.get("lateness_p99", 0.0),
}
