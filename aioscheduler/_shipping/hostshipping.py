"""Takes calls apart for all workers of a manager.

    schedule(work(1)) ─► take ──────────┐
    map(work, items) ─► take_function,  ├─► frames
                        take_arguments ─┤
    options, captured ──► take_record ──┘
    durable(1) ──► take_durable ──────────► bytes that the next host can read, too
    Manager(initializer=...) ─► take_call ─► what a process receives before any task

How coroutines are taken apart, here and in a worker, is in `shipping`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from types import FunctionType
from typing import Any

from .._scheduling.coroutines import read_arguments
from .._transport.definitionlog import leased
from .._transport.entry import InsideRequest
from .._transport.wire import BLOB_LIMIT, Payload, Record, options_of, record_of
from ..errors import NotDurable, NotShippable
from ..options import Options
from .hostcatalog import HostCatalog
from .names import importable_name
from .payloads import is_plain, names_in
from .propagation import Captured
from .refusals import blame, cannot_be_kept, cannot_travel, parts_of
from .shipping import (
    Call,
    Shipper,
    arguments_by_name,
    check_captured,
    simple_arguments,
    simple_count,
)


class HostShipper(Shipper[HostCatalog]):
    """The host's shipper, which also takes functions not called yet, and durable calls."""

    def __init__(self, catalog: HostCatalog) -> None:
        super().__init__(catalog)
        self._simple_counts: dict[int, int] = {}  # by id of a durable function's code

    def take_record(self, options: Options | None, captured: Captured | None) -> Record:
        """Return the record of a task, or of many.

        Args:
            options: The task's options, if any.
            captured: The context values captured for it, if any.

        Raises:
            NotShippable: An option or a value cannot travel.
        """
        number = None if options is None else self.take_options(options)
        return record_of(number, self.take_captured(captured))

    def label(self, function: int | bytes, record: Record) -> object:
        """Return the label of a task: its name, or the number or pickle of its function."""
        options = options_of(record)
        named = None if options is None else self.catalog.options.name(options)
        return named or function

    def name_of(self, label: Any) -> str:
        """Return the name of a function by its number; "" if it is not known any more."""
        return self.catalog.names.get(label, "")

    def take_call(self, function: Callable[..., Any] | None, args: tuple[Any, ...]) -> bytes:
        """Return what a worker receives before any task: initializer, arguments, context items.

        Args:
            function: The initializer, any callable; None if there is none.
            args: Its arguments.

        Raises:
            NotShippable: The function, an argument, or a context item cannot travel.
        """
        propagation = self.catalog.propagation
        try:
            with self.catalog.change():
                return leased(*self.catalog.dump_call((function, args, propagation)))
        except NotShippable:
            raise
        except Exception as error:
            parts = {}
            if propagation is not None and self.catalog.fault_of(propagation) is not None:
                parts = propagation.parts()
            what, why = blame(self.catalog.fault_of, parts, error)
            name = getattr(function, "__qualname__", repr(function))
            raise NotShippable(f"{what or f'{name}, or an argument of it,'} {why}") from error

    def take_function(self, function: Callable[..., Any]) -> int | bytes:
        """Return the number or the pickle of a callable that is called many times.

        Raises:
            NotShippable: It cannot travel.
        """
        if self.inspect is not None:
            self.inspect(function)
        self.catalog.forget_unused()
        if importable_name(function) is None:
            self.catalog.refresh(function)
        try:
            with self.catalog.change():
                return self._number_function(function)
        except NotShippable:
            raise  # which names a global
        except Exception as error:
            name = getattr(function, "__qualname__", repr(function))
            what, why = blame(self.catalog.fault_of, parts_of(function), error)
            what = f"{what} of {name}()" if what else f"the function {name}"
            raise NotShippable(f"{what} {why}") from error

    def _number_function(self, function: Callable[..., Any]) -> int | bytes:
        if isinstance(function, FunctionType):
            name = importable_name(function)
            if name is not None:
                return self.catalog.name_number(name, function)
            if not (
                function.__closure__
                or function.__defaults__
                or function.__kwdefaults__
                or function.__dict__
            ):
                return self.catalog.code_number(function)
        payload, lines = self.catalog.dump(function)
        # A small pickle goes with each frame; a large one is sent once and kept by the workers.
        if len(payload) <= BLOB_LIMIT:
            return leased(payload, lines)
        return self.catalog.values.number(payload, lines)

    def take_plain(self, calls: list[tuple[Any, ...]]) -> list[Payload] | None:
        """Return the payloads of calls if all have a single int, or all a single float; else None.

        A tenth of the cost of taking them one by one (`benchmarks/bench_throughput.py`).
        """
        values = list(chain.from_iterable(calls))
        if set(map(len, calls)) != {1}:
            return None
        kinds = set(map(type, values))
        plain = kinds == {float} or (
            kinds == {int} and is_plain(min(values)) and is_plain(max(values))
        )
        return values if plain else None

    def take_arguments(self, args: tuple[Any, ...]) -> Payload:
        """Return the payload of one call's positional arguments.

        Raises:
            NotShippable: One of them cannot travel.
        """
        payload = self._encode_simple(args)
        if payload is not None:
            return payload
        try:
            with self.catalog.change():
                return leased(*self.catalog.dump((args, {}, ())))
        except NotShippable:
            raise
        except Exception as error:
            if len(args) == 1:
                raise NotShippable(f"its argument {cannot_travel(error)}") from error
            what, why = blame(self.catalog.fault_of, {"argument": dict(enumerate(args, 1))}, error)
            raise NotShippable(f"{what} {why}") from error

    def take_durable(self, coro: Any, name: str) -> bytes:
        """Take the arguments of an unstarted coroutine and close it; untouched if this raises.

        Args:
            coro: A coroutine of a durable function already looked up.
            name: The function's durable name, for messages.

        Returns:
            The payload of a task: always bytes, and independent of this host.

        Raises:
            NotShippable: The coroutine has started, or (NotDurable) the next host could not read
                an argument.
        """
        code = coro.cr_code
        count = self._simple_counts.get(id(code))  # the registry keeps it alive
        if count is None:
            count = self._simple_counts[id(code)] = simple_count(code)
        simple = simple_arguments(coro, max(count, 0))
        payload = self.catalog.encode_scalars(simple) if count >= 0 else None
        if payload is None:
            args, kwargs = read_arguments(coro)
            named = {"argument": arguments_by_name(code, args, kwargs)}
            payload = self._dump_durable((args, kwargs, ()), named, f" of the durable {name!r}")
        coro.close()
        return payload

    def take_durable_arguments(self, args: tuple[Any, ...], name: str) -> bytes:
        """Return the payload of one call's positional arguments, as `take_durable` does.

        Raises:
            NotDurable: The next host could not read one of them.
        """
        payload = self.catalog.encode_scalars(args)
        if payload is None:
            named = {"argument": dict(enumerate(args, 1))}
            payload = self._dump_durable((args, {}, ()), named, f" of the durable {name!r}")
        return payload

    def take_durable_plain(self, calls: list[tuple[Any, ...]]) -> list[bytes] | None:
        """Return durable payloads of calls that `take_plain` accepts, else None."""
        if self.take_plain(calls) is None:
            return None
        return self.catalog.encode_plain_rows(calls)

    def take_durable_captured(self, captured: Captured | None) -> bytes | None:
        """Return the payload of the values captured for a durable task, as `take_captured` does.

        Raises:
            NotShippable: They are too large, or (NotDurable) the next host could not read one.
        """
        if captured is None or len(captured) == 1:
            return None
        payload = self.catalog.encode_scalars(captured)
        if payload is None:
            assert self.catalog.propagation is not None  # it has captured the values
            payload = self._dump_durable(captured, self.catalog.propagation.named(captured), "")
        check_captured(payload)
        return payload

    def _dump_durable(
        self, value: object, named: Mapping[str, Mapping[Any, Any]], of_what: str
    ) -> bytes:
        try:
            with self.catalog.change():
                return self.catalog.dump_durable(value)
        except Exception as error:
            what, why = blame(self._durable_fault_of, named, error, cannot_be_kept)
            raise NotDurable(f"{what}{of_what} {why}") from error

    def _durable_fault_of(self, value: object) -> Exception | None:
        try:
            with self.catalog.change():
                self.catalog.dump_durable(value)
        except Exception as error:  # noqa: BLE001  a user's __reduce__ may raise anything
            return error
        return None


def adopt_call(catalog: HostCatalog, asked: InsideRequest) -> Call:
    """Return a call that a worker's task schedules, with leases of all lines that it names.

    Raises:
        Exception: No worker of this manager can have sent it.
    """
    with catalog.change():
        number = catalog.adopt(asked.function)
        options = None if asked.options is None else catalog.adopt_options(asked.options)
    payload, captured = asked.payload, asked.captured
    if isinstance(payload, bytes):
        payload = leased(payload, map(catalog.log.lease, asked.lines))
    if captured is not None:
        captured = leased(captured, map(catalog.log.lease, names_in(captured)))
    return number, payload, record_of(options, captured)
