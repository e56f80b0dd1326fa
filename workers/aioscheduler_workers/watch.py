"""The thread beside a worker's loop: it ends what has no host, and sees what blocks the loop.

    the host has ended ─────────────────────────► the process ends, after `ORPHAN_GRACE`
    no tick for `BLOCKED_AFTER` ────────────────► said in the log, with the stack
    one step for longer than `block_timeout` ───► last words, and the process ends

What is blocked is reported by the ticks of the loop, once a second. That is too coarse for a
`block_timeout`: with one, the thread asks the loop for a turn (`Probe`) and looks in which step it
is for as long as that does not come. A loop that turns is not looked at, and without a
`block_timeout` it is not asked.

The thread does not touch the pipe, where it would tear frames of the loop's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import mmap
import multiprocessing
import multiprocessing.connection
import os
import sys
import time
from collections.abc import Callable

from aioscheduler._processes.blackbox import BlackBox
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.alarm import TICK
from aioscheduler.errors import EXIT_OF_BLOCKED

from .garbage import Thresholds
from .steps import Step, describe, find_step, owner_of, stack_of
from .worker import Worker

log: logging.Logger = logging.getLogger("aioscheduler")

BLOCKED_AFTER = 3 * TICK  # seconds without a turn of the loop, after which it is reported
WATCH_EVERY = 2 * TICK
LATE = 0.5  # seconds after which a look of this thread shows that the process stood still
ORPHAN_GRACE = 1.0  # seconds a worker without a host has to end its tasks, or what they have left
_LOOKS = 8  # in each `block_timeout`, so that its end is seen an eighth late
_LEAST = 0.02  # seconds between two looks
_SLACK = 0.1  # seconds by which a look may come late, at most


def watch(
    worker: Worker,
    loop: asyncio.AbstractEventLoop,
    config: WorkerConfig,
    thresholds: Thresholds,
    box: BlackBox,
) -> None:
    """End this process after its host, or when it is blocked; report what blocks the loop."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    watchdog, guard, looks = Watchdog(loop.time()), None, 1
    if config.block_timeout is not None:
        looks = looks_between(config.block_timeout)
        guard = Guard(worker, loop, config.block_timeout, WATCH_EVERY / looks)
    count = 0
    while not _rings(parent.sentinel, WATCH_EVERY / looks):
        if os.getppid() != config.host:
            os._exit(1)
        if guard is not None and (step := guard.look(time.monotonic())) is not None:
            _end_blocked(worker, box, step, guard.timeout)
        count += 1
        if count % looks:
            continue
        blocked = watchdog.look(loop.time(), worker.ticked)
        if blocked:
            _report_block(worker, loop, blocked)
        thresholds.note_size(_resident())
    time.sleep(ORPHAN_GRACE)
    os._exit(1)


def looks_between(timeout: float) -> int:
    """Return how many looks at the loop a `block_timeout` needs in `WATCH_EVERY` seconds."""
    return min(max(math.ceil(_LOOKS * WATCH_EVERY / timeout), 1), round(WATCH_EVERY / _LEAST))


def _resident() -> int:
    """Return the bytes of memory that this process has; 0 where that is not known."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


class Watchdog:
    """Tells from the loop's ticks when it has been blocked. Pure.

    A watchdog that comes late was stopped itself, and with it the whole process (SIGSTOP, Ctrl-Z,
    a container that is paused), or starved: that time counts for nobody.

    Args:
        now: The loop's time, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._looked = self._awake_since = now
        self._reported = 0.0  # the tick before the block that was told of

    def look(self, now: float, ticked: float) -> float:
        """Return for how many seconds the loop has been blocked; 0 if that is known, or not long.

        Args:
            now: The loop's time, about `WATCH_EVERY` after the last look.
            ticked: When the loop turned last; 0 if it has not begun.
        """
        if now - self._looked > WATCH_EVERY + LATE:
            self._awake_since = now
        self._looked = now
        blocked = now - max(ticked, self._awake_since)
        if ticked in (0.0, self._reported) or blocked <= BLOCKED_AFTER:
            return 0.0
        self._reported = ticked
        return blocked


