"""Runs the tasks of this process, and reports their ends.

    engine ─► execute ─► awaited ─┬─► it returned, was cancelled, or failed for good
                 ▲                │         └─► _end: counts, handle or batch
                 └─── engine ◄────┴─► it failed, and is retried: it waits again

Accepting tasks, starting and stopping their schedulers are left to the link (`local`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from .._scheduling.alarm import TICK
from .._scheduling.clock import LATEST
from .._scheduling.engine import Engine
from .._scheduling.few import Few
from .._scheduling.holdback import seems_to_end
from .._scheduling.order import Order
from .._scheduling.unheard import report_unheard
from .._shipping.failures import text_of_unasked
from .._shipping.payloads import make_failure
from .._shipping.propagation import Propagation
from .._transport import wire
from ..errors import TooLate, WorkerLost
from ..inside import SchedulerContext, running
from ..options import Options, lateness_error, run_with
from ..retry import Retry, wait_before_retry
from ..task import State, Task, TaskRef
from .endings import kept_error
from .ids import Ids
from .keeping import Keeping
from .lastfailures import failure_line, log_failure
from .link import LoadCounter
from .localentry import Attempts, Entry, Unreadable, Work, attempt_of, begin, close, name_of


class LocalRunner:
    """The runner of the engines in one loop (`engine.Runner`).

    Args:
        order: The order of the engines.
        counter: Notified of every start and end.
        contexts: The context of each engine, for its tasks.
        clock: Return the present in nanoseconds since the epoch.
        manager: The manager's id, if there is one.
        ids: The ids of the manager's tasks.
        propagation: Restores captured values before each attempt, if any are.
        keeping: Keeps the durable tasks; None: there is no store.

    Attributes:
        loop: The loop of the tasks; None before the start.
        stopped: Whether the engines are stopped: no task waits for another attempt then.
        counts: Counters, by the names of `stats.COUNTS`.
        held: Handles whose callbacks somebody waits for.
        reason: Why its link has failed; None while it has not.
    """

    def __init__(
        self,
        order: Order,
        counter: LoadCounter,
        contexts: Sequence[SchedulerContext],
        clock: Callable[[], int],
        manager: str | None,
        ids: Ids,
        propagation: Propagation | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self.few = Few()
        self._keeping = keeping
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stopped = False
        self.reason: Exception | None = None
        self.counts: Counter[str] = Counter()
        self.held: set[Task[Any]] = set()
        self._is_queue = order is not Order.TIMED
        self._counter = counter
        self._contexts = contexts
        self._clock = clock
        self._manager = manager
        self._ids = ids
        self._own_ids = ids.of[0]
        self._propagation = propagation

    def ref(self, scheduler: int, number: int) -> TaskRef | None:
        """Return a task's reference; None without a manager."""
        if self._manager is None:
            return None
        return TaskRef(self._manager, 0, scheduler, number)

    def launch(self, engine: Engine[Entry], numbers: list[int], dues: list[int]) -> None:
        keeping = self._keeping
        if keeping is None or not keeping.kept or not any(map(keeping.waits, numbers)):
            if keeping is not None:
                keeping.announced(numbers)
            engine.run(numbers, dues)
            return
        # In the order of announcements, as in a worker.
        rest = [(n, d) for n, d in zip(numbers, dues, strict=True) if not keeping.waits(n)]
        keeping.announced([number for number, _ in rest])
        engine.run([number for number, _ in rest], [due for _, due in rest])
        for number, due in zip(numbers, dues, strict=True):
            if not keeping.waits(number):
                continue
            few = not self._is_queue and keeping.is_once(number)
            if not few or self.few.take(engine, number, due):
                keeping.proposed([number], partial(self._begin_announced, engine, due, few))

    def _begin_announced(
        self, engine: Engine[Entry], due: int, few: bool, numbers: list[int]
    ) -> None:
        engine.run(numbers, [due] * len(numbers), ends=False)
        if few:  # tasks that it releases are launched in another turn, after their first steps
            self.few.began(engine)

    async def execute(self, engine: Engine[Entry], number: int, entry: Entry, due: int) -> None:
        # Not already at launch: the task may be cancelled in between.
        self._counter.count_waiting(0, engine.index, -1)
        _, work, _, options, given, captured = entry
        value: Any = None
        ending = wire.FAILED
        attempt = 1 if options is None else attempt_of(entry)
        running.set((self._contexts[engine.index], number, given, attempt))
        try:
            if captured is not None:
                assert self._propagation is not None  # it has captured
                self._propagation.restore(captured)
            if options is None:
                value = await work  # type: ignore[misc]  # attempts have options
            else:
                value = await self._begin(work, options, name_of(entry), due, attempt)
            state = State.FINISHED
        except asyncio.CancelledError as error:
            close(entry)  # if it was not awaited yet
            own = asyncio.current_task()
            from_outside = own is not None and own.cancelling() > 0
            if from_outside and not self.stopped:
                engine.was_cancelled(number)
            state, value = self._cancelled(engine, number, error, from_outside)
        except Unreadable as unreadable:
            ending = wire.UNKNOWN if unreadable.unknown else wire.UNREADABLE
            value, state = unreadable.__cause__, State.FAILED
        except BaseException as error:
            close(entry)  # if it was not awaited yet
            if issubclass(type(error), GeneratorExit) and self.loop and self.loop.is_closed():
                raise  # nobody is left to notify: the coroutine is being collected
            if self._is_kept(number) and engine.running.was_interrupted(number):
                # It was interrupted: whatever it raises then is not a failure.
                self._end(engine, number, entry, *self._unasked(number, started=True))
                return
            retry = None if options is None else options.retry
            try:
                if retry is not None and self._retry(engine, number, entry, retry, error):
                    return
            except BaseException as own:  # noqa: BLE001  else it would never end
                engine.withdraw(number)  # if it was added again
                error = own
            value, state = error, State.FAILED
        self._end(engine, number, entry, state, value, ending)
        del value, entry  # a handle keeps the exception, and its traceback this frame

    def _begin(
        self, work: Work, options: Options, name: str, due: int, attempt: int
    ) -> Awaitable[Any]:
        """Return the awaitable of a task that begins.

        It must not get the entry: an exception refers to this frame, and an entry to its handle.

        Raises:
            TooLate: It begins too late.
        """
        late = lateness_error(options, name, due, attempt, self._clock())
        if late is not None:
            self.counts["too_late"] += 1
            raise late
        if options.timeout is None:
            return begin(work)
        return run_with(options, name, partial(begin, work))

    def _retry(
        self,
        engine: Engine[Entry],
        number: int,
        entry: Entry,
        retry: Retry,
        error: BaseException,
    ) -> bool:
        """Schedule the next attempt of a task that failed; False if this was its last one."""
        attempts = entry[1]
        assert isinstance(attempts, Attempts)
        if engine.running.was_asked(number) or self.reason is not None:
            return False
        wait = wait_before_retry(retry, error, attempts.number)
        if wait is None:
            return False
        attempts.failed(failure_line(name_of(entry), error))
        until = min(self._clock() + wait, LATEST)
        asked = engine.running.was_asked(number)  # by its predicate
        if self._keeping is not None and not asked:
            self._keeping.retried({number: until})
        if asked or self.stopped or self.loop is None or self.loop.is_closed():  # it never comes
            unasked = self._unasked(number, started=False)
            state, value = (State.CANCELLED, None) if asked else unasked
            self._end(engine, number, entry, state, value)
            if state is State.CANCELLED:
                self._log_failure(engine, number, entry)
            return True
        own = asyncio.current_task(self.loop)
        if own is not None and own.cancelling():  # it raised something else on its cancellation
            engine.was_cancelled(number)
        if self._is_queue:
            engine.rest(number, entry, until)
        else:
            attempts.start = until
            engine.ended(number)
            engine.add_again([number], until, [entry])
        self.counts["retried"] += 1
        self._counter.count_waiting(0, engine.index, 1)
        return True

    def withdrawn(self, engine: Engine[Entry], number: int, entry: Entry) -> None:
        """End a task that never starts: it was cancelled, or its link has failed."""
        close(entry)
        self.few.forget(number)
        self._counter.count_waiting(0, engine.index, -1)
        state, value = self._unasked(number, started=False)
        self._end(engine, number, entry, state, value)
        if state is State.CANCELLED:
            self._log_failure(engine, number, entry)

    def _log_failure(self, engine: Engine[Entry], number: int, entry: Entry) -> None:
        """Log the last failure of a task that was cancelled between two attempts."""
        work = entry[1]
        if isinstance(work, Attempts) and work.failure:
            task = self.ref(engine.index, number) or number
            log_failure(task, work.failure)

    def broken(self, engine: Engine[Entry], error: Exception, launched: dict[int, Entry]) -> None:
        assert self.loop is not None
        self.loop.call_later(TICK, engine.wake_soon)
        self._counter.count_waiting(0, engine.index, -len(launched))
        for number, entry in launched.items():
            close(entry)
            self.few.forget(number)
            self._end(engine, number, entry, State.FAILED, error)
        report_unheard(self.loop, "a scheduler could not start its due tasks", error, None)

    def _is_kept(self, number: int) -> bool:
        """Whether a task is durable, and nobody has asked for its end."""
        return self._keeping is not None and number in self._keeping.kept

    def _cancelled(
        self, engine: Engine[Entry], number: int, error: BaseException, from_outside: bool
    ) -> tuple[State, Exception | None]:
        """Return how a task ends that was cancelled, or raised CancelledError itself."""
        if not self._is_kept(number):
            if engine.running.was_given_up(number) or self.stopped:
                return self._unasked(number, started=True)
            return State.CANCELLED, None
        over = self.stopped or (self.loop is not None and seems_to_end(self.loop))
        if engine.running.was_interrupted(number) or (from_outside and over):
            return self._unasked(number, started=True)
        assert self._keeping is not None
        failure = make_failure(text_of_unasked(error), b"", ())
        self._keeping.ended([number], State.CANCELLED, [failure], wire.UNASKED)
        return State.CANCELLED, None

    def _unasked(self, number: int, started: bool) -> tuple[State, Exception | None]:
        """Return how a task ends unasked, as its link is stopped or has failed."""
        reason = self.reason
        keeping = self._keeping
        if (started or self.stopped) and keeping is not None and number in keeping.kept:
            if keeping.stays(number, started):
                return State.KEPT, kept_error(reason)
            if started and reason is None:
                return State.LOST, WorkerLost(0, None, started, cause="its manager was closed")
        if reason is None:
            return State.CANCELLED, None
        if not isinstance(reason, WorkerLost):
            return State.LOST, reason
        lost = WorkerLost(0, None, started, reason.cause)
        lost.__cause__ = reason
        return State.LOST, lost

    def _end(
        self,
        engine: Engine[Entry],
        number: int,
        entry: Entry,
        state: State,
        value: Any,
        ending: int = wire.FAILED,
    ) -> None:
        listener = entry[0]
        if self._keeping is not None:
            if state is State.FAILED and type(value) is TooLate:
                ending = wire.TOO_LATE
            self._keeping.ended([number], state, [value], ending)
        try:  # noqa: SIM105  which costs every task
            engine.ended(number)
        except RuntimeError:  # the loop is closed: nothing else can start
            pass
        self.counts[state.value] += 1
        if self._own_ids:  # before listeners run, which may use it
            self._ids.release(0, number)
        try:
            if isinstance(listener, Task):
                listener._settle(state, value)
            else:
                listener.settle(number, state, value, None)
        finally:  # whatever raises, it counts as ended
            if self.held and isinstance(listener, Task):
                self.held.discard(listener)
            self._counter.count_ended(0, engine.index, 1)
