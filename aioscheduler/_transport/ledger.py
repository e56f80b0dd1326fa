"""What is out at one worker: which tasks have not ended, and the frames that carried them. Pure.

The host keeps the frames it sent until their tasks end; that is what a replacement worker is
given. Numbers count up, so the ledger is a dict of pages of `PAGE` numbers each. A frame never
crosses a page border, and a page goes when its last task ends. When four fifths of what is kept
are dead, the pages that are mostly dead have their frames rewritten, so that one timer for next
year does not keep 255 forgotten ones. Large tasks are few, so their bytes are counted: two fifths
of them may be dead.

A page holds the leases of the definitions that its tasks use, until they end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any

from . import wire
from .wire import Record

PAGE = 256
_SLACK = 16_384  # dead tasks that are not worth a sweep
_LARGE = 512  # bytes of a task from which on it is counted in bytes
_LARGE_SLACK = 8 << 20  # dead bytes of large tasks that are not worth a sweep
_ENDED, _PENDING, _STARTED = 0, 1, 2  # the state of a task in its page; 0 as well: never sent


class _Page:
    __slots__ = ("count", "frames", "kept", "large", "states", "uses")

    def __init__(self) -> None:
        self.states = bytearray(PAGE)
        self.count = 0
        self.kept = 0  # tasks in the frames, dead or alive
        self.large = 0  # bytes of each of them, if they are large
        self.frames: list[bytes] = []
        self.uses: dict[int, int] = {}  # leases of definitions, with a bit for each task

    def weigh(self) -> None:
        """Notes how large the tasks are, on average."""
        each = sum(map(len, self.frames)) // max(1, self.kept)
        self.large = each if each >= _LARGE else 0


class Ledger:
    """The tasks of one worker place that have not ended.

    Attributes:
        blobs: The payloads that were left out of the frames.
        running: How many tasks were announced as started, and have not ended.
        attempts: Of tasks that are to start again, how many times they will have been started.
    """

    def __init__(self) -> None:
        self._pages: dict[int, _Page] = {}
        self._newest = -1  # the page that still grows
        self._count = 0
        self._kept = 0
        self._large = 0  # bytes of large tasks in the frames
        self._large_dead = 0  # of those that have ended, about
        self.blobs: dict[int, bytes] = {}
        self.running: int = 0
        self.attempts: dict[int, int] = {}

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        page = self._pages.get(number // PAGE)
        return page is not None and page.states[number % PAGE] != _ENDED

    def __iter__(self) -> Iterator[int]:
        """The numbers that have not ended, in order."""
        for key, page in self._pages.items():
            for index, state in enumerate(page.states):
                if state != _ENDED:
                    yield key * PAGE + index

    def record(
        self, first: int, count: int, frame: bytes, uses: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        """Enters the tasks `first` to `first + count - 1`, all of one page, and their frame.

        Args:
            first: The number of the first.
            count: How many.
            frame: What carries them.
            uses: The leases to be held until they end, with a bit for each task, from the first.
        """
        key, index = divmod(first, PAGE)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = _Page()
            grown, self._newest = self._newest, key
            if grown in self._pages:
                self._drop_if_ended(grown)
        page.states[index : index + count] = bytes((_PENDING,)) * count
        page.count += count
        page.kept += count
        page.frames.append(frame)
        for lease, users in uses.items():
            page.uses[lease] = page.uses.get(lease, 0) | users << index
        if page.large or len(frame) >= _LARGE * count:
            self._large -= page.large * page.kept
            self._large_dead -= page.large * (page.kept - page.count)
            page.weigh()
            self._large += page.large * page.kept
            self._large_dead += page.large * (page.kept - page.count)
        self._count += count
        self._kept += count

    def has_started(self, number: int) -> bool:
        """Whether a task was announced as started, and has not ended."""
        page = self._pages.get(number // PAGE)
        return page is not None and page.states[number % PAGE] == _STARTED

    def start(self, numbers: list[int]) -> int:
        """Notes that tasks may have begun to run.

        Returns:
            How many were noted: all, or those before the first that is not pending here.
        """
        return self._move(numbers, _PENDING, _STARTED)

    def unstart(self, numbers: list[int]) -> int:
        """Notes that tasks that were announced are to start again; returns as `start`."""
        return self._move(numbers, _STARTED, _PENDING)

    def rerun(self, numbers: list[int]) -> None:
        """Notes that tasks that have started are to start again."""
        self.unstart(numbers)
        for number in numbers:
            self.attempts[number] = self.attempts.get(number, 1) + 1

    def end_started(self, numbers: list[int]) -> int:
        """Strikes out tasks that were announced as started.

        Returns:
            How many: all, or those before the first that was not announced.
        """
        return self._move(numbers, _STARTED, _ENDED)

    def pending_rows(self) -> Iterator[range]:
        """The numbers that are pending, in rows within a page."""
        pending = bytes((_PENDING,))
        for key, page in self._pages.items():
            states = bytes(page.states)
            start = states.find(pending)
            while start >= 0:
                rest = states[start:]
                stop = start + len(rest) - len(rest.lstrip(pending))
                yield range(key * PAGE + start, key * PAGE + stop)
                start = states.find(pending, stop)

    def end_pending(self, numbers: list[int]) -> int:
        """Strikes out tasks that were not announced; returns as `end_started`."""
        return self._move(numbers, _PENDING, _ENDED)

    def end(self, number: int) -> bool | None:
        """Strikes out a task; says whether it had been announced as started; None: unknown."""
        started = self.has_started(number)
        known = self._move([number], _STARTED if started else _PENDING, _ENDED)
        return started if known else None

    def _move(self, numbers: list[int], before: int, after: int) -> int:
        """Changes the state of tasks: in a row at once, which costs a tenth, or singly."""
        pages = self._pages
        position, total = 0, len(numbers)
        while position < total:
            first = numbers[position]
            key, index = first // PAGE, first % PAGE
            page = pages.get(key)
            count = 1
            if position + 1 < total and numbers[position + 1] == first + 1:
                count = end_of_row(numbers, position) - position
            if page is None or page.states.count(before, index, index + count) != count:
                if page is None or page.states[index] != before:
                    break
                count = 1  # the good ones, up to the bad one
            if count == 1:
                page.states[index] = after
            else:
                page.states[index : index + count] = bytes((after,)) * count
            if after == _ENDED:
                page.count -= count
                if page.uses:
                    left = ~(((1 << count) - 1) << index)
                    page.uses = {
                        lease: users & left for lease, users in page.uses.items() if users & left
                    }
                if page.large:
                    self._large_dead += page.large * count
                if not page.count:
                    self._drop_if_ended(key)
            position += count
        self.running += position * ((after == _STARTED) - (before == _STARTED))
        if after == _ENDED:
            self._count -= position
            for kept in (self.blobs, self.attempts):
                if kept:
                    for number in numbers[:position]:
                        kept.pop(number, None)
            if self._kept > 5 * self._count + _SLACK:
                self._sweep()
            if self._large_dead > 0.4 * self._large + _LARGE_SLACK:
                self._sweep_large()
        return position

    def _drop_if_ended(self, key: int) -> None:
        page = self._pages[key]
        if not page.count and key != self._newest:
            self._kept -= page.kept
            self._large -= page.large * page.kept
            self._large_dead -= page.large * page.kept
            del self._pages[key]

    def _sweep(self) -> None:
        """Rewrites the frames of pages that are mostly dead.

        What stays is less than three quarters dead, so the next sweep is a while off.
        """
        for page in self._pages.values():
            if page.count * 4 <= page.kept:
                self._rewrite(page)

    def _sweep_large(self) -> None:
        """Rewrites the frames of pages with large tasks of which a quarter is dead.

        At least three twentieths of the bytes go, and at most a quarter of what stays is dead.
        """
        for page in self._pages.values():
            if page.large and page.count * 4 <= page.kept * 3:
                self._rewrite(page)

    def _rewrite(self, page: _Page) -> None:
        frames = [wire.encode(f) for f in self._select(page.frames, self.__contains__)]
        self._kept += page.count - page.kept
        self._large -= page.large * page.kept
        self._large_dead -= page.large * (page.kept - page.count)
        page.frames, page.kept = frames, page.count
        page.weigh()
        self._large += page.large * page.kept

    def find(self, number: int) -> tuple[int, int, int | bytes, Record] | None:
        """Gives scheduler, due time, function and record of a task, None if it has ended."""
        if number not in self:
            return None
        frames = self._pages[number // PAGE].frames
        frame = next(self._select(frames, lambda n: n == number))
        _, _, schedulers, dues, functions, records, _ = frame
        return schedulers[0], dues[0], functions[0], records and records[0]

    def started(self) -> list[int]:
        """The numbers that were announced as started and have not ended, in order."""
        return [
            key * PAGE + index
            for key, page in self._pages.items()
            if _STARTED in page.states
            for index, state in enumerate(page.states)
            if state == _STARTED
        ]

    def by_scheduler(self, numbers: Collection[int]) -> dict[int, list[int]]:
        """Sorts tasks that have not ended by their schedulers; each page is read once."""
        found: dict[int, list[int]] = {}
        wanted = set(numbers)
        for key in sorted({number // PAGE for number in wanted}):
            for _, own, schedulers, *_ in self._select(
                self._pages[key].frames, wanted.__contains__
            ):
                for number, scheduler in zip(own, schedulers, strict=True):
                    found.setdefault(scheduler, []).append(number)
        return found

    def replay(self) -> Iterator[bytes]:
        """Gives encoded SCHEDULE frames of what has not ended, in order of number.

        Tasks may be recorded before all have been taken, on pages that are new; theirs are not
        among them.
        """
        pages = list(self._pages.values())
        return chain.from_iterable(map(self._frames_of, pages))

    def _frames_of(self, page: _Page) -> Iterable[bytes]:
        if page.count == page.kept and not self.attempts:
            return page.frames
        return map(wire.encode, self._select(page.frames, self.__contains__))

    def _select(self, frames: Iterable[bytes], keep: Callable[[int], bool]) -> Iterator[wire.Frame]:
        """Rewrites frames without the tasks `keep` refuses, merged as far as one frame may have.

        What is to start again starts for another time.
        """
        decoder = wire.Decoder()
        numbers: list[int] = []
        columns: tuple[list[Any], ...] = ([], [], [], [], [])
        size = 0
        for encoded in frames:
            for _, first, *fields in decoder.feed(encoded):
                arguments = fields[-1]
                own = first if isinstance(first, list) else range(first, first + len(arguments))
                for index, number in enumerate(own):
                    if keep(number):
                        numbers.append(number)
                        for column, field in zip(columns, fields, strict=True):
                            item = field[index] if isinstance(field, list) else field
                            column.append(item)
                            if isinstance(item, bytes):
                                size += len(item)
                        if size > wire.FRAME_BYTES:
                            yield self._frame(numbers, columns)
                            numbers, columns, size = [], ([], [], [], [], []), 0
        if numbers:
            yield self._frame(numbers, columns)

    def _frame(self, numbers: list[int], columns: tuple[list[Any], ...]) -> wire.Frame:
        schedulers, dues, functions, records, payloads = columns
        if self.attempts:
            for index, number in enumerate(numbers):
                if number in self.attempts:
                    options, alias, _, confirmed = wire.read_record(records[index])
                    attempt = self.attempts[number]
                    records[index] = wire.make_record(options, alias, attempt, confirmed)
        some = records if records.count(None) < len(records) else None
        return [wire.Kind.SCHEDULE, numbers, schedulers, dues, functions, some, payloads]


def end_of_row(numbers: list[int], start: int) -> int:
    """Gives the end of the numbers in a row, within a page, that begin at an index."""
    first = numbers[start]
    most = min(len(numbers), start + PAGE - first % PAGE)
    if numbers[most - 1] - first == most - 1 - start:  # for numbers that grow, as most do
        row = range(first, first + most - start)
        if numbers[start:most] == list(row):
            return most
    stop = start + 1
    while stop < most and numbers[stop] == first + stop - start:
        stop += 1
    return stop
