"""Keeps a worker's slot filled: starts a process, watches it, replaces it.

    starting ──READY──► ready ──DRAINING, recycle()──► draining
        │                 │                                │
        │ ended           │ ended                          │ ended
        ▼                 ▼                                ▼
      restarting ◄────────┴────────────────────────────────┘   stopped: closed, or failed for good
        └─ at once, or after a while if it could not begin ─► starting

The first process must become ready: if it does not, there is no retry. Each replacement counts,
whatever made it necessary, unless the process drained (after SIGTERM, or because it is recycled)
and ended in order (`draining`); after too many (`budget`) the manager fails. Processes that lived
only briefly count, too.

An exception between two processes ends the next process or, if there is none, the manager: no slot
stays empty and no handle open.

Reports go one way, to the slot's `Occupant`: a frame has come, a process was started, a process
has ended. Orders come the other way: start, recycle, close, kill.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from .._scheduling.alarm import TICK
from .._shipping.failures import in_a_line
from .._transport import wire
from ..errors import WorkerLost, WorkerStartError
from ..stats import WorkerState
from .budget import RestartBudget
from .draining import KILL_AFTER, Drain
from .occupant import End, Occupant, Then
from .reports import HELD_UP, SILENT, is_said, name_process, report_end, report_slow, report_start
from .workerhandle import MakeWorkerHandle, WorkerHandle

log: logging.Logger = logging.getLogger("aioscheduler")

SILENT_AFTER = 1.5 * TICK  # reached at the second check in a row without a frame from it
START_PATIENCE = 5.0  # seconds that a process may take to become ready before it is logged
FIRST_DELAY = 0.1  # seconds until a slot is filled again after a process that could not begin
LONGEST_DELAY = 5.0


class Supervisor:
    """Keeps one worker's slot filled.

    Args:
        worker: The slot, from 0.
        make: Makes handles.
        budget: The manager's restart budget.
        occupant: The owner of the tasks, notified of every process.
        name: The manager's name, if it has one; for messages.

    Attributes:
        process: The process, if there is one.
        counts: The counts of this slot, by the names of `stats.COUNTS`.
        cause: What ended the last process, in a line, as far as it is known.
        name: The manager's name.
    """

    def __init__(
        self,
        worker: int,
        make: MakeWorkerHandle,
        budget: RestartBudget,
        occupant: Occupant,
        name: str = "",
    ) -> None:
        self.process: WorkerHandle | None = None
        self.counts: Counter[str] = Counter()
        self.cause: str = ""
        self.name: str = name
        self._state = WorkerState.STARTING
        self._worker = worker
        self._who = f"worker {worker}{name and f' of {name}'}"
        self._make = make
        self._budget = budget
        self._occupant = occupant
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # for the next process
        self._drain: Drain | None = None  # of a draining process
        self._refilling = False  # its process is recycled, and the next one is not ready
        self._pid: int | None = None  # of the last process
        self._node: str | None = None  # the machine of that, if not this one
        self._generation = 0
        self._unready = 0  # processes in a row that could not begin
        self._closing = False
        self._heard = False  # whether a frame has come since the last tick
        self._last_heard = 0.0
        self._silent = False
        self._spawned = 0.0
        self._slow = False  # it takes long to become ready
        self._traceback: str | None = None  # of a worker that could not begin, or go on

    @property
    def state(self) -> WorkerState:
        """The state of the process; SILENT if nothing has come from it for a while."""
        silent = self._silent and self._state is WorkerState.READY
        return WorkerState.SILENT if silent else self._state

    @property
    def avoided(self) -> bool:
        """Whether new tasks had better go elsewhere: it is silent, slow to begin, or draining.

        Also if it was recycled and the next process is not ready, or if it has no machine yet.
        """
        elsewhere = self._slow or self._refilling or not self._is_there
        return elsewhere or self.state in (WorkerState.SILENT, WorkerState.DRAINING)

    @property
    def _is_there(self) -> bool:
        """Whether the process has a machine; True between two processes, too."""
        return self.process is None or self.process.pid is not None

    # ---- life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the first process.

        Raises:
            OSError: The system has no room for it.
        """
        self._loop = loop
        self._ready, self._gone = loop.create_future(), loop.create_future()
        # Its failure is also reported to the occupant, so nobody need await it here.
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self._spawn()

    async def ready(self) -> None:
        """Wait until the first process is ready.

        Raises:
            WorkerStartError: It could not begin.
        """
        if self._ready is not None:
            await asyncio.shield(self._ready)

    async def close(self, timeout: float | None, describe_running: Callable[[], str]) -> None:
        """End the process: ask it to close, then kill it. None follows.

        Args:
            timeout: Seconds that its tasks have; None for no limit.
            describe_running: Returns the names of running tasks, for the log.
        """
        self._closing = True
        self._stop_timers()
        if self.process is None or self._gone is None:
            self._stop(End(Then.CLOSED))
            return
        if not self._is_there:
            self.process.kill()  # there is no process yet, so it has nothing to finish
        try:
            self.process.pipe.send(wire.encode([wire.Kind.CLOSE, timeout]))
            self.process.pipe.flush()
        except Exception as error:  # noqa: BLE001  it ends all the same
            self.process.kill(f"it cannot be asked to end: {error!r}")
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
                    "%s does not end, and is killed; one of these swallows its cancellation, or "
                    "keeps the loop busy: %s",
                    self._describe(),
                    describe_running() or "something its tasks have left behind, or its lifespan",
                )
                self.cause = HELD_UP
            self.process.kill()
            await self._gone

    def recycle(self, why: str) -> bool:
        """Let the process drain and be replaced; if it ends in order, no budget is spent.

        Args:
            why: The reason, to follow "as" in messages.

        Returns:
            Whether it drains now: not if it is starting, is ending anyway, or has ended.
        """
        process = self.process
        is_ready = self._state is WorkerState.READY and not self._closing
        if not is_ready or process is None or not process.pid:
            return False
        log.info("%s is recycled: %s", self._describe(), why)
        self._refilling = True
        self._begin_drain(process, why).ask()
        return True

    def kill(self) -> None:
        """Kill the process; none follows."""
        self._closing = True
        self._stop_timers()
        if self.process is None:
            self._stop(End(Then.CLOSED))
        else:
            self.process.kill()

    def look_after(self) -> None:
        """Log when the process falls silent, and when it answers again; called once a tick.

        Any frame is a sign of life: a host that was busy may have the worker's ticks behind many
        other frames that it has yet to read.
        """
        now = self._now()
        if self._heard:
            self._heard, self._last_heard = False, now
        if self.process is not None:
            self.process.pipe.check()
        late = now - self._last_heard > SILENT_AFTER
        silent = late and self._state is WorkerState.READY
        if not self._is_there:
            self._spawned = now  # the engine itself logs that it looks for a machine
        slow = self._state is WorkerState.STARTING and now - self._spawned > START_PATIENCE
        if slow and not self._slow:
            log.warning(report_slow(self._describe(), now - self._spawned, self._refilling))
        self._slow = slow
        if silent is not self._silent and self.process is not None:
            self._silent = silent
            log.warning("%s %s", self._describe(), SILENT if silent else "answers again")

    # ---- frames from the process

    def _receive(self, frame: wire.Frame) -> None:
        kind = frame[0]
        self._heard = True
        if kind == wire.Kind.READY:
            self._became_ready()
            self._occupant.receive(frame)
        elif kind == wire.Kind.FATAL:
            self._traceback = str(frame[1])
        elif kind == wire.Kind.DRAINING:
            if self.process is not None and not self._closing and self._drain is None:
                self._begin_drain(self.process)
        elif kind == wire.Kind.DRAINED:
            if self._drain is not None:
                self._drain.is_through = True
        else:
            self._occupant.receive(frame)

    def _became_ready(self) -> None:
        self._state = WorkerState.READY
        if self.process is not None:
            self._pid, self._node = self.process.pid, self.process.node
        self._last_heard = self._now()
        self._slow = False
        if self._unready > 1:
            log.warning("%s is ready, after %d that were not", self._describe(), self._unready)
        self._unready = 0
        self._refilling = False
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _begin_drain(self, process: WorkerHandle, why: str = "") -> Drain:
        """Begin the draining of a process."""
        assert self._loop is not None
        self._state = WorkerState.DRAINING
        self._drain = Drain(self._loop, process, why)
        return self._drain

    # ---- from one process to the next

    def _spawn(self) -> None:
        assert self._loop is not None
        self._timer = None
        self._state = WorkerState.STARTING
        self._silent = self._slow = False
        self._traceback = None
        self.cause = ""
        self._spawned = self._now()
        process = self._make(self._generation, self._receive, self._ended)
        self._generation += 1
        process.start(self._loop)
        self.process, self._pid, self._node = process, process.pid, process.node
        try:
            self._occupant.connect(process)
        except Exception as error:  # noqa: BLE001  the process has no tasks, whatever this is
            process.kill(f"its tasks cannot be sent to it: {error!r}")

    def _ended(self, exitcode: int | None, cause: str) -> None:
        """Handle the end of the process; the manager fails if that raises."""
        try:
            self._take_end(exitcode, cause)
        except Exception as error:
            log.exception("the end of %s could not be handled", self._describe())
            reason = WorkerLost(self._worker, exitcode, started=None, manager=self.name)
            reason.add_note(f"the end of {self._describe()} could not be handled: {error!r}")
            self._stop(End(Then.FAILED, exitcode, reason=reason))

    def _take_end(self, exitcode: int | None, cause: str) -> None:
        assert self._ready is not None
        process, self.process = self.process, None
        assert process is not None
        self._node = process.node
        self._stop_timers()
        drain, self._drain = self._drain, None
        kept = drain if drain is not None and drain.went_in_order(exitcode) else None
        if kept is not None:
            self.cause = kept.explain_loss()
        self.cause = self.cause or in_a_line(cause, self._traceback or "")
        if self._closing:
            self._stop(End(Then.CLOSED, exitcode, process))
        elif not self._ready.done():
            failed = WorkerStartError(self._explain_start(exitcode, cause))
            self._stop(End(Then.FAILED, exitcode, process, reason=failed))
        elif kept is None and not (
            self._occupant.forgives() or self._budget.spend(self._now(), process.shared_end)
        ):
            lost = WorkerLost(self._worker, exitcode, started=None, manager=self.name)
            lost.add_note(
                f"more than max_restarts={self._budget.most, self._budget.period} workers had to "
                f"be replaced; the last: {self._explain(drain, exitcode, cause)}"
            )
            self._stop(End(Then.FAILED, exitcode, process, reason=lost))
        else:
            story = self._explain(drain, exitcode, cause)
            recycled = kept is not None and kept.recycles
            planned = recycled and kept is not None and kept.went_by_itself(exitcode)
            starting = self._state is WorkerState.STARTING
            self._unready += starting
            said = not starting or is_said(self._unready)
            self._occupant.ended(End(Then.REPLACED, exitcode, process, story, None, planned, said))
            self.counts["recycled" if recycled else "restarts"] += 1
            self._replace()

    def _replace(self) -> None:
        """Fill the slot, after a delay that grows with each process that could not begin."""
        assert self._loop is not None
        self._state = WorkerState.RESTARTING
        self._timer = self._loop.call_later(self._delay(), self._try_to_spawn)

    def _delay(self) -> float:
        """Return the seconds until the next attempt."""
        if not self._unready:
            return 0.0
        return float(min(FIRST_DELAY * 2 ** min(self._unready - 1, 10), LONGEST_DELAY))

    def _try_to_spawn(self) -> None:
        """Start a process, or retry later if the system cannot; waiting loses nothing."""
        assert self._loop is not None
        try:
            self._spawn()
        except Exception as error:  # noqa: BLE001  the system has no room, no memory, no thread
            self._state = WorkerState.RESTARTING
            self._unready += 1
            delay = self._delay()
            if is_said(self._unready):
                text = "%s cannot be started, the next attempt is in %.1f s: %s"
                log.error(text, self._who, delay, error)
            self._timer = self._loop.call_later(delay, self._try_to_spawn)

    def _stop(self, end: End) -> None:
        """Leave the slot empty for good."""
        if self._state is WorkerState.STOPPED:
            return
        self._closing, self._state = True, WorkerState.STOPPED
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(end.reason or self._not_begun(end.exitcode))
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        self._occupant.ended(end)

    def _not_begun(self, exitcode: int | None) -> WorkerStartError:
        if self._traceback is not None:
            return WorkerStartError(self._explain_start(exitcode, ""))
        return WorkerStartError(f"the manager was closed before {self._who} was ready")

    def _now(self) -> float:
        """Return the loop's time: processes live in real time even if due times are faked."""
        return 0.0 if self._loop is None else self._loop.time()

    def _stop_timers(self) -> None:
        """Cancel the next start, and the time limit of a draining process."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._drain is not None:
            self._drain.stop()

    def _explain_start(self, exitcode: int | None, cause: str) -> str:
        return report_start(self._describe(), exitcode, cause, self._traceback)

    def _explain(self, drain: Drain | None, exitcode: int | None, cause: str) -> str:
        if self._state is WorkerState.STARTING:
            return self._explain_start(exitcode, cause)
        why = "" if drain is None else drain.phrase
        return report_end(self._describe(), why, exitcode, cause, self._traceback)

    def _describe(self) -> str:
        return name_process(self._who, self._node, self._pid)
