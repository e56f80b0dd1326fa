"""The cost of a timer in the queue, as the queue grows.

Numbers with due times spread evenly over an hour are pushed in random order, then taken out at
their times, a hundredth of the hour at a time; a second queue of the same size is filled and
every number discarded. `heapq` of the same integers is measured in turn. Figures are nanoseconds
for one push and one pop, and for one discard: medians of the runs.

Goal: at 10 M at most 1.5 times the cost at 10 k.
"""

from __future__ import annotations

import heapq
import random
import sys
import time
from typing import Any

from common import SEED, median, parse, report

from aioscheduler._scheduling.timers import NUMBER_BITS, TimerQueue

HOUR = 3600 * 10**9


def wheel(dues: list[int]) -> float:
    """Return the nanoseconds of one push and one pop in our queue."""
    alive = dict.fromkeys(range(len(dues)))
    queue = TimerQueue(alive)
    begun = time.perf_counter_ns()
    for number, due in enumerate(dues):
        queue.push(due, number)
    taken = 0
    for step in range(101):
        while found := queue.pop_due(HOUR * step // 100, 256)[0]:
            taken += len(found)
    assert taken == len(dues)
    return (time.perf_counter_ns() - begun) / len(dues)


def heap(dues: list[int]) -> float:
    """Return the nanoseconds of one push and one pop of the standard library's heap."""
    entries: list[int] = []
    begun = time.perf_counter_ns()
    for number, due in enumerate(dues):
        heapq.heappush(entries, due << NUMBER_BITS | number)
    while entries:
        heapq.heappop(entries)
    return (time.perf_counter_ns() - begun) / len(dues)


def discards(dues: list[int]) -> float:
    """Return the nanoseconds of one discard in our queue."""
    alive = dict.fromkeys(range(len(dues)))
    queue = TimerQueue(alive)
    for number, due in enumerate(dues):
        queue.push(due, number)
    begun = time.perf_counter_ns()
    for number in range(len(dues)):
        del alive[number]
        queue.discard()
    assert len(queue) == 0
    return (time.perf_counter_ns() - begun) / len(dues)


def main() -> int:
    options = parse(__doc__, "pending", 10_000_000, 100_000)
    sizes = sorted({min(size, options.size) for size in (10_000, 100_000, 1_000_000, 10_000_000)})
    generator = random.Random(SEED)
    rows: list[dict[str, Any]] = []
    wheel([generator.randrange(HOUR) for _ in range(10_000)])  # warm-up
    for size in sizes:
        dues = [generator.randrange(HOUR) for _ in range(size)]
        runs = min(options.runs, 3) if size > 10**6 else options.runs
        ours, theirs, gone = [], [], []
        for _ in range(runs):
            ours.append(wheel(dues))
            theirs.append(heap(dues))
            gone.append(discards(dues))
        rows.append(
            {
                "pending": size,
                "push + pop ns": median(ours),
                "x 10 k": median(ours) / (rows[0]["push + pop ns"] if rows else median(ours)),
                "heapq ns": median(theirs),
                "discard ns": median(gone),
            }
        )
    report(rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
