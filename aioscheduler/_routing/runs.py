"""What a repeat does each time: a call that was taken apart once, made anew for each of its runs.

    repeat(report(7), ...) ─► take_work ─► Work ─ make ─► a call for a link
                                             └─► and a draft, if a store is to have it

In another process and in a file it is what it was at the call of `repeat`, to the byte; in this
loop the function is called with the same arguments each time.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from .. import registry
from .._repeating.policy import Run
from .._scheduling.clock import SECOND, to_datetime
from .._scheduling.coroutines import function_of, name_of
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

_MICROSECOND = SECOND // 1_000_000


class Work(Protocol):
    """Makes the runs of one repeat.

    Attributes:
        key: That of `repeat`.
        name: What the runs are called.
    """

    key: str | bytes | int | None
    name: str

    def make(self, id_: str, run: Run) -> tuple[Any, Draft | None]:
        """Return a call for a link, and what a store is to have of it, if one is.

        Args:
            id_: Of the repeat.
            run: What is to be entered.

        Raises:
            Exception: It cannot be made any more.
        """


def take_work(
    router: Router, coro: Any, key: str | bytes | int | None, options: TaskOptions
) -> Work:
    """Take a coroutine apart; it is untouched if this raises, and to be closed if not.

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
        return LocalWork(again, call, name, key)
    function, name = function_of(coro), sys.intern(name_of(coro))
    call, draft = router.take_once(coro, 0, key, options, None, None, durable)
    if draft is not None:
        assert router.keeper is not None
        return DurableWork(draft, router.keeper.calls)
    assert isinstance(shipper, HostShipper)
    label = shipper.label(call[0], call[2])
    by_value = function is not None and importable_name(function) is None
    refresh = partial(shipper.catalog.refresh, function) if by_value else None
    return RemoteWork(call, label if isinstance(label, str) else name, key, refresh)


class RemoteWork:
    """Is done in another process, and is in memory alone.

    Args:
        call: What there is to do.
        name: Of the runs.
        key: That of `repeat`.
        refresh: Tells workers what has been rebound since, if the function travels by value.
    """

    __slots__ = ("_call", "_refresh", "key", "name")

    def __init__(
        self,
        call: Call,
        name: str,
        key: str | bytes | int | None,
        refresh: Callable[[], None] | None,
    ) -> None:
        self.key = key
        self.name: str = name
        self._call = call
        self._refresh = refresh

    def make(self, id_: str, run: Run) -> tuple[Call, None]:
        """Return a call; it has the leases of the first."""
        if self._refresh is not None:
            self._refresh()
        if run.due == run.nominal:
            return self._call, None
        function, payload, record = self._call
        told = wire.read_record(record)._replace(given=run.nominal)
        return (function, payload, wire.make_record(told)), None


class LocalWork:
    """Is done in this loop, and is in memory alone.

    Args:
        again: Makes a coroutine.
        call: Of the first one.
        name: Of its function.
        key: That of `repeat`.
    """

    __slots__ = ("_again", "_record", "key", "name")

    def __init__(
        self,
        again: Callable[[], Awaitable[Any]],
        call: LocalCall,
        name: str,
        key: str | bytes | int | None,
    ) -> None:
        record: tuple[Options | None, Context, Captured | None] | None = call[1]
        options, context, captured = record or (None, copy_context(), None)
        options = options or Options()
        if options.name is None:
            options = options._replace(name=name)
        assert options.name is not None
        self.key = key
        self.name = options.name
        self._again = again
        self._record = options, context, captured

    def make(self, id_: str, run: Run) -> tuple[LocalCall, None]:
        """Return a call."""
        attempts = Attempts(self._again)
        if run.due != run.nominal:
            attempts.start, attempts.given = run.due, run.nominal
        return (attempts, self._record), None


class DurableWork:
    """Is kept by a store.

    Args:
        draft: What there is to do.
        calls: Makes what links take.

    Attributes:
        draft: As given.
    """

    __slots__ = ("_calls", "draft", "key", "name")

    def __init__(self, draft: Draft, calls: RemoteCalls | LocalCalls) -> None:
        self.draft = draft
        self.key: str | bytes | int | None = draft.key
        self.name: str = draft.stored.label or draft.stored.function.place
        self._calls = calls

    def make(self, id_: str, run: Run) -> tuple[Any, Draft]:
        """Return a call, and what the store is to have: under an id that no other run has."""
        stored = self.draft.stored
        function = registry.find(stored.function.name) or stored.function  # as it is by now
        own = run_id(id_, run.nominal)
        stored = stored._replace(
            function=function,
            confirmed=confirmed_of(function, own),
            given=None if run.due == run.nominal else run.nominal,
        )
        return self._calls.make(stored, run.due), Draft(stored, self.draft.key, own)


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
