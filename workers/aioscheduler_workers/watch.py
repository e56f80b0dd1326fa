"""The thread beside a worker's loop: ends orphaned processes, and sees what blocks the loop.

    the host has ended ─────────────────────────► the process ends, after `ORPHAN_GRACE`
    no tick for `BLOCKED_AFTER` ────────────────► reported in the log, with the stack
    one step for longer than `block_timeout` ───► last words, and the process ends

Blocks are detected by the ticks of the loop, once a second. That is too coarse for a
`block_timeout`: with one, the thread requests a turn of the loop (`Probe`), and looks at the step
in which the loop is until that turn comes. A loop that keeps turning is not looked at, and without
a `block_timeout` no turn is requested.

The thread does not touch the pipe, where it would corrupt frames of the loop. Nor does it call
users' code that may raise or never return, such as a log handler or the name of a task: reports are
made in threads of their own. But nothing keeps Python from collecting garbage in it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from aioscheduler._processes.blackbox import BlackBox
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.alarm import TICK
from aioscheduler.errors import EXIT_OF_BLOCKED

from .garbage import Thresholds
from .lifecycle import LAST_WORDS
from .size import resident_bytes
from .steps import Step, describe, find_step, owner_of, stack_of
from .worker import Worker

log: logging.Logger = logging.getLogger("aioscheduler")

BLOCKED_AFTER = 3 * TICK  # seconds without a turn of the loop, after which it is reported
WATCH_EVERY = 2 * TICK
LATE = 0.5  # seconds by which a late look of this thread shows that the process stood still
ORPHAN_GRACE = 1.0  # seconds that a worker without a host has to end its tasks and their remains
_LOOKS = 8  # in each `block_timeout`, so that its end is seen at most an eighth (or `_LEAST`) late
_LEAST = 0.02  # seconds between two looks
_SLACK = 0.1  # seconds by which a look may come late, at most


def watch(
    worker: Worker,
    loop: asyncio.AbstractEventLoop,
    config: WorkerConfig,
    thresholds: Thresholds,
    box: BlackBox,
) -> None:
    """End this process after its host, or at its `block_timeout`; report what blocks the loop."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    watcher = Watcher(worker, loop, config.block_timeout, thresholds, box)
    while not _rings(parent.sentinel, watcher.period):
        if os.getppid() != config.host:
            os._exit(1)
        watcher.look()
    time.sleep(ORPHAN_GRACE)
    os._exit(1)


