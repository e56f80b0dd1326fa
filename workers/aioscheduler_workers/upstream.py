"""Requests of tasks to their manager: sent to the host ahead of the outcomes of those tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from aioscheduler import registry
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._routing.placement import Placement
from aioscheduler._scheduling.coroutines import close_refused
from aioscheduler._scheduling.order import Order, due_time
from aioscheduler._scheduling.timers import NUMBER_BITS
from aioscheduler._shipping.payloads import with_names
from aioscheduler._shipping.shipping import Shipper
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import Leased
from aioscheduler._transport.entry import ALIAS_BITS, InsideRequest
from aioscheduler._transport.pipe import Pipe
from aioscheduler._transport.wire import Kind, Payload
from aioscheduler.errors import NotDurable
from aioscheduler.options import Options, TaskOptions, read_id, read_options
from aioscheduler.registry import Durable, read_durable_options
from aioscheduler.task import TaskRef, check_ref


class WorkerUpstream:
    """Accepts requests of tasks from their manager's proxy (`inside.Upstream`).

    Args:
        config: The worker's configuration.
        shipper: Takes coroutines apart.
        pipe: The pipe to the host.
        clock: Returns the present in nanoseconds since the epoch.
        write_soon: Schedules the write of sent frames.
        fail: Ends the worker.
    """

    def __init__(
        self,
        config: WorkerConfig,
        shipper: Shipper[Any],
        pipe: Pipe,
        clock: Callable[[], int],
        write_soon: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._shipper = shipper
        self._pipe = pipe
        self._clock = clock
        self._write_soon = write_soon
        self._fail = fail
        self._placement = Placement(config.layout, config.order is Order.TIMED)  # for keys
        # Larger than all numbers of the host, and unlike those of other processes of the manager.
        process = config.generation * len(config.layout) + config.worker
        self._next_alias = (1 << NUMBER_BITS) + (process << ALIAS_BITS)

    def schedule_inside(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        origin: TaskRef | None,
        options: TaskOptions,
        id_: str | None,
        replace: bool,
    ) -> TaskRef:
        """Send the host a task to route."""
        config, placement = self._config, self._placement
        try:
            due = due_time(config.order, when, self._clock(), config.prefer_utc)
            scheduler = 0 if origin is None else origin.scheduler
            place = placement.place_near(key, config.worker, scheduler)
            durable = registry.of_coroutine(coro)
            if durable is not None:
                read: Options | None = read_durable_options(durable, options, config.order)
            else:
                read = read_options(options, config.order) if options else None
            stored = durable is not None and config.has_store
            taken = None if read is None or stored else self._shipper.take_options(read)
            if id_ is not None or replace is not False:
                id_ = read_id(id_, replace)
            propagation = self._shipper.catalog.propagation
            captured = None if propagation is None else propagation.capture()
            packed = self._shipper.take_captured(captured)
            function, payload, _ = self._shipper.take(coro)
            if durable is not None and stored:
                payload, packed = _check_durable(durable, payload, packed)
        except BaseException as refusal:
            close_refused(coro, refusal)
            raise
        alias = self._next_alias
        self._next_alias += 1
        lines = payload.leases if isinstance(payload, Leased) else ()
        if isinstance(packed, Leased):
            packed = with_names(packed, packed.leases)
        request = InsideRequest(
            place, due, function, payload, lines, taken, packed, alias, id_, replace
        )
        if durable is not None and stored:
            known = durable.name, durable.qualname, durable.once, read and read.name
            request = request._replace(function=None, durable=known, key=key)
        self._ask("schedule", *request)
        worker, scheduler = placement.worker_of[place], placement.scheduler_of[place]
        return TaskRef(config.manager, worker, scheduler, alias)

    def cancel_inside(self, ref: TaskRef) -> bool:
        """Send the request to the host; whether it arrives in time is unknown here."""
        store = ref.manager if self._config.has_store else ""  # only the host knows the store's id
        check_ref(ref, self._config.manager, self._placement, store)
        self._ask("cancel", *ref)
        return True

    def _ask(self, *request: object) -> None:
        """Send a request to the host, in parts if it is large, ahead of all outcomes to come."""
        try:
            for part, last in wire.cut(wire.pack(request)):
                self._pipe.send(wire.encode([Kind.INSIDE, part, last]))
        except Exception as error:
            self._fail(error)  # so that the parts sent are not taken for the whole
            raise
        self._write_soon()


def _check_durable(
    durable: Durable, payload: Payload, captured: bytes | None
) -> tuple[bytes, bytes | None]:
    """Return the payloads of a task as they are stored.

    Raises:
        NotDurable: A part of it travels by value, and could not be read by the next host.
    """
    for part, what in ((payload, "an argument"), (captured, "a value of Manager(context=...)")):
        if isinstance(part, Leased) and part.leases:
            raise NotDurable(
                f"{what} of {durable.qualname}() has a class or function that was defined here, "
                "and that the next host could not import: define it at the top of a module"
            )
    return payload if isinstance(payload, bytes) else wire.pack([payload]), captured
