"""Calls of durable tasks for links, whether scheduled now or read from the file.

    schedule(remind(7)) ─► payload ─┬─► Stored ─► a call for a worker's link, or for this loop's
    a row of the file ──────────────┘
    its name, its context ─► note ─► the row's `options`

Payloads are the same as in frames, so that those read from the file are sent unchanged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, NamedTuple

from .._durable.records import Function
from .._scheduling.coroutines import name_of
from .._shipping.failures import describe, text_of
from .._shipping.hostshipping import HostShipper
from .._shipping.latebound import LateBound, UnknownFunction, bind
from .._shipping.names import importable_name, type_name, variable_name
from .._shipping.propagation import Captured, Propagation
from .._shipping.shipping import Call, open_call
from .._shipping.workercatalog import WorkerCatalog
from .._transport import wire
from ..errors import RemoteError
from ..options import Options
from ..registry import Durable
from .localentry import Attempts, Unreadable
from .localshipper import LocalCall, LocalRecord

log: logging.Logger = logging.getLogger("aioscheduler")


class Stored(NamedTuple):
    """The call of a durable task.

    Attributes:
        function: The function: as registered, or as the file knows it.
        payload: The payload of its arguments.
        label: The name given to the task, if any.
        captured: The payload of the context values captured for it, if any.
        confirmed: Whether and how it begins on record: 0, 1, `wire.ALONE` or `wire.FEW`.
        attempt: How many times it has been started, the next start included.
        failed: How many attempts have failed.
        given: The due time that it was given, if it waits for a further attempt.
    """

    function: Durable | Function
    payload: bytes
    label: str | None = None
    captured: bytes | None = None
    confirmed: int = 0
    attempt: int = 1
    failed: int = 0
    given: int | None = None

    @property
    def options(self) -> Options:
        """The options of the task: those of its function, with its own name."""
        own = self.function.options if isinstance(self.function, Durable) else Options()
        return own._replace(name=self.label)


class RemoteCalls:
    """Makes calls for the links to other processes.

    Args:
        shipper: Numbers functions and options.
    """

    def __init__(self, shipper: HostShipper) -> None:
        self._shipper = shipper
        # Each has a lease: there are no more of them than durable functions.
        self._functions: dict[int, int | bytes] = {}  # by id() of the function, which lives on
        self._by_value: set[int] = set()  # id()s of those whose globals are checked each time
        # Records of plain tasks, with the registry entry for which each was made.
        self._records: dict[tuple[int, int], tuple[Durable, wire.Record]] = {}

    def function(self, function: Durable | Function) -> int | bytes:
        """Return the number of a function for frames, or its late-bound name."""
        if isinstance(function, Function):
            return LateBound(function.name, function.qualname).pickled()
        key = id(function.function)
        number = self._functions.get(key)
        if number is None:
            number = self._functions[key] = self._shipper.take_function(function.function)
            if importable_name(function.function) is None:
                self._by_value.add(key)
        elif key in self._by_value:
            self._shipper.catalog.refresh(function.function)
        return number

    def record(self, stored: Stored) -> wire.Record:
        """Return the record of a task."""
        if not isinstance(stored.function, Durable) or stored[2:4] + stored[5:] != _PLAIN:
            return self._make_record(stored)
        key = id(stored.function.function), stored.confirmed
        entry, record = self._records.get(key, (None, None))
        if entry is not stored.function:  # new, or registered with other options
            record = self._make_record(stored)
            self._records[key] = stored.function, record
        return record

    def _make_record(self, stored: Stored) -> wire.Record:
        options = stored.options
        number = None if options == Options() else self._shipper.take_options(options)
        more = wire.More(
            options=number,
            attempt=stored.attempt,
            confirmed=stored.confirmed,
            failed=stored.failed,
            given=stored.given,
            captured=stored.captured,
        )
        return wire.make_record(more)

    def make(self, stored: Stored, due: int) -> Call:
        """Return a call for a link."""
        return self.function(stored.function), stored.payload, self.record(stored)

    def make_many(
        self, stored: Stored, payloads: list[bytes]
    ) -> tuple[int | bytes, list[Any], wire.Record]:
        """Return calls for a link that differ only in their payloads."""
        return self.function(stored.function), payloads, self.record(stored)


_PLAIN = (None, None, 1, 0, None)  # of a new task: no label, nothing captured, the first attempt


class LocalCalls:
    """Makes calls for the link to this loop.

    Args:
        catalog: Decodes payloads.
        propagation: Restores captured values, if any are.
    """

    def __init__(self, catalog: WorkerCatalog, propagation: Propagation | None) -> None:
        self._catalog = catalog
        self._propagation = propagation

    def make(self, stored: Stored, due: int) -> LocalCall:
        """Return a call for a link."""
        call = partial(self._call, stored.function, stored.captured, stored.payload)
        start = None if stored.given is None else due
        attempts = Attempts(call)
        attempts.restore(stored.attempt, stored.failed, start, stored.given)
        return attempts, (self._options(stored), copy_context(), None)

    def make_many(
        self, stored: Stored, payloads: list[bytes]
    ) -> tuple[Callable[..., Any], list[Any], LocalRecord]:
        """Return calls for a link that differ only in their payloads."""
        call = partial(self._call, stored.function, stored.captured)
        record = self._options(stored), copy_context(), None
        return call, [(payload,) for payload in payloads], record

    def _options(self, stored: Stored) -> Options:
        """Return the options of a task, always with a name: its call does not show one."""
        options = stored.options
        return options._replace(name=options.name or stored.function.qualname)

    def _call(
        self, function: Durable | Function, captured: bytes | None, payload: bytes
    ) -> Awaitable[Any]:
        """Read a stored call, and make it.

        Raises:
            Unreadable: It cannot be read, or does not fit its function.
        """
        try:
            known = function
            if isinstance(known, Function):
                known = bind(known.name, known.qualname)
            called, args, kwargs = open_call(self._catalog, known.function, payload)
            values = None if captured is None else self._catalog.decode(captured)
        except BaseException as error:  # noqa: BLE001
            # As in a worker: a module that calls `sys.exit`, or raises CancelledError, must not
            # affect the host.
            cause = error
            if not isinstance(error, Exception):
                why = f"{describe(str, error)} (it came up where the task was read)"
                cause = RemoteError(type_name(error), why, text_of(error))
            raise Unreadable(isinstance(error, UnknownFunction)) from cause
        if values is not None and self._propagation is not None:
            self._propagation.restore(values)
        try:
            awaitable: Awaitable[Any] = called(*args, **kwargs)
        except TypeError as error:  # of the call itself: the arguments do not fit
            raise Unreadable(False) from error
        return awaitable


class Notes:
    """Reads and writes the notes of tasks in the file: their labels and context values.

    Args:
        propagation: The context values that are captured; None: none are.
        shipper: Makes payloads of them.
        catalog: Decodes them, if they are for other items.
    """

    def __init__(
        self, propagation: Propagation | None, shipper: HostShipper, catalog: WorkerCatalog
    ) -> None:
        self._propagation = propagation
        self._shipper = shipper
        self._catalog = catalog
        self._keys = [] if propagation is None else [_key(item) for item in propagation.items]
        self._missed: set[str] = set()

    def take(self, captured: Captured | None) -> bytes | None:
        """Return the payload of captured values.

        Raises:
            NotDurable: One of them could not be read by the next host.
        """
        return None if captured is None else self._shipper.take_durable_captured(captured)

    def write(self, label: str | None, captured: bytes | None) -> bytes | None:
        """Return the note of a task; None if it needs none."""
        if label is None and captured is None:
            return None
        return wire.pack([label, captured and self._keys, captured])

    def read(self, note: bytes | None) -> tuple[str | None, bytes | None]:
        """Return label, and payload of the captured values that are still captured today."""
        if note is None:
            return None, None
        label, keys, captured = wire.unpack(note)
        if captured is None or keys == self._keys:
            return label, captured
        return label, self._translate(keys, captured)

    def _translate(self, keys: Sequence[str], captured: bytes) -> bytes | None:
        """Translate values captured for other items to those of today."""
        for key in set(keys) - set(self._keys) - self._missed:
            self._missed.add(key)
            log.warning(
                "durable tasks have values of %s, which Manager(context=...) no longer lists: they "
                "run without",
                key,
            )
        try:
            bits, *values = self._catalog.decode(captured)
            had = [key for index, key in enumerate(keys) if bits >> index & 1]
            known = dict(zip(had, values, strict=True))
            found = [key for key in self._keys if key in known]
            bits = sum(1 << self._keys.index(key) for key in found)
            return self.take([bits, *(known[key] for key in found)]) if found else None
        except (Exception, asyncio.CancelledError):
            log.exception("the values captured for a durable task cannot be read; it runs without")
            return None


def _key(item: ContextVar[Any] | tuple[Callable[..., Any], ...]) -> str:
    if isinstance(item, tuple):
        return f"the pair of {name_of(item[0])}()"
    return f"the context variable {variable_name(item) or item.name}"