class Watcher:
    """Looks at the loop of a worker, and at the size of its process.

    Args:
        worker: The worker.
        loop: Its loop.
        timeout: Its `block_timeout` in seconds; None if it has none.
        thresholds: Receives the size.
        box: Receives the last words.

    Attributes:
        period: Seconds between two looks.
    """

    def __init__(
        self,
        worker: Worker,
        loop: asyncio.AbstractEventLoop,
        timeout: float | None,
        thresholds: Thresholds,
        box: BlackBox,
    ) -> None:
        self._looks = 1 if timeout is None else looks_between(timeout)
        self.period: float = WATCH_EVERY / self._looks
        self._worker = worker
        self._loop = loop
        self._guard = None if timeout is None else Guard(worker, loop, timeout, self.period)
        self._watchdog = Watchdog(loop.time())
        self._thresholds = thresholds
        self._box = box
        self._reports = Reports()
        self._count = 0
        self._has_failed = False

    def look(self) -> None:
        """Look once. Never raise: the next look must come, whatever happens in this one."""
        self._count += 1
        self._try(self._look_at_step)
        if self._count % self._looks == 0:
            self._try(self._look_at_ticks)
            self._try(self._look_at_size)

    def _try(self, part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:  # noqa: BLE001  such as a MemoryError
            if not self._has_failed:  # otherwise it could be reported 50 times a second
                self._has_failed = True
                with suppress(BaseException):  # it cannot be reported
                    self._reports.begin(_report_failure, error)

    def _look_at_step(self) -> None:
        if self._guard is not None:
            step = self._guard.look(time.monotonic())
            if step is not None:
                _end_blocked(self._worker, self._box, step, self._guard.timeout)

    def _look_at_ticks(self) -> None:
        blocked = self._watchdog.look(self._loop.time(), self._worker.ticked)
        if blocked:
            step = find_step(self._loop, self._worker.thread)
            frame = sys._current_frames().get(self._worker.thread) if step is None else step.frame
            own = self._worker.name_own(None if step is None else step.current)
            self._reports.begin(_report_block, step, own, frame, blocked)

    def _look_at_size(self) -> None:
        self._thresholds.note_size(resident_bytes())


class Reports:
    """Writes to the log, in a thread for each report, one at a time.

    The log's handlers and the names in reports are users' code: what they raise is printed on
    standard error, as in any thread, and if they do not return, no other report is made.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def begin(self, report: Callable[..., None], *args: object) -> None:
        """Begin a report, if none is under way.

        Raises:
            RuntimeError: No more threads can be started.
        """
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=report, args=args, name="report", daemon=True)
            thread.start()
            self._thread = thread


def looks_between(timeout: float) -> int:
    """Return the number of looks in `WATCH_EVERY` seconds that a `block_timeout` needs."""
    return min(max(math.ceil(_LOOKS * WATCH_EVERY / timeout), 1), round(WATCH_EVERY / _LEAST))


class Watchdog:
    """Detects from the loop's ticks when it has been blocked. Pure.

    A watchdog that comes late was stopped itself, together with the whole process (SIGSTOP, Ctrl-Z,
    a paused container), or starved: that time is not counted.

    Args:
        now: The loop's time, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._looked = self._awake_since = now
        self._reported = 0.0  # the last tick before the block that was reported

    def look(self, now: float, ticked: float) -> float:
        """Return for how many seconds the loop has been blocked; 0 if not long, or if reported.

        Args:
            now: The loop's time, about `WATCH_EVERY` after the last look.
            ticked: When the loop last ticked; 0 if it has not begun.
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

    Time is counted only between two looks that both saw the step, so that never more than its
    duration is counted; and only if the second look came on time. A late look was stopped itself,
    with the whole process (SIGSTOP, a paused container), or starved, or kept waiting for the GIL:
    that time is not counted. A delay shorter than the slack goes unnoticed.

    Args:
        period: Seconds between two looks.
    """

    def __init__(self, period: float) -> None:
        self._at_most = period + min(period, _SLACK)
        self._looked = -math.inf
        self._lasted = 0.0

    def look(self, now: float, goes_on: bool) -> float:
        """Return for how many seconds the loop has certainly been in its step.

        Args:
            now: The time in seconds, by a monotonic clock.
            goes_on: Whether it is still in the step that the last look saw.
        """
        since, self._looked = now - self._looked, now
        if not goes_on:
            self._lasted = 0.0
        elif since <= self._at_most:
            self._lasted += since
        return self._lasted


class Probe:
    """A request for a turn of the loop.

    Until that turn comes, a coroutine can begin no second step: that would come behind the probe.
    So two looks that find the same frames saw the same step.

    A look holds frames, and the users' objects in them. Between two looks they are held here, where
    the loop releases them. But if a step ends in the middle of a look, the watching thread may hold
    the last reference to them, and then runs their finalizers.

    Attributes:
        answered: Whether the loop has had the turn.
        seen: The steps in which the loop was seen meanwhile.
    """

    def __init__(self) -> None:
        self.answered: bool = False
        self.seen: list[Step] = []

    def answer(self) -> None:
        """Note the turn, and release the frames in the loop's thread, which frees their objects."""
        self.answered = True
        self.seen.clear()


class Guard:
    """Detects a step of a worker's loop that exceeds the `block_timeout`.

    Args:
        worker: The worker.
        loop: Its loop.
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
        """Return the step that has lasted too long; None if there is none.

        Args:
            now: The time in seconds, by a monotonic clock.
        """
        step, goes_on = self._see()
        lasted = self._stopwatch.look(now, goes_on)
        return step if goes_on and lasted >= self.timeout else None

    def _see(self) -> tuple[Step | None, bool]:
        """Return the step in which the loop is, and whether it is that of the last look."""
        if not self._worker.ticked:  # during boot an initializer may block
            return None, False
        probe = self._probe
        if probe is None or probe.answered:
            probe = Probe()
            try:
                self._loop.call_soon_threadsafe(probe.answer)
            except RuntimeError:  # the loop is closed
                return None, False
            self._probe = probe
        step = self._find(self._loop, self._worker.thread)
        if step is None or probe.answered or self._is_worker(step):
            return None, False
        goes_on = bool(probe.seen) and probe.seen[-1].is_same(step)
        probe.seen.append(step)
        return step, goes_on

    def _is_worker(self, step: Step) -> bool:
        """Return whether a step is the worker's own: its end and its lifespan may block."""
        return step.own is None and bool(self._worker.name_own(step.current))


def _rings(sentinel: int, timeout: float) -> bool:
    try:
        return bool(multiprocessing.connection.wait([sentinel], timeout))
    except Exception:  # noqa: BLE001  a task closed the descriptor, or there is no memory
        time.sleep(timeout)
        return False


def _report_block(step: Step | None, own: str, frame: FrameType | None, seconds: float) -> None:
    log.warning(
        "%s has kept the loop of its worker (pid %d) busy for %.1f s, and all other tasks there "
        "waiting; await in between, or run it in a thread. It is here:\n%s",
        describe(step, own),
        os.getpid(),
        seconds,
        stack_of(frame),
    )


def _report_failure(error: BaseException) -> None:
    log.error(
        "a look at the loop of a worker (pid %d) has failed, and others may: blocks of the loop "
        "may go unreported",
        os.getpid(),
        exc_info=error,
    )


def _end_blocked(worker: Worker, box: BlackBox, step: Step, timeout: float) -> None:
    """End this process, and leave the reason in the black box."""
    try:
        owner, report = None, [""]
        with suppress(Exception):  # of an odd loop or asyncio task
            owner = owner_of(step)
        report.append("a callback of the loop" if owner is None else f"task {owner}")

        def look() -> None:
            with suppress(BaseException):  # users' code, such as a loader that returns the source
                report[0] = stack_of(step.frame)
                report[1] = describe(step, worker.name_own(step.current))

        with suppress(RuntimeError):  # no more threads can be started
            words = threading.Thread(target=look, name="last words", daemon=True)
            words.start()
            words.join(LAST_WORDS)
        stack, who = report
        cause = (
            f"{who} has kept the loop of its worker busy for more than block_timeout={timeout:g} s"
        )
        box.blame(None if owner is None else (owner.scheduler, owner.number), cause, stack)
    finally:
        os._exit(EXIT_OF_BLOCKED)
