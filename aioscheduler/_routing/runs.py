"""What a repeat does each time: a call that was taken apart once, made anew for each of its runs.

    repeat(report(7), ...) ─► take_work ─┬─► Work ─ make ─► a call for a link
                                         └─► own ─┘ └─► and a draft, if a store is to have it

Of a hundred thousand that do the same, each has its own arguments and no more.

In another process and in a file it is what it was at the call of `repeat`, to the byte; in this
loop the function is called with the same arguments each time.
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
"""Different things that are known to be equal to others."""


class Work(Protocol):
    """Makes the runs of repeats: it is what those have in common that do the same.

    It has as its own what a repeat has alone: payload, or arguments.
    """

    @property
    def key(self) -> str | bytes | int | None:
        """That of `repeat`."""

    @property
    def name(self) -> str:
        """What the runs are called."""

    def make(self, id_: str, run: Run, own: Any) -> tuple[Any, Draft | None]:
        """Return a call for a link, and what a store is to have of it, if one is.

        Args:
            id_: Of the repeat.
            run: What is to be entered.
            own: What that repeat has alone.

        Raises:
            Exception: It cannot be made any more.
        """


def take_work(
    router: Router, coro: Any, key: str | bytes | int | None, options: TaskOptions
) -> tuple[Work, Any]:
    """Take a coroutine apart; it is untouched if this raises, and to be closed if not.

    Returns:
        What makes the runs, and what of that is the repeat's own.

    Raises:
        Exception: As `Manager.schedule`.
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
    """Is done in another process, and is in memory alone. What is its own is a payload.

    Attributes:
        function: The number of the function that is called.
        record: What goes with a run.
        name: Of the runs.
        key: That of `repeat`.
        by_value: The function, if it is one that travels by value.
        catalog: Tells workers what that has rebound since.
    """

    function: int | bytes
    record: wire.Record
    name: str
    key: str | bytes | int | None
    by_value: Callable[..., Any] | None
    catalog: HostCatalog

    def make(self, id_: str, run: Run, own: Any) -> tuple[Call, None]:
        """Return a call; it has the leases of the first."""
        if self.by_value is not None:
            self.catalog.refresh(self.by_value)
        record = self.record
        if run.due != run.nominal:
            record = wire.make_record(wire.read_record(record)._replace(given=run.nominal))
        return (self.function, own, record), None


class LocalWork(NamedTuple):
    """Is done in this loop, and is in memory alone.

    What is its own is what makes a coroutine, the context of the call, and what was captured.

    Attributes:
        options: Of the runs.
        key: That of `repeat`.
    """

    options: Options
    key: str | bytes | int | None

    @property
    def name(self) -> str:
        """What the runs are called."""
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
    """Is kept by a store. What is its own is a payload.

    Attributes:
        draft: What there is to do, but for the payload.
        calls: Makes what links take.
    """

    draft: Draft
    calls: RemoteCalls | LocalCalls

    @classmethod
    def of(cls, draft: Draft, calls: RemoteCalls | LocalCalls) -> tuple[DurableWork, bytes]:
        """Return what does that, and what is its own."""
        stored = draft.stored._replace(payload=b"")
        return cls(draft._replace(stored=stored), calls), draft.stored.payload

    @property
    def key(self) -> str | bytes | int | None:
        """That of `repeat`."""
        return self.draft.key

    @property
    def name(self) -> str:
        """What the runs are called."""
        return self.draft.stored.label or self.draft.stored.function.qualname

    def make(self, id_: str, run: Run, own: bytes) -> tuple[Any, Draft]:
        """Return a call, and what the store is to have: under an id that no other run has."""
        stored = self.draft.stored
        function = registry.find(stored.function.name) or stored.function  # as it is by now
        name = run_id(id_, run.nominal)
        stored = stored._replace(
            function=function,
            payload=own,
            confirmed=confirmed_of(function, name),
            given=None if run.due == run.nominal else run.nominal,
        )
        return self.calls.make(stored, run.due), Draft(stored, self.draft.key, name)


def run_id(id_: str, nominal: int) -> str:
    """Return the id of a run, as a task: no user's task has such a one (`options.read_id`)."""
    return f"{RUN_MARK}{id_} {to_datetime(nominal).isoformat()}"


def repeat_of(run: str) -> str | None:
    """Return the id of the repeat that a task with an id is a run of; None: of none."""
    id_, space, nominal = run.removeprefix(RUN_MARK).rpartition(" ")
    if not (run.startswith(RUN_MARK) and space):
        return None
    try:
        datetime.fromisoformat(nominal)
    except ValueError:  # in a file that another program has written to
        return None
    return id_


def sharing() -> Callable[[_T], _T]:
    """Return what gives one object for all that are equal, of the last so many."""
    known = lru_cache(MOST_SHARED)(lambda thing: thing)

    def share(thing: _T) -> _T:
        try:
            same: _T = known(thing)
        except TypeError:  # something in it is a list, or of a user's that has no hash
            return thing
        return same

    return share
