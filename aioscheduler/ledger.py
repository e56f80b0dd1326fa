"""What is out at one worker: which tasks have not ended, and the frames that carried them. Pure.

The host keeps the frames it sent until their tasks end; that is what a replacement worker is
given. Numbers count up, so the ledger is a dict of pages of `PAGE` numbers each. A frame never
crosses a page border, and a page goes when its last task ends. When four fifths of what is kept
are dead, the pages that are mostly dead have their frames rewritten, so that one timer for next
year does not keep 255 forgotten ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from . import wire

PAGE = 256
_SLACK = 16_384  # dead tasks that are not worth a sweep


class UnknownNumber(Exception):
    """A number that is not out: the peer speaks of a task that it was never given, or twice."""


class _Page:
    __slots__ = ("alive", "count", "frames", "kept")

    def __init__(self) -> None:
        self.alive = bytearray(PAGE)
        self.count = 0
        self.kept = 0  # tasks in the frames, dead or alive
        self.frames: list[bytes] = []


class Ledger:
    """The tasks of one worker place that have not ended."""

    def __init__(self) -> None:
        self._pages: dict[int, _Page] = {}
        self._newest = -1  # the page that still grows
        self._count = 0
        self._kept = 0
        self.started: set[int] = set()
        self.blobs: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        page = self._pages.get(number // PAGE)
        return page is not None and bool(page.alive[number % PAGE])

    def __iter__(self) -> Iterator[int]:
        """The numbers that have not ended, in order."""
        for key, page in self._pages.items():
            for index, alive in enumerate(page.alive):
                if alive:
                    yield key * PAGE + index

    def record(self, first: int, count: int, frame: bytes) -> None:
        """Enters the tasks `first` to `first + count - 1`, all of one page, and their frame."""
        key, index = divmod(first, PAGE)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = _Page()
            grown = self._pages.get(self._newest)
            newest, self._newest = self._newest, key
            if grown is not None:
                self._tidy(newest, grown)
        page.alive[index : index + count] = b"\1" * count
        page.count += count
        page.kept += count
        page.frames.append(frame)
        self._count += count
        self._kept += count

    def start(self, numbers: Iterable[int]) -> None:
        """Notes that tasks may have begun to run.

        Raises:
            UnknownNumber: One of them is not out, or was announced before.
        """
        before = len(self.started)
        numbers = list(numbers)
        self.started.update(numbers)
        pages = self._pages
        for number in numbers:
            page = pages.get(number // PAGE)
            if page is None or not page.alive[number % PAGE]:
                raise UnknownNumber(f"started, but never sent or ended: {number}")
        if len(self.started) != before + len(numbers):
            raise UnknownNumber(f"started twice: one of {numbers[:5]}…")

    def end_run(self, first: int, count: int) -> int:
        """Strikes out `count` tasks with numbers in a row, all of one page; faster than `end`.

        Returns:
            How many of them had been announced as started.

        Raises:
            UnknownNumber: One of them is not out.
        """
        key, index = divmod(first, PAGE)
        page = self._pages.get(key)
        if page is None or page.alive[index : index + count] != b"\1" * count:
            raise UnknownNumber(f"ended twice, or never sent: one of {count} from {first}")
        page.alive[index : index + count] = bytes(count)
        page.count -= count
        self._count -= count
        self._tidy(key, page)
        if self.blobs:
            for number in range(first, first + count):
                self.blobs.pop(number, None)
        before = len(self.started)
        self.started.difference_update(range(first, first + count))
        return before - len(self.started)

    def end(self, number: int) -> bool:
        """Strikes out a task; says whether it had been announced as started.

        Raises:
            UnknownNumber: It is not out.
        """
        key, index = divmod(number, PAGE)
        page = self._pages.get(key)
        if page is None or not page.alive[index]:
            raise UnknownNumber(f"ended twice, or never sent: {number}")
        page.alive[index] = 0
        page.count -= 1
        self._count -= 1
        self._tidy(key, page)
        if self.blobs:
            self.blobs.pop(number, None)
        if number in self.started:
            self.started.remove(number)
            return True
        return False

    def _tidy(self, key: int, page: _Page) -> None:
        """Drops a page that has ended; now and then, the dead part of the others."""
        if not page.count and key != self._newest:
            self._kept -= page.kept
            del self._pages[key]
        elif self._kept > 5 * self._count + _SLACK:
            # What stays is less than three quarters dead, so the next sweep is a while off.
            for each in self._pages.values():
                if each.count * 4 <= each.kept:
                    each.frames = [wire.encode(f) for f in _select(each.frames, self.__contains__)]
                    self._kept += each.count - each.kept
                    each.kept = each.count

    def find(self, number: int) -> tuple[int, int] | None:
        """Gives the scheduler and the due time of a task that has not ended, else None."""
        if number not in self:
            return None
        frames = self._pages[number // PAGE].frames
        _, _, schedulers, dues, _, _ = next(_select(frames, lambda n: n == number))
        return schedulers[0], dues[0]

    def frames(self, keep: Callable[[int], bool]) -> Iterator[wire.Frame]:
        """Yields SCHEDULE frames of the living tasks that `keep` accepts, in order of number."""
        for page in self._pages.values():
            yield from _select(page.frames, lambda n: n in self and keep(n))


def _select(frames: Iterable[bytes], keep: Callable[[int], bool]) -> Iterator[wire.Frame]:
    """Rewrites frames, merged into one, without the tasks that `keep` refuses."""
    decoder = wire.Decoder()
    numbers: list[int] = []
    columns: tuple[list[object], ...] = ([], [], [], [])
    for encoded in frames:
        for _, first, *fields in decoder.feed(encoded):
            arguments = fields[-1]
            own = first if isinstance(first, list) else range(first, first + len(arguments))
            for index, number in enumerate(own):
                if keep(number):
                    numbers.append(number)
                    for column, field in zip(columns, fields, strict=True):
                        column.append(field[index] if isinstance(field, list) else field)
    if numbers:
        yield [wire.Kind.SCHEDULE, numbers, *columns]
