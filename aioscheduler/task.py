"""What a user holds of a task: its handle and its reference.

A task runs without a handle, and this package keeps none once the user drops it. A handle is
notified of the end by its home (`home.Home`: the link of the worker that has the task).
"""

from __future__ import annotations

import asyncio
import contextvars
import uuid
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from ._scheduling.clock import to_datetime
from ._scheduling.states import ENDED, MOVES, State
from ._scheduling.unheard import Unseen, describe
from ._shipping.failures import traceback_of
from .errors import RemoteError
from .home import Home
from .refs import TaskRef, check_ref

__all__ = ["ENDED", "MOVES", "State", "Task", "TaskRef", "check_ref"]

T = TypeVar("T")


if TYPE_CHECKING:

    class _Awaited(asyncio.Future[T]):
        """For type checkers: `asyncio.wait` accepts a task, but is typed for futures only."""

        _state: Any
        _callbacks: Any
        # A future has these and a task does not: checkers must reject them.
        __iter__: None  # type: ignore[assignment]
        get_loop: None  # type: ignore[assignment]
        set_exception: None  # type: ignore[assignment]
        set_result: None  # type: ignore[assignment]
else:
    _Awaited = Generic


class Task(_Awaited[T]):
    """A handle on a scheduled task: await it, query it, cancel it, or drop it.

    Awaiting it returns the result or raises what the task raised. It may be awaited many times,
    and cancelling the awaiter does not cancel the task. Made by `schedule`, never by hand.
    """

    _id: str | None
    _kept: Any  # what the store keeps of a durable task

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_decode",
        "_failure",
        "_home",
        "_id",
        "_kept",
        "_label",
        "_number",
        "_scheduler",
        "_state",
        "_traceback",
        "_unseen",
        "_value",
        "_when",
    )

    def __init__(
        self, home: Home, scheduler: int, number: int, when: datetime | int, label: object = ""
    ) -> None:
        self._label = label
        self._home = home
        self._scheduler = scheduler
        self._number = number
        self._when = when
        self._state: State | None = None  # None: not ended, ask home
        self._callbacks: list[_Callback] | None = None

    @property
    def priority(self) -> datetime | int:
        """The due time as given to `schedule`; aware UTC for a timedelta; 0 in a queue."""
        if isinstance(self._when, int) and self._when:
            return to_datetime(self._when)
        return self._when

    @property
    def due(self) -> datetime | None:
        """The time at which it will start, in aware UTC; None in a queue or once it has begun."""
        if self._state is not None:
            return None
        due = self._home.due(self._scheduler, self._number)
        return None if due is None else to_datetime(due)

    @property
    def name(self) -> str:
        """The option `name`; by default the function's `module:qualname`."""
        label = self._label
        return label if isinstance(label, str) else self._home.name_of(label)

    @property
    def id(self) -> str | None:
        """The option `id`; None without one, or once another task has replaced this one."""
        return getattr(self, "_id", None)  # unset by default: a task without an id pays nothing

    @property
    def uuid(self) -> uuid.UUID:
        """An id unique to this task, the same for every handle on it.

        It cannot be guessed from the ids of other tasks.
        """
        ref = self.ref
        number, key = self._number.to_bytes(8), self._home.identity.to_bytes(16)
        if ref is not None and ref.is_durable:  # it may move between workers
            number, key = ref.number.to_bytes(8, signed=True), bytes.fromhex(ref.manager)
        return uuid.UUID(bytes=blake2b(number, key=key, digest_size=16).digest(), version=4)

    @property
    def ref(self) -> TaskRef | Any:  # Any, not None: with a manager there always is one
        """The picklable reference; None on a scheduler without a manager.

        A durable task's reference changes when the store opens (`await manager.ready()`).
        """
        return self._home.ref(self._scheduler, self._number, getattr(self, "_kept", None))

    @property
    def state(self) -> State:
        """The task's state, as far as this process knows."""
        return self._state or self._home.state(self._number)

    def done(self) -> bool:
        """Return whether the task has ended, in whatever way."""
        return self._state is not None

    def cancelled(self) -> bool:
        """Return whether the task ended as cancelled."""
        return self._state is State.CANCELLED

    def result(self) -> T:
        """Return what the task returned.

        Raises:
            asyncio.InvalidStateError: The task has not ended.
            asyncio.CancelledError: It was cancelled.
            WorkerLost: Its worker died with it, or the manager failed.
            RemoteError: Its result or exception could not be sent back.
            Exception: Whatever the task raised.
        """
        error = self.exception()
        if error is None:
            return cast("T", self._value)
        try:
            # The traceback from before the first await: it must not grow with each one.
            raise BaseException.with_traceback(error, self._traceback)
        finally:
            # The traceback holds this frame: a cycle would keep the awaiters' frames alive.
            del self, error

    def exception(self) -> BaseException | None:
        """Return what the task raised, or None if it returned.

        Raises:
            asyncio.InvalidStateError: The task has not ended.
            asyncio.CancelledError: It was cancelled.
        """
        if self._state is None:
            raise asyncio.InvalidStateError(f"{self!r} has not ended; await it first")
        if self._state is State.CANCELLED:
            raise asyncio.CancelledError(f"{self!r} was cancelled")
        if self._unseen is not None:
            self._unseen.seen = True
        if self._decode is not None:
            self._read(self._decode)
        return self._failure

    async def stored(self) -> None:
        """Wait until this durable task is on disk, where no crash can lose it.

        Raises:
            StoreError: It will never be on disk.
            TypeError: The task is not durable, or its manager has no store.
            RuntimeError: Awaited outside the manager's thread or loop.
        """
        self._home.loop_thread.check_inside("await task.stored()")
        kept = getattr(self, "_kept", None)
        if not kept:
            raise TypeError(
                f"{self!r} is not in a store: decorate its function with @durable, and give its "
                "manager a store, Manager(store=...)"
            )
        await self._home.stored(self._number, kept)

    def cancel(self) -> bool:  # type: ignore[override]  # a future's may have a message
        """Request the task's cancellation; return False if it is known to have ended.

        A pending task never starts; a running one has `CancelledError` raised inside it.

        Raises:
            RuntimeError: Called outside the loop's thread.
        """
        self._home.loop_thread.check("task.cancel")
        return self._state is None and self._home.cancel(self._scheduler, self._number)

    def reschedule(self, when: datetime | timedelta | None) -> bool:
        """Request another start time for the task; see `Manager.reschedule`.

        Args:
            when: As for `schedule`.

        Returns:
            False if the task is known to have begun, ended, or been cancelled.

        Raises:
            ValueError: The time has passed.
            TypeError: `when` is not a time, or the task is in a queue.
            RuntimeError: Called outside the loop's thread.
        """
        self._home.loop_thread.check("task.reschedule, when")
        due = self._home.new_due(when)
        return self._state is None and self._home.reschedule(self._scheduler, self._number, due)

    def add_done_callback(
        self,
        callback: Callable[[Task[T]], object],
        *,
        context: contextvars.Context | None = None,
    ) -> None:
        """Have the loop call `callback(task)` when the task ends, or soon if it already has.

        Args:
            callback: Called with this handle.
            context: The context to call it in; by default a copy of the current one.

        Raises:
            RuntimeError: Called outside the loop's thread.
        """
        self._home.loop_thread.check("task.add_done_callback, callback")
        context = context or contextvars.copy_context()
        if self._state is not None:
            self._any_loop().call_soon(callback, self, context=context)
        else:
            self._on_end((callback, context))

    def remove_done_callback(self, callback: Callable[[Task[T]], object]) -> int:
        """Remove every occurrence of `callback` and return how many there were.

        Raises:
            RuntimeError: Called outside the loop's thread.
        """
        self._home.loop_thread.check("task.remove_done_callback, callback")
        callbacks = self._callbacks or []
        kept = [c for c in callbacks if isinstance(c, asyncio.Future) or c[0] != callback]
        removed = len(callbacks) - len(kept)
        if removed:
            self._keep_callbacks(kept)
        return removed

    def __await__(self) -> Generator[Any, None, T]:
        if self._state is None:
            waiter = self._home.loop_thread.make_waiter()
            self._on_end(waiter)
            try:
                yield from waiter
            finally:
                if self._state is None:  # the wait was given up
                    self._keep_callbacks([c for c in self._callbacks or () if c is not waiter])
        try:
            return self.result()
        finally:
            del self  # as in `result`

    def __repr__(self) -> str:
        where = self.ref
        next_start = self.due
        due = f" due {next_start or self.priority}" if self._when else ""
        if not next_start and isinstance(self._when, datetime) and self._when.tzinfo is None:
            due += " (naive)"  # UTC or local time, by its scheduler's `prefer_utc`
        name = f"{self.name} " if self.name else ""
        if self.id is not None:
            name += f"{self.id!r} "
        return f"<Task {name}{where if where else self._number} {self.state.value}{due}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Task stays where it was made; pass task.ref instead")

    def _settle(
        self,
        state: State,
        value: object,
        decode: Callable[[Any], object] | None = None,
    ) -> None:
        """Record the task's end, once.

        Args:
            state: One of `ENDED`.
            value: The result or the exception, or what `decode` will turn into it on demand.
            decode: May raise; the exception is then the outcome.
        """
        if self._state is not None or state not in ENDED:
            raise asyncio.InvalidStateError(f"{self!r} cannot become {state.value}")
        self._state, self._value, self._decode = state, value, decode
        failed = state in _FAILURES
        self._failure: BaseException | None = None
        self._traceback: TracebackType | None = None
        if failed and decode is None:
            self._failure = cast("BaseException", value)
            self._traceback = traceback_of(self._failure)
        # Tasks lost with a worker are reported by the manager, all at once.
        self._unseen = None
        # A durable one is a dead letter now, which its store reports.
        if state is State.FAILED and not getattr(self, "_kept", None):
            task = describe(self.name, self.id, self.ref)
            self._unseen = Unseen(self._home.loop, repr(self), value, decode, task)
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            with suppress(RuntimeError):  # the loop is closed: nobody is left to notify
                if not isinstance(callback, asyncio.Future):
                    self._any_loop().call_soon(callback[0], self, context=callback[1])
                elif not callback.done():
                    callback.set_result(None)

    def _follow(self, other: Task[Any]) -> None:
        """Become a handle on the task of `other`, and end as that does."""
        self._home, self._scheduler, self._number = other._home, other._scheduler, other._number
        self._kept, self._id = getattr(other, "_kept", None), other.id
        if other._state is None:
            other._on_end((self._end_alike, contextvars.copy_context()))
        else:
            self._end_alike(other)

    def _end_alike(self, other: Task[Any]) -> None:
        assert other._state is not None
        value = other._value if other._failure is None else other._failure
        self._settle(other._state, value, other._decode)

    def _read(self, decode: Callable[[Any], object]) -> None:
        """Decode the value, once."""
        try:
            value = decode(self._value)
        except KeyboardInterrupt:
            raise  # a Ctrl-C, perhaps: the next attempt to read may succeed
        except BaseException as error:  # noqa: BLE001  a user's class may raise anything here
            value = BaseException.with_traceback(error, None)
            self._failure = error
        if self._state is not State.FINISHED:
            self._failure = cast("BaseException", value)
            if type(value) is RemoteError:  # it does not name its task
                value.add_note(self._note)
        self._value, self._decode = value, None

    @property
    def _note(self) -> str:
        """The note on a failure that the task did not raise itself."""
        return f"it was task {self.name} {self.ref}"

    def _on_end(self, callback: _Callback) -> None:
        if self._callbacks is None:
            self._callbacks = [callback]
            self._home.hold(self)
        else:
            self._callbacks.append(callback)

    def _keep_callbacks(self, callbacks: list[_Callback]) -> None:
        """Keep only these callbacks; with none left, nothing needs the handle any more."""
        self._callbacks = callbacks or None
        if not callbacks:
            self._home.release(self)

    def _any_loop(self) -> asyncio.AbstractEventLoop:
        return self._home.loop or asyncio.get_running_loop()


_FAILURES = (State.FAILED, State.LOST, State.KEPT)
_Callback = asyncio.Future[None] | tuple[Callable[[Task[Any]], object], contextvars.Context]
