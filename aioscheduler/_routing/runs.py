"""The work of a repeat: a call that was taken apart once, and is made again for each run.

    repeat(report(7), ...) ─► take_work ─┬─► Work ─┬─ make ─┬─► a call for a link
                                         └─► own ──┘        └─► a draft, if it goes into a store

A hundred thousand repeats of the same work each have their own arguments, and nothing else.

In another process and in a file the call is the same as when `repeat` was called, to the byte; in
this loop the function is called with the same argument objects each time.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

from .. import registry
from .._repeating.policy import Run
from .._scheduling.clock import to_datetime
from .._scheduling.coroutines import function_of, name_of
from .._shipping.hostcatalog import HostCatalog
from .._shipping.hostshipping import HostShipper
from .._shipping.names import importable_name
from .._shipping.propagation import Captured
from .._shipping.shipping import Call
from .._transport import wire
from ..options import RUN_MARK, Options, TaskOptions
from .drafts import Draft, confirmed_of
from .localentry import Attempts
from .localshipper import LocalCall, LocalShipper
from .router import Router
from .storedcalls import LocalCalls, RemoteCalls

_T = TypeVar("_T")

MOST_SHARED = 4096
"""How many different objects are remembered, to share them with their equals."""


class Work(Protocol):
    """Makes the runs of repeats, and is shared by all that do the same.

    Each repeat has its *own* part besides: a payload, or arguments.
    """

    @property
    def key(self) -> str | bytes | int | None:
        """As given to `repeat`."""

    @property
    def name(self) -> str:
        """The name of the runs."""

    def make(self, id_: str, run: Run, own: Any) -> tuple[Any, Draft | None]:
        """Return a call for a link, and a draft if it goes into a store.

        Args:
            id_: The id of the repeat.
            run: The run to enter.
            own: The repeat's own part.

        Raises:
            Exception: The call cannot be made any more.
        """


def take_work(
    router: Router, coro: Any, key: str | bytes | int | None, options: TaskOptions
) -> tuple[Work, Any]:
    """Take a coroutine apart. The caller must close it, unless this raises.

    Returns:
        The work, and the repeat's own part.

    Raises:
        Exception: As `Manager.schedule` does.
    """
    durable = registry.of_coroutine(coro)
    router.placement.check_key(key)
    shipper = router.links[0].shipper
    if isinstance(shipper, LocalShipper) and (durable is None or router.keeper is None):
        again = shipper.take_often("what repeats", coro)
        name = sys.intern(name_of(coro))
        call, _ = router.take_once(coro, 0, key, options, None, None, durable)
        return _take_local(again, call, name, key)
    function, name = function_of(coro), sys.intern(name_of(coro))
    call, draft = router.take_once(coro, 0, key, options, None, None, durable)
    if draft is not None:
        assert router.keeper is not None
        return DurableWork.of(draft, router.keeper.calls)
    assert isinstance(shipper, HostShipper)
    number, payload, record = call
    label = shipper.label(number, record)
    by_value = function is not None and importable_name(function) is None
    rebound = function if by_value else None
    name = label if isinstance(label, str) else name
    return RemoteWork(number, record, name, key, rebound, shipper.catalog), payload


class RemoteWork(NamedTuple):
    """Work in another process, kept only in memory. Its own part is a payload.

    Attributes:
        function: The number of the function.
        record: The record of a run.
        name: The name of the runs.
        key: As given to `repeat`.
        by_value: The function, if it travels by value.
        catalog: Sends workers the globals that the function has rebound since.
    """

    function: int | bytes
    record: wire.Record
    name: str
    key: str | bytes | int | None
    by_value: Callable[..., Any] | None
    catalog: HostCatalog

    def make(self, id_: str, run: Run, own: Any) -> tuple[Call, None]:
        """Return a call, with the leases of the first one."""
        if self.by_value is not None:
            self.catalog.refresh(self.by_value)
        record = self.record
        if run.due != run.nominal:
            record = wire.make_record(wire.read_record(record)._replace(given=run.nominal))
        return (self.function, own, record), None


class LocalWork(NamedTuple):
    """Work in this loop, kept only in memory.

    Its own part is a function that makes the coroutine, the context of the call, and the captured
    values.

    Attributes:
        options: The options of the runs.
        key: As given to `repeat`.
    """

    options: Options
    key: str | bytes | int | None

    @property
    def name(self) -> str:
        """The name of the runs."""
        return str(self.options.name)

    def make(self, id_: str, run: Run, own: Any) -> tuple[LocalCall, None]:
        """Return a call."""
        again, context, captured = own
        attempts = Attempts(again)
        if run.due != run.nominal:
            attempts.start, attempts.given = run.due, run.nominal
        return (attempts, (self.options, context, captured)), None


def _take_local(
    again: Callable[[], Awaitable[Any]], call: LocalCall, name: str, key: str | bytes | int | None
) -> tuple[LocalWork, tuple[Callable[[], Awaitable[Any]], Context, Captured | None]]:
    options, context, captured = call[1] or (None, copy_context(), None)
    options = options or Options()
    if options.name is None:
        options = options._replace(name=name)
    return LocalWork(options, key), (again, context, captured)


class DurableWork(NamedTuple):
    """Work kept in a store. Its own part is a payload.

    Attributes:
        draft: The draft of a run, without the payload.
        calls: Makes calls for links.
    """

    draft: Draft
    calls: RemoteCalls | LocalCalls

    @classmethod
    def of(cls, draft: Draft, calls: RemoteCalls | LocalCalls) -> tuple[DurableWork, bytes]:
        """Return the work of a draft, and its own part."""
        stored = draft.stored._replace(payload=b"")
        return cls(draft._replace(stored=stored), calls), draft.stored.payload

    @property
    def key(self) -> str | bytes | int | None:
        """As given to `repeat`."""
        return self.draft.key

    @property
    def name(self) -> str:
        """The name of the runs."""
        return self.draft.stored.label or self.draft.stored.function.qualname

    def make(self, id_: str, run: Run, own: bytes) -> tuple[Any, Draft]:
        """Return a call, and a draft with an id that no other run has."""
        stored = self.draft.stored
        function = registry.find(stored.function.name) or stored.function  # as registered now
        name = run_id(id_, run.nominal)
        stored = stored._replace(
            function=function,
            payload=own,
            confirmed=confirmed_of(function, name),
            given=None if run.due == run.nominal else run.nominal,
        )
        return self.calls.make(stored, run.due), Draft(stored, self.draft.key, name)


def run_id(id_: str, nominal: int) -> str:
    """Return the task id of a run: users' tasks cannot have such ids (`options.read_id`)."""
    return f"{RUN_MARK}{id_} {to_datetime(nominal).isoformat()}"


def repeat_of(run: str) -> str | None:
    """Return the id of the repeat whose run has this task id; None: it is not a run."""
    id_, space, nominal = run.removeprefix(RUN_MARK).rpartition(" ")
    if not (run.startswith(RUN_MARK) and space):
        return None
    try:
        datetime.fromisoformat(nominal)
    except ValueError:  # another program has written to the file
        return None
    return id_


def sharing() -> Callable[[_T], _T]:
    """Return a function that maps equal objects to one of them; it knows the last `MOST_SHARED`."""
    known = lru_cache(MOST_SHARED)(lambda thing: thing)

    def share(thing: _T) -> _T:
        try:
            same: _T = known(thing)
        except TypeError:  # something in it has no hash, such as a list
            return thing
        return same

    return share
