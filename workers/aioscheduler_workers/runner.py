"""A task's run: its bytes are decoded, its function is called and awaited, its outcome reported.

    execute ─► open ─► call ─┬─► a plain value: reported at once, without an asyncio task
                             └─► an awaitable: awaited in an asyncio task ─► reported

Whatever a task does, it ends in `_returned`, `_raised` or `_end`; an error in those is the
worker's own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from inspect import iscoroutinefunction
from types import CodeType, CoroutineType, FunctionType, NoneType, TracebackType
from typing import Any, NoReturn

from aioscheduler import registry
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._routing.lastfailures import failure_line
from aioscheduler._scheduling.clock import LATEST
from aioscheduler._scheduling.coroutines import name_of
from aioscheduler._scheduling.engine import Engine
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.failures import describe, traceback_of
from aioscheduler._shipping.latebound import UnknownFunction
from aioscheduler._shipping.propagation import Captured
from aioscheduler._shipping.shipping import open_call
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.wire import Payload
from aioscheduler.inside import ManagerProxy, SchedulerContext, running
from aioscheduler.options import Options, lateness_error, run_with
from aioscheduler.registry import Durable
from aioscheduler.retry import wait_before_retry

from .announcer import Announcer, Entry
from .outcome import encode_failure, encode_refusal, encode_unasked, encode_unopened
from .turn import Turn

_PLAIN = (None, None, 1, None, None)  # `_read_record` of a task without a record
_ALONE = frozenset((NoneType, bool, int, float, str))  # of a payload that is the one argument
_VALUES = frozenset((NoneType, bool, int, float, str, bytes, tuple, list, dict, set))


class WorkerRunner:
    """Runs the entries of a worker's engines (`engine.Runner`).

    Args:
        config: The worker's configuration.
        catalog: Reads and writes payloads.
        announcer: Announces due tasks, and holds the large payloads.
        turn: Reports every end to the host.
        proxy: The manager as tasks see it.
        begun: Where to store the number of the task that each scheduler began last, plus one; and
            after those words, one for each scheduler's last timed task that needed CONFIRM.
        clock: Returns the present in nanoseconds since the epoch.
        fail: Ends the worker.
    """

    def __init__(
        self,
        config: WorkerConfig,
        catalog: WorkerCatalog,
        announcer: Announcer,
        turn: Turn,
        proxy: ManagerProxy,
        begun: memoryview[int],
        clock: Callable[[], int],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.launch = announcer.launch
        self._config = config
        self._is_queue = config.order is not Order.TIMED
        self._catalog = catalog
        self._announcer = announcer
        self._turn = turn
        self._report = turn.report
        self._contexts: list[SchedulerContext] = [
            (proxy, config.manager, config.worker, index, clock)
            for index in range(config.schedulers)
        ]
        self._begun, self._begun_on_word = begun[: config.schedulers], begun[config.schedulers :]
        if config.confirmed and not self._is_queue:
            self._begun = self._begun_on_word
        self._clock = clock
        self._fail = fail
        self._known: dict[int | bytes, Callable[..., Any]] = {}  # called with one plain value
        self._plain: set[int | bytes] = set()  # those of them that are not async
        self._opened: tuple[bytes, Any] = (b"", None)  # the last function pickled in a frame
        self._end_child: Callable[[BaseException | None], NoReturn] | None = None

    def disown(self, end: Callable[[BaseException | None], NoReturn]) -> None:
        """Report nothing about the task that forked this child, and end with it; see `Worker`."""
        self._end_child = end
        self._report = lambda *_: end(None)

    def forget(self) -> None:
        """Drop all known functions: some of them may have been retired."""
        self._known.clear()
        self._plain.clear()

    def _begin(
        self, engine: Engine[Entry], number: int, entry: Entry, due: int
    ) -> Coroutine[Any, Any, None] | None:
        called = options = None  # `steps` looks at them
        function, payload, record = entry
        if record is None or self._is_queue or not wire.confirmed_of(record):
            self._begun[engine.index] = number + 1
        else:
            self._begun_on_word[engine.index] = number + 1
        try:
            options, alias, attempt, given, captured = (
                _PLAIN if record is None else self._read_record(record)
            )
            args: Sequence[Any]
            if type(payload) in _ALONE and function in self._known:
                called, args, kwargs = self._known[function], (payload,), None
            else:
                if isinstance(payload, list):
                    payload = self._announcer.pop_blob(number)
                    if self._is_queue:  # a queue may keep it for another attempt
                        entry = function, payload, record
                called, args, kwargs = self._open(function, payload)
                if type(function) is bytes:
                    options = self._late_options(options)
        except BaseException as error:  # noqa: BLE001  a sys.exit() in a module, for example
            ending = wire.UNKNOWN if isinstance(error, UnknownFunction) else wire.UNREADABLE
            self._end(engine, number, ending, encode_unopened(self._catalog, error))
            return None
        shown = due if given is None else given
        running.set((self._contexts[engine.index], alias or number, shown, attempt))
        try:
            if captured is not None:
                self._restore(captured)
            if options is None:
                value = called(*args, **kwargs) if kwargs else called(*args)
            else:
                name, call = options.name or name_of(called), partial(called, *args, **kwargs or {})
                if options.max_lateness is not None:
                    late = lateness_error(options, name, due, attempt, self._clock())
                    if late is not None:
                        payload = encode_failure(self._catalog, late)
                        self._end(engine, number, wire.TOO_LATE, payload)
                        return None
                value = call() if options.timeout is None else run_with(options, name, call)
            kind = type(value)
            if kind not in _VALUES and (kind is CoroutineType or isinstance(value, Awaitable)):
                return self._follow(engine, number, entry, called, options, value)
        except asyncio.CancelledError as error:
            self._cancelled(engine, number, called, error)
        except StopIteration as error:  # awaiting could not raise it; replaced as in a coroutine
            stopped = RuntimeError(f"{name_of(called)} raised StopIteration")
            stopped.__cause__ = error
            self._raised(engine, number, entry, called, options, stopped)
        except BaseException as error:  # noqa: BLE001  SystemExit, too, belongs to the awaiter
            self._raised(engine, number, entry, called, options, error)
        else:
            self._returned(engine, number, value)
        return None

    async def _follow(
        self,
        engine: Engine[Entry],
        number: int,
        entry: Entry,
        called: object,
        options: Options | None,
        awaitable: Awaitable[Any],
    ) -> None:
        try:
            value = await awaitable
        except asyncio.CancelledError as error:
            self._cancelled(engine, number, called, error)
        except BaseException as error:  # noqa: BLE001  SystemExit, too, belongs to the awaiter
            self._raised(engine, number, entry, called, options, error)
        else:
            self._returned(engine, number, value)

    # Before Python 3.12 a task's first step, and so its call, comes in the loop's next turn. But
    # a plain function is called at once if no such step is ahead of it.

    async def _begin_later(
        self, engine: Engine[Entry], number: int, entry: Entry, due: int
    ) -> None:
        engine.running.coming.discard(number)
        rest = self._begin(engine, number, entry, due)
        if rest is not None:
            await rest

    def _begin_in_turn(
        self, engine: Engine[Entry], number: int, entry: Entry, due: int
    ) -> Coroutine[Any, Any, None] | None:
        if engine.running.coming or entry[0] not in self._plain or type(entry[1]) not in _ALONE:
            return self._begin_later(engine, number, entry, due)
        return self._begin(engine, number, entry, due)

    if sys.version_info >= (3, 12):
        execute = _begin
    else:
        execute = _begin_in_turn

    def _returned(self, engine: Engine[Entry], number: int, value: object) -> None:
        ending = wire.FINISHED
        try:
            payload = self._catalog.encode(value)
        except BaseException as error:  # noqa: BLE001  a user's class may raise anything
            ending, payload = wire.FAILED, encode_refusal(value, error)
        try:
            if number in engine.running:  # it did not end in its first step
                engine.ended(number)
            self._report(engine.index, number, ending, payload)
        except Exception as error:  # noqa: BLE001  its end would go unreported
            self._fail(error)

    def _cancelled(
        self, engine: Engine[Entry], number: int, called: object, error: BaseException
    ) -> None:
        if engine.running.was_cancelled(number) or not self._is_kept(called):
            self._end(engine, number, wire.CANCELLED, None)
        else:
            BaseException.with_traceback(error, _of_task(traceback_of(error)))
            self._end(engine, number, wire.UNASKED, encode_unasked(error))

    def _raised(
        self,
        engine: Engine[Entry],
        number: int,
        entry: Entry,
        called: object,
        options: Options | None,
        error: BaseException,
    ) -> None:
        if self._end_child is not None:
            self._end_child(error)
        if engine.running.was_interrupted(number) and self._is_kept(called):
            self._end(engine, number, wire.CANCELLED, None)  # its reaction to that is no failure
            return
        ending = wire.FAILED
        try:
            own = _of_task(traceback_of(error))
            BaseException.with_traceback(error, own)
            retry = None if options is None else options.retry
            if own is None and type(error) is TypeError and iscoroutinefunction(called):
                ending, retry = wire.UNREADABLE, None  # its arguments do not fit
            if retry is not None and not engine.running.was_asked(number):
                failed = wire.read_record(entry[2]).failed + 1
                wait = wait_before_retry(retry, error, failed)
                if wait is not None:
                    name = (options and options.name) or describe(name_of, called)
                    self._retry(engine, number, entry, wait, failure_line(name, error))
                    return
        except Exception as own:  # noqa: BLE001  its end would go unreported
            self._fail(own)
            return
        self._end(engine, number, ending, encode_failure(self._catalog, error))

    def _retry(
        self, engine: Engine[Entry], number: int, entry: Entry, wait: int, line: str
    ) -> None:
        """Let a task start again: the host sends it again, or a queue keeps it."""
        self._turn.retry(engine.index, number, wait, line)
        if not self._is_queue:
            engine.ended(number)
            return
        self._turn.pack()  # ahead of its next announcement
        function, payload, record = entry
        more = wire.read_record(record)
        more = more.after_failure()
        if more.confirmed:
            self._announcer.confirm_again(number, more.confirmed)
        record = wire.make_record(more)
        engine.rest(number, (function, payload, record), min(self._clock() + wait, LATEST))

    def _end(self, engine: Engine[Entry], number: int, ending: int, payload: Payload) -> None:
        try:
            if number in engine.running:
                given_up = engine.running.was_given_up(number)
                engine.ended(number)
                if given_up and ending == wire.CANCELLED:
                    return  # nobody requested that: it is lost with its process
            self._report(engine.index, number, ending, payload)
        except Exception as error:  # noqa: BLE001  its end would go unreported
            self._fail(error)

    def withdrawn(self, engine: Engine[Entry], number: int, entry: Entry) -> None:
        """Report a task that was cancelled before its first step."""
        self._announcer.forget(number)
        self._end(engine, number, wire.CANCELLED, None)

    def broken(self, engine: Engine[Entry], error: Exception, launched: dict[int, Entry]) -> None:
        """End this process; its launched tasks that have not begun go to the next one."""
        self._fail(error)

    def context_of(self, engine: Engine[Entry]) -> SchedulerContext:
        """Return the context that the tasks of an engine share."""
        return self._contexts[engine.index]

    def _is_kept(self, called: Any) -> bool:
        """Return whether the tasks of a function are in the host's store."""
        if not self._config.has_store or type(called) is not FunctionType:
            return False
        # A function that came by value is known by its code alone.
        return bool(registry.of_function(called) or registry.of_code(called.__code__))

    def _read_record(
        self, record: int | list[Any]
    ) -> tuple[Options | None, int | None, int, int | None, Captured | None]:
        """Return the fields of `wire.run_of`, with options and captured values decoded."""
        if isinstance(record, int):
            return self._catalog.find_options(record), None, 1, None, None
        number, alias, attempt, given, payload = wire.run_of(record)
        options = None if number is None else self._catalog.find_options(number)
        captured = None if payload is None else self._read_captured(payload)
        return options, alias, attempt, given, captured

    def _read_captured(self, payload: bytes) -> Captured:
        try:
            captured: Captured = self._catalog.decode(payload)
        except BaseException as error:
            with suppress(Exception):  # its class may forbid notes
                note = "it was raised while the task's values of Manager(context=...) were read"
                BaseException.add_note(error, note)
            raise
        return captured

    def _restore(self, captured: Captured) -> None:
        propagation = self._catalog.propagation
        assert propagation is not None  # as the manager has captured values
        propagation.restore(captured)

    def _open(
        self, function: int | bytes, payload: Payload
    ) -> tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]:
        if isinstance(function, bytes):
            return open_call(self._catalog, self._open_function(function), payload)
        opened = open_call(self._catalog, function, payload)
        if type(payload) in _ALONE:
            self._known[function] = opened[0]
            if not iscoroutinefunction(opened[0]):
                self._plain.add(function)
        return opened

    def _open_function(self, pickled: bytes) -> Callable[..., Any]:
        """Decode a function pickled in a frame; once for all tasks of the frame."""
        if self._opened[0] is not pickled:  # the same object for all tasks of a frame only
            self._opened = pickled, self._catalog.decode(pickled)
        found: Any = self._opened[1]
        function: Callable[..., Any] = found.function if isinstance(found, Durable) else found
        return function

    def _late_options(self, options: Options | None) -> Options | None:
        """Return a task's options, with those of its function, which the host does not know."""
        found = self._opened[1]
        if not isinstance(found, Durable):
            return options
        return found.options._replace(name=None if options is None else options.name)


STEPS: frozenset[CodeType] = frozenset(
    (
        WorkerRunner._begin.__code__,
        WorkerRunner._follow.__code__,
        WorkerRunner._begin_later.__code__,
    )
)
"""The code that calls a task's own code."""

_OURS = STEPS | {run_with.__code__}


def _of_task(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that is the task's own; None if there is none."""
    while trace is not None and trace.tb_frame.f_code in _OURS:
        trace = trace.tb_next
    return trace
