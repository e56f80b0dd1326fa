"""Keeps a worker's place filled: starts a process, watches it, replaces it.

    starting ──READY──► ready ──DRAINING──► draining
        │                 │                     │
        │ ended           │ ended               │ ended
        ▼                 ▼                     ▼
      restarting ◄────────┴─────────────────────┘     stopped: closed, or failed for good
        └─ at once, or after a while if it could not begin ─► starting

The first process must become ready: if it does not, nothing is tried again. Each replacement is
counted, however it came to be needed, unless the process had been told to go (SIGTERM); when
there were too many, the manager fails. The rule, so many in so many seconds, is that of Erlang's
supervisors (`intensity` and `period`), and short lives count, too.

Whatever raises between two processes is the end of the next one or, where there is none to blame,
of the manager: no place stays empty and no handle open.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from .._scheduling.alarm import TICK
from .._shipping.failures import LONGEST
from .._transport import wire
from ..errors import WorkerLost, WorkerStartError, describe_exit
from ..stats import WorkerState
from .incarnation import Launch, Life

log: logging.Logger = logging.getLogger("aioscheduler")

KILL_AFTER = 0.5  # seconds a worker has to end what it was told to cancel
DRAIN_TIME = 10.0  # seconds that running tasks have in a worker that was told to go
SILENT_AFTER = 1.5 * TICK  # at the second look in a row that finds no word of it
START_PATIENCE = 5.0  # seconds that a process may take to be ready before it is said
FIRST_DELAY = 0.1  # seconds until a place is filled again after a process that could not begin
LONGEST_DELAY = 5.0


_HELD_UP = (
    "when the manager was closed, this task or another there swallowed its cancellation, or kept "
    "the loop busy; on CancelledError, clean up and raise it again"
)


class RestartBudget:
    """How many replacements a manager may have. Pure.

    Args:
        most: How many.
        period: In how many seconds.
    """

    def __init__(self, most: int, period: float) -> None:
        self.most = most
        self.period = period
        self._times: deque[float] = deque()

    def spend(self, now: float) -> bool:
        """Notes a replacement; False if it is one too many."""
        while self._times and self._times[0] <= now - self.period:
            self._times.popleft()
        if len(self._times) >= self.most:
            return False
        self._times.append(now)
        return True


class Occupant(Protocol):
    """Who has the tasks of a place (`remote.RemoteLink`)."""

    def receive(self, frame: wire.Frame) -> None:
        """Takes a frame that is not about the process itself."""

    def connect(self, life: Life) -> None:
        """A process was started: it is to be told everything."""

    def cut(self, life: Life, exitcode: int | None) -> str:
        """The process has ended, and its pipe was read to the end; another will come.

        Returns:
            What becomes of its tasks, in words.
        """

    def describe_running(self) -> str:
        """Names tasks that have started and not ended; at most a few."""

    def settle_all(self, exitcode: int | None, lost: bool) -> None:
        """No process will come any more; what waits is lost, or else cancelled. Never raises."""


class Supervisor:
    """Keeps one worker's place filled.

    Args:
        worker: The place, from 0.
        launch: Makes processes.
        budget: Of the manager.
        occupant: Has the tasks.
        failed: Called with the reason when the place cannot be filled: the manager is to fail.

    Attributes:
        life: The process, if there is one.
        counts: What has been counted in this place, by the names of `stats.COUNTS`.
        cause: What ended the last process, in a line, as far as it is known.
    """

    def __init__(
        self,
        worker: int,
        launch: Launch,
        budget: RestartBudget,
        occupant: Occupant,
        failed: Callable[[Exception], None],
    ) -> None:
        self.life: Life | None = None
        self.counts: Counter[str] = Counter()
        self.cause: str = ""
        self._state = WorkerState.STARTING
        self._worker = worker
        self._launch = launch
        self._budget = budget
        self._occupant = occupant
        self._failed = failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # for the next process, or to end one
        self._pid: int | None = None  # of the last process
        self._lives = 0
        self._unready = 0  # processes in a row that could not begin
        self._closing = False
        self._lost = False  # the manager has failed: what waits is lost
        self._heard = False  # something, since it was last asked
        self._last_heard = 0.0
        self._silent = False
        self._spawned = 0.0
        self._slow = False  # it takes long to be ready
        self._traceback: str | None = None  # of a worker that could not begin, or go on

    @property
    def state(self) -> WorkerState:
        """What the process is doing; SILENT if it has not ticked for a while."""
        silent = self._silent and self._state is WorkerState.READY
        return WorkerState.SILENT if silent else self._state

    @property
    def avoided(self) -> bool:
        """Whether new tasks are better sent elsewhere: it does not answer, or is not ready yet."""
        return self._slow or self.state is WorkerState.SILENT

    # ---- life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the first process.

        Raises:
            OSError: The system has no room for it.
        """
        self._loop = loop
        self._ready, self._gone = loop.create_future(), loop.create_future()
        # Its failure is told by `failed` as well, so it need not be awaited here.
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self._spawn()

    async def ready(self) -> None:
        """Returns when the first process answers.

        Raises:
            WorkerStartError: It could not begin.
        """
        if self._ready is not None:
            await asyncio.shield(self._ready)

    async def close(self, timeout: float | None) -> None:
        """Ends the process: politely, then not; none comes after it."""
        self._closing = True
        self._cancel_timer()
        if self.life is None or self._gone is None:
            self._stop(None)
            return
        try:
            self.life.pipe.send(wire.encode([wire.Kind.CLOSE, timeout]))
            self.life.pipe.flush()
        except Exception as error:  # noqa: BLE001  it ends all the same
            self.life.kill(f"it cannot be told to end: {error!r}")
        patience = None if timeout is None else timeout + KILL_AFTER
        await asyncio.wait([self._gone], timeout=patience)
        if not self._gone.done():
            if self._state is WorkerState.STARTING:
                log.warning(
                    "%s is killed: it was still starting, with its imports or its initializer",
                    self._describe(),
                )
            else:
                log.warning(
                    "%s does not end, and is killed; what swallows its cancellation, or keeps the "
                    "loop busy, is one of: %s",
                    self._describe(),
                    self._occupant.describe_running() or "what its tasks have left behind",
                )
                self.cause = _HELD_UP
            self.life.kill()
            await self._gone

    def fail(self) -> None:
        """Ends the process at once: the manager has failed."""
        if self._lost:
            return
        self._closing = self._lost = True
        self._cancel_timer()
        if self.life is None:
            self._stop(None)
        else:
            self.life.kill()

    def look_after(self) -> None:
        """To be called once a tick: says when the process falls silent, and when it is back.

        Whatever has come is a sign of life: a host that was kept busy has its ticks behind much
        else that it is still to read.
        """
        now = self._now()
        if self._heard:
            self._heard, self._last_heard = False, now
        if self.life is not None:
            self.life.pipe.check()
        late = now - self._last_heard > SILENT_AFTER
        silent = late and self._state is WorkerState.READY
        slow = self._state is WorkerState.STARTING and now - self._spawned > START_PATIENCE
        if slow and not self._slow:
            log.warning(
                "%s is not ready after %.0f s: its initializer, or an import, takes long; its "
                "tasks wait, and new ones go elsewhere if they can",
                self._describe(),
                now - self._spawned,
            )
        self._slow = slow
        if silent is not self._silent and self.life is not None:
            self._silent = silent
            log.warning(
                "%s %s",
                self._describe(),
                "does not answer: it is stopped, or a task keeps its loop busy; its tasks wait"
                if silent
                else "answers again",
            )

    # ---- what the process says

    def _receive(self, frame: wire.Frame) -> None:
        kind = frame[0]
        self._heard = True
        if kind == wire.Kind.READY:
            self._became_ready()
        elif kind == wire.Kind.FAILED:
            self._traceback = frame[1]
        elif kind == wire.Kind.DRAINING:
            self._drain()
        else:
            self._occupant.receive(frame)

    def _became_ready(self) -> None:
        self._state = WorkerState.READY
        self._last_heard = self._now()
        self._slow = False
        self._unready = 0
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _drain(self) -> None:
        """Gives a process that was told to go its time."""
        if self._loop is not None and self.life is not None and not self._closing:
            self._state = WorkerState.DRAINING
            self._timer = self._loop.call_later(DRAIN_TIME + KILL_AFTER, self.life.kill)

    # ---- from one process to the next

    def _spawn(self) -> None:
        assert self._loop is not None
        self._timer = None
        self._state = WorkerState.STARTING
        self._silent = self._slow = False
        self._traceback = None
        self.cause = ""
        self._spawned = self._now()
        life = self._launch(self._lives, self._receive, self._ended)
        self._lives += 1
        life.start(self._loop)
        self.life, self._pid = life, life.pid
        try:
            self._occupant.connect(life)
        except Exception as error:  # noqa: BLE001  whatever it is, this process knows nothing
            life.kill(f"it cannot be told its tasks: {error!r}")

    def _ended(self, exitcode: int | None, cause: str) -> None:
        """Take the end of the process; the manager fails if that cannot be done in order."""
        try:
            self._take_end(exitcode, cause)
        except Exception as error:
            log.exception("the end of %s could not be dealt with", self._describe())
            reason = WorkerLost(self._worker, exitcode, started=None)
            reason.add_note(f"the end of {self._describe()} could not be dealt with: {error!r}")
            self._give_up(reason, exitcode)

    def _take_end(self, exitcode: int | None, cause: str) -> None:
        assert self._ready is not None
        life, self.life = self.life, None
        assert life is not None
        self._cancel_timer()
        self.cause = self.cause or _in_a_line(cause, self._traceback or "")
        state = self._state
        if self._closing:
            self._stop(exitcode)
        elif not self._ready.done():
            reason = WorkerStartError(self._explain_start(exitcode, cause))
            self._ready.set_exception(reason)
            self._give_up(reason, exitcode)
        elif state is not WorkerState.DRAINING and not self._budget.spend(self._now()):
            lost = WorkerLost(self._worker, exitcode, started=None)
            lost.add_note(
                f"more than max_restarts={self._budget.most, self._budget.period} workers had to "
                f"be replaced; the last: {self._explain(state, exitcode, cause)}"
            )
            self._give_up(lost, exitcode)
        else:
            fate = self._occupant.cut(life, exitcode)
            log.warning("%s; it is replaced: %s", self._explain(state, exitcode, cause), fate)
            self._unready += state is WorkerState.STARTING
            self._replace()

    def _replace(self) -> None:
        """Fills the place: at once, or after a while, the longer the more often it failed."""
        assert self._loop is not None
        self._state = WorkerState.RESTARTING
        self.counts["restarts"] += 1
        delay = 0.0
        if self._unready:
            delay = min(FIRST_DELAY * 2 ** (self._unready - 1), LONGEST_DELAY)
        self._timer = self._loop.call_later(delay, self._try_to_spawn)

    def _try_to_spawn(self) -> None:
        """Retries for as long as there is no process to be had; nothing is lost by waiting."""
        assert self._loop is not None
        try:
            self._spawn()
        except Exception as error:  # noqa: BLE001  the system has no room, no memory, no thread
            self._state = WorkerState.RESTARTING
            self._unready += 1
            delay = min(FIRST_DELAY * 2 ** (self._unready - 1), LONGEST_DELAY)
            log.error(
                "worker %d cannot be started, the next try is in %.1f s: %s",
                self._worker,
                delay,
                error,
            )
            self._timer = self._loop.call_later(delay, self._try_to_spawn)

    def _give_up(self, reason: Exception, exitcode: int | None) -> None:
        self._closing = self._lost = True
        self._failed(reason)
        self._stop(exitcode)

    def _stop(self, exitcode: int | None) -> None:
        self._state = WorkerState.STOPPED
        if self._ready is not None and not self._ready.done():
            why = self._explain_start(exitcode, "")
            if self._closing and not self._lost and self._traceback is None:
                why = f"the manager was closed before worker {self._worker} was ready"
            self._ready.set_exception(WorkerStartError(why))
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        self._occupant.settle_all(exitcode, self._lost)

    def _now(self) -> float:
        """Gives the loop's time: lives, ticks and restarts are real where due times are not."""
        return 0.0 if self._loop is None else self._loop.time()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- words

    def _explain_start(self, exitcode: int | None, cause: str) -> str:
        if self._traceback is not None:
            return f"worker {self._worker} could not begin:\n\n{self._traceback}"
        return (
            f"{self._describe()} {describe_exit(exitcode)} before it was ready; "
            f"{cause or 'look at its output above'}"
        )

    def _explain(self, state: WorkerState, exitcode: int | None, cause: str) -> str:
        if state is WorkerState.STARTING:
            return self._explain_start(exitcode, cause)
        if state is WorkerState.DRAINING:
            return f"{self._describe()} was told to end and {describe_exit(exitcode)}"
        cause = cause or self._traceback or ""
        return f"{self._describe()} {describe_exit(exitcode)}{cause and f' ({cause})'}"

    def _describe(self) -> str:
        return f"worker {self._worker} (pid {self._pid})"


def _in_a_line(cause: str, traceback: str) -> str:
    """Says in a line why a process has ended.

    Args:
        cause: Why it was killed, or its last words: the traceback of what came out of its loop,
            or what `faulthandler` wrote.
        traceback: What the process said of itself.
    """
    lines = (cause or traceback).strip().splitlines() or [""]
    if not lines[0].startswith("Traceback"):
        return lines[0][:LONGEST]
    last = lines[-1][:LONGEST]
    return f"{last}, raised out of its event loop, as by a callback" if cause else last
