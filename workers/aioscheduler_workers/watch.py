"""The thread beside a worker's loop: it ends what has no host, and sees what blocks the loop.

    the host has ended ─────────────────────────► the process ends, after `ORPHAN_GRACE`
    no tick for `BLOCKED_AFTER` ────────────────► said in the log, with the stack
    one step for longer than `block_timeout` ───► last words, and the process ends

What is blocked is reported by the ticks of the loop, once a second. That is too coarse for a
`block_timeout`: with one, the thread asks the loop for a turn (`Probe`) and looks in which step it
is for as long as that does not come. A loop that turns is not looked at, and without a
`block_timeout` it is not asked.

The thread does not touch the pipe, where it would tear frames of the loop's. Nor does it call what
is a user's and may raise or never return, such as a handler of the log or the name of a task: what
it has seen is told in a thread of its own. Nothing keeps Python from collecting garbage in it.
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
LATE = 0.5  # seconds after which a look of this thread shows that the process stood still
ORPHAN_GRACE = 1.0  # seconds a worker without a host has to end its tasks, or what they have left
_LOOKS = 8  # in each `block_timeout`, so that its end is seen an eighth late, if not `_LEAST`
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
        timeout: Its `block_timeout` in seconds, if it has one.
        thresholds: Told of the size.
        box: Has the last words.

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
        """Look once. Does not raise: the next look is to come, whatever this one has met."""
        self._count += 1
        self._try(self._look_at_step)
        if self._count % self._looks == 0:
            self._try(self._look_at_ticks)
            self._try(self._look_at_size)

    def _try(self, part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:  # noqa: BLE001  such as a MemoryError; all of it
            if not self._has_failed:  # or it is told 50 times a second
                self._has_failed = True
                with suppress(BaseException):  # nobody can be told
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
    """Writes into the log, in a thread for each report, one at a time.

    The log's handlers are a user's, and so are names that are told: what they raise is told on
    standard error, as of any thread, and if they do not return no other report is made.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def begin(self, report: Callable[..., None], *args: object) -> None:
        """Have a report made, if none is under way.

        Raises:
            RuntimeError: There can be no more threads.
        """
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=report, args=args, name="report", daemon=True)
            thread.start()
            self._thread = thread


def looks_between(timeout: float) -> int:
    """Return how many looks at the loop a `block_timeout` needs in `WATCH_EVERY` seconds."""
    return min(max(math.ceil(_LOOKS * WATCH_EVERY / timeout), 1), round(WATCH_EVERY / _LEAST))


class Watchdog:
    """Finds out from the loop's ticks when it has been blocked. Pure.

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

    Who looks holds frames, and with them what a user has in them. From one look to the next they
    are held here, where the loop lets go of them. But a step that ends in the midst of a look may
    leave them to the watching thread alone, which then calls what is called when they are freed.

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
    except Exception:  # noqa: BLE001  a task has closed what is not its own, or there is no memory
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
        "a look at the loop of a worker (pid %d) has failed, and others may: it may not be known "
        "what blocks it",
        os.getpid(),
        exc_info=error,
    )


def _end_blocked(worker: Worker, box: BlackBox, step: Step, timeout: float) -> None:
    """End this process, and leave word of why."""
    try:
        owner, told = None, [""]
        with suppress(Exception):  # of an odd loop or asyncio task
            owner = owner_of(step)
        told.append("a callback of the loop" if owner is None else f"task {owner}")

        def tell() -> None:
            with suppress(BaseException):  # it is a user's, as the source that a loader gives
                told[0] = stack_of(step.frame)
                told[1] = describe(step, worker.name_own(step.current))

        with suppress(RuntimeError):  # there can be no more threads
            words = threading.Thread(target=tell, name="last words", daemon=True)
            words.start()
            words.join(LAST_WORDS)
        stack, who = told
        cause = (
            f"{who} has kept the loop of its worker busy for more than block_timeout={timeout:g} s"
        )
        box.blame(None if owner is None else (owner.scheduler, owner.number), cause, stack)
    finally:
        os._exit(EXIT_OF_BLOCKED)
