"""The tasks at one worker that have not ended, and the frames that carried them. Pure.

The host keeps the frames it sent until their tasks end, and sends them to a replacement worker.
Rules of this file:

1. A task is pending, running or gone, and moves as in `states.MOVES`; other moves are refused.
2. Numbers count up, so the ledger is a dict of pages of `PAGE` numbers each. No frame crosses the
   border of a page, and a page is dropped when its last task ends.
3. The last frame of a page that names a number is valid: a task that starts again, or at another
   time, has a second frame. Rewritten frames are in order of number.
4. When four fifths of the kept entries are dead, the frames of mostly dead pages are rewritten, so
   that one timer for next year does not keep 255 forgotten ones. Large payloads are few, so their
   bytes are counted: two fifths of them may be dead.
5. A page holds the leases of the definitions that its tasks use, until they end.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

from .._scheduling.states import ENDED, MOVES, State
from . import wire
from .entry import Entry

PAGE = 256
_PAGE_SLACK = 64  # dead entries of a page that are not worth a sweep of it
_SLACK = 16_384  # dead tasks that are not worth a sweep
LARGE = 512  # bytes from which on a payload is counted in bytes
_LARGE_SLACK = 8 << 20  # dead bytes of large payloads that are not worth a sweep

_GONE = 0  # in a page's states: the task has ended, or was never sent
_CODES = {state: 0 if state in ENDED else code for code, state in enumerate(MOVES, start=1)}
_STATES = {code: state for state, code in _CODES.items() if code}
_PENDING, _RUNNING = _CODES[State.PENDING], _CODES[State.RUNNING]
_BEFORE = {  # the table of moves, inverted
    after: tuple(_CODES[before] for before in MOVES if after in MOVES[before]) for after in MOVES
}

_NOTHING: Mapping[int, int] = MappingProxyType({})


class _Page:
    __slots__ = ("count", "dead", "frames", "kept", "schedulers", "sizes", "states", "uses")

    def __init__(self, blank: array[int]) -> None:
        self.states = bytearray(PAGE)
        self.schedulers = blank[:]
        self.count = 0
        self.kept = 0  # entries in the frames, dead or alive
        self.sizes: dict[int, int] = {}  # bytes of the large payloads of tasks that have not ended
        self.dead = 0  # bytes of dead large payloads in the frames
        self.frames: list[bytes] = []
        self.uses: dict[int, int] = {}  # leases of definitions, with a bit for each task


class Ledger:
    """The tasks of one worker slot that have not ended.

    Args:
        schedulers: The number of the worker's schedulers.

    Attributes:
        blobs: The payloads that were left out of the frames, by number.
        running: The number of tasks that were announced and have not ended.
    """

    def __init__(self, schedulers: int = 256) -> None:
        self._pages: dict[int, _Page] = {}
        self._blank = array("B" if schedulers <= 256 else "L", [0] * PAGE)  # a byte a task
        self._newest = -1  # the key of the page that still grows
        self._count = 0
        self._kept = 0
        self._large = 0  # bytes of large payloads in the frames
        self._large_dead = 0  # bytes of the dead ones among them
        self.blobs: dict[int, bytes] = {}
        self.running: int = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of tasks that have not ended, in order."""
        for key, page in self._pages.items():
            for index, state in enumerate(page.states):
                if state != _GONE:
                    yield key * PAGE + index

    def pages(self) -> list[range]:
        """Return the range of numbers of each page; all tasks are among them."""
        return [range(key * PAGE, (key + 1) * PAGE) for key in self._pages]

    def state(self, number: int) -> State | None:
        """Return PENDING or RUNNING; None for a task that has ended or was never sent."""
        page = self._pages.get(number // PAGE)
        return None if page is None else _STATES.get(page.states[number % PAGE])

    def scheduler(self, number: int) -> int | None:
        """Return the scheduler of a task, None if it has ended or was never sent."""
        page = self._pages.get(number // PAGE)
        index = number % PAGE
        return None if page is None or page.states[index] == _GONE else page.schedulers[index]

    # ---- frames

    def record(
        self,
        first: int,
        count: int,
        schedulers: int | Sequence[int],
        frame: bytes,
        uses: Mapping[int, int] = _NOTHING,
        sizes: Mapping[int, int] = _NOTHING,
    ) -> None:
        """Enter the tasks `first` to `first + count - 1`, all of one page, and their frame.

        Args:
            first: The number of the first task.
            count: The number of tasks.
            schedulers: The scheduler of each, or of all of them.
            frame: The encoded frame that carries them.
            uses: The leases to hold until they end, with a bit for each task, from the first.
            sizes: The bytes of payloads of `LARGE` or more, by position.
        """
        key, index = divmod(first, PAGE)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = _Page(self._blank)
            grown, self._newest = self._newest, key
            if grown in self._pages:
                self._drop_if_ended(grown)
        page.states[index : index + count] = bytes((_PENDING,)) * count
        own = [schedulers] * count if isinstance(schedulers, int) else schedulers
        page.schedulers[index : index + count] = array(self._blank.typecode, own)
        page.count += count
        page.kept += count
        page.frames.append(frame)
        for lease, users in uses.items():
            page.uses[lease] = page.uses.get(lease, 0) | users << index
        for position, size in sizes.items():
            page.sizes[index + position] = size
            self._large += size
        self._count += count
        self._kept += count

    def amend(self, numbers: Sequence[int], frame: bytes) -> None:
        """Enter another frame of tasks of one page that have not ended."""
        page = self._pages[numbers[0] // PAGE]
        page.kept += len(numbers)
        page.frames.append(frame)
        self._kept += len(numbers)
        if page.sizes:
            again = sum(page.sizes.get(number % PAGE, 0) for number in numbers)
            self._large += again
            self._bury(page, again)
        if page.kept > 4 * page.count + _PAGE_SLACK:  # a page that is amended again and again
            self._rewrite(page)
        self._sweep_if_worth()

    def _bury(self, page: _Page, size: int) -> None:
        """Count bytes of large payloads as dead."""
        page.dead += size
        self._large_dead += size

    def read(self, numbers: Collection[int]) -> dict[int, Entry]:
        """Return the entries of tasks that have not ended, in order; each page is read once."""
        wanted = set(numbers)
        found: dict[int, Entry] = {}
        for key in sorted({number // PAGE for number in wanted}):
            page = self._pages.get(key)
            if page is not None:
                found |= self._living(page, wanted.__contains__)
        return found

    def find(self, number: int) -> Entry | None:
        """Return the entry of a task, None if it has ended."""
        return self.read((number,)).get(number)

    def replay(self) -> Iterator[bytes]:
        """Yield encoded SCHEDULE frames of all tasks that have not ended, in order of number.

        Tasks may be recorded on new pages before the iterator is exhausted; their frames are not
        included.
        """
        return chain.from_iterable(map(self._frames_of, list(self._pages.values())))

    def _frames_of(self, page: _Page) -> Iterable[bytes]:
        if page.count == page.kept:
            return tuple(page.frames)  # later amendments are sent on their own
        return [frame for _, frame in make_frames(self._living(page))]

    def _living(
        self, page: _Page, wanted: Callable[[int], bool] = lambda number: True
    ) -> dict[int, Entry]:
        """Return the valid entries of the tasks of a page that have not ended, by number."""
        decoder = wire.Decoder()
        states = page.states
        found: dict[int, Entry] = {}
        for encoded in page.frames:
            for _, first, *columns in decoder.feed(encoded):
                count = len(columns[-1])
                own = first if isinstance(first, list) else range(first, first + count)
                rows = zip(*(wire.column(each, count) for each in columns), strict=True)
                for number, row in zip(own, rows, strict=True):
                    if states[number % PAGE] != _GONE and wanted(number):
                        found[number] = Entry._make(row)
        return dict(sorted(found.items())) if page.count != page.kept else found

    # ---- moves

    def move(self, numbers: Sequence[int], after: State) -> int:
        """Change the state of tasks: a row at once, at a tenth of the cost, or singly.

        Returns:
            How many were moved: all, or those before the first that `states.MOVES` does not allow.
        """
        pages, befores, code = self._pages, _BEFORE[after], _CODES[after]
        position, total, started = 0, len(numbers), 0
        while position < total:
            first = numbers[position]
            key, index = first // PAGE, first % PAGE
            page = pages.get(key)
            if page is None:
                break
            states = page.states
            before = states[index]
            if before not in befores:
                break
            count = 1
            if position + 1 < total and numbers[position + 1] == first + 1:
                count = end_of_row(numbers, position) - position
                if states.count(before, index, index + count) != count:
                    count = 1  # their states differ
            if count == 1:
                states[index] = code
            else:
                states[index : index + count] = bytes((code,)) * count
            started += count * ((code == _RUNNING) - (before == _RUNNING))
            if code == _GONE:
                self._end_in(page, key, index, count)
            position += count
        self.running += started
        if code == _GONE:
            self._count -= position
            if self.blobs:
                for number in numbers[:position]:
                    self.blobs.pop(number, None)
            self._sweep_if_worth()
        return position

    def _end_in(self, page: _Page, key: int, index: int, count: int) -> None:
        page.count -= count
        if page.uses:
            left = ~(((1 << count) - 1) << index)
            page.uses = {lease: users & left for lease, users in page.uses.items() if users & left}
        if page.sizes:
            ended = range(index, index + count)
            self._bury(page, sum(page.sizes.pop(each, 0) for each in ended))
        if not page.count:
            self._drop_if_ended(key)

    def _drop_if_ended(self, key: int) -> None:
        page = self._pages[key]
        if not page.count and key != self._newest:
            self._kept -= page.kept
            self._unbury(page)
            del self._pages[key]

    def running_numbers(self) -> Iterator[int]:
        """Yield the numbers of running tasks, in order."""
        for key, page in self._pages.items():
            if _RUNNING in page.states:
                for index, state in enumerate(page.states):
                    if state == _RUNNING:
                        yield key * PAGE + index

    def pending_rows(self) -> Iterator[range]:
        """Yield the numbers of pending tasks, in rows within a page."""
        pending = bytes((_PENDING,))
        for key, page in self._pages.items():
            states = bytes(page.states)
            start = states.find(pending)
            while start >= 0:
                rest = states[start:]
                stop = start + len(rest) - len(rest.lstrip(pending))
                yield range(key * PAGE + start, key * PAGE + stop)
                start = states.find(pending, stop)

    # ---- sweeps

    def _sweep_if_worth(self) -> None:
        if self._kept > 5 * self._count + _SLACK:
            # What remains is less than three quarters dead, so the next sweep is a while off.
            for page in self._pages.values():
                if page.count * 4 <= page.kept:
                    self._rewrite(page)
        if self._large_dead > 0.4 * self._large + _LARGE_SLACK:
            # At least three twentieths of the bytes go; at most a quarter of the rest is dead.
            for page in self._pages.values():
                if page.dead * 3 >= sum(page.sizes.values()) and page.dead:
                    self._rewrite(page)

    def _rewrite(self, page: _Page) -> None:
        page.frames = [frame for _, frame in make_frames(self._living(page))]
        self._kept += page.count - page.kept
        page.kept = page.count
        self._unbury(page)

    def _unbury(self, page: _Page) -> None:
        """Stop counting the dead payloads of a page: their frames are gone."""
        self._large -= page.dead
        self._large_dead -= page.dead
        page.dead = 0


def make_frames(entries: Mapping[int, Entry]) -> Iterator[tuple[list[int], bytes]]:
    """Yield SCHEDULE frames of tasks of one page: their numbers, and the encoded frame.

    A frame has as many of them as its size permits.
    """
    numbers: list[int] = []
    size = 0
    function: object = None
    for number, entry in entries.items():
        numbers.append(number)
        if isinstance(entry.payload, bytes):
            size += len(entry.payload)
        if isinstance(entry.function, bytes) and entry.function != function:
            size += len(entry.function)
        function = entry.function
        size += len(wire.captured_of(entry.record) or b"")
        if size > wire.FRAME_BYTES:
            yield numbers, _frame(numbers, entries)
            numbers, size, function = [], 0, None
    if numbers:
        yield numbers, _frame(numbers, entries)


def _frame(numbers: list[int], entries: Mapping[int, Entry]) -> bytes:
    rows = [entries[number] for number in numbers]
    schedulers, dues, functions, records, payloads = map(list, zip(*rows, strict=True))
    alike = map(_column, (schedulers, dues, functions, records))
    return wire.encode([wire.Kind.SCHEDULE, numbers, *alike, payloads])


def _column(items: list[Any]) -> Any:
    """Return one value for all if all are equal; see `wire.column`."""
    if items.count(items[0]) < len(items):
        return items
    return items[:1] if isinstance(items[0], list) else items[0]


def end_of_row(numbers: Sequence[int], start: int) -> int:
    """Return the end index of the row of consecutive numbers, within a page, that begins at one."""
    first = numbers[start]
    most = min(len(numbers), start + PAGE - first % PAGE)
    if numbers[most - 1] - first == most - 1 - start:  # the common case: ascending numbers
        row = range(first, first + most - start)
        if numbers[start:most] == (row if isinstance(numbers, range) else list(row)):
            return most
    stop = start + 1
    while stop < most and numbers[stop] == first + stop - start:
        stop += 1
    return stop
