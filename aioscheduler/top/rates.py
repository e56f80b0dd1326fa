"""What snapshots say together: rates, and how they went. Pure; the time is an argument.

A snapshot has counters that only grow; the difference of two, by the time between them, is a
rate. The first snapshot of a manager therefore has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._monitoring.statsserver import Snapshot
from .._scheduling.alarm import TICK
from ..stats import OUTCOMES
from .figures import SAMPLES

SHORTEST = 0.45  # seconds: over less, a rate says little
STALE = 2.5 * TICK  # for so long a lateness is repeated: it is pushed only once a tick


def done(stats: Mapping[str, Any]) -> int:
    """How many tasks have ended, of a worker or a manager."""
    return sum(stats.get(end, 0) for end in OUTCOMES)


class Track:
    """How one worker, or all of a manager together, went.

    Attributes:
        rates: Tasks done a second, for each of the last samples; None where it is not known.
        lates: Seconds by which the tasks that were new in the sample were late, on the average;
            None where there were none.
    """

    def __init__(self) -> None:
        self.rates: deque[float | None] = deque(maxlen=SAMPLES)
        self.lates: deque[float | None] = deque(maxlen=SAMPLES)
        self._dones: deque[tuple[float, int]] = deque()
        self._pushed: tuple[float, float, int] | None = None  # when, lateness in all, tasks

    @property
    def rate(self) -> float | None:
        """Tasks done a second, in the last sample."""
        return self.rates[-1] if self.rates else None

    def skip(self) -> None:
        """Note a sample without an answer."""
        self.rates.append(None)
        self.lates.append(None)

    def add(self, now: float, done: int, late: float, tasks: int) -> None:
        """Note a sample.

        Args:
            now: When, in seconds that only grow.
            done: Tasks that have ended.
            late: Seconds by which tasks were late, in all.
            tasks: How many tasks that is.
        """
        self.rates.append(self._rate(now, done))
        self.lates.append(self._late(now, late, tasks))

    def _rate(self, now: float, done: int) -> float | None:
        dones = self._dones
        if dones and done < dones[-1][1]:
            dones.clear()  # counters do not go back; these are somebody else's
        # The one to compare with is the last that is old enough, or the oldest.
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
    """The tracks of all managers there are, and of their workers."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[int, str], dict[int | None, Track]] = {}
        self._last: dict[tuple[int, str], dict[str, Any]] = {}

    def add(self, now: float, snapshots: Iterable[Snapshot]) -> None:
        """Note what all managers answered at one time; those that are not there are forgotten."""
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
                tasks = buckets[-1][1] if buckets else 0  # less late than infinity: all
                tracks.setdefault(worker["worker"], Track()).add(now, done(worker), late, tasks)
                late_of_all += late
                tasks_of_all += tasks
            tracks[None].add(now, done(stats), late_of_all, tasks_of_all)

    def last(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return what the manager told when it last answered, if it ever did."""
        return self._last.get((snapshot.pid, snapshot.manager))

    def track(self, snapshot: Snapshot, worker: int | None = None) -> Track:
        """Return the track of a worker, or of the whole manager."""
        return self._tracks.get((snapshot.pid, snapshot.manager), {}).get(worker) or Track()


# What workers can be sorted by: all but their place from the highest to the lowest.
SORTS: Mapping[str, Callable[[dict[str, Any], Track], float]] = {
    "worker": lambda stats, _: stats["worker"],
    "cpu": lambda stats, _: -stats.get("cpu_percent", 0.0),
    "memory": lambda stats, _: -stats.get("rss", 0),
    "pending": lambda stats, _: -stats.get("pending", 0),
    "done": lambda _, track: -(track.rate or 0.0),
    "lateness": lambda stats, _: -stats.get("lateness_p99", 0.0),
}
