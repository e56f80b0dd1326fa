"""The host's outgoing frames for one worker: numbers assigned, frames made and kept. Pure.

    add, add_many ─► columns ─(a page, enough bytes, or `take`)─► frame ─► ledger
                                                      amend ─►──────┴──► take

The definitions that a frame needs come before it, and a request comes after its task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, groupby
from operator import add
from typing import Any

from . import wire
from .definitionlog import DefinitionLog, Lease, Leased, Reader
from .entry import Entry
from .ledger import LARGE, PAGE, Ledger, make_frames
from .wire import FRAME_BYTES, Kind, Payload, Record

_BYTES = frozenset((bytes, Leased))


class Outbox:
    """Turns scheduling into frames.

    Args:
        log: The definitions.
        schedulers: The number of the worker's schedulers.
    """

    def __init__(self, log: DefinitionLog, schedulers: int = 256) -> None:
        self.ledger: Ledger = Ledger(schedulers)
        self.full: bool = False  # there is enough to send before the loop's turn ends
        self.size: int = 0  # bytes of frames and blobs that were not taken
        self.next: int = 0  # the number of the next task
        self.definitions: Reader = Reader(log)
        self._first = 0  # the first number in the columns
        self._bytes = 0  # of payloads in the columns
        self._records: dict[int, Record] = {}  # by number, of tasks that have one
        self._columns: tuple[list[int], list[int], list[int], list[Payload]] = ([], [], [], [])
        self._frames: list[bytes] = []
        self._blobs: list[tuple[int, bytes]] = []
        self._requests: dict[tuple[Kind, int], list[int]] = {}  # by kind and scheduler
        self._confirmed: list[int] = []  # proposals of the current process, by index

    @property
    def loose(self) -> range:
        """The numbers of tasks that are in no frame yet."""
        return range(self._first, self.next)

    def add(
        self, scheduler: int, due: int, function: int, payload: Payload, record: Record = None
    ) -> int:
        """Add a task and return its number; for `record` see `wire.make_record`."""
        number = self.next
        self.next = number + 1
        schedulers, dues, functions, payloads = self._columns
        schedulers.append(scheduler)
        dues.append(due)
        functions.append(function)
        payloads.append(self._shorten(number, payload) if isinstance(payload, bytes) else payload)
        if record is not None:
            self._records[number] = record
            if isinstance(record, list):
                self._bytes += len(wire.captured_of(record) or b"")
        if self.next % PAGE == 0 or self._bytes > FRAME_BYTES:
            self.pack()
            self.full = True
        return number

    def add_many(
        self,
        scheduler: int,
        dues: int | list[int],
        function: int | bytes,
        payloads: list[Payload],
        record: Record = None,
    ) -> int:
        """Add tasks of one function and scheduler; return the first of their numbers.

        Args:
            scheduler: The scheduler they go to.
            dues: One due time each, or one for all.
            function: Its number, or its pickle.
            payloads: Their payloads, at most a page of them.
            record: The record of each of them.
        """
        assert len(payloads) <= PAGE
        self.pack()
        if self.next % PAGE + len(payloads) > PAGE:  # no frame crosses the border of a page
            self._skip_to_page()
        first = self.next
        self.next = first + len(payloads)
        short = payloads
        if not _BYTES.isdisjoint(map(type, payloads)):
            sizes = [len(payload) for payload in payloads if isinstance(payload, bytes)]
            if max(sizes) <= wire.BLOB_LIMIT:
                self._bytes += sum(sizes)
            else:
                short = [
                    self._shorten(number, payload) if isinstance(payload, bytes) else payload
                    for number, payload in enumerate(payloads, first)
                ]
        records = [record] if isinstance(record, list) else record
        self._emit(first, [scheduler, dues, function, records, short])
        self.full = True
        return first

    def find(self, number: int) -> Entry | None:
        """Return the entry of a task that is in no frame yet, else None.

        It may be called from any thread, while the columns are made into a frame.
        """
        index = number - self._first
        if index < 0:
            return None
        schedulers, dues, functions, payloads = self._columns
        try:
            scheduler, due, function = schedulers[index], dues[index], functions[index]
            return Entry(scheduler, due, function, self._records.get(number), payloads[index])
        except IndexError:
            return None

    @property
    def answers(self) -> bool:
        """Whether there is something to send that a worker waits for."""
        return bool(self._frames or self._confirmed)

    def scheduler(self, number: int) -> int | None:
        """Return the scheduler of a task, None if it has ended or was never added."""
        if number >= self._first:
            return self._columns[0][number - self._first] if number < self.next else None
        return self.ledger.scheduler(number)

    def change_due(self, number: int, due: int) -> None:
        """Change the due time of a task that is in no frame yet."""
        self._columns[1][number - self._first] = due

    def request(self, kind: Kind, scheduler: int, number: int) -> None:
        """Request CANCEL or WITHDRAW for a task that was added."""
        self._requests.setdefault((kind, scheduler), []).append(number)

    def confirm(self, index: int) -> None:
        """Let the proposed tasks of an announcement begin; each index is confirmed only once."""
        self._confirmed.append(index)

    def amend(self, entries: Mapping[int, Entry], send: bool) -> None:
        """Change the entries of tasks that have not ended.

        Args:
            entries: The new entries, in order of number.
            send: Whether the worker has forgotten the tasks and must be sent them again.
        """
        if send and entries:
            self._put_requests()  # they apply to the tasks that the worker has forgotten
        for _, page in groupby(entries.items(), lambda item: item[0] // PAGE):
            for numbers, frame in make_frames(dict(page)):
                self.ledger.amend(numbers, frame)
                if send:
                    self._put(frame)
                    blobs = self.ledger.blobs
                    large = [(n, blobs[n]) for n in numbers if n in blobs]
                    self._blobs += large
                    self.size += sum(len(payload) for _, payload in large)

    def take(self) -> tuple[list[bytes], list[tuple[int, bytes]]]:
        """Return the frames to send, and the payloads to send as blobs."""
        self.pack()
        self._define()  # there may be definitions to forget
        self._put_requests()
        # After the requests: a task cancelled before its confirmation must not begin.
        confirmed, self._confirmed = self._confirmed, []
        for start in range(0, len(confirmed), PAGE):
            self._put(wire.encode([Kind.CONFIRM, confirmed[start : start + PAGE]]))
        taken = self._frames, self._blobs
        self._frames, self._blobs, self.size, self.full = [], [], 0, False
        return taken

    def restart(self) -> tuple[Iterator[bytes], list[tuple[int, bytes]]]:
        """Start over, for a new process that knows nothing.

        Returns:
            The frames of the definitions and of every task that has not ended, and the payloads
            to send as blobs. `add` and the like may be called before the iterator is exhausted:
            their frames are not included, and must be sent after it.
        """
        self.take()
        self._skip_to_page()
        self.definitions.restart()
        self._define()
        definitions, _ = self.take()
        return chain(definitions, self.ledger.replay()), list(self.ledger.blobs.items())

    def _shorten(self, number: int, payload: bytes) -> Payload:
        if len(payload) <= wire.BLOB_LIMIT:
            self._bytes += len(payload)
            return payload
        self.ledger.blobs[number] = payload
        self._blobs.append((number, payload))
        self.size += len(payload)
        return wire.IN_BLOB

    def pack(self) -> None:
        """Make a frame of the columns."""
        if self.next > self._first:
            records = None
            if self._records:
                records = [self._records.get(n) for n in range(self._first, self.next)]
            schedulers, dues, functions, payloads = self._columns
            self._emit(self._first, [schedulers, dues, functions, records, payloads])
            self._records.clear()
            for column in self._columns:
                column.clear()

    def _skip_to_page(self) -> None:
        """Begin a new page. The numbers in between belong to no task."""
        self.next = self._first = self.next + -self.next % PAGE

    def _put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self.size += len(frame)

    def _emit(self, first: int, columns: list[Any]) -> None:
        self._define()
        frame = wire.encode([Kind.SCHEDULE, first, *columns])
        uses = _uses_of(*columns[2:]) if self.definitions.log.leased else {}
        sizes = _sizes_of(*columns[3:]) if self._bytes >= LARGE else {}
        self.ledger.record(first, self.next - first, columns[0], frame, uses, sizes)
        self._put(frame)
        self._first, self._bytes = self.next, 0

    def _put_requests(self) -> None:
        """Make frames of the requests, after those of their tasks."""
        if self._requests:
            self.pack()
        for (kind, scheduler), numbers in self._requests.items():
            for start in range(0, len(numbers), PAGE):
                self._put(wire.encode([kind, scheduler, numbers[start : start + PAGE]]))
        self._requests.clear()

    def _define(self) -> None:
        """Make frames of the definitions that are new since the last call."""
        for line in self.definitions.read():
            for part, last in wire.cut(line):
                self._put(wire.encode([Kind.DEFINE, part, last]))


def _uses_of(
    functions: int | bytes | list[int | bytes],
    records: Record | list[Record],
    payloads: list[Payload],
) -> dict[int, int]:
    """Return the definitions that the tasks of a frame use: leases, with a bit for each task."""
    count = len(payloads)
    uses: dict[int, int] = {}
    columns: tuple[Any, Any] = functions, records
    for column in columns:
        if not isinstance(column, list) or column.count(column[0]) == len(column):
            _note(uses, column[0] if isinstance(column, list) else column, (1 << count) - 1)
            continue
        for index, item in enumerate(column):
            _note(uses, item, 1 << index)
    if Leased in map(type, payloads):
        for index, payload in enumerate(payloads):
            _note(uses, payload, 1 << index)
    return uses


def _sizes_of(records: Record | list[Record], payloads: list[Payload]) -> dict[int, int]:
    """Return the bytes of large payloads, captured values included, by position."""
    sizes = [len(p) if isinstance(p, bytes) else 0 for p in payloads]
    if isinstance(records, list) and len(records) == len(sizes):  # else one record for all
        captured = (len(wire.captured_of(record) or b"") for record in records)
        sizes = list(map(add, sizes, captured))
    return {position: size for position, size in enumerate(sizes) if size >= LARGE}


def _note(uses: dict[int, int], item: object, users: int) -> None:
    """Add the leases in a function, a record or a payload."""
    if isinstance(item, Lease):
        uses[item] = uses.get(item, 0) | users
    elif isinstance(item, Leased):
        for lease in item.leases:
            uses[lease] = uses.get(lease, 0) | users
    elif isinstance(item, list) and item:  # a record
        _note(uses, wire.options_of(item), users)
        _note(uses, wire.captured_of(item), users)
