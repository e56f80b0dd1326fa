"""Reads a worker's frames, enters them in the book, and reports what has changed.

    frame ─(its fields are checked)─► Book ─► Change ─► Endings: listeners, counters

An impossible frame is refused with an exception, which ends the worker; the part before the fault
has been processed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from .._scheduling.lateness import BOUNDS, History
from .._scheduling.states import State
from .._shipping.hostshipping import HostShipper
from .._shipping.payloads import NAMING, names_in
from .._transport import wire
from .._transport.definitionlog import leased
from .._transport.wire import Kind, Payload
from ..outcomes import Decode
from .book import Book
from .changes import Change
from .endings import NO_MEMORY, Endings
from .recycling import Wear

_STATES = {
    wire.FINISHED: State.FINISHED,
    wire.FAILED: State.FAILED,
    wire.CANCELLED: State.CANCELLED,
    wire.TOO_LATE: State.FAILED,
    wire.UNREADABLE: State.FAILED,
    wire.UNKNOWN: State.FAILED,
    wire.UNASKED: State.CANCELLED,
}


class Receiver:
    """The receiving side of one worker's slot.

    Args:
        schedulers: How many schedulers the worker has.
        book: The book of the worker's tasks.
        endings: Reports changes of the book.
        shipper: Decodes outcomes.
        clock: Return the present in nanoseconds since the epoch.
        asked_inside: Called with the fields of each request of a task to its manager.
        take_logs: Called with the loop and the fields of a LOG frame.
        wear: Counts the process's tasks, and notes its size; None: nothing is recycled.

    Attributes:
        history: The lateness that the processes have reported.
    """

    def __init__(
        self,
        schedulers: int,
        book: Book,
        endings: Endings,
        shipper: HostShipper,
        clock: Callable[[], int],
        asked_inside: Callable[..., None],
        take_logs: Callable[..., None],
        wear: Wear | None,
    ) -> None:
        self.history: History = History()
        self._schedulers = schedulers
        self._book = book
        self._endings = endings
        self._log = shipper.catalog.log
        self._clock = clock
        self._asked_inside = asked_inside
        self._take_logs = take_logs
        self._wear = wear
        decodes: dict[State, Decode] = {
            State.FINISHED: shipper.catalog.decode_result,
            State.FAILED: shipper.catalog.decode_failure,
        }
        self._decodes: dict[int, Decode | None] = {
            ending: decodes.get(state) for ending, state in _STATES.items()
        }
        # Large outcomes, which arrive before their ENDED; None: there was no memory for it.
        self._blobs: dict[int, bytes | None] = {}
        self._inside = wire.Parts()  # of a request

    def disconnect(self) -> None:
        """Forget incomplete data of a process that is gone."""
        self._blobs.clear()
        self._inside = wire.Parts()

    def receive(self, frame: wire.Frame, loop: asyncio.AbstractEventLoop) -> None:
        """Process a frame of the worker.

        Raises:
            Exception: It is not a frame that our workers write.
        """
        kind, *fields = frame
        if kind == Kind.ENDED:
            self._finished(*fields)
        elif kind == Kind.ANNOUNCED:
            self._check(*fields)
            self._endings.failures.forget(fields[1])
            self._take(self._book.announced(*fields))
        elif kind == Kind.BLOB:
            self._blobs[fields[0]] = fields[1]
        elif kind == Kind.INSIDE:
            self._take_inside(*fields)
        elif kind == Kind.PROPOSED:
            self._check(*fields)
            self._endings.failures.forget(fields[1])
            self._take(self._book.proposed(*fields))
        elif kind == Kind.UNBEGUN:
            self._check(*fields)
            self._take(self._book.unbegun(*fields))
        elif kind == Kind.RETRY:
            self._retry(*fields)
        elif kind == Kind.TICK:
            self._tick(loop, *fields)
        elif kind == Kind.LOG:
            self._take_logs(loop, *fields)
        elif kind == Kind.READY:
            if self._wear is not None:
                self._wear.began()
        else:
            raise wire.WireError(f"a worker does not send {Kind(kind).name}")

    def _check(self, scheduler: int, numbers: list[int], waits: list[int] | None = None) -> None:
        """Check the fields of a frame, before anything is changed by it."""
        types = set(map(type, numbers)) | set(map(type, waits or ()))
        types.add(type(scheduler))
        if types - {int} or not 0 <= scheduler < self._schedulers:
            raise wire.WireError(f"no frame of a worker: {scheduler!r}, {numbers!r:.80}")

    def _take(self, change: Change) -> None:
        self._endings.report(change)
        self._refuse(change)

    def _refuse(self, change: Change) -> None:
        """Raise if the worker's report is impossible; the part before that has been processed."""
        if change.refused is not None:
            raise wire.WireError(f"task {change.refused} was never sent, or was reported twice")

    def _retry(
        self, scheduler: int, numbers: list[int], waits: list[int], lines: list[str]
    ) -> None:
        self._check(scheduler, numbers, waits)
        if not len(numbers) == len(waits) == len(lines) or set(map(type, lines)) - {str}:
            raise wire.WireError(f"{len(waits)} waits of {len(numbers)} tasks, {lines!r:.80}")
        change = self._book.retried(scheduler, numbers, waits, self._clock())
        self._endings.retried(change, numbers, lines)
        self._refuse(change)
        if self._wear is not None:
            self._wear.ran(len(numbers))

    def _tick(
        self,
        loop: asyncio.AbstractEventLoop,
        lag: float,
        most: int,
        total: int,
        counts: list[int],
        forgotten: int,
        size: int,
    ) -> None:
        """Process the worker's report of a tick: its lateness and its size."""
        numbers = (most, total, forgotten, size, *counts)
        if (
            not (type(lag) is float and 0 <= lag < math.inf)
            or len(counts) > len(BOUNDS)
            or not all(type(number) is int and number >= 0 for number in numbers)
        ):
            raise wire.WireError(f"no report of a worker: {lag!r}, {numbers!r:.80}")
        self.history.add(loop.time(), lag, (most, total, counts))
        self._book.outbox.definitions.confirm(forgotten)
        if self._wear is not None:
            self._wear.measured(size)

    def _finished(
        self, scheduler: int, numbers: list[int], ending: int, payloads: list[Payload]
    ) -> None:
        self._check(scheduler, numbers)
        state, decode = _STATES[ending], self._decodes[ending]
        if len(payloads) != len(numbers):
            raise wire.WireError(f"{len(payloads)} outcomes of {len(numbers)} tasks")
        large = wire.IN_BLOB in payloads
        if large:
            payloads = self._put_blobs_in(numbers, payloads)
        if self._log.leased and bytes in map(type, payloads):
            payloads = [self._lease(payload) for payload in payloads]
        if state is State.FAILED:
            self._endings.name_unheard(numbers)
        ran = 0 if self._wear is None else self._count_run(numbers, ending)
        if ending == wire.CANCELLED:
            changes = self._book.cancelled(scheduler, numbers)
        else:
            changes = [self._book.ended(scheduler, numbers, state)]
        for change in changes:
            if change.state is State.LOST:
                self._endings.report(change, self._endings.lost_by_close(change.ended))
            else:
                self._endings.report(change, payloads, decode, large, ending)
        self._refuse(changes[-1])
        if self._wear is not None:
            self._wear.ran(ran)

    def _count_run(self, numbers: list[int], ending: int) -> int:
        """Return how many of the ending tasks have run: not those pending or too late."""
        if ending == wire.TOO_LATE:
            return 0
        state = self._book.ledger.state
        return sum(state(number) is State.RUNNING for number in numbers)

    def _put_blobs_in(self, numbers: list[int], payloads: list[Payload]) -> list[Any]:
        """Return outcomes with the large ones filled in; NO_MEMORY for those that did not fit.

        Raises:
            WireError: One has not arrived.
        """
        whole: list[Any] = list(payloads)
        for index, (number, payload) in enumerate(zip(numbers, payloads, strict=True)):
            if isinstance(payload, list):
                if number not in self._blobs:
                    raise wire.WireError(f"the outcome of task {number} did not come")
                blob = self._blobs.pop(number)
                whole[index] = NO_MEMORY if blob is None else blob
        return whole

    def _lease(self, payload: Payload) -> Payload:
        """Return an outcome with leases of the definitions that it names."""
        if isinstance(payload, bytes) and payload[0] == NAMING:
            return leased(payload, map(self._log.lease, names_in(payload)))
        return payload

    def _take_inside(self, part: bytes, last: bool) -> None:
        """Collect the parts of a task's request to its manager."""
        request = self._inside.add(part, last)
        if request is not None:
            self._asked_inside(*wire.unpack(request))