class Stopwatch:
    """Adds up for how long the loop has been in one step. Pure.

    Only between two looks that both saw the step, so that never more than its time is counted; and
    only if the second came on time. A late one was stopped itself, as the whole process (SIGSTOP,
    a container that is paused), or starved, or kept from running by who holds the GIL: that time
    counts for nobody. What is shorter than the slack is not seen.

    Args:
        period: Seconds between two looks.
    """

    def __init__(self, period: float) -> None:
        self._at_most = period + min(period, _SLACK)
        self._looked = -math.inf
        self._lasted = 0.0

    def look(self, now: float, goes_on: bool) -> float:
        """Return for how many seconds the loop is known to have been in its step.

        Args:
            now: The time in seconds, by a clock that is never set.
            goes_on: Whether it is in the step in which the last look has seen it.
        """
        since, self._looked = now - self._looked, now
        if not goes_on:
            self._lasted = 0.0
        elif since <= self._at_most:
            self._lasted += since
        return self._lasted


class Probe:
    """Asks the loop for a turn.

    Until that comes no coroutine has more than one step that is not over, which it may be in now:
    the next comes behind the probe. So two looks that find the same frames saw the same step.

    Attributes:
        answered: Whether the loop has had a turn.
        seen: The steps in which it was seen meanwhile.
    """

    def __init__(self) -> None:
        self.answered: bool = False
        self.seen: list[Step] = []

    def answer(self) -> None:
        """In the loop's thread, which frees what steps have left: frames keep what they hold."""
        self.answered = True
        self.seen.clear()


class Guard:
    """Sees that no step of a worker's loop lasts longer than it may.

    Args:
        worker: Whose loop it is.
        loop: The loop.
        timeout: Seconds that a step may last.
        period: Seconds between two looks.
        find: Returns the step in which a loop is.
    """

    def __init__(
        self,
        worker: Worker,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        period: float,
        find: Callable[[asyncio.AbstractEventLoop, int], Step | None] = find_step,
    ) -> None:
        self.timeout = timeout
        self._worker = worker
        self._loop = loop
        self._find = find
        self._stopwatch = Stopwatch(period)
        self._probe: Probe | None = None

    def look(self, now: float) -> Step | None:
        """Return the step that lasts for too long; None: there is none.

        Args:
            now: The time in seconds, by a clock that is never set.
        """
        step, goes_on = self._see()
        lasted = self._stopwatch.look(now, goes_on)
        return step if goes_on and lasted >= self.timeout else None

    def _see(self) -> tuple[Step | None, bool]:
        """Return the step in which the loop is, and whether it is that of the last look."""
        if not self._worker.ticked:  # it boots, and an initializer takes its time
            return None, False
        probe = self._probe
        if probe is None or probe.answered:
            probe = Probe()
            try:
                self._loop.call_soon_threadsafe(probe.answer)
            except RuntimeError:  # it is closed
                return None, False
            self._probe = probe
        step = self._find(self._loop, self._worker.thread)
        if step is None or probe.answered or self._is_worker(step):
            return None, False
        goes_on = bool(probe.seen) and probe.seen[-1].is_same(step)
        probe.seen.append(step)
        return step, goes_on

    def _is_worker(self, step: Step) -> bool:
        """Whether it is no task, but the worker that ends: what it leaves may take its time."""
        return step.own is None and bool(self._worker.name_own(step.current))


def _rings(sentinel: int, timeout: float) -> bool:
    try:
        return bool(multiprocessing.connection.wait([sentinel], timeout))
    except OSError:  # a task has closed what is not its own
        time.sleep(timeout)
        return False


def _report_block(worker: Worker, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    step = find_step(loop, worker.thread)
    log.warning(
        "%s has kept the loop of its worker (pid %d) busy for %.1f s, and all other tasks there "
        "waiting; await in between, or run it in a thread. It is here:\n%s",
        describe(step, worker.name_own(None if step is None else step.current)),
        os.getpid(),
        seconds,
        stack_of(sys._current_frames().get(worker.thread) if step is None else step.frame),
    )


def _end_blocked(worker: Worker, box: BlackBox, step: Step, timeout: float) -> None:
    """End this process, and leave word of why."""
    try:
        who = describe(step, worker.name_own(step.current))
        cause = (
            f"{who} has kept the loop of its worker busy for more than block_timeout={timeout:g} s"
        )
        owner = owner_of(step)
        blamed = None if owner is None else (owner.scheduler, owner.number)
        box.blame(blamed, cause, stack_of(step.frame))
    finally:
        os._exit(EXIT_OF_BLOCKED)
