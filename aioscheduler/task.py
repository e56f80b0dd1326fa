"""What a user holds of a task: its handle and its reference.

No handle is needed for a task to run, and none is kept by this package once the user drops it.
A handle is told its end by its home (`home.Home`: the link of the worker that has the task).
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
        """What checkers are told: `asyncio.wait` takes a task, and is typed for futures alone."""

        _state: Any
        _callbacks: Any
        # What a future has and a task has not: that is refused.
        __iter__: None  # type: ignore[assignment]
        get_loop: None  # type: ignore[assignment]
        set_exception: None  # type: ignore[assignment]
        set_result: None  # type: ignore[assignment]
else:
    _Awaited = Generic


class Task(_Awaited[T]):
    """A handle on a scheduled task: await it, ask it, cancel it, or drop it.

    Awaiting gives the result, or raises what the task raised; it may be awaited many times, and
    cancelling the awaiting side does not cancel the task. Made by `schedule`, never by hand.
    """

    _id: str | None
    _kept: Any  # of a durable task: what its store keeps of it

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
        """The due time as it was given; aware UTC for a timedelta; 0 in a queue."""
        if isinstance(self._when, int) and self._when:
            return to_datetime(self._when)
        return self._when

    @property
    def due(self) -> datetime | None:
        """When the task is to start, in aware UTC; None in a queue, and once it has begun."""
        if self._state is not None:
            return None
        due = self._home.due(self._scheduler, self._number)
        return None if due is None else to_datetime(due)

    @property
    def name(self) -> str:
        """Its label: the option `name`, or else its function's `module:qualname`."""
        label = self._label
        return label if isinstance(label, str) else self._home.name_of(label)

    @property
    def id(self) -> str | None:
        """The option `id`; None without one, and once a task with `replace=True` has taken it."""
        return getattr(self, "_id", None)  # so that nobody pays for it who has none

    @property
    def uuid(self) -> uuid.UUID:
        """An id of this task that no other task has, the same for every handle on it.

        From the ids of other tasks it cannot be guessed.
        """
        ref = self.ref
        number, key = self._number.to_bytes(8), self._home.identity.to_bytes(16)
        if ref is not None and ref.is_durable:  # which may move from one place to another
            number, key = ref.number.to_bytes(8, signed=True), bytes.fromhex(ref.manager)
        return uuid.UUID(bytes=blake2b(number, key=key, digest_size=16).digest(), version=4)

    @property
    def ref(self) -> TaskRef | Any:  # Any, not None: of a manager there always is one
        """The picklable reference; None on a scheduler without a manager.

        That of a durable task is another one before the store is open (`await manager.ready()`).
        """
        return self._home.ref(self._scheduler, self._number, getattr(self, "_kept", None))

    @property
    def state(self) -> State:
        """Where the task is in its life, as far as this process knows."""
        return self._state or self._home.state(self._number)

    def done(self) -> bool:
        """Whether the task has ended: returned, raised, cancelled or lost."""
        return self._state is not None

    def cancelled(self) -> bool:
        """Whether the task ended cancelled."""
        return self._state is State.CANCELLED

    def result(self) -> T:
        """Return what the task returned.

        Raises:
            asyncio.InvalidStateError: It has not ended.
            asyncio.CancelledError: It was cancelled.
            WorkerLost: Its worker died with it, or the manager failed.
            RemoteError: What it raised or returned could not travel back.
            Exception: Whatever the task raised.
        """
        error = self.exception()
        if error is None:
            return cast("T", self._value)
        try:
            # As it was before anybody awaited it: it does not grow with each await.
            raise BaseException.with_traceback(error, self._traceback)
        finally:
            # The traceback holds this frame: no circle, which would keep those of the awaiters.
            del self, error

    def exception(self) -> BaseException | None:
        """Return what the task raised, or None if it returned.

        Raises:
            asyncio.InvalidStateError: It has not ended.
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
        """Return when this durable task is on disk: no crash loses it from then on.

        Raises:
            StoreError: It never will be.
            TypeError: The task is not durable, or its manager has no store.
            RuntimeError: It is awaited in another thread or loop than that of the manager.
        """
        self._home.loop_thread.check_inside("await task.stored()")
        kept = getattr(self, "_kept", None)
        if not kept:
            raise TypeError(
                f"{self!r} is not in a store: its function is to be decorated with @durable, and "
                "its manager to have one, Manager(store=...)"
            )
        await self._home.stored(self._number, kept)

    def cancel(self) -> bool:  # type: ignore[override]  # a future's may have a message
        """Ask for the task's cancellation; False if it is known to have ended.

        A pending task never starts; inside a running one `CancelledError` is raised.

        Raises:
            RuntimeError: It is called in another thread than that of the loop.
        """
        self._home.loop_thread.check("task.cancel")
        return self._state is None and self._home.cancel(self._scheduler, self._number)

    def reschedule(self, when: datetime | timedelta | None) -> bool:
        """Ask that the task start at another time; see `Manager.reschedule`.

        Raises:
            ValueError: The time has passed.
            TypeError: It is no time, or the task is in a queue.
            RuntimeError: It is called in another thread than that of the loop.
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
        """Have `callback(task)` called by the loop when the task has ended, or soon if it has.

        Args:
            callback: Called with this handle.
            context: What it is called in; by default a copy of the current context.

        Raises:
            RuntimeError: It is called in another thread than that of the loop.
        """
        self._home.loop_thread.check("task.add_done_callback, callback")
        context = context or contextvars.copy_context()
        if self._state is not None:
            self._any_loop().call_soon(callback, self, context=context)
        else:
            self._on_end((callback, context))

    def remove_done_callback(self, callback: Callable[[Task[T]], object]) -> int:
        """Remove every occurrence of `callback`; return how many there were.

        Raises:
            RuntimeError: It is called in another thread than that of the loop.
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
            due += " (naive)"  # UTC or local time, as its scheduler was told
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
        """Tell the handle its task's end, once.

        Args:
            state: One of `ENDED`.
            value: The result or the exception, or what `decode` makes it from when asked.
            decode: May raise, which is then the outcome.
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
        # What is lost with a worker is reported once for all of it, by the manager.
        self._unseen = None
        # What is durable is a dead letter then, which is reported by its store.
        if state is State.FAILED and not getattr(self, "_kept", None):
            task = describe(self.name, self.id, self.ref)
            self._unseen = Unseen(self._home.loop, repr(self), value, decode, task)
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                if not isinstance(callback, asyncio.Future):
                    self._any_loop().call_soon(callback[0], self, context=callback[1])
                elif not callback.done():
                    callback.set_result(None)

    def _follow(self, other: Task[Any]) -> None:
        """Be of another one's task from now on, and end as that does."""
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
            raise  # of a Ctrl-C, perhaps: who asks again may be told
        except BaseException as error:  # noqa: BLE001  a user's class may raise anything here
            value = BaseException.with_traceback(error, None)
            self._failure = error
        if self._state is not State.FINISHED:
            self._failure = cast("BaseException", value)
            if type(value) is RemoteError:  # which says nothing of the task that it stands for
                value.add_note(self._note)
        self._value, self._decode = value, None

    @property
    def _note(self) -> str:
        """What is noted on a failure that is not of the task's own making."""
        return f"it was task {self.name} {self.ref}"

    def _on_end(self, callback: _Callback) -> None:
        if self._callbacks is None:
            self._callbacks = [callback]
            self._home.hold(self)
        else:
            self._callbacks.append(callback)

    def _keep_callbacks(self, callbacks: list[_Callback]) -> None:
        """Keep only these; with none left, nobody waits and the handle may go."""
        self._callbacks = callbacks or None
        if not callbacks:
            self._home.release(self)

    def _any_loop(self) -> asyncio.AbstractEventLoop:
        return self._home.loop or asyncio.get_running_loop()


_FAILURES = (State.FAILED, State.LOST, State.KEPT)
_Callback = asyncio.Future[None] | tuple[Callable[[Task[Any]], object], contextvars.Context]
