"""The results of `bench_cores.py`, a row for each run, and its bottleneck.

Nothing here measures, prints or draws: conclusions follow from the rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

FULL = 85.0  # % from which a core counts as full: the mean includes a run's start and end
BUSY = 20.0  # % of a core used by others from which a run should be repeated


@dataclass
class Process:
    """The figures of a process, by psutil."""

    process: str
    pid: int
    cpu_percent: float | None = None  # None: the run was shorter than a sample
    rss_mb: float = 0.0
    cpu_percents: list[float] = field(default_factory=list)  # at each of the row's `sampled_s`


@dataclass
class Row:
    """A kind of work on a number of workers."""

    work: str
    workers: int
    tasks: int
    timed: int = 0  # tasks of these that were timed
    seconds: float = 0.0
    tasks_per_s: float = 0.0
    speedup: float = 1.0
    efficiency: float = 1.0
    lateness_p50_ms: float = 0.0
    lateness_p99_ms: float = 0.0
    early: int = 0
    lost: int = 0  # below 0: some ran twice
    others_percent: float | None = None
    sampled_s: list[float] = field(default_factory=list)  # since the run began
    others_percents: list[float] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)

    def crew(self) -> str:
        return f"{self.workers} worker{'s' * (self.workers > 1)}"

    def sum_up(self) -> None:
        """Fill in the means of the samples."""
        if self.sampled_s:
            spans = [end - start for start, end in pairwise([0.0, *self.sampled_s])]
            self.others_percent = fmean(self.others_percents, spans)
            for one in self.processes:
                one.cpu_percent = fmean(one.cpu_percents, spans)


def limit(row: Row, cores: int) -> str:
    """Return the bottleneck of a run on a machine with `cores` usable cores, as text."""
    host, *workers = [one.cpu_percent for one in row.processes]
    busy = [percent for percent in workers if percent is not None]
    if host is None or not busy:
        return "not known, as the run was too short to measure"
    ours, others, room = host + sum(busy), row.others_percent or 0.0, cores * FULL
    if host >= FULL:
        return "the host, which fills its one core"
    if fmean(busy) >= FULL:
        who = "the worker, which fills its core" if len(busy) == 1 else "the workers, one core each"
        return f"{who}, so more {'workers' if cores > len(busy) else 'cores'} would help"
    if ours >= room:
        share = f"share {cores}" if cores > 1 else "share one"
        return f"the cores, as the host and {row.crew()} {share}"
    if others >= BUSY and ours + others >= room:
        return "other programs on the cores"
    if max(busy) >= FULL:
        return f"worker {busy.index(max(busy)) + 1}, which fills its core while others have room"
    return "waiting, as nothing is full"


def conclude(rows: Sequence[Row], cores: int) -> str:
    """Return one sentence that names the bottleneck of each kind of work with the most workers."""
    most = [row for row in rows if row.workers == rows[-1].workers]
    limits: dict[str, list[str]] = {}
    for row in most:
        limits.setdefault(limit(row, cores), []).append(f"{row.work} ({row.speedup:.2f} x)")
    clauses = [f"for {_listed(works)} it is {who}" for who, works in limits.items()]
    first = clauses[0].removeprefix("for ").replace(" it is ", " is ", 1)
    sentence = "; ".join([f"With {most[0].crew()}, the limit for {first}", *clauses[1:]])
    others = max(row.others_percent or 0.0 for row in rows)
    if others >= BUSY:
        sentence += (
            f"; the machine was busy, other programs took up to {others:.0f} % of a core, "
            "so repeat it when it is idle"
        )
    return sentence + "."


def _listed(items: Sequence[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last
